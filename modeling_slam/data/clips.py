"""What a source of speech hands over: a list or stream of clips, and a way to read the audio of one.

Sources differ in where transcripts and audio lie and in nothing else; selecting, checking and writing are
the same for all of them and stand in `selection.py` and `loading.py`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec

from modeling_slam.data.report import Drop
from modeling_slam.model.audio_io import AudioError


class DataError(ValueError):
    """The data named by the arguments cannot be used; the message says what to change."""


class MissingSplitError(DataError):
    """The dataset has splits, and none of that name; `available` are those it has."""

    def __init__(self, wanted: str, available: Sequence[str], where: object):
        super().__init__(
            f"{where} has no split {wanted!r}; it has {', '.join(available)}. Name one with --train_split, "
            "--validation_split or --test_split."
            if available
            else f"{where} has no split {wanted!r}, nor any other."
        )
        self.available = available


@dataclass(slots=True)
class Clip:
    """One utterance as its source lists it; a corpus has a million, so audio stays where it is.

    `locator` is what the source's `read_audio` needs to find the audio: a path, a row number, or the audio
    itself when it came through a stream. `stated_seconds` is the duration the corpus claims, if it does; it
    `may_be_part` of a recording where the corpus says when clips begin.
    `dataset` and `language` are those of the clip where several datasets are read as one.
    """

    id: str
    text: str
    speaker: str | None
    locator: Any
    stated_seconds: float | None = None
    may_be_part: bool = False
    dataset: str | None = None
    language: str | None = None


@dataclass
class Source:
    """One split of one corpus. `read_audio` returns {"bytes", "path"} for a clip, and is safe in threads.

    Rows that cannot be used stand between the clips as drops. `split` is None where a dataset has no splits,
    `language` where it is not known or each clip has its own, and `note` says in a line how its clips were
    come by.
    """

    kind: str
    split: str | None
    language: str | None
    clips: Iterable[Clip | Drop]
    read_audio: Callable[[Clip], dict[str, Any]]
    streaming: bool = False
    note: str | None = None


def read_place(place: str) -> dict[str, Any]:
    """What `read_audio` returns for a file on disk; one behind an address is fetched.

    Raises:
        AudioError: it cannot be fetched.
    """
    if "://" not in place:
        return {"bytes": None, "path": place}
    try:
        with fsspec.open(place, "rb") as file:
            return {"bytes": file.read(), "path": place}
    except Exception as error:  # each file system has its own, and a clip that is gone ends no run
        raise AudioError(
            f"{place}: cannot be fetched ({error or type(error).__name__}). Check address and network.",
            reason="unreachable",
        ) from error
