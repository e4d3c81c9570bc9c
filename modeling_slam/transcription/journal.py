"""What was heard so far: `transcripts.jsonl` in the output directory, a line for each recording.

It makes the command resumable: a recording whose line has the same settings, and which has not changed since,
is not heard again; files that are missing are written from the line, whatever their format. A line that is
damaged is left out, and its recording heard again.
"""

import dataclasses
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from modeling_slam.common.files import naming_what_has_no_room, write_text
from modeling_slam.transcription.formats import Transcript, json_text
from modeling_slam.transcription.recordings import Recording
from modeling_slam.transcription.subtitles import Word

FILE = "transcripts.jsonl"


@dataclass(frozen=True)
class Heard:
    """One line: what came of one recording. Of one that could not be read `error` says why."""

    name: str
    file: str
    stamp: list[int]  # size in bytes and time of change of the file, just before it was read
    settings: dict[str, Any]
    seconds: float = 0.0
    text: str = ""
    words: list[Word] | None = None
    error: str | None = None
    place: str = ""  # `file` without links, from the root
    at: float = 0.0  # seconds since 1970 when it was heard; files that are newer may be corrected by hand

    @classmethod
    def of(cls, recording: Recording, stamp: list[int], settings: dict[str, Any], **values: Any) -> Self:
        place = os.path.realpath(recording.path)
        file = str(recording.path)
        return cls(recording.name, file, stamp, settings, place=place, at=time.time(), **values)

    def holds_for(self, recording: Recording, settings: dict[str, Any]) -> bool:
        """Whether hearing the recording would give the same again."""
        return self.error is None and self.settings == settings and self.stamp == stamp(recording.path)

    def is_elsewhere(self, recording: Recording) -> bool:
        """Whether this is of another recording: from another place, unless it has only moved."""
        has_moved = self.stamp == stamp(recording.path) and not Path(self.place).exists()
        return bool(self.place) and self.place != os.path.realpath(recording.path) and not has_moved

    def transcript(self) -> Transcript:
        return Transcript(self.file, self.seconds, self.settings.get("language"), self.text, self.words)


def stamp(path: Path) -> list[int]:
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


class Journal:
    """The lines of an output directory, by the names of their recordings; the last line of a name holds."""

    def __init__(self, directory: Path):
        self.path = directory / FILE
        self.lines: dict[str, Heard] = {}
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8", errors="replace").split("\n"):
                try:
                    heard = Heard(**json.loads(line))
                except (ValueError, TypeError):
                    continue
                self.lines[heard.name] = heard

    def begin(self) -> None:
        """Make the file one of whole lines, each name once."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, "".join(as_line(heard) for heard in self.lines.values()))

    def add(self, heard: Heard) -> None:
        self.lines[heard.name] = heard
        with naming_what_has_no_room(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(as_line(heard))
            file.flush()
            os.fsync(file.fileno())


def as_line(heard: Heard) -> str:
    return json_text(dataclasses.asdict(heard)) + "\n"
