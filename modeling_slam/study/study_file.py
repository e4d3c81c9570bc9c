"""The study file: a YAML that spans a grid of runs over a base recipe, read and checked for form.

    recipe: recipes/digits-en.yaml
    encoders:
      base: {model: openai/whisper-base, keep_layers: [6, 4, 2]}
    datasets:
      en: {dataset: data/digits-en}

To add a setting: a field of a class below, and its place in `grid.py`, which makes runs of the file. To add
an axis: a row in `axes.py`.
"""

import dataclasses
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError

from modeling_slam.common.command_line import read_settings
from modeling_slam.study.axes import FURTHER
from modeling_slam.study.specs import Mode

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@strict
@dataclass
class LoraSetting:
    """Rank and alpha of the LoRA runs."""

    rank: int
    alpha: int


@strict
@dataclass
class EncoderEntry:
    """One Whisper; the key above it is the name its runs carry."""

    model: str
    keep_layers: list[int]


@strict
@dataclass
class DataSize:
    """How much speech there is, for the estimate of cost alone."""

    train_clips: int
    train_hours: int | float
    test_clips: int
    test_hours: int | float


@strict
@dataclass
class DatasetEntry:
    """The data of one language, or of several as one; the key above it is the language, or their name."""

    dataset: str | list[str]
    language: str | list[str] | None = None  # the key, if not given; a list has one for each dataset
    recipe: str | None = None
    keep_layers: list[int] | None = None  # only these of the encoders' depths
    lora: LoraSetting | None = None
    train: dict[str, Any] = field(default_factory=dict)
    eval: dict[str, Any] = field(default_factory=dict)
    size: DataSize | None = None


@strict
@dataclass
class StudyFile:
    """The file as it stands."""

    name: str
    encoders: dict[str, EncoderEntry]
    datasets: dict[str, DatasetEntry]
    recipe: str | None = None  # may contain {encoder} and {language}
    llm: str | None = None  # the recipe's, if not given; names, each with its model, are an axis
    modes: list[Mode] = field(default_factory=lambda: ["projector", "lora"])
    seeds: list[int] = field(default_factory=lambda: [42])
    lora: LoraSetting | None = None  # the recipe's, if neither here nor at the dataset
    train: dict[str, Any] = field(default_factory=dict)
    eval: dict[str, Any] = field(default_factory=dict)
    baselines: bool = False
    teraflops: int | float | None = None  # what the device sustains, for the estimate of hours alone
    axes: dict[str, Any] = field(default_factory=dict, init=False)  # values of further axes, by their names


def read_study_file(path: Path, changes: Sequence[str]) -> StudyFile:
    """The file with `changes` ("llm=DIR") applied.

    Raises:
        ValueError: a setting is unknown, missing or of the wrong type. OSError: it cannot be read.
    """
    values = read_settings(path)
    for change in changes:
        apply_change(values, change)
    return build(StudyFile, values, str(path))


def apply_change(values: dict[str, Any], change: str) -> None:
    """Set the value at a dotted path: `datasets.en.train.max_steps=10`."""
    dotted, equals, text = change.partition("=")
    *parents, last = dotted.split(".")
    if not equals or not all([*parents, last]):
        raise ValueError(f"`--set {change}`: expected a dotted path and a value, such as llm=DIR.")
    at: Any = values
    for parent in parents:
        at = at.setdefault(parent, {}) if isinstance(at, dict) else None
    if not isinstance(at, dict):
        raise ValueError(f"`--set {change}`: {'.'.join(parents)} has no settings of its own.")
    at[last] = yaml.safe_load(text)


def build(kind: Any, values: Any, where: str) -> Any:
    """An instance of a dataclass above from parsed YAML; its entries are built likewise."""
    if not isinstance(values, dict):
        raise ValueError(f"{where}: expected `setting: value` lines, got {values!r}.")
    own = {entry.name for entry in dataclasses.fields(kind) if entry.init}
    further = FURTHER if kind is StudyFile else []
    known = own | set(further)
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            hint = f" Did you mean `{near[0]}`?" if near else f" There are: {', '.join(sorted(known))}."
            raise ValueError(f"{where}: there is no setting `{name}`.{hint}")
    spanned = {n: values[n] for n in further if n in values and (n not in own or isinstance(values[n], dict))}
    built = {name: value for name, value in values.items() if name not in spanned}
    for name, entry in (("encoders", EncoderEntry), ("datasets", DatasetEntry)):
        if name in known and isinstance(built.get(name), dict):
            built[name] = {
                checked_name(key, f"{where}: {name}"): build(entry, value, f"{where}: {name}.{key}")
                for key, value in built[name].items()
            }
    for name, entry in (("lora", LoraSetting), ("size", DataSize)):
        if name in known and built.get(name) is not None:
            built[name] = build(entry, built[name], f"{where}: {name}")
    try:
        made = kind(**built)
    except StrictDataclassError as error:
        raise ValueError(f"{where}: {str(error.__cause__ or error).replace('Field', 'setting')}") from error
    except TypeError as error:  # a required setting is missing
        missing = [
            entry.name
            for entry in dataclasses.fields(kind)
            if entry.name not in values
            and entry.default is dataclasses.MISSING
            and entry.default_factory is dataclasses.MISSING
        ]
        raise ValueError(f"{where}: {', '.join(missing)} missing.") from error
    if kind is StudyFile:
        made.axes = spanned | ({"llm": models_of(spanned["llm"], where)} if "llm" in spanned else {})
    return made


def models_of(llms: dict[Any, Any], where: str) -> dict[str, str]:
    """The LLMs of that axis, by the names that runs carry."""
    named = {checked_name(key, f"{where}: llm"): model for key, model in llms.items()}
    if wrong := [name for name, model in named.items() if not isinstance(model, str)]:
        raise ValueError(f"{where}: llm.{wrong[0]} must be a Hub id or a directory, got {named[wrong[0]]!r}.")
    return named


def checked_name(key: Any, where: str) -> str:
    """A key that becomes part of directory names. YAML reads an unquoted `no` as False."""
    if not isinstance(key, str) or not FILE_NAME.fullmatch(key):
        raise ValueError(
            f"{where}: {key!r} cannot be a name; expected letters, digits, `.`, `-` and `_`, in quotes "
            "where YAML would read something else (no, 1)."
        )
    return key
