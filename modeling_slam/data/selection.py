"""Selection: which clips of a source a run uses, and why the others are not.

Each clip that is used was decoded once here, so training never meets an unreadable one and hours are those
of the decoded audio. With a limit the clips are shuffled by seed and checked in that order until the next
one would exceed it: a dropped clip is replaced by the next, and a corpus of a million clips is not decoded
for a subset of a hundred hours.
"""

import functools
import itertools
import os
import random
from collections.abc import Callable, Iterable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tqdm import tqdm

from modeling_slam.data.clips import Clip, Source
from modeling_slam.data.report import DataReport, Drop
from modeling_slam.model.audio_io import AudioError, load_audio
from modeling_slam.model.audio_lengths import SAMPLING_RATE

CHUNK_CLIPS = 64  # Clips decoded at a time by the threads; at most this many are decoded past a limit.
# Corpora measure durations with other tools than ours: a difference up to this is not a loss of audio.
STATED_TOLERANCE_SECONDS = 0.25
OTHER_UNIT = 100  # A duration that many times the sound counts milliseconds or samples, not what was lost.


@dataclass(frozen=True)
class Limits:
    """Bounds on one clip and on all of them; None is no bound, and `seed` picks where there is one."""

    min_seconds: float
    max_seconds: float
    max_hours: float | None = None
    max_clips: int | None = None
    seed: int = 42

    @property
    def is_subset(self) -> bool:
        return self.max_hours is not None or self.max_clips is not None


@dataclass(frozen=True)
class KeptClip:
    """A clip that passed, with its place in the source, its normalised text and its decoded duration."""

    position: int
    clip: Clip
    text: str
    seconds: float


def select_clips(
    source: Source, limits: Limits, normalize: Callable[[Clip], str], report: DataReport
) -> Iterator[KeptClip]:
    """Yield the clips to use and enter all others in `report`.

    A corpus that is all there gives its clips in its own order; a stream is read no further than needed and
    so gives its first clips instead of random ones.
    """
    clips = enumerate(_counted(source.clips, report))
    if source.streaming:
        yield from _within_limits(
            source, _with_usable_text(clips, normalize, report), limits, report, total=None
        )
        return
    clips = list(clips)
    if limits.is_subset:
        # Sorted first, so that the choice does not depend on the order of a listing.
        clips.sort(key=lambda numbered: numbered[1].id)
        random.Random(limits.seed).shuffle(clips)
    total = None if limits.is_subset else len(clips)
    kept = _within_limits(source, _with_usable_text(clips, normalize, report), limits, report, total)
    yield from sorted(kept, key=lambda kept_clip: kept_clip.position)


def _counted(rows: Iterable[Clip | Drop], report: DataReport) -> Iterator[Clip]:
    """The clips of the rows; those that are none stand in the report."""
    for row in rows:
        report.read_clips += 1
        if isinstance(row, Clip):
            yield row
        else:
            report.dropped.append(row)


def _with_usable_text(
    clips: Iterable[tuple[int, Clip]], normalize: Callable[[Clip], str], report: DataReport
) -> Iterator[tuple[int, Clip, str]]:
    """(position, clip, normalised text) of the clips that have a text."""
    for position, clip in clips:
        if text := normalize(clip):
            yield position, clip, text
        else:
            report.dropped.append(Drop(clip.id, "empty transcript", f"after normalisation of {clip.text!r}"))


def _within_limits(
    source: Source,
    candidates: Iterable[tuple[int, Clip, str]],
    limits: Limits,
    report: DataReport,
    total: int | None,
) -> Iterator[KeptClip]:
    """Decode candidates in order and yield those that pass, until the next would exceed the limits.

    An id belongs to the first clip that passes: one that is dropped does not keep another from its place.
    """
    kept_ids = set()
    max_seconds = float("inf") if limits.max_hours is None else limits.max_hours * 3600
    max_clips = float("inf") if limits.max_clips is None else limits.max_clips
    check = functools.partial(_check, source, limits, kept_ids)
    candidates = iter(candidates)
    threads = min(8, os.cpu_count() or 1)
    hide_bar = os.environ.get("LOCAL_RANK", "0") != "0" or None  # None: shown on a terminal only.
    with (
        ThreadPoolExecutor(threads) as pool,
        tqdm(desc=f"checking {source.split}", total=total, unit="clip", disable=hide_bar) as progress,
    ):
        while chunk := list(itertools.islice(candidates, CHUNK_CLIPS)):
            for (position, clip, text), outcome in zip(chunk, pool.map(check, chunk), strict=True):
                progress.update()
                if clip.id in kept_ids:
                    outcome = _repeated(clip)
                if isinstance(outcome, Drop):
                    report.dropped.append(outcome)
                    continue
                if report.kept_clips + 1 > max_clips or report.kept_seconds + outcome > max_seconds:
                    return
                kept_ids.add(clip.id)
                report.kept_clips += 1
                report.kept_seconds += outcome
                yield KeptClip(position, clip, text, outcome)


def _repeated(clip: Clip) -> Drop:
    return Drop(clip.id, "duplicate id", "a clip before it has the same id")


def _is_long(seconds: float, stated: float) -> bool:
    """Whether it is as long as stated, in seconds or milliseconds."""
    return any(abs(seconds - stated / unit) <= STATED_TOLERANCE_SECONDS for unit in (1, 1000))


def _check(
    source: Source, limits: Limits, kept_ids: Set[str], candidate: tuple[int, Clip, str]
) -> float | Drop:
    """Decode one clip: its seconds, or why it cannot be used."""
    _, clip, _ = candidate
    if clip.id in kept_ids:
        return _repeated(clip)
    try:
        samples = load_audio(source.read_audio(clip), target_rate=SAMPLING_RATE)
    except AudioError as error:
        return Drop(clip.id, error.reason, str(error))
    seconds = len(samples) / SAMPLING_RATE
    stated = clip.stated_seconds
    if stated is not None and seconds < stated - STATED_TOLERANCE_SECONDS and stated < OTHER_UNIT * seconds:
        return Drop(clip.id, "truncated", f"{seconds:.2f} s decoded, the corpus states {stated:.2f} s")
    if clip.may_be_part and stated is not None and not _is_long(seconds, stated):
        detail = (
            f"{clip.locator}: the row is of {stated:g} s of this recording of {seconds:.2f} s. Cut it out"
        )
        return Drop(clip.id, "part of a recording", detail)
    if seconds < limits.min_seconds:
        return Drop(clip.id, "too short", f"{seconds:.2f} s, the least is {limits.min_seconds:g} s")
    if seconds > limits.max_seconds:
        return Drop(clip.id, "too long", f"{seconds:.2f} s, the most is {limits.max_seconds:g} s")
    return seconds
