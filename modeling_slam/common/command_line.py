"""Command lines of the scripts: an optional recipe and flags, into typed dataclasses.

    python train.py recipes/nl-medium.yaml --lora_rank 8

A recipe's lines become flags placed before those of the command line, so one parser checks the names and
choices of both and the command line has the last word. A recipe may build on another one, which its line
`base: other.yaml` names. `--help` shows our settings, or those that are set most; `--help_all` also those
inherited from transformers.
What a user can mend ends a script with one line; `SLAM_DEBUG=1` in the environment shows the traceback as
well.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import os
import sys
from collections.abc import Collection, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from transformers import HfArgumentParser
from transformers.hf_argparser import string_to_bool

from modeling_slam.common.shipped import at_home, did_you_mean, find

RECIPE_USAGE = "%(prog)s [RECIPE] [--flag value ...]"
LIST_FLAGS = "--list_flags"  # prints the flags, one a line with its choices, for completion in shells


def parse_arguments(
    *dataclass_types: Any,
    description: str,
    argv: Sequence[str] | None = None,
    usage: str = RECIPE_USAGE,
    usual: Collection[str] = (),
    first: str | None = None,
) -> tuple[Any, ...]:
    """One instance of each dataclass. Bad names or values end the program with one clear line.

    Where settings are many, `usual` names those that `--help` shows. A word before all flags is a recipe, or
    the value of the setting `first`.
    """
    print_any_text()
    argv = list(sys.argv[1:] if argv is None else argv)
    show_all = "--help_all" in argv
    parser = build_parser(*dataclass_types, description=description, show_all=show_all, usage=usage)
    if usual and not show_all:
        show_only(usual, parser)
    if argv and not argv[0].startswith("-"):
        given = recipe_flags(argv[0], parser) if first is None else [f"--{first}", argv[0]]
        argv = [*given, *argv[1:]]
    namespace, unknown = parser.parse_known_args(argv)
    if unknown:
        near = did_you_mean(unknown[0].partition("=")[0], flags_of(parser))
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{near and '.'}{near}")
    instances = []
    for dataclass_type in dataclass_types:
        names = [field.name for field in dataclasses.fields(dataclass_type) if field.init]
        try:
            instances.append(dataclass_type(**{name: getattr(namespace, name) for name in names}))
        except (ValueError, OSError, ImportError) as error:
            if debugging():
                raise
            parser.error(one_line(error))
    return tuple(instances)


def print_any_text() -> None:
    """Where a terminal or a log has no sign for a letter, print its escape (\\xe6) and go on."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def clear_errors(
    kinds: tuple[type[Exception], ...] = (ValueError, OSError, ImportError),
) -> Generator[None]:
    """What a user can mend, errors of these kinds, ends the program with its message, without a traceback."""
    try:
        yield
    except kinds as error:
        if debugging():
            raise
        raise SystemExit(f"error: {error}") from error


def one_line(error: BaseException) -> str:
    """A library's message, which may run over several lines, on one."""
    return " ".join(str(error).split())


def fixed(default: Any, reason: str | None = None) -> Any:
    """A field of a dataclass of settings that is inherited and no setting here: `default` is all it can be.

    Whoever sets it on a command line or in a recipe is told `reason`: "`field` reason".
    """
    return dataclasses.field(
        init=False, default=default, metadata={} if reason is None else {"refused": reason}
    )


def program(module: str) -> str:
    """What a user types to start a module: `slam-asr publish`, or `python -m` and its name."""
    return sys.argv[0] if sys.argv[0].startswith("slam-asr ") else f"python -m {module}"


def flags_of(parser: argparse.ArgumentParser) -> list[str]:
    """The flags that can be given, each by its first name, without those that are refused."""
    return [
        action.option_strings[0]
        for action in parser._actions
        if action.option_strings and not isinstance(action, Refused | ListFlags) and action.nargs != 0
    ]


class ListFlags(argparse.Action):
    """Prints what `completion.py` needs to know, and ends the program."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: str | None = None
    ) -> NoReturn:
        flags = set(flags_of(parser))
        for action in parser._actions:
            if action.option_strings and action.option_strings[0] in flags:
                print(action.option_strings[0], *map(str, action.choices or ()))
        parser.exit()


class Refused(argparse.Action):
    """A flag that ends the program with the reason why it cannot be set."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: str | None = None
    ) -> NoReturn:
        parser.error(f"`{self.dest}` {self.metavar}")


def debugging() -> bool:
    """Whether the environment asks for tracebacks instead of clear errors."""
    return os.environ.get("SLAM_DEBUG", "0") not in ("", "0")


