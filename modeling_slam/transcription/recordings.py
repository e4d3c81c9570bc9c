"""Recordings: found in files and folders, named for their output, read whole before the model hears them."""

import math
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from modeling_slam.common.files import files_below
from modeling_slam.data.columns import AUDIO_SUFFIXES
from modeling_slam.model.audio_io import read_bytes, stream_audio
from modeling_slam.model.audio_lengths import SAMPLING_RATE
from modeling_slam.model.sound_files import FORMATS

# The last ones are not read, which is told of each and not passed over in silence.
VIDEO_SUFFIXES = {
    ".mov", ".m4v", ".m4b", ".3gp", ".wmv", ".asf", ".ogv", ".avi", ".flv", ".mpg", ".mpeg", ".ts",
}  # fmt: skip
SUFFIXES = AUDIO_SUFFIXES | VIDEO_SUFFIXES
HELD_SECONDS = 600.0  # 38 MB of samples: what is longer is decoded a second time, piece by piece


@dataclass(frozen=True)
class Recording:
    path: Path
    name: str  # of its files in the output directory, without a suffix; folders by `/`


def find_recordings(places: Iterable[str], recursive: bool) -> list[Recording]:
    """The recordings at some places, in order, each once.

    Of a folder those with the suffix of a format, of folders in it only if `recursive`; their places in it
    stay. Two that differ in their suffix alone keep it.

    Raises:
        ValueError: a place is not there or a folder holds none, or two files would have the same name.
    """
    found: dict[str, tuple[Path, Path]] = {}
    for place in map(Path, places):
        if place.is_dir():
            files = files_below(place) if recursive else sorted(filter(Path.is_file, place.iterdir()))
            inside = [path for path in files if path.suffix.lower() in SUFFIXES and path.name[0] != "."]
            if not inside:
                hint = "" if recursive else " `--recursive` looks into the folders in it."
                raise ValueError(f"The folder {place} holds no recording.{hint}")
            pairs = [(path, path.relative_to(place)) for path in inside]
        elif place.exists():
            pairs = [(place, Path(place.name))]
        else:
            raise ValueError(f"There is no file or folder {place}.")
        for path, name in pairs:
            found.setdefault(os.path.realpath(path), (path, name))  # which a link to itself has as well
    return named(list(found.values()))


def named(pairs: list[tuple[Path, Path]]) -> list[Recording]:
    stems = [name.with_suffix("").as_posix() for _, name in pairs]
    shared = {stem for stem, files in Counter(stems).items() if files > 1}
    names = [
        name.as_posix() if stem in shared else stem for stem, (_, name) in zip(stems, pairs, strict=True)
    ]
    first: dict[str, Path] = {}
    for name, (path, _) in zip(names, pairs, strict=True):
        if name in first:
            raise ValueError(
                f"{first[name]} and {path} have one name, so one would be written over the other. Name the "
                "folder that holds both, with `--recursive`, or transcribe them one after the other into "
                "different directories (`--output_dir`)."
            )
        first[name] = path
    return [Recording(path, name) for name, (path, _) in zip(names, pairs, strict=True)]


class TooLongError(ValueError):
    """A recording is longer than what is taken."""


def read(recording: Any, most_seconds: float = math.inf) -> tuple[Any, float]:
    """A recording as the pipeline takes it, its samples or itself, and its seconds; all of it was read.

    Of a path its bytes come back: the file may change or vanish from then on.

    Raises:
        AudioError: it cannot be read, or not to its end. TooLongError: it is longer than `most_seconds`.
    """
    if isinstance(recording, Path):
        recording = {"path": recording, "bytes": read_bytes(recording)}
    blocks: list[np.ndarray] = []
    count = 0
    for block in stream_audio(recording):
        count += len(block)
        if count > most_seconds * SAMPLING_RATE:
            raise TooLongError(f"The recording is longer than {most_seconds:g} s.")
        if count <= HELD_SECONDS * SAMPLING_RATE:
            blocks.append(block)
        else:
            blocks.clear()
    return np.concatenate(blocks) if blocks else recording, count / SAMPLING_RATE


def stated_seconds(path: Path) -> float:
    """How long a recording says it is, for the time that is left; 0 if it does not say."""
    try:
        with av.open(path, metadata_errors="replace", options={"format_whitelist": FORMATS}) as container:
            return (container.duration or 0) / av.time_base
    except (av.error.FFmpegError, OSError):
        return 0.0
