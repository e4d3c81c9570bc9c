"""Predictions on disk: what was decoded, under which settings, and safe to interrupt.

While a run decodes, each process appends to its own `predictions.part-N.jsonl`, batch by batch, so a killed
run loses at most the batch in hand. Only a complete set becomes `predictions.jsonl`, in dataset order and in
one step: whoever finds that file may score it. `predictions.settings.json` is written first and keeps a
resumed run from mixing two models or two settings in one file. To add a field, add it to `Prediction`.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from modeling_slam.common.differences import differences
from modeling_slam.common.files import read_json, write_json, write_text


@dataclass(frozen=True)
class Prediction:
    """One line of predictions.jsonl: one utterance, decoded. Scoring needs nothing else."""

    id: str
    index: int  # position in dataset order
    reference: str  # normalised, as scored
    prediction: str  # normalised, as scored
    raw_reference: str
    raw_prediction: str  # as decoded
    duration: float  # seconds of audio
    seconds: float  # wall time of the batch divided by its clips, reading and features included
    tokens: int  # generated tokens before end-of-text
    speaker: str | None
    language: str | None


class SettingsError(ValueError):
    """The output directory holds predictions made with other settings."""


def to_lines(predictions: Iterable[Prediction]) -> str:
    return "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in predictions)


def read_predictions(path: str | os.PathLike) -> list[Prediction]:
    """All whole lines of one file. A last line without its line end was torn by a kill and is left out."""
    *lines, _torn = Path(path).read_bytes().split(b"\n")
    names = {field.name for field in fields(Prediction)}
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number}, is not JSON ({error}). Delete the file and decode again."
            ) from error
        if not isinstance(values, dict) or values.keys() != names:
            found = sorted(values) if isinstance(values, dict) else values
            raise ValueError(f"{path}, line {number}: expected the fields {sorted(names)}, got {found}.")
        rows.append(Prediction(**values))
    return rows


class PredictionStore:
    """The prediction files of one output directory.

    Every process opens the same store; `start` and `finish` are for the main process alone.
    """

    def __init__(self, output_dir: str | os.PathLike):
        self.directory = Path(output_dir)
        self.path = self.directory / "predictions.jsonl"
        self.settings_path = self.directory / "predictions.settings.json"

    def start(self, settings: Mapping[str, Any]) -> None:
        """Claim the directory for `settings`, or raise `SettingsError` if it holds other ones."""
        settings = json.loads(json.dumps(settings))  # as they will be read back
        if self.settings_path.exists():
            earlier = read_json(self.settings_path)
            if changed := differences(earlier, settings):
                raise SettingsError(
                    f"{self.directory} holds predictions made with other settings: {'; '.join(changed)}. Use "
                    "another `--output_dir`, or delete this one to decode again."
                )
            return
        if self.path.exists() or self._parts():
            raise SettingsError(
                f"{self.directory} holds predictions but no {self.settings_path.name}: they cannot be told "
                "from those of another model. Use another `--output_dir`."
            )
        self.directory.mkdir(parents=True, exist_ok=True)
        write_json(self.settings_path, settings)

    def read(self) -> list[Prediction]:
        """Everything decoded so far, in dataset order, each utterance once."""
        rows = {}
        for path in (self.path, *self._parts()):
            if path.exists():
                rows.update((row.id, row) for row in read_predictions(path))
        return sorted(rows.values(), key=lambda row: row.index)

    def open_part(self, process_index: int) -> "PartFile":
        return PartFile(self.directory / f"predictions.part-{process_index}.jsonl")

    def finish(self, expected: int) -> list[Prediction]:
        """Merge the parts into predictions.jsonl, which must then hold `expected` utterances."""
        rows = self.read()
        if [row.index for row in rows] != list(range(expected)):
            raise RuntimeError(
                f"{self.directory} holds {len(rows)} predictions where the dataset has {expected} "
                "utterances. Run the same command again to decode the missing ones."
            )
        write_text(self.path, to_lines(rows))
        for part in self._parts():
            part.unlink()
        return rows

    def _parts(self) -> list[Path]:
        return sorted(self.directory.glob("predictions.part-*.jsonl"))


class PartFile:
    """Append-only lines of one process; opening it cuts off a line torn by an earlier kill."""

    def __init__(self, path: Path):
        self._file = path.open("ab+")
        self._file.seek(0)
        whole, newline, _torn = self._file.read().rpartition(b"\n")
        self._file.truncate(len(whole) + len(newline))

    def append(self, predictions: Iterable[Prediction]) -> None:
        self._file.write(to_lines(predictions).encode("utf-8"))
        self._file.flush()

    def __enter__(self) -> "PartFile":
        return self

    def __exit__(self, *_exception) -> None:
        self._file.close()
