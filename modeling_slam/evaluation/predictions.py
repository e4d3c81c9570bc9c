"""Predictions on disk: what was decoded, under which settings, and safe to interrupt.

While a run decodes, each process appends to its own `predictions.part-N.jsonl`, batch by batch, so a killed
run loses at most the batch in hand. Only a complete set becomes `predictions.jsonl`, in dataset order and in
one step: whoever finds that file may score it. `predictions.settings.json` is written first and keeps a
resumed run from mixing two models or two settings in one file. One evaluation at a time is at a directory:
a second one waits, and finds everything done. To add a field, add it to `Prediction`.

A line that is no prediction of this run (damaged, of another type, twice, of another dataset) is an error
that names file and line, never left out: a score of fewer clips would look like one of all. Once it is
deleted, `eval.py` decodes its clip again.
"""

import codecs
import contextlib
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_type_hints

from filelock import FileLock, Timeout

from modeling_slam.common.differences import differences
from modeling_slam.common.files import naming_what_has_no_room, read_json, write_json, write_text

logger = logging.getLogger("slam-asr")

PREDICTIONS, PARTS = "predictions.jsonl", "predictions.part-*.jsonl"
# What a line holds of its clip -> where a dataset has it.
OF_THE_CLIP = {"reference": "text", "raw_reference": "raw_text", "duration": "duration"}
BEYOND_ANY_NUMBER = 1e12
HALF_OF_A_PAIR = re.compile("[\ud800-\udfff]")  # a surrogate: JSON may hold it, UTF-8 may not


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
    dataset: str | None = None  # the name of its dataset; not written where only one was read
    hotwords: list | None = None  # what the prompt told to expect; not written where no hotwords were given


class SettingsError(ValueError):
    """The output directory holds predictions made with other settings."""


def to_lines(predictions: Iterable[Prediction]) -> str:
    return "".join(json.dumps(fields_of(row), ensure_ascii=False) + "\n" for row in predictions)


def fields_of(row: Prediction) -> dict[str, Any]:
    return {name: value for name, value in asdict(row).items() if name not in OPTIONAL or value is not None}


FIELDS = get_type_hints(Prediction)
OPTIONAL = {"dataset", "hotwords"}
DECODE_AGAIN = "Delete that line and run the same `eval.py` command again: it decodes what is missing."


def read_predictions(path: str | os.PathLike, advice: str = DECODE_AGAIN) -> list[Prediction]:
    """All lines of one file.

    Raises:
        ValueError: a line is no prediction, or a clip or an index comes twice; it ends with `advice`.
    """
    return [row for _, row in numbered_rows(path, advice)]


def numbered_rows(path: str | os.PathLike, advice: str = DECODE_AGAIN) -> Iterator[tuple[int, Prediction]]:
    """(line, what it holds) of one file, as `read_predictions` reads it; empty lines hold nothing.

    The last line of a part counts only with its line end: without it, a kill has torn it.
    """
    path = Path(path)
    seen: dict[str, dict[str | int, int]] = {"clip": {}, "index": {}}  # of each: the line that it is in
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError(f"{path} is UTF-16 text from line 1 on, as some editors save it. Save it as UTF-8.")
    lines = content.split(b"\n")
    if path.match(PARTS):
        lines.pop()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}, is no JSON ({error}). {advice}") from error
        if wrong := fault(values):
            raise ValueError(f"{path}, line {number}: {wrong}. {advice}")
        row = Prediction(**values)
        for name, key in (("clip", row.id), ("index", row.index)):
            if (earlier := seen[name].setdefault(key, number)) != number:
                raise ValueError(
                    f"{path}, line {number}, has the {name} {key!r} of line {earlier} again. {advice}"
                )
        yield number, row


def fault(values: Any) -> str:
    """What keeps the content of a line from being a prediction; empty where nothing does."""
    if not isinstance(values, dict):
        return f"expected an object with the fields of a prediction, got {shortened(values)}"
    missing = sorted(FIELDS.keys() - OPTIONAL - values.keys())
    foreign = sorted(values.keys() - FIELDS.keys())
    if missing or foreign:
        parts = [f"{name} {', '.join(keys)}" for name, keys in (("no", missing), ("also", foreign)) if keys]
        return f"expected the fields of a prediction, got {' and '.join(parts)}"
    for name, kind in FIELDS.items():
        if not fits(values.get(name), kind):
            expected = getattr(kind, "__name__", str(kind))
            return f"`{name}` must be {expected}, got {shortened(values[name])}"
    return ""


def fits(value: Any, kind: Any) -> bool:
    """Whether a value of a line can be that of a field: numbers are 0 or more and no giants, text is text."""
    if isinstance(value, bool):
        return False
    if isinstance(value, list):
        return isinstance(value, kind) and all(fits(one, str) for one in value)
    if kind in (int, float):
        return isinstance(value, (int, kind)) and 0 <= value < BEYOND_ANY_NUMBER
    return isinstance(value, kind) and not (value and HALF_OF_A_PAIR.search(value))


