"""The dry run lists every run, and its estimate follows the formulas that it states."""

import pytest

from modeling_slam.study import load_study
from modeling_slam.study.__main__ import main
from modeling_slam.study.cost import DECODING_SLOWDOWN, PROMPT_TOKENS, TEXT_TOKENS_PER_SECOND, estimate

SIZE = {"train_clips": 100, "train_hours": 0.5, "test_clips": 10, "test_hours": 0.25}


def test_the_estimate_is_the_sum_that_its_module_states(study_file, world):
    """30 steps of 4 clips of 18 s, then 900 s with 3 beams; 50 frames and 10 audio tokens a second."""
    datasets = {"en": {"dataset": str(world.dataset), "size": SIZE}}
    (run, _) = load_study(study_file(datasets=datasets), ["eval.num_beams=3"]).runs
    cost = estimate(run)
    counts, text = cost.counts, TEXT_TOKENS_PER_SECOND
    body = counts.llm - counts.llm_embeddings
    tokens = 18 * 10 + PROMPT_TOKENS + 18 * text
    clip = 2 * counts.encoder * 18 * 50 + 6 * counts.projector * 18 * 10 + 4 * body * tokens
    clip += 4 * counts.llm_embeddings * 18 * text
    decoding = 2 * counts.encoder * 900 * 50 + 2 * counts.projector * 900 * 10
    decoding += 3 * 2 * body * (900 * 10 + 10 * PROMPT_TOKENS)
    decoding += 3 * 2 * counts.llm * 900 * text * DECODING_SLOWDOWN
    assert cost.flops == pytest.approx(30 * 4 * clip + decoding)
    assert cost.hours(teraflops=1e-6) == pytest.approx(cost.flops / 1e6 / 3600)
    for section in ("train", "eval"):  # a limit for eval.py counts wherever it is given
        (half, _) = load_study(
            study_file(datasets=datasets), ["eval.num_beams=3", f"{section}.max_test_clips=5"]
        ).runs
        assert estimate(half).flops == pytest.approx(30 * 4 * clip + decoding / 2)


def test_the_dry_run_lists_all_runs_and_runs_nothing(study_file, world, tmp_path, capsys):
    datasets = {"en": {"dataset": str(world.dataset), "size": SIZE}}
    path = study_file(datasets=datasets, modes=["projector", "lora"], baselines=True, teraflops=0.001)
    out = str(tmp_path / "out")
    main(["run", str(path), "--dry_run", "--output_dir", out])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == [
        f"tiny-{depth}L-{mode}-en-s42" for depth in (3, 1) for mode in ("projector", "lora")
    ]
    assert "tiny: 4 runs, 1 baselines of Whisper's own decoder." in lines
    assert any(line.startswith("Device hours: ") for line in lines)
    assert not (tmp_path / "out").exists()


def test_without_a_size_of_the_data_the_cost_is_unknown_not_zero(study_file, capsys):
    main(["run", str(study_file()), "--dry_run"])
    out = capsys.readouterr().out
    assert out.splitlines()[1].split()[-3:-1] == ["?", "?"]
    assert "of the 0 runs whose data has a `size`" in out


def test_the_command_names_its_commands_and_what_is_wrong(study_file, capsys):
    for argv, status in ((["--help"], 0), ([], 2), (["walk"], 2)):
        with pytest.raises(SystemExit) as ended:
            main(argv)
        assert ended.value.code == status
        printed = capsys.readouterr()
        assert "publish" in (printed.err if status else printed.out)
    with pytest.raises(SystemExit, match=r"error: .*there is no setting `nam`"):
        main(["run", str(study_file(nam="x"))])
    with pytest.raises(SystemExit, match=r"error: There is no study absent\.yaml"):
        main(["run", "absent.yaml"])
