"""What a source of speech hands over: a list or stream of clips, and a way to read the audio of one.

Sources differ in where transcripts and audio lie and in nothing else; selecting, checking and writing are
the same for all of them and stand in `selection.py` and `loading.py`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class DataError(ValueError):
    """The data named by the arguments cannot be used; the message says what to change."""


@dataclass(slots=True)
class Clip:
    """One utterance as its source lists it; a corpus has a million, so audio stays where it is.

    `locator` is what the source's `read_audio` needs to find the audio: a path, a row number, or the audio
    itself when it came through a stream. `stated_seconds` is the duration the corpus claims, if it does.
    """

    id: str
    text: str
    speaker: str | None
    locator: Any
    stated_seconds: float | None = None


@dataclass
class Source:
    """One split of one corpus. `read_audio` returns {"bytes", "path"} for a clip, and is safe in threads."""

    kind: str
    split: str
    language: str | None
    clips: Iterable[Clip]
    read_audio: Callable[[Clip], dict[str, Any]]
    streaming: bool = False


def read_path(path: Path) -> dict[str, Any]:
    """What `read_audio` returns for a file on disk."""
    return {"bytes": None, "path": str(path)}


def pick_split(wanted: str, available: Iterable[str], where: object) -> str:
    """Return `wanted`, or raise with the splits there are."""
    available = sorted(available)
    if wanted not in available:
        raise DataError(
            f"{where} has no split {wanted!r}; it has {', '.join(available) or 'none'}. "
            "Name one with --train_split, --validation_split or --test_split."
        )
    return wanted


def require_columns(wanted: dict[str, str | None], available: Iterable[str], where: object) -> None:
    """Raise unless every column named in `wanted` (argument -> column) is there."""
    available = list(available)
    missing = {argument: column for argument, column in wanted.items() if column and column not in available}
    if missing:
        named = ", ".join(f"{column!r} (--{argument})" for argument, column in missing.items())
        raise DataError(f"{where} has no column {named}; it has {', '.join(available)}.")
