"""Command lines: recipe and flags make one set of settings, and what is wrong with them is named."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from modeling_slam.common.command_line import clear_errors, parse_arguments, read_settings
from modeling_slam.data import DataArguments
from modeling_slam.publishing.arguments import PushArguments
from modeling_slam.training.arguments import LoraArguments, ModelArguments, RunArguments
from modeling_slam.training.feature_cache import CacheArguments

TRAIN = (ModelArguments, LoraArguments, DataArguments, CacheArguments, RunArguments, PushArguments)


@dataclass
class PotArguments:
    """How to make tea"""

    leaves: list[str] = field(default_factory=lambda: ["assam"], metadata={"help": "Which leaves."})
    minutes: float = field(default=3.0, metadata={"help": "Time to draw; 50 %% more for a second pot."})
    milk: Literal["none", "first", "last"] = field(default="none", metadata={"help": "When milk goes in."})
    label: str | None = field(default=None, metadata={"help": "What the pot is called."})

    def __post_init__(self):
        if self.minutes <= 0:
            raise ValueError(f"`minutes` must be positive, got {self.minutes}.")


def parse(*argv: str) -> PotArguments:
    (arguments,) = parse_arguments(PotArguments, description="Tea.", argv=argv)
    return arguments


def recipe(tmp_path, text: str) -> str:
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    return str(tmp_path / "recipe.yaml")


def error_of(capsys, *argv: str) -> str:
    """The last line of a run that must end with exit code 2 and no traceback."""
    with pytest.raises(SystemExit) as ended:
        parse(*argv)
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_flags_win_over_the_recipe_and_the_recipe_over_defaults(tmp_path):
    path = recipe(tmp_path, "leaves: [keemun, yunnan]\nminutes: 4.5\nlabel:\n")
    assert parse() == PotArguments()
    assert parse(path) == PotArguments(leaves=["keemun", "yunnan"], minutes=4.5)
    assert parse(path, "--minutes", "2", "--milk=last", "--leaves", "assam") == PotArguments(
        leaves=["assam"], minutes=2.0, milk="last"
    )


def test_a_recipe_builds_on_another_one_in_its_own_folder_and_has_the_last_word(tmp_path):
    (tmp_path / "pots.yaml").write_text("leaves: [keemun]\nminutes: 4.5\nmilk: last\n", encoding="utf-8")
    path = recipe(tmp_path, "base: pots.yaml\nminutes: 2\n")
    assert parse(path) == PotArguments(leaves=["keemun"], minutes=2.0, milk="last")
    assert parse(path, "--milk", "none") == PotArguments(leaves=["keemun"], minutes=2.0)


def test_a_base_that_is_not_there_or_builds_on_another_one_itself_is_named(tmp_path, capsys):
    path = recipe(tmp_path, "base: pots.yaml\n")
    assert f"its `base` {tmp_path / 'pots.yaml'} does not exist" in error_of(capsys, path)
    (tmp_path / "pots.yaml").write_text("base: recipe.yaml\n", encoding="utf-8")
    assert "builds on another recipe itself" in error_of(capsys, path)


def test_settings_that_are_dictionaries_can_stand_in_a_recipe(tmp_path):
    path = recipe(tmp_path, f"output_dir: {tmp_path}\nlr_scheduler_kwargs: {{min_lr_rate: 0.25}}\n")
    (run,) = parse_arguments(RunArguments, description="", argv=[path])
    assert run.lr_scheduler_kwargs == {"min_lr_rate": 0.25}


def test_several_trackers_can_be_named(tmp_path):
    path = recipe(tmp_path, f"output_dir: {tmp_path}\nreport_to: [tensorboard, wandb]\n")
    assert parse_arguments(RunArguments, description="", argv=[path])[0].report_to == ["tensorboard", "wandb"]


def test_an_unknown_setting_in_a_recipe_is_named(tmp_path, capsys):
    path = recipe(tmp_path, "minuts: 4\nsugar: 2\n")
    assert f"{path} has settings that do not exist: minuts, sugar." in error_of(capsys, path)


@pytest.mark.parametrize("flag", ["--sugar", "--minute"])
def test_an_unknown_flag_is_named_and_none_is_guessed_from_its_beginning(capsys, flag):
    assert f"unrecognized arguments: {flag} 2" in error_of(capsys, flag, "2")


def test_a_choice_that_does_not_exist_is_named_wherever_it_comes_from(tmp_path, capsys):
    for argv in (["--milk", "middle"], [recipe(tmp_path, "milk: middle\n")]):
        message = error_of(capsys, *argv)
        assert "--milk" in message
        assert "'middle'" in message
        assert "'none', 'first', 'last'" in message


@pytest.mark.parametrize("switch", [["--bf16"], ["--bf16", "true"]])
def test_a_switch_without_a_value_is_on_whatever_it_is_by_default(tmp_path, switch):
    """As with transformers' scripts; `bf16` is unset until the machine has been asked."""
    argv = ["--output_dir", str(tmp_path), "--use_cpu", *switch]
    (run,) = parse_arguments(RunArguments, description="Train.", argv=argv)
    assert (run.bf16, run.use_cpu) == (True, True)


