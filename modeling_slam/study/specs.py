"""What a study is made of: the specification of a run, and the record that a finished run leaves.

Both are plain data and their own file format: `study.json` holds the specifications, `runs/<name>/run.json`
one record. A run is its specification: what is not in it does not change the result.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

Mode = Literal["projector", "lora"]


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
