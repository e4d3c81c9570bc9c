"""Long recordings: cut into chunks that the model can hear, and the chunks' transcripts joined again.

A chunk ends where the recording is quietest, at a pause between words if there is one. Where there is none,
the next chunk repeats the last seconds, and the words that both transcripts share tell where to join them.

- Quietness is the mean power over 0.2 s. The quietest point is sought in the second half of a chunk, then in
  the quarter before; it is a pause if it lies 15 dB below the chunk's speech, the 95th percentile of the same
  measure. Closures of stops are shorter than 0.2 s, so a cut does not go through a word.
- Neighbours overlap by 2 s where no pause was found. Of the longest runs of words that the end of one and the
  start of the other have in common, the one that drops the fewest words joins them. A run must be as long as
  what is dropped on either side; without one the transcripts are put together as they are.

Everything here is numpy and plain Python; the model is not involved.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product, takewhile

import numpy as np

from .audio_lengths import SAMPLING_RATE

HOP_SAMPLES = 160  # 10 ms: how finely a cut is placed
WINDOW_HOPS = 20  # 0.2 s: longer than the silence inside a word
PAUSE_DB = 15.0
SPEECH_PERCENTILE = 95.0
SILENCE_DB = 60.0  # below speech by this much everything is equally silent
OVERLAP_SECONDS = 2.0
MAX_WORDS_PER_SECOND = 5  # fast speech; how far from the joint a common word is looked for


@dataclass(frozen=True)
class Chunk:
    samples: np.ndarray  # (n,) at 16 kHz
    start: float  # seconds from the start of the recording
    overlap: float  # seconds at its start that the chunk before holds too; 0 after a pause
    is_last: bool


@dataclass(frozen=True)
class Word:
    text: str
    start: float | None = None  # seconds from the start of the recording, where they are asked for
    end: float | None = None


def split(blocks: Iterable[np.ndarray], chunk_seconds: float, whole_seconds: float) -> Iterator[Chunk]:
    """Samples at 16 kHz, block by block -> chunks of at most `chunk_seconds`.

    A recording of at most `whole_seconds` stays whole. No more than two chunks and a block are held.
    """
    limit, whole = round(chunk_seconds * SAMPLING_RATE), round(whole_seconds * SAMPLING_RATE)
    held, start, overlap, is_long = np.zeros(0, np.float32), 0, 0, False
    source = iter(blocks)
    block = next(source, None)
    while block is not None:
        held = np.concatenate([held, block])
        block = next(source, None)
        is_long = is_long or len(held) > whole
        while is_long and len(held) > (limit if block is None else 2 * limit):
            # What is left at the end is no shorter than a quarter of a chunk.
            last = min(limit, len(held) - limit // 4)
            cut, is_pause = quietest_point(held[:last], limit // 2)
            if not is_pause:
                cut, is_pause = quietest_point(held[:last], limit // 4)
            repeated = 0 if is_pause else min(round(OVERLAP_SECONDS * SAMPLING_RATE), limit // 4)
            if not is_pause:
                cut = last
            yield Chunk(held[:cut], start / SAMPLING_RATE, overlap / SAMPLING_RATE, False)
            held, start, overlap = held[cut - repeated :], start + cut - repeated, repeated
    yield Chunk(held, start / SAMPLING_RATE, overlap / SAMPLING_RATE, True)


def quietest_point(samples: np.ndarray, first: int) -> tuple[int, bool]:
    """Where in samples (n,) at 16 kHz, from `first` on, it is quietest, and whether that is a pause."""
    power = mean_power(samples)
    kernel = np.ones(WINDOW_HOPS) / WINDOW_HOPS
    power = np.convolve(power, kernel, mode="valid")  # [i]: the 0.2 s from hop i
    speech = np.percentile(power, SPEECH_PERCENTILE)
    power = np.maximum(power, speech * 10 ** (-SILENCE_DB / 10))
    begin = min(first // HOP_SAMPLES, len(power) - 1)
    quietest = power[begin:].min()
    # Several are equal in digital silence: the middle of the last such stretch.
    places = begin + np.flatnonzero(power[begin:] <= quietest * (1 + 1e-6))
    stretch = places[np.flatnonzero(np.diff(places, prepend=-2) > 1)[-1] :][0], places[-1]
    cut = (sum(stretch) + WINDOW_HOPS) * HOP_SAMPLES // 2
    return int(cut), bool(quietest <= speech * 10 ** (-PAUSE_DB / 10))


def mean_power(samples: np.ndarray) -> np.ndarray:
    """(n,) -> (n // 160,): mean square of each 10 ms."""
    hops = len(samples) // HOP_SAMPLES
    return (samples[: hops * HOP_SAMPLES].reshape(hops, HOP_SAMPLES).astype(np.float64) ** 2).mean(axis=1)


def join(left: list[Word], right: list[Word], overlap: float) -> list[Word]:
    """The words of two neighbouring chunks in one row; `overlap` is what both heard, in seconds."""
    window = int(np.ceil(overlap * MAX_WORDS_PER_SECOND))
    tail = [bare(word.text) for word in left[len(left) - min(window, len(left)) :]]
    head = [bare(word.text) for word in right[:window]]
    best = (0, 0, 0, 0)  # length, minus the words dropped, and those of the left and of the right
    for i, j in product(range(len(tail)), range(len(head))):
        pairs = zip(tail[i:], head[j:], strict=False)
        length = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        dropped = len(tail) - i - length, j
        if length and length >= max(dropped):
            best = max(best, (length, -sum(dropped), *dropped))
    length, _, from_left, from_right = best
    return left[: len(left) - from_left] + right[from_right + length :]


def bare(word: str) -> str:
    """A word as it is compared: without case and punctuation."""
    return "".join(c for c in word.casefold() if c.isalnum()) or word
