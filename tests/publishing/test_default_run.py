"""`train.py` without recipe and speech takes a recipe, and names the run by the rule of published models."""

from pathlib import Path

import pytest
import yaml

import train
from modeling_slam.common.command_line import parse_arguments
from modeling_slam.publishing.default_run import with_default_recipe

RECIPE = Path(train.__file__).parent / "recipes" / "nl-medium.yaml"


def parse(argv: list[str]) -> tuple:
    return parse_arguments(*train.GROUPS.values(), description="", argv=argv)


@pytest.fixture
def recipe(tmp_path) -> Path:
    """The default recipe, with speech that is there."""
    settings = yaml.safe_load(RECIPE.read_text(encoding="utf-8")) | {"dataset": str(tmp_path)}
    path = tmp_path / "nl-medium.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("", "slam-medium-24L-lora-nl"),
        ("--keep_layers 22", "slam-medium-22L-lora-nl"),
        ("--keep-layers=22 --lora_rank 0", "slam-medium-22L-nl"),
        ("--kept_encoder_layers 0 2 4", "slam-medium-3L-lora-nl"),
    ],
)
def test_a_run_without_recipe_and_speech_is_called_by_its_depth(recipe, flags, name):
    *_, run, _ = parse(with_default_recipe(flags.split(), recipe, parse))
    assert run.output_dir == f"runs/{name}"
    assert run.num_train_epochs == parse([str(recipe)])[-2].num_train_epochs


def test_an_output_directory_on_the_command_line_has_the_last_word(recipe):
    argv = with_default_recipe(["--keep_layers", "22", "--output_dir", "runs/mine"], recipe, parse)
    assert parse(argv)[-2].output_dir == "runs/mine"


@pytest.mark.parametrize(
    "command",
    ["mine.yaml --keep_layers 22", "--keep_layers 22 --dataset=x", "--encoder x", "--language da", "-h"],
)
def test_a_command_that_names_a_recipe_or_speech_stays_as_it_is(recipe, command):
    assert with_default_recipe(command.split(), recipe, parse) == command.split()


def test_a_depth_that_the_encoder_does_not_have_is_refused(recipe):
    with pytest.raises(ValueError, match=r"--keep_layers.*between 1 and 24"):
        with_default_recipe(["--keep_layers", "30"], recipe, parse)


def test_where_the_speech_is_missing_three_lines_say_what_to_fetch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        train.main(["--keep_layers", "22"])
    lines = str(ended.value).splitlines()
    assert len(lines) == 3
    assert str(RECIPE) in lines[0]
    assert "data/cv-corpus-22.0-2025-06-20" in lines[1]
    assert all(path.stem in lines[2] for path in RECIPE.parent.glob("*.yaml"))
    assert not any(tmp_path.iterdir())
