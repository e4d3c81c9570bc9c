"""Long recordings: cut into chunks that the model can hear, and the chunks' transcripts joined again.

A chunk ends in the longest pause it could end in, because that is where a sentence is most likely to end, and
a sentence is what the model was trained on. Where there is no pause, the next chunk repeats the last seconds,
and the words that both transcripts share tell where to join them.

- A pause is 0.2 s or more whose mean power, over 0.2 s, is near the background's and 15 dB below speech: the
  5th and the 95th percentile of that mean in the stretch at hand. Closures of stops are shorter, so a cut
  does not go through a word. The last three quarters of a chunk are searched.
- Of a long pause only 0.2 s on either side are heard: silence would take the place of speech.
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
SPEECH_PERCENTILE = 95.0
PAUSE_DB = 15.0  # a pause is quieter than speech by this much,
BACKGROUND_DB = 6.0  # and no louder above the background,
SILENCE_DB = 35.0  # unless it is quieter than speech by this much
KEPT_SILENCE_SECONDS = 0.2
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
            end, following = longest_pause(held[:last], limit // 4) or (last, last - overlap_of(limit))
            yield Chunk(held[:end], start / SAMPLING_RATE, overlap / SAMPLING_RATE, False)
            held, start, overlap = held[following:], start + following, max(end - following, 0)
    yield Chunk(held, start / SAMPLING_RATE, overlap / SAMPLING_RATE, True)


def overlap_of(limit: int) -> int:
    return min(round(OVERLAP_SECONDS * SAMPLING_RATE), limit // 4)


def longest_pause(samples: np.ndarray, first: int) -> tuple[int, int] | None:
    """Where speech stops and goes on again around the longest pause in samples (n,) from `first` on.

    Both places leave some of the silence to the speech. `None` if there is no pause.
    """
    power = np.convolve(mean_power(samples), np.ones(WINDOW_HOPS) / WINDOW_HOPS, mode="valid")
    background, speech = np.percentile(power, [100 - SPEECH_PERCENTILE, SPEECH_PERCENTILE])
    level = max(
        speech * 10 ** (-SILENCE_DB / 10),
        min(background * 10 ** (BACKGROUND_DB / 10), speech * 10 ** (-PAUSE_DB / 10)),
    )
    is_pause = power <= level  # [i]: of the 0.2 s from hop i
    is_pause[: first // HOP_SAMPLES] = False
    edges = np.flatnonzero(np.diff(is_pause, prepend=False, append=False)).reshape(-1, 2)
    if speech == 0 or not len(edges):
        return None
    lengths = edges[:, 1] - edges[:, 0]
    begin, end = edges[np.flatnonzero(lengths == lengths.max())[-1]]  # the last of several
    begin, end = begin * HOP_SAMPLES, (end - 1 + WINDOW_HOPS) * HOP_SAMPLES
    kept = min(round(KEPT_SILENCE_SECONDS * SAMPLING_RATE), (end - begin) // 2)
    return int(begin + kept), int(end - kept)


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
