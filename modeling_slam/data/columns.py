"""What columns are called, and what their values mean: the one place that knows.

A flag names a column exactly. Without it the source's own name comes first (`file_name` of an AudioFolder,
`sentence` of Common Voice), then the flag's default, then the one column with a usual name.
"""

import datetime
import decimal
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modeling_slam.data.arguments import OneDataset
from modeling_slam.data.clips import Clip, DataError
from modeling_slam.data.report import Drop
from modeling_slam.data.tables.rows import UNDECODABLE, BadRow, Row, Table, damage_in, shown

USUAL_NAMES = {
    "audio": (
        "audio", "file_name", "audio_filepath", "audio_file_path", "audio_path", "audio_file",
        "audio_filename", "audio_file_name", "audio_url", "filepath", "file_path", "filename", "file", "path",
        "wav", "wav_path", "wav_file", "wav_filename", "recording", "clip", "speech", "sound", "url",
    ),
    "text": (
        "text", "sentence", "transcript", "transcription", "transcripts", "transcriptions", "orthographic",
        "words", "utterance", "reference", "ref_text", "target_text",
    ),
    "speaker": ("speaker", "speaker_id", "client_id", "spk", "spk_id", "speakerid", "speaker_name"),
    "duration": ("duration",),
    "start": ("offset", "start", "start_time", "start_sec", "start_seconds", "begin", "begin_time", "onset"),
    "end": ("end", "end_time", "end_sec", "end_seconds", "stop", "stop_time"),
    "split": ("split", "data_split", "subset", "partition"),
}  # fmt: skip
DEFAULTS = {"audio": "audio", "text": "text"}
# A table in another encoding is no table with a few bad rows: more than so many, or most, end the run.
NOT_UTF8 = "not UTF-8"
AUDIO_SUFFIXES = {
    ".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".mp4", ".webm", ".mka", ".mkv", ".wma",
    ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64", ".sph", ".amr",
}  # fmt: skip
AUDIO_NAME = re.compile(rf"({'|'.join(map(re.escape, sorted(AUDIO_SUFFIXES)))})\s*$", re.IGNORECASE)
MOST_UNDECODABLE, MOST_UNDECODABLE_SHARE = 10, 0.1


@dataclass(frozen=True)
class Columns:
    """The columns of a table, by what they hold; `start` and `end` are of a clip in its recording."""

    audio: str
    text: str
    id: str | None
    speaker: str | None
    duration: str | None = None
    start: str | None = None
    end: str | None = None
    split: str | None = None


class BadValueError(ValueError):
    """A value that is not what its column is for; the message goes on after the name of the row."""

    def __init__(self, message: str, reason: str = "bad row"):
        super().__init__(message)
        self.reason = reason


def find_columns(
    arguments: OneDataset, available: Iterable[str], where: object, own: Mapping[str, str] | None = None
) -> Columns:
    """The columns to read of those available; `own` are the names that the kind of source uses itself.

    Raises:
        DataError: one is not there, or several could be meant.
    """
    available, own = list(available), own or {}

    def find(kind: str) -> str | None:
        flag, default = getattr(arguments, f"{kind}_column"), DEFAULTS.get(kind)
        if flag not in (None, default) and flag in available:
            return flag
        if own.get(kind) in available:
            return own[kind]
        if flag in available:
            return flag
        usual = usual_columns(kind, available) if flag == default else []
        if len(usual) == 1 or (usual and kind == "speaker"):
            return usual[0]
        if flag is None:
            return None
        there = ", ".join(available).encode("utf-8", "backslashreplace").decode()
        if usual:
            raise DataError(
                f"{where} has {' and '.join(usual)}, each of which may be the {kind}; say which with "
                f"--{kind}_column. Its columns are {there}."
            )
        wanted = own.get(kind, flag) if flag == default else flag
        raise DataError(f"{where} has no column {wanted!r} (--{kind}_column); it has {there}.")

    def first(kind: str) -> str | None:
        return next(iter(usual_columns(kind, available)), None)

    return Columns(
        audio=str(find("audio")),
        text=str(find("text")),
        id=find("id"),
        speaker=find("speaker"),
        duration=first("duration"),
        start=first("start"),
        end=first("end"),
        split=first("split"),
    )


def usual_columns(kind: str, available: Iterable[str]) -> list[str]:
    """The columns of a usual name, in the order of those names; `Speaker ID` is `speaker_id`."""
    names = {name: re.sub(r"[\s-]+", "_", name.strip().lower()) for name in available}
    return [name for usual in USUAL_NAMES.get(kind, ()) for name in available if names[name] == usual]


