"""A study on disk: its specifications, a directory for each run, and an index over the finished ones.

    STUDY_DIR/study.json           name and specifications, written before the first run
              index.parquet        one row a finished run
              runs/<name>/         predictions.jsonl, metrics.json, log.txt, model/, counts.parquet and
                                   run.json in the end
              runs/<name>/ctc/     the same files of a further evaluation, by another decoder
              baselines/<name>/    eval.py's files of a Whisper with its own decoder

A run is finished when its run.json exists; a baseline, when its metrics.json does, or of a kept one its
counts.parquet. Each appears in one step.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock

from modeling_slam.analysis.counts import COUNTS_FILE
from modeling_slam.analysis.results import (
    INDEX_FILE,
    METRICS_FILE,
    RUN_FILE,
    STUDY_FILE,
    evaluations,
    run_rows,
)
from modeling_slam.common.differences import differences
from modeling_slam.common.files import read_json, write_bytes, write_json
from modeling_slam.study.grid import EVAL_TYPES, TRAIN_TYPES
from modeling_slam.study.specs import BaselineSpec, RunRecord, RunSpec, portable

STATE, LOCK = "state.json", "lock"


class StudyError(ValueError):
    """The directory holds something that does not go with what was asked; the message says what."""


@dataclass
class RunState:
    """How far an unfinished run is; survives the death of its processes."""

    started: str = ""
    attempts: int = 0
    trained: bool = False
    train_seconds: float = 0.0
    evaluate_seconds: float = 0.0

    @classmethod
    def read(cls, directory: Path) -> "RunState":
        file = directory / STATE
        return cls(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else cls()

    def write(self, directory: Path) -> None:
        write_json(directory / STATE, dataclasses.asdict(self))


class StudyStore:
    """The files of one study."""

    def __init__(self, directory: str | os.PathLike):
        self.directory = Path(directory).resolve()

    def lock(self) -> FileLock:
        """For the study's own files; a run's lock is `runner.held`, which its processes share."""
        self.directory.mkdir(parents=True, exist_ok=True)
        return FileLock(self.directory / LOCK)

    def run_directory(self, spec: RunSpec | BaselineSpec) -> Path:
        return self.directory / ("runs" if isinstance(spec, RunSpec) else "baselines") / spec.name

    def claim(self, name: str, specs: list[RunSpec], axes: Mapping[str, str]) -> None:
        """Make the directory this study's, or go on with the one in it.

        `axes` are the titles of its further axes. Raises as `check` does.
        """
        with self.lock():
            self.check(name, specs)
            values = {
                "name": name, "axes": dict(axes), "specs": [dataclasses.asdict(spec) for spec in specs],
            }  # fmt: skip
            write_json(self.directory / STUDY_FILE, values)

    def check(self, name: str, specs: list[RunSpec]) -> None:
        """Whether the directory may be this study's.

        A study may grow or shrink between two calls; a run that has begun keeps its specification.

        Raises:
            StudyError: it holds another study, or a run that was begun with another specification.
        """
        if (self.directory / STUDY_FILE).is_file():
            before, old_specs = self.read()
            if before != name:
                raise StudyError(
                    f"{self.directory} holds the study {before!r}, this one is {name!r}. Name another "
                    "`--output_dir`."
                )
            old = {spec.name: spec for spec in old_specs}
            for spec in specs:
                begun = self.run_directory(spec).exists()
                if begun and spec.name in old and (changed := changes(old[spec.name], spec)):
                    raise StudyError(
                        f"{self.run_directory(spec)} was begun with another specification:\n  "
                        + "\n  ".join(changed)
                        + "\nName another `--output_dir`, or delete that run's directory to run it anew."
                    )

    def read(self) -> tuple[str, list[RunSpec]]:
        """Name and specifications of the study in this directory."""
        file = self.directory / STUDY_FILE
        if not file.is_file():
            raise StudyError(f"{self.directory} holds no study: {STUDY_FILE} is missing.")
        values = json.loads(file.read_text(encoding="utf-8"))
        return values["name"], [RunSpec.from_dict(spec) for spec in values["specs"]]

    def record(self, spec: RunSpec) -> RunRecord | None:
        """The record of a finished run; `None` before.

        Raises:
            StudyError: the directory of that name holds a run of another specification.
        """
        file = self.run_directory(spec) / RUN_FILE
        if not file.is_file():
            return None
        record = RunRecord.from_dict(json.loads(file.read_text(encoding="utf-8")))
        if changed := changes(record.spec, spec):
            raise StudyError(f"{file} is of another run:\n  " + "\n  ".join(changed))
        return record

    def take(self, results: Path, name: str, specs: Sequence[RunSpec | BaselineSpec]) -> None:
        """Make finished what is kept in another study's directory, with no more than records and counts.

        Models and data may lie elsewhere than on the machine that ran it: of paths the last part counts.

        Raises:
            StudyError: it is kept of another study, or a run of that name has another specification there.
        """
        kept = StudyStore(results)
        if (kept.directory / STUDY_FILE).is_file() and (before := kept.read()[0]) != name:
            raise StudyError(f"`--results {results}` is of the study {before!r}, this one is {name!r}.")
        # Those that are finished here as well: what is kept of them stays, and must be of the same runs.
        records = {spec.name: kept.portable_record(spec) for spec in specs if isinstance(spec, RunSpec)}
        for spec in specs:
            if self.is_finished(spec) or not kept.has_counts(spec):
                continue
            if not isinstance(spec, RunSpec):
                kept.copy_counts(spec, self)
            elif record := records[spec.name]:
                kept.copy_counts(spec, self)
                record = dataclasses.replace(record, spec=spec)
                write_json(self.run_directory(spec) / RUN_FILE, record.to_dict())

    def portable_record(self, spec: RunSpec) -> RunRecord | None:
        """As `record`, of a run that may have been run on another machine."""
        file = self.run_directory(spec) / RUN_FILE
        if not file.is_file():
            return None
        record = RunRecord.from_dict(read_json(file))
        specs = (with_flags_that_change(portable(one)) for one in (record.spec, spec))
        if changed := differences(*specs):
            raise StudyError(f"{file} is of another run:\n  " + "\n  ".join(changed))
        return record

    def keep(self, results: Path, specs: Sequence[RunSpec | BaselineSpec]) -> None:
        """Put records and counts of what is finished into `results`, which is a study's directory then.

        Nothing there holds a text, a path of this machine or its name. What is there already stays; a run of
        an older version has no counts, and is left out.
        """
        kept = StudyStore(results)
        kept.directory.mkdir(parents=True, exist_ok=True)
        for spec in specs:
            if not self.is_finished(spec) or not self.has_counts(spec) or kept.is_finished_there(spec):
                continue
            self.copy_counts(spec, kept)
            if isinstance(spec, RunSpec) and (record := self.record(spec)):
                values = dataclasses.replace(record, host="").to_dict() | {"spec": portable(spec)}
                write_json(kept.run_directory(spec) / RUN_FILE, values)
        study = read_json(self.directory / STUDY_FILE)
        described = [portable(RunSpec.from_dict(spec)) for spec in study["specs"]]
        write_json(kept.directory / STUDY_FILE, study | {"specs": described})

    def is_finished_there(self, spec: RunSpec | BaselineSpec) -> bool:
        """Whether it lies here, whatever paths its specification names."""
        return (self.run_directory(spec) / (RUN_FILE if isinstance(spec, RunSpec) else COUNTS_FILE)).is_file()

    def counts_of(self, spec: RunSpec | BaselineSpec) -> list[Path]:
        """The table of each evaluation, there or not."""
        directory = self.run_directory(spec)
        if not isinstance(spec, RunSpec):
            return [directory / COUNTS_FILE]
        return [one.directory / COUNTS_FILE for one in evaluations(spec.name, spec.eval_flags, directory)]

    def has_counts(self, spec: RunSpec | BaselineSpec) -> bool:
        return all(file.is_file() for file in self.counts_of(spec))

    def copy_counts(self, spec: RunSpec | BaselineSpec, to: "StudyStore") -> None:
        for source, target in zip(self.counts_of(spec), to.counts_of(spec), strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(target, source.read_bytes())

    def write_index(self) -> None:
        """One row for each finished run; rows that are there already are kept."""
        with self.lock():  # another engine may be at it
            self._write_index()

    def _write_index(self) -> None:
        finished = sorted(record.parent for record in self.directory.glob(f"runs/*/{RUN_FILE}"))
        rows = run_rows(self.directory, finished)
        if rows:
            write_bytes(self.directory / INDEX_FILE, pd.DataFrame(rows).to_parquet(index=False))

    def is_finished(self, spec: RunSpec | BaselineSpec) -> bool:
        if isinstance(spec, RunSpec):
            return self.record(spec) is not None
        return any((self.run_directory(spec) / name).is_file() for name in (METRICS_FILE, COUNTS_FILE))


def changes(before: RunSpec, now: RunSpec) -> list[str]:
    return differences(*(with_flags_that_change(dataclasses.asdict(spec)) for spec in (before, now)))


def with_flags_that_change(spec: dict[str, Any]) -> dict[str, Any]:
    """A specification without flags at their defaults: a recipe that comes to state one changes no run."""
    known = {"train_flags": defaults_of(TRAIN_TYPES), "eval_flags": defaults_of(EVAL_TYPES)}
    return spec | {
        kind: {n: value for n, value in spec[kind].items() if n not in defaults or value != defaults[n]}
        for kind, defaults in known.items()
    }


@functools.cache
def defaults_of(types: tuple[Any, ...]) -> dict[str, Any]:
    """What each flag of these dataclasses is where it is not given."""
    fields = [entry for kind in types for entry in dataclasses.fields(kind) if entry.init]
    made = {e.name: e.default_factory() for e in fields if e.default_factory is not dataclasses.MISSING}
    return made | {e.name: e.default for e in fields if e.default is not dataclasses.MISSING}
