"""Time to a WER: ours until the mark, then the paper's way at several rates, and the best of them on."""

import json

import pytest
from tiny_world import build_tiny_world

from benchmarks import time_to_wer
from modeling_slam.common.command_line import read_recipe


@pytest.mark.nightly
def test_ours_and_the_papers_way_are_run_and_counted(tmp_path, capsys):
    world = build_tiny_world(tmp_path / "world")
    flags = [
        *("--encoder", str(world.encoder), "--llm", str(world.llm), "--dataset", str(world.dataset)),
        *("--language", "en", "--projector_hidden_size", "32", "--align_epochs", "1", "--max_steps", "4"),
        *("--drop_blanks", "0.9", "--dataloader_num_workers", "0"),
        *("--mark", "100", "--eval_steps", "2", "--rates", "1e-4", "1e-3"),
        *("--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")),
    ]
    time_to_wer.main(flags)
    outcomes = json.loads((tmp_path / "out" / "time_to_wer.json").read_text())["outcomes"]
    assert list(outcomes) == ["ours", "paper at 0.0001, trial", "paper at 0.001, trial"]
    for outcome in outcomes.values():
        assert outcome["reached"]
        assert outcome["steps"] == 2
        assert 0 < outcome["llm_flop"] < outcome["flop"]
    assert outcomes["ours"]["flop"] > outcomes["paper at 0.0001, trial"]["llm_flop"]
    capsys.readouterr()
    time_to_wer.main(flags)  # nothing is run again
    assert "step 2" not in capsys.readouterr().out


def test_every_setting_of_the_papers_recipe_is_the_way_or_not():
    paper = set(read_recipe(time_to_wer.PAPER))
    assert paper >= time_to_wer.NOT_THE_WAY
    assert {
        "align_epochs",
        "projector_scale",
        "clip_by_part",
        "lr_scheduler_type",
    } <= paper - time_to_wer.NOT_THE_WAY