def clips_of(table: Table, columns: Columns, where: str) -> Iterator[Clip | Drop]:
    """A clip for each row, with the audio as the table names it for id and locator; a drop for each bad one.

    `where` is the table's name in the report.

    Raises:
        DataError: the table is not in the encoding that it seems to be in.
    """
    count = 0
    undecodable = []
    for row in _without_rests(table, columns):
        count += 1
        try:
            clip = _clip(row, columns)
        except BadValueError as error:
            detail = f"{table.path}, {table.unit} {row.line}: {error}."
            if error.reason == NOT_UTF8:
                undecodable.append(detail)
            clip = Drop(f"{where} {table.unit} {row.line}", error.reason, detail)
        yield clip
    bad = len(undecodable)
    if bad > max(MOST_UNDECODABLE, MOST_UNDECODABLE_SHARE * count) or bad > count / 2:
        raise DataError(f"{bad:,} of {count:,} rows are in another encoding than UTF-8. {undecodable[0]}")


def _without_rests(table: Table, columns: Columns) -> Iterator[Row | BadRow]:
    """The rows; one that a line break inside its text cut in two is a single bad row.

    The text then is the last value of the first part, and its rest the first of the second. A line that names
    audio is a row of its own, however short, and a single word is no rest beside a row that looks whole.
    """
    place = table.columns.index(columns.text)
    parts = (place + 1, len(table.columns) - place)

    def are_one(first: Row, second: Row) -> bool:
        if not (first.is_cut or second.is_cut) or (len(first.values), len(second.values)) != parts:
            return False
        if all(AUDIO_NAME.search(str(row.values.get(columns.audio))) for row in (first, second)):
            return False
        alone = [next(iter(row.values.values())) for row in (first, second) if len(row.values) == 1]
        return all(" " in value.strip() and not damage_in(value) for value in alone)

    before = None
    for row in table.rows:
        if isinstance(before, Row) and isinstance(row, Row) and are_one(before, row):
            name = before.values.get(columns.audio) or row.values.get(columns.audio)
            before = BadRow(
                before.line,
                f"of {shown(str(name))} goes on in line {row.line}: a line break inside its text. Put it on "
                "one line, or (CSV) in double quotes",
            )
            continue
        if before is not None:
            yield before
        before = row
    if before is not None:
        yield before


def _clip(row: Row | BadRow, columns: Columns) -> Clip:
    if isinstance(row, BadRow):
        raise BadValueError(row.problem)
    values = row.values
    last = next(reversed(values), None)
    # What lost its end may have lost a part of the text as well.
    if row.is_cut and (columns.text not in values or columns.audio not in values or last == columns.text):
        raise BadValueError(
            f"of {shown(str(values.get(columns.audio)))} ends after {len(values)} values, the last of them "
            f"{shown(str(values.get(last)))}. Give each column a value, even if it is empty"
        )
    audio = values.get(columns.audio)
    if isinstance(audio, dict) and isinstance(audio.get("path"), str):  # as `datasets` writes audio in JSON
        audio = audio["path"]
    name = plain_text(audio, columns.audio).strip()
    if not name:
        raise BadValueError(f"names no audio in {columns.audio!r}")
    start, end, stated = (
        positive_number(values.get(column)) if column else None
        for column in (columns.start, columns.end, columns.duration)
    )
    if start is not None and (columns.start == "offset" or (end is None and stated is None)):
        raise BadValueError(f"begins {start:g} s into a longer recording, {shown(name)}. Cut it out")
    if end is not None and columns.start and end > (start or 0):
        stated = end - (start or 0)
    text = plain_text(values.get(columns.text), columns.text)
    speaker = plain_text(values.get(columns.speaker), columns.speaker).strip() if columns.speaker else ""
    clip_id = plain_text(values.get(columns.id), columns.id).strip() if columns.id else name
    if not clip_id:
        raise BadValueError(f"has no id in {columns.id!r}")
    return Clip(
        id=clip_id,
        text=text,
        speaker=sys.intern(speaker) or None,  # Common Voice: 128 letters each, a thousand times over.
        locator=name,
        stated_seconds=stated,
        may_be_part=columns.start is not None,
    )


def plain_text(value: Any, column: str | None) -> str:
    """A value as it is written; nothing for none.

    Raises:
        ValueError: it is a list or an object, or damaged.
    """
    if value is None or value != value:  # NaN, which pandas has for nothing
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # where a number is missing, pandas makes 5.0 of the others
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="surrogateescape")
    if isinstance(value, (int, float, decimal.Decimal, datetime.date, datetime.time)):
        return str(value)
    if not isinstance(value, str):
        kind = {list: "a list", tuple: "a list", dict: "an object"}.get(
            type(value), f"{type(value).__name__}"
        )
        raise BadValueError(f"has {kind} in {column!r} ({shown(str(value))}); expected text or a number")
    if damage := damage_in(value):
        raise BadValueError(f"{column!r} {damage}", NOT_UTF8 if UNDECODABLE.search(value) else "bad row")
    return value


def positive_number(value: Any) -> float | None:
    """A number of seconds above 0; None for anything else, which says nothing."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return None
    return seconds if 0 < seconds < float("inf") else None
