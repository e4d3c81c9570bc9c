"""What a study is made of: the specification of a run, and the record that a finished run leaves.

Both are plain data and their own file format: `study.json` holds the specifications, `runs/<name>/run.json`
one record. A run is its specification: what is not in it does not change the result.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal, Self

Mode = Literal["projector", "lora"]
OF_A_HEAD = frozenset(("decoder", "ctc_weight"))  # flags of eval.py that only a CTC head has a use for


def flags_with(eval_flags: Mapping[str, Any], decoder: str) -> dict[str, Any]:
    """The flags of one of a run's evaluations: `decoder` alone, without what weighs the LLM against it."""
    flags = {name: value for name, value in eval_flags.items() if name != "decoder"}
    if decoder == "llm":
        return flags
    return {name: value for name, value in flags.items() if name != "ctc_weight"} | {"decoder": decoder}


def portable(spec: "RunSpec") -> dict[str, Any]:
    """A specification as it is on any machine: the last part of models, datasets and directories."""
    values = dataclasses.asdict(spec)
    return values | {
        name: last_part(value, always=name in ("encoder", "llm", "dataset")) for name, value in values.items()
    }


def last_part(value: Any, always: bool = False) -> Any:
    if isinstance(value, Mapping):
        return {name: last_part(one) for name, one in value.items()}
    if isinstance(value, list):
        return [last_part(one, always) for one in value]
    is_place = isinstance(value, str) and (always or PurePath(value).is_absolute())
    return PurePath(value).name if is_place else value


@dataclass(frozen=True)
class RunSpec:
    """One training and its evaluation."""

    name: str  # unique, and a directory's name: "base-4L-lora-en-s42"
    encoder: str  # Hub id or directory
    encoder_name: str  # the study file's word for it, such as "base"
    encoder_layers: int  # of the full encoder
    keep_layers: int
    llm: str
    dataset: str | list[str]
    language: str
    mode: Mode
    lora_rank: int  # 0 for projector
    lora_alpha: int  # 0 for projector
    seed: int
    train_flags: dict[str, Any]  # all further flags of train.py
    eval_flags: dict[str, Any]  # all further flags of eval.py
    axes: dict[str, Any] = field(default_factory=dict)  # its values on the study's further axes

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        return cls(**values)


@dataclass(frozen=True)
class BaselineSpec:
    """The same Whisper with its own decoder on the same test set, greedy."""

    name: str  # "base-en"
    encoder: str
    encoder_name: str
    dataset: str | list[str]
    language: str
    eval_flags: dict[str, Any]


@dataclass(frozen=True)
class RunRecord:
    """How a finished run went."""

    spec: RunSpec
    commit: str | None  # of the repository; ends in "-dirty" if its files were changed
    versions: dict[str, str]
    host: str
    threads: int  # CPU threads of the run's processes; sums of floats depend on it
    started: str  # ISO 8601, UTC
    finished: str
    attempts: int
    train_seconds: float  # of all attempts
    evaluate_seconds: float

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        return dataclasses.replace(cls(**values), spec=RunSpec.from_dict(values["spec"]))