def test_a_value_of_the_wrong_type_is_named(capsys):
    assert "--minutes: invalid float value: 'long'" in error_of(capsys, "--minutes", "long")


def test_a_value_that_the_settings_refuse_is_named(capsys):
    assert "`minutes` must be positive, got -1.0." in error_of(capsys, "--minutes", "-1")


@pytest.mark.parametrize(
    ("content", "message"),
    [("- leaves\n", "`setting: value` lines, got list"), ("leaves: [assam\n", "is not valid YAML")],
)
def test_a_recipe_that_cannot_be_read_is_named(tmp_path, capsys, content, message):
    path = recipe(tmp_path, content)
    with pytest.raises(SystemExit) as ended:
        parse(path)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert path in error
    assert message in error


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("minutes: 4\nlabel: a\nminutes: 5\n", ["`minutes`", "line 1", "line 3"]),
        ('label: a\n"label": b\n', ["`label`"]),
        ("outer:\n  inner: {a: 1, b: 2, a: 3}\n", ["`a`", "line 2"]),
        ("list:\n- {a: 1}\n- b: 1\n  b: 2\n", ["`b`", "line 3", "line 4"]),
    ],
)
def test_a_setting_that_stands_twice_is_refused_at_any_depth(tmp_path, content, names):
    with pytest.raises(ValueError, match="valid YAML") as error:
        read_settings(Path(recipe(tmp_path, content)))
    assert all(name in str(error.value) for name in names)
    assert "\n" not in str(error.value)


def test_the_same_setting_in_two_places_is_no_setting_twice(tmp_path):
    text = "common: &common {a: 1}\none: {<<: *common, b: 2}\ntwo: {<<: *common, a: 3}\n"
    assert read_settings(Path(recipe(tmp_path, text)))["two"] == {"a": 3}


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("label: no", "`label`"),
        ("milk: on", "`milk`"),
        ("minutes: true", "`minutes`"),
        ("minutes: [1, 2]", "`minutes`"),
        ("minutes: long", "--minutes"),
        ("label: {a: 1}", "`label`"),
        ("leaves: [[a], b]", "`leaves`"),
        ("leaves: [a, no]", "`leaves`"),
    ],
)
def test_a_value_of_a_recipe_that_would_be_misread_is_refused_by_name(tmp_path, capsys, line, name):
    message = error_of(capsys, recipe(tmp_path, line + "\n"))
    assert name in message
    assert "unrecognized" not in message


def test_a_recipe_that_is_not_there_is_named(capsys):
    assert "There is no recipe tea.yaml." in error_of(capsys, "tea.yaml")