def shortened(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:56]} ..."


class PredictionStore:
    """The prediction files of one output directory.

    Every process opens the same store; `start` and `finish` are for the main process alone.
    """

    def __init__(self, output_dir: str | os.PathLike):
        self.directory = Path(output_dir)
        self.path = self.directory / PREDICTIONS
        self.settings_path = self.directory / "predictions.settings.json"
        # One object a process, so that a process never waits for itself.
        self._lock = FileLock(self.directory / ".predictions.lock", is_singleton=True)

    def start(self, settings: Mapping[str, Any]) -> None:
        """Claim the directory for `settings` until `finish`, or the end of the process.

        Another process that has claimed it for the same settings is waited for.

        Raises:
            SettingsError: the directory holds predictions of other settings, or of unknown ones.
        """
        settings = json.loads(json.dumps(settings))  # as they will be read back
        self.check_settings(settings)
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            logger.warning("Another process decodes into %s; waiting for its end.", self.directory)
            self._lock.acquire()
        try:
            self.check_settings(settings)  # what another process has begun meanwhile
            if self.read_settings() is None:
                write_json(self.settings_path, settings)
        except BaseException:
            self._release()
            raise

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Whether the directory may be claimed for these; raises as `start` does."""
        # Looked for first: who begins meanwhile writes the settings before any prediction.
        has_predictions = bool(self._files())
        earlier = self.read_settings()
        if earlier is not None:
            if changed := differences(earlier, settings):
                raise SettingsError(
                    f"{self.directory} holds predictions made with other settings: {'; '.join(changed)}. Use "
                    "another `--output_dir`, or delete this one to decode again."
                )
        elif has_predictions:
            raise SettingsError(
                f"{self.settings_path} is missing or damaged, so the predictions beside it cannot be told "
                f"from those of another model. Delete {self.directory / 'predictions.*'} to decode again, or "
                "use another `--output_dir`."
            )

    def _release(self) -> None:
        """Let the next process in; the file goes first, while nobody else can hold it."""
        with contextlib.suppress(OSError):  # Windows removes no open file
            Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release(force=True)

    def read_settings(self) -> dict[str, Any] | None:
        """What the predictions were made with; None where that is not known."""
        try:
            settings = read_json(self.settings_path)
        except (FileNotFoundError, ValueError):
            return None
        return settings if isinstance(settings, dict) else None

    def check(self, clips: Sequence[Mapping[str, Any]]) -> None:
        """Check what was decoded so far against the dataset's rows, in order: `id` and `OF_THE_CLIP`.

        Raises:
            ValueError: a line is damaged, comes twice or belongs to another dataset.
        """
        places = {clip["id"]: place for place, clip in enumerate(clips)}
        for path in self._files():
            for number, row in numbered_rows(path):
                place = places.get(row.id)
                if place is None:
                    wrong = f"{row.id!r} is no clip of this dataset"
                elif place != row.index:
                    wrong = f"{row.id!r} has the index {row.index}, and is number {place} of this dataset"
                else:
                    others = [
                        name
                        for name, column in OF_THE_CLIP.items()
                        if vars(row)[name] != clips[place][column]
                    ]
                    if not others:
                        continue
                    wrong = f"{row.id!r} has another {others[0]} than the dataset"
                raise ValueError(f"{path}, line {number}: {wrong}. {DECODE_AGAIN}")

    def read(self) -> list[Prediction]:
        """Everything decoded so far, in dataset order, each utterance once."""
        rows = {}
        for path in self._files():
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
        self._release()
        return rows

    def _files(self) -> list[Path]:
        return [path for path in (self.path, *self._parts()) if path.exists()]

    def _parts(self) -> list[Path]:
        return sorted(self.directory.glob(PARTS))


class PartFile:
    """Append-only lines of one process; opening it cuts off a line torn by an earlier kill."""

    def __init__(self, path: Path):
        self._path = path
        self._file = path.open("ab+", buffering=0)
        self._file.seek(0)
        whole, newline, _torn = self._file.read().rpartition(b"\n")
        self._file.truncate(len(whole) + len(newline))

    def append(self, predictions: Iterable[Prediction]) -> None:
        """Write the lines of a batch, all or none.

        Raises:
            DiskFullError: there is no room for them.
        """
        lines = to_lines(predictions).encode("utf-8")
        before = self._file.seek(0, os.SEEK_END)
        with naming_what_has_no_room(self._path, len(lines), before):
            try:
                written = 0
                while written < len(lines):
                    written += self._file.write(lines[written:])
            except OSError:
                self._file.truncate(before)
                raise

    def __enter__(self) -> "PartFile":
        return self

    def __exit__(self, *_exception) -> None:
        self._file.close()
