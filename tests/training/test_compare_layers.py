"""The comparison of layer choices: one pass of the encoder, a table, a picture, what each choice keeps."""

import json

import pytest
from tiny_run import flags

from modeling_slam.training import compare_layers
from modeling_slam.training.layer_choice import LAYER_CHOICES

QUICK = [name for name, choice in LAYER_CHOICES.items() if choice.needs != "text"]


def argv(world, directory, *rest):
    return [flag for flag in flags(world, directory) if not flag.startswith("--keep_layers")] + [*rest]


def test_table_picture_and_numbers_say_what_each_choice_keeps(world, tmp_path, capsys):
    compare_layers.main(argv(world, tmp_path / "out", "--keep", "3", "2", "--choices", *QUICK))
    found = json.loads((tmp_path / "out" / "layer_choices.json").read_text())
    assert [*found["choices"]] == ["3", "2"]
    assert [*found["choices"]["2"]] == QUICK
    assert found["choices"]["2"]["merged"]["layers"] == [[0, 1], [2, 3]]
    assert all(len(found["choices"]["3"][name]["layers"]) == 3 for name in QUICK)
    assert len(found["similarities"]["cka"]) == 5
    assert "| merged | 0 1 2+3 | 0+1 2+3 |" in capsys.readouterr().out
    assert (tmp_path / "out" / "layer_choices.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        (["--keep", "5"], "`keep` must be between 1 and 4"),
        (["--choices", "nonsense"], "`choices` must be among top_down"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_the_data_are_read(world, tmp_path, rest, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        compare_layers.main(argv(world, tmp_path / "out", *rest))
    assert message in f"{stopped.value}{capsys.readouterr().err}"
