"""`slam-asr`: one command, the same code as the scripts and modules, quick where nothing heavy is asked."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import modeling_slam
import slam_asr
from modeling_slam.common import shipped
from modeling_slam.common.completion import script
from modeling_slam.common.shipped import at_home, find, shipped_names

REPOSITORY = Path(__file__).parents[1]


def test_version_and_help_import_nothing_heavy_and_the_help_fits_a_terminal():
    code = (
        "import slam_asr, sys; slam_asr.main(['--version']); slam_asr.main(['--help'])\n"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, *text = done.stdout.splitlines()
    assert first == f"slam-asr {modeling_slam.__version__}"
    assert len(text) <= 24
    assert max(map(len, text)) <= 90
    assert all(any(line.startswith(f"  {name} ") for line in text) for name in slam_asr.COMMANDS)


@pytest.mark.parametrize(("word", "near"), [("trian", "train"), ("transcibe", "transcribe"), ("evl", "eval")])
def test_a_misspelt_command_is_answered_with_the_nearest(word, near, capsys):
    with pytest.raises(SystemExit, match="2"):
        slam_asr.main([word])
    assert capsys.readouterr().err.endswith(f"there is no command {word!r}. Did you mean {near}?\n")


def test_no_command_is_an_error_that_shows_them(capsys):
    with pytest.raises(SystemExit, match="2"):
        slam_asr.main([])
    assert "expected a command." in capsys.readouterr().err


@pytest.fixture
def shown(capsys, monkeypatch):
    """What a command prints before it ends."""
    monkeypatch.setattr(sys, "argv", ["pytest"])

    def run(*argv: str) -> str:
        with pytest.raises(SystemExit):
            slam_asr.main(list(argv))
        return "".join(capsys.readouterr())

    return run


@pytest.mark.parametrize("name", slam_asr.COMMANDS)
def test_the_help_of_a_command_fits_a_screen_and_names_the_command(name, shown):
    parts = slam_asr.COMMANDS[name].parts or ("",)
    for part in parts:
        text = shown(name, *filter(None, [part]), "--help")
        assert text.startswith(f"usage: {' '.join(['slam-asr', name, part]).strip()} ")
        assert len(text.splitlines()) <= 40
        assert max(map(len, text.splitlines())) <= 110


def test_a_misspelt_flag_is_answered_with_the_nearest(shown):
    assert "unrecognized arguments: --keep_layer 4. Did you mean --keep_layers?" in shown(
        "train", "--dataset", "x", "--output_dir", "y", "--keep_layer", "4"
    )
    assert "Did you mean run?" in shown("study", "rnu")


def test_recipes_and_studies_go_by_name_from_any_directory(tmp_path, monkeypatch, shown):
    monkeypatch.chdir(tmp_path)
    assert find("nl-medium", "recipe") == REPOSITORY / "recipes" / "nl-medium.yaml"
    assert (
        find("recipes/paper/nl-medium.yaml", "recipe") == REPOSITORY / "recipes" / "paper" / "nl-medium.yaml"
    )
    assert find("demo", "study") == REPOSITORY / "studies" / "demo.yaml"
    (tmp_path / "nl-medium").write_text("")  # a file of one's own comes first
    assert find("nl-medium", "recipe") == Path("nl-medium")
    assert "paper/_paper" not in shipped_names("recipe")
    assert "There is no recipe nl-medum. Did you mean nl-medium?" in shown("train", "nl-medum")


def test_a_path_into_the_package_leads_there_unless_it_is_in_sight(tmp_path, monkeypatch):
    path = "modeling_slam/demo/assets/whisper"
    monkeypatch.chdir(REPOSITORY)
    assert at_home({"encoder": path}) == {"encoder": path}
    monkeypatch.chdir(tmp_path)
    assert at_home({"encoder": [path, "other/x", 3]}) == {"encoder": [str(REPOSITORY / path), "other/x", 3]}
    assert shipped.IS_CLONE


def test_a_module_that_an_extra_brings_is_named_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "modeling_slam.training.depth_probe", raising=False)
    with pytest.raises(SystemExit, match=r"`slam-asr probe` needs matplotlib.*'slam-asr\[plots\]'"):
        slam_asr.main(["probe", "--help"])


@pytest.fixture(scope="module")
def bash(tmp_path_factory) -> Path:
    words = {}
    for name in ("eval", "transcribe"):
        words[name] = (importlib.import_module(slam_asr.COMMANDS[name].module).main, [])
    for part in ("run", "report"):
        words[f"study {part}"] = (importlib.import_module(slam_asr.STUDY).main, [part])
    words["train"] = (importlib.import_module("train").main, [])
    path = tmp_path_factory.mktemp("bash") / "slam-asr"
    path.write_text(script("bash", words))
    return path


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tr", {"train", "transcribe"}),
        ("train nl-m", {"nl-medium"}),
        ("train --keep_l", {"--keep_layers", "--keep_llm_layers"}),
        ("train nl-medium --projector_type ", {"stack_mlp", "conv", "qformer"}),
        ("train --adam_beta1", {"--adam_beta1"}),
        ("study r", {"run", "report"}),
        ("study run de", {"demo"}),
        ("study run demo --dry", {"--dry_run"}),
        ("eval --baseline w", {"whisper"}),
        ("transcribe model --for", {"--format"}),
    ],
)
def test_the_shell_completes_commands_flags_choices_and_recipes(bash, line, expected):
    words = ["slam-asr", *line.split(" ")]
    tab = f'COMP_WORDS=("${{@}}"); COMP_CWORD={len(words) - 1}; _slam_asr; echo "${{COMPREPLY[@]}}"'
    code = f"source {bash}; {tab}"
    done = subprocess.run(["bash", "-c", code, "bash", *words], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == expected
