"""What the documentation says to type is understood, and its pages hang together."""

import argparse
import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

REPOSITORY = Path(__file__).parents[1]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/*.md",
    "recipes/README.md",
    "results/README.md",
    "benchmarks/README.md",
)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
STARTS = re.compile(r"\s*(?:\w+=\S+ )*(?:accelerate launch|python|slam-asr) ")
OURS = re.compile(r"(?:slam-asr |-m (?:modeling_slam|benchmarks|slam_asr)|(?:train|eval)\.py )")
VARIABLE = re.compile(r"\$(?:\w+|\{\w+\}|\([^)]*\))")
PASSES_ON = "benchmarks.time_to_wer"  # what it does not know itself are flags of train.py
NO_FLAGS = ("modeling_slam.paper.notes", "modeling_slam.serving.transformers_serve")  # or another program's
ENDS = {"&&", "|", ";", ">", "&"}


def commands() -> Iterator[tuple[str, str]]:
    """(page, command) of every line in a block of shell that starts a program of this project."""
    for pattern in PAGES:
        for page in sorted(REPOSITORY.glob(pattern)):
            for language, block in BLOCK.findall(page.read_text(encoding="utf-8")):
                for line in block.replace("\\\n", " ").splitlines() if language in ("", "bash") else ():
                    is_ours = STARTS.match(line) and OURS.search(line) and " ..." not in line
                    if is_ours and not any(name in line for name in NO_FLAGS):
                        yield str(page.relative_to(REPOSITORY)), " ".join(line.split())


COMMANDS = sorted(set(commands()))


def program(command: str) -> tuple[str, list[str]]:
    """Module and arguments of a command line; what comes before them goes."""
    words = shlex.split(VARIABLE.sub("4", command), comments=True)
    words = words[: next((at for at, word in enumerate(words) if word in ENDS), len(words))]
    for at, word in enumerate(words):
        if word == "slam-asr":
            return "slam_asr", words[at + 1 :]
        if word == "-m" and words[at + 1].partition(".")[0] in ("modeling_slam", "benchmarks", "slam_asr"):
            return words[at + 1], words[at + 2 :]
        if word in ("train.py", "eval.py"):
            return word.removesuffix(".py"), words[at + 1 :]
    raise AssertionError(command)


def main_of(module: str) -> Any:
    """The `main` of a module, or of a package's `__main__`."""
    found = importlib.import_module(module)
    return getattr(found, "main", None) or importlib.import_module(f"{module}.__main__").main


class ParsedError(Exception):
    """The flags are understood, but for the given ones; nothing is run."""


def unknown_flags(module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    parse = argparse.ArgumentParser.parse_known_args

    def parse_only(self: argparse.ArgumentParser, *given: Any, **named: Any) -> NoReturn:
        for action in self._actions:  # what a run's own file gives is asked for after that
            action.required = False
        raise ParsedError(parse(self, *given, **named)[1])

    with monkeypatch.context() as patched:
        patched.setattr(argparse.ArgumentParser, "parse_known_args", parse_only)
        patched.setattr(sys, "argv", [module, *arguments])
        main = main_of(module)
        with pytest.raises(ParsedError) as parsed:
            main()
    return parsed.value.args[0]


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{page}: {line}" for page, line in COMMANDS])
def test_every_command_in_the_documentation_has_flags_that_its_program_knows(page, command, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    module, arguments = program(command)
    unknown = unknown_flags(module, arguments, monkeypatch)
    if module == PASSES_ON:
        unknown = unknown_flags("train", unknown, monkeypatch)
    assert not unknown


@pytest.mark.nightly
def test_the_site_is_built_and_every_link_within_it_leads_somewhere(tmp_path):
    flags = ["-b", "html", "-W", "--keep-going", "-q", "-c", "docs"]
    command = [sys.executable, "-m", "sphinx", *flags, ".", tmp_path]
    built = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    front = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert all(f'href="{page}.html"' in front for page in ("docs/training", "docs/api", "recipes/README"))
    assert "Audio tokens that the convolution" in (tmp_path / "docs/api.html").read_text(encoding="utf-8")