def build_parser(
    *dataclass_types: Any, description: str, show_all: bool = False, usage: str = RECIPE_USAGE
) -> HfArgumentParser:
    """A parser with one group of flags per dataclass, in its order; inherited flags form one of their own.

    A dataclass with many settings names in `help_sections` the first of each section, and its title.
    """
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
        sections = getattr(dataclass_type, "help_sections", {})
        own = parser.add_argument_group(title.rstrip("."))
        fields = {field.name: field for field in dataclasses.fields(dataclass_type)}
        for name in dataclass_type.__annotations__:
            if name in sections:
                own = parser.add_argument_group(sections[name])
            if name in fields and fields[name].init:
                groups[name] = own
        for name, field in fields.items():
            if field.init:
                groups.setdefault(name, inherited)
            elif "refused" in field.metadata:
                reason = field.metadata["refused"]
                hidden: dict[str, Any] = {"help": argparse.SUPPRESS, "default": argparse.SUPPRESS}
                parser.add_argument(f"--{name}", action=Refused, nargs="*", metavar=reason, **hidden)
    actions = [action for action in parser._optionals._group_actions if action.dest in groups]
    parser._optionals._group_actions.clear()
    order = list(groups)
    for action in sorted(actions, key=lambda action: order.index(action.dest)):
        groups[action.dest]._group_actions.append(action)
        if action.type is string_to_bool:  # `--bf16` is `--bf16 true` for those too that are unset by default
            action.nargs, action.const = "?", True
        if action.nargs == 0:  # `--no_...`, the twin of a switch that is on by default
            action.help = argparse.SUPPRESS
    if not show_all:
        for action in inherited._group_actions:
            action.help = argparse.SUPPRESS
    help_group = parser.add_argument_group(
        "Help", "SLAM_DEBUG=1 in the environment shows where an error arose."
    )
    help_group.add_argument("--help", "-h", action="help", help="show the settings of this project")
    help_group.add_argument(
        "--help_all", action="help", help="show every setting, those of transformers' trainer as well"
    )
    parser.add_argument(LIST_FLAGS, action=ListFlags, nargs=0, help=argparse.SUPPRESS)
    return parser


def show_only(usual: Collection[str], parser: argparse.ArgumentParser) -> None:
    """Show in the help what is set most, in one group, and say how much else there is."""
    *groups, help_group = parser._action_groups
    actions = [action for group in groups for action in group._group_actions]
    for group in groups:
        group._group_actions.clear()
    often = parser.add_argument_group("What is set most")
    often._group_actions += [action for action in actions if action.dest in usual]
    parser._action_groups[-2:] = [often, help_group]
    (all_help,) = [action for action in help_group._group_actions if action.dest == "help_all"]
    all_help.help = f"show all {len(flags_of(parser))} settings"


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
        text = action.help
        if text and action.choices is not None and self._has_long_choices(action):
            text = f"{text.rstrip('.')}: {', '.join(map(str, action.choices))}."
        if text and action.default not in hidden and action.option_strings:
            words = action.default if isinstance(action.default, list) else [action.default]
            default = " ".join(map(str, words)).replace("%", "%%").replace("\n", "\\n")
            text = f"{text.rstrip('.')} (default: {default})."
        return text

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        if action.choices is None:
            return super()._format_args(action, default_metavar)
        if self._has_long_choices(action):
            return default_metavar
        return "{" + ",".join(map(str, action.choices)) + "}"

    def _has_long_choices(self, action: argparse.Action) -> bool:
        return len(",".join(map(str, action.choices or ()))) > 60


def recipe_flags(name: str, parser: HfArgumentParser) -> list[str]:
    """The lines of a YAML recipe, given by path or by name, as flags."""
    try:
        recipe = read_recipe(path := find(name, "recipe"))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    known = {action.dest: action for action in reversed(parser._actions)}  # before its twin `--no_...`
    unknown = sorted(str(name) for name in recipe if name not in known)
    if unknown:
        parser.error(
            f"{path} has settings that do not exist: {', '.join(unknown)}."
            f"{did_you_mean(unknown[0], known)} See --help and --help_all."
        )
    # The parser has put the types of its flags into the fields, so the annotations are asked.
    types: Any = parser.dataclass_types
    classes = [parent for kind in types for parent in reversed(kind.__mro__)]
    kinds = {
        name: str(kind)
        for parent in classes
        for name, kind in vars(parent).get("__annotations__", {}).items()
    }
    for name, value in recipe.items():
        if misread := misreading(known[name], kinds.get(name, ""), value):
            parser.error(f"{path}: `{name}` {misread}")
    return as_flags(recipe)


def misreading(action: argparse.Action, kind: str, value: Any) -> str | None:
    """What is wrong with a value of a recipe that its flag, of type `kind`, would misread; else `None`."""
    values = value if isinstance(value, list) else [value]
    if isinstance(action, Refused):
        return None
    if isinstance(value, list) and action.nargs not in ("*", "+"):
        return f"is one value, got the list {value}."
    if any(isinstance(one, list) or (isinstance(one, dict) and "dict" not in kind) for one in values):
        return f"cannot be {value}."
    if action.type is not string_to_bool and any(isinstance(one, bool) for one in values):
        return f"is a word that YAML reads as {value}. Put it in quotes."
    return None


class EachKeyOnce(yaml.SafeLoader):
    """YAML in which no mapping, at any depth, has a key twice: the first value would be lost in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines:
                raise ValueError(f"`{name}` stands in line {lines[name]} and again in line {line}.")
            lines[name] = line
        return super().construct_mapping(node, deep)


def read_settings(path: Path) -> dict[str, Any]:
    """The `setting: value` lines of a YAML file.

    Raises:
        ValueError: it holds something else, or a setting twice. OSError: it cannot be read.
    """
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), EachKeyOnce) or {}
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path} is not valid YAML: {one_line(error)}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} must hold `setting: value` lines, got {type(settings).__name__}.")
    return at_home(settings)


def read_recipe(path: Path) -> dict[str, Any]:
    """The settings of a recipe: those of the recipe that its `base` names, if it does, and its own on top.

    Raises:
        ValueError: one of the two is not valid, or the base has a base. OSError: one cannot be read.
    """
    recipe = read_settings(path)
    name = recipe.pop("base", None)
    if name is None:
        return recipe
    base = path.parent / str(name)
    if not base.is_file():
        raise ValueError(f"{path}: its `base` {base} does not exist; it is named from the recipe's folder.")
    settings = read_settings(base)
    if "base" in settings:
        raise ValueError(f"{path}: its `base` {base} builds on another recipe itself; name one without.")
    return settings | recipe


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
