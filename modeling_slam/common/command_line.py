"""Command lines of the scripts: an optional recipe and flags, into typed dataclasses.

    python train.py recipes/nl-medium.yaml --lora_rank 8

A recipe's lines become flags placed before those of the command line, so one parser checks the names and
choices of both and the command line has the last word. `--help` shows our settings; `--help_all` those
inherited from transformers too. What a user can mend ends a script with one line; `SLAM_DEBUG=1` in the
environment shows the traceback as well.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

RECIPE_USAGE = "%(prog)s [RECIPE.yaml] [--flag value ...]"


def parse_arguments(
    *dataclass_types: Any, description: str, argv: Sequence[str] | None = None, usage: str = RECIPE_USAGE
) -> tuple[Any, ...]:
    """One instance of each dataclass. Bad names or values end the program with one clear line."""
    argv = list(sys.argv[1:] if argv is None else argv)
    show_all = "--help_all" in argv
    parser = build_parser(*dataclass_types, description=description, show_all=show_all, usage=usage)
    if argv and not argv[0].startswith("-"):
        argv = [*recipe_flags(Path(argv[0]), parser), *argv[1:]]
    namespace = parser.parse_args(argv)
    instances = []
    for dataclass_type in dataclass_types:
        names = [field.name for field in dataclasses.fields(dataclass_type) if field.init]
        try:
            instances.append(dataclass_type(**{name: getattr(namespace, name) for name in names}))
        except ValueError as error:
            if debugging():
                raise
            parser.error(str(error))
    return tuple(instances)


@contextlib.contextmanager
def clear_errors() -> Generator[None]:
    """What a user can mend ends the program with its message instead of a traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        if debugging():
            raise
        raise SystemExit(f"error: {error}") from error


def debugging() -> bool:
    """Whether the environment asks for tracebacks instead of clear errors."""
    return os.environ.get("SLAM_DEBUG", "0") not in ("", "0")


def build_parser(
    *dataclass_types: Any, description: str, show_all: bool = False, usage: str = RECIPE_USAGE
) -> HfArgumentParser:
    """A parser with one group of flags per dataclass; inherited flags form a group of their own."""
    parser = HfArgumentParser(
        dataclass_types,
        description=description,
        usage=usage,
        formatter_class=ReadableHelp,
        allow_abbrev=False,
        add_help=False,
    )
    groups = {}
    inherited = parser.add_argument_group("Settings of transformers' Seq2SeqTrainingArguments")
    for dataclass_type in dataclass_types:
        title, *_ = (dataclass_type.__doc__ or dataclass_type.__name__).splitlines()
        own = parser.add_argument_group(title.rstrip("."))
        for field in dataclasses.fields(dataclass_type):
            groups[field.name] = own if field.name in dataclass_type.__annotations__ else inherited
    for action in list(parser._optionals._group_actions):
        parser._optionals._group_actions.remove(action)
        if action.dest in groups:
            groups[action.dest]._group_actions.append(action)
    if not show_all:
        for action in inherited._group_actions:
            action.help = argparse.SUPPRESS
    help_group = parser.add_argument_group(
        "Help", "SLAM_DEBUG=1 in the environment shows where an error arose."
    )
    help_group.add_argument("--help", "-h", action="help", help="show the settings of this project")
    help_group.add_argument(
        "--help_all", action="help", help="show every setting of transformers' trainer as well"
    )
    return parser


class ReadableHelp(argparse.HelpFormatter):
    """Defaults are shown where there is one worth showing."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=34, width=110)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """`--keep_layers N`: without its twin `--keep-layers`, which works as well."""
        if len(action.option_strings) < 2 or action.nargs == 0:
            return super()._format_action_invocation(action)
        metavar = self._get_default_metavar_for_optional(action)
        return f"{action.option_strings[0]} {self._format_args(action, metavar)}"

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        return "N" if action.type in (int, float) else "VALUE"

    def _get_help_string(self, action: argparse.Action) -> str | None:
        hidden = (None, "", [], argparse.SUPPRESS, dataclasses.MISSING)
        if action.help and action.default not in hidden and action.option_strings:
            default = str(action.default).replace("%", "%%").replace("\n", "\\n")
            return f"{action.help.rstrip('.')} (default: {default})."
        return action.help

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        if action.choices is not None:
            return "{" + ",".join(map(str, action.choices)) + "}"
        return super()._format_args(action, default_metavar)


def recipe_flags(path: Path, parser: argparse.ArgumentParser) -> list[str]:
    """The lines of a YAML recipe as flags."""
    if not path.is_file():
        parser.error(
            f"There is no recipe {path}. The first argument is a YAML file, or leave it out and give flags."
        )
    try:
        recipe = read_settings(path)
    except ValueError as error:
        parser.error(str(error))
    known = {action.dest for action in parser._actions}
    unknown = sorted(str(name) for name in recipe if name not in known)
    if unknown:
        parser.error(
            f"{path} has settings that do not exist: {', '.join(unknown)}. See --help and --help_all."
        )
    return as_flags(recipe)


def read_settings(path: Path) -> dict[str, Any]:
    """The `setting: value` lines of a YAML file.

    Raises:
        ValueError: it holds something else. OSError: it cannot be read.
    """
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} must hold `setting: value` lines, got {type(settings).__name__}.")
    return settings


def as_flags(settings: Mapping[str, Any]) -> list[str]:
    """`{"seed": 1, "columns": ["a", "b"]}` as `--seed 1 --columns a b`; what is None is left out."""
    flags = []
    for name, value in settings.items():
        if value is None:
            continue
        values = (
            value if isinstance(value, list) else [json.dumps(value) if isinstance(value, dict) else value]
        )
        flags += [f"--{name}", *map(str, values)]
    return flags