def help_of(capsys, flag: str) -> str:
    with pytest.raises(SystemExit) as ended:
        parse_arguments(*TRAIN, description="Train.", argv=[flag])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_help_is_grouped_and_leaves_out_what_comes_from_transformers(capsys):
    text = help_of(capsys, "--help")
    titles = [
        line.removesuffix(":") for line in text.splitlines() if line and not line.startswith((" ", "u"))
    ]
    assert titles == [
        "Train.",
        "Base models, pruning and projector",
        "What is trained beside the projector, by LoRA (https://huggingface.co/papers/2106.09685) or itself",
        "Which speech to read, and which of its clips to use",
        "Cache of the frozen encoder's output",
        "Training run",
        "Optimizer and learning rate",
        "Batches",
        "Validation",
        "Checkpoints, and which of them the run ends with",
        "Log",
        "Publishing while training; see docs/publishing.md",
        "Help",
    ]
    for own in ("--keep_layers N ", "--lora_rank N ", "--dataset VALUE ", "--early_stopping_patience N "):
        assert own in text
    for theirs in ("--adam_beta1", "--fsdp", "--eval_delay"):
        assert theirs not in text
    assert "--keep-layers" not in text
    assert "--no_" not in text
    assert len(text.splitlines()) < 250
    assert max(map(len, text.splitlines())) <= 110


def test_help_all_shows_what_comes_from_transformers_in_a_group_of_its_own(capsys):
    text = help_of(capsys, "--help_all")
    theirs = text.index("Settings of transformers' Seq2SeqTrainingArguments")
    assert theirs < text.index("--adam_beta1") < text.index("Base models, pruning and projector")
    assert "--keep_layers" in text


FIXED = [field for field in dataclasses.fields(RunArguments) if "refused" in field.metadata]


@pytest.mark.parametrize("field", FIXED, ids=lambda field: field.name)
def test_what_cannot_be_set_stands_in_no_help_and_is_refused_with_the_reason(tmp_path, capsys, field):
    assert f"--{field.name} " not in help_of(capsys, "--help_all")
    for argv in ([f"--{field.name}", "1"], [recipe(tmp_path, f"{field.name}: true\n")]):
        with pytest.raises(SystemExit) as ended:
            parse_arguments(*TRAIN, description="", argv=[*argv, "--dataset", "x", "--output_dir", "x"])
        assert ended.value.code == 2
        message = capsys.readouterr().err.splitlines()[-1]
        assert message.endswith(f"`{field.name}` {field.metadata['refused']}")


def test_a_secret_on_the_command_line_is_not_repeated(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(*TRAIN, description="", argv=["--hub_token", "hf_secret"])
    assert "hf_secret" not in capsys.readouterr().err


def test_help_shows_defaults_where_there_are_any(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "50 % more for a second pot (default: 3.0)." in text
    assert "--milk {none,first,last} When milk goes in (default: none)." in text
    assert "What the pot is called." in text
    assert "(default: None)" not in text


@pytest.mark.parametrize(
    "error", [ValueError("mend this"), FileNotFoundError("mend this"), ImportError("mend this")]
)
def test_errors_a_user_can_mend_end_the_program_with_their_message(error):
    with pytest.raises(SystemExit) as ended, clear_errors():
        raise error
    assert ended.value.code == "error: mend this"


@pytest.mark.parametrize(("value", "shown"), [("1", ValueError), ("0", SystemExit), ("", SystemExit)])
def test_a_debug_switch_shows_where_an_error_arose(monkeypatch, value, shown):
    monkeypatch.setenv("SLAM_DEBUG", value)
    with pytest.raises(shown, match="mend this"), clear_errors():
        raise ValueError("mend this")
    with pytest.raises(shown):
        parse("--minutes", "-1")


def test_other_errors_keep_their_traceback():
    with pytest.raises(RuntimeError), clear_errors():
        raise RuntimeError("a bug")
