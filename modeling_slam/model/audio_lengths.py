"""Lengths along the audio path: recording -> chunks; samples -> features -> encoder frames -> audio tokens.

Features are what the processor prepares for an encoder: log-mel frames for Whisper, the samples themselves
for wav2vec2 and its kin. The processor writes one placeholder per audio token and the model fills each of
them, so both must count alike. All the arithmetic stands here, once; it works on integers and on integer
tensors, and needs no torch. To add an encoder, write the row of `GEOMETRIES` that counts its frames.

A recording that is too long for the model is cut into chunks:

- A chunk ends in the longest pause of its last three quarters: the model was trained on sentences, and they
  most likely end there. A pause is 0.2 s or more whose mean power, over 0.2 s, is near the background's and
  15 dB below speech: the 5th and the 95th percentile of that mean in the stretch at hand. Who knows better
  where nothing is said, such as a CTC head, finds the pauses in another way.
- The chunks keep 0.2 s of a long pause on either side; more silence would take the place of speech.
- Without a pause the next chunk repeats the last 2 s.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product, takewhile
from typing import Any, Literal, TypeVar

import numpy as np

Count = TypeVar("Count", bound=Any)  # an integer or an integer tensor

SAMPLING_RATE = 16_000  # Hz
MAX_CLIP_SECONDS = 30.0  # of training and test clips by default; Whisper's position table ends here
MIN_CHUNK_SECONDS = 2.0  # shorter pieces of a long recording hold too few words to be understood
MAX_TOKENS_PER_SECOND = 20  # no one speaks as fast, in tokens of any common LLM; what goes on is a loop

TailRule = Literal["pad", "drop"]

HOP_SAMPLES = 160  # 10 ms: how finely a cut or a word's boundary is placed
WINDOW_HOPS = 20  # 0.2 s: longer than the silence inside a word
SPEECH_PERCENTILE = 95.0
PAUSE_DB = 15.0  # a pause is quieter than speech by this much,
BACKGROUND_DB = 6.0  # and no louder above the background,
SILENCE_DB = 35.0  # unless it is quieter than speech by this much
KEPT_SILENCE_SECONDS = 0.2
OVERLAP_SECONDS = 2.0
REST_DB = 3.0  # the quiet between two words varies by no more than this,
FLOOR_DB = 45.0  # or is quieter than speech by this much
BLANK_SECONDS = 0.4  # a shorter stretch without a token is no pause
REACH_HOPS = 75  # a word goes on for no more than 0.75 s before or behind what is recognised of it
GAP_HOPS = 5  # a shorter quiet between two words may lie within one of them, as before a t
LEAD_HOPS = 8  # where words run on: a word begins 80 ms before it is recognised (benchmarks/ctc_head.py)

SEGMENT_PAUSE_SECONDS = 0.5  # or more ends a segment, as the end of a sentence does
SENTENCE_ENDS = tuple(".?!\u3002\uff1f\uff01")
MAX_WORDS_PER_SECOND = 5  # fast speech; how far from the joint a common word is looked for
PauseFinder = Callable[[np.ndarray, int], tuple[int, int] | None]


@dataclass(frozen=True)
class AudioGeometry:
    """How an encoder counts.

    Args:
        hop: samples at 16 kHz per feature: 160 for log-mel frames of 10 ms, 1 for a waveform.
        stride: features per encoder frame; `hop * stride` samples, 20 ms, for all encoders so far.
        max_seconds: longest clip that the encoder takes; `None` if it takes any.
        convolutions: (kernel, stride) of each convolution where they have no padding: a frame then needs all
            of its samples. Without any, every started frame counts.
    """

    hop: int
    stride: int
    max_seconds: float | None = None
    convolutions: tuple[tuple[int, int], ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "convolutions", tuple(map(tuple, self.convolutions)))  # JSON has lists

    @property
    def frame_samples(self) -> int:
        return self.hop * self.stride

    def features_of_samples(self, samples: Count) -> Count:
        """Features of a clip; where frames may be partly silence they fill the last one."""
        return samples if self.convolutions else self.frames_of_samples(samples) * self.stride

    def frames_of_features(self, features: Count) -> Count:
        """Encoder frames of a clip of so many features."""
        if not self.convolutions:
            return -(-features // self.stride)
        for kernel, stride in self.convolutions:
            features = (features - kernel) // stride + 1
        return features * (features > 0)

    def frames_of_samples(self, samples: Count) -> Count:
        """Encoder frames of a clip of `samples` at 16 kHz."""
        return self.frames_of_features(-(-samples // self.hop))

    def transcript_budget(self, frames: Count, tokens_per_second: int) -> Count:
        """Most tokens that the transcript of a clip of these encoder frames may have."""
        return -(-frames * tokens_per_second * self.frame_samples // SAMPLING_RATE)


WHISPER_GEOMETRY = AudioGeometry(hop=160, stride=2, max_seconds=MAX_CLIP_SECONDS)  # of OpenAI's models


def whisper_geometry(audio_config: Any) -> AudioGeometry:
    samples = audio_config.max_source_positions * WHISPER_GEOMETRY.frame_samples
    return replace(WHISPER_GEOMETRY, max_seconds=samples / SAMPLING_RATE)


def waveform_geometry(audio_config: Any) -> AudioGeometry:
    if getattr(audio_config, "add_adapter", False):  # HuBERT's config does not know the word
        raise ValueError("`audio_config.add_adapter` is not supported; name an `--encoder` without it.")
    pairs = tuple(zip(audio_config.conv_kernel, audio_config.conv_stride, strict=True))
    return AudioGeometry(1, math.prod(audio_config.conv_stride), convolutions=pairs)


GEOMETRIES: dict[str, Callable[[Any], AudioGeometry]] = {
    "whisper": whisper_geometry,
    "wav2vec2": waveform_geometry,
    "hubert": waveform_geometry,
    "wavlm": waveform_geometry,
}


def audio_geometry(audio_config: Any) -> AudioGeometry:
    """That of the encoder which `audio_config` describes; a ValueError if there is none of its type."""
    if audio_config.model_type not in GEOMETRIES:
        raise ValueError(
            f"`audio_config` (`--encoder`) must be a speech encoder of the type {', '.join(GEOMETRIES)}; "
            f"this one is a {audio_config.model_type!r}. Name a model of one of these types."
        )
    return GEOMETRIES[audio_config.model_type](audio_config)


def audio_token_count(encoder_frames: Count, stack: int, tail: TailRule, queries: int | None) -> Count:
    """LLM positions that a clip takes.

    Args:
        encoder_frames: frames of 20 ms that the encoder gave for the clip.
        stack: encoder frames per audio token.
        tail: "pad" fills the last token with silence; "drop" leaves out the frames that do not fill one.
        queries: audio tokens of any clip, where the output does not grow with the clip; else `None`.
    """
    if queries is not None:
        return encoder_frames * 0 + queries
    return encoder_frames // stack if tail == "drop" else -(-encoder_frames // stack)


# ---------------------------------------------------------------- long recordings


@dataclass(frozen=True)
class Chunk:
    samples: np.ndarray  # (n,) at 16 kHz
    start: float  # seconds from the start of the recording
    overlap: float  # seconds at its start that the chunk before holds too; 0 after a pause
    is_last: bool


def split(
    blocks: Iterable[np.ndarray],
    chunk_seconds: float,
    whole_seconds: float,
    find_pause: PauseFinder | None = None,
) -> Iterator[Chunk]:
    """Samples at 16 kHz, block by block -> chunks of at most `chunk_seconds`.

    A recording of at most `whole_seconds` stays whole. No more than two chunks and a block are held.
    `find_pause` takes and gives what `longest_pause` does, which it is by default.
    """
    find_pause = find_pause or longest_pause
    limit, whole = round(chunk_seconds * SAMPLING_RATE), round(whole_seconds * SAMPLING_RATE)
    repeated = min(round(OVERLAP_SECONDS * SAMPLING_RATE), limit // 4)
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
            end, following = find_pause(held[:last], limit // 4) or (last, last - repeated)
            yield Chunk(held[:end], start / SAMPLING_RATE, overlap / SAMPLING_RATE, False)
            held, start, overlap = held[following:], start + following, max(end - following, 0)
    yield Chunk(held, start / SAMPLING_RATE, overlap / SAMPLING_RATE, True)


def longest_pause(samples: np.ndarray, first: int) -> tuple[int, int] | None:
    """Where speech stops and goes on again around the longest pause in samples (n,) from `first` on.

    Both positions leave some of the silence to the speech. `None` if there is no pause.
    """
    power = np.convolve(hop_power(samples), np.ones(WINDOW_HOPS) / WINDOW_HOPS, mode="valid")
    background, speech = np.percentile(power, [100 - SPEECH_PERCENTILE, SPEECH_PERCENTILE])
    level = max(
        speech * 10 ** (-SILENCE_DB / 10),
        min(background * 10 ** (BACKGROUND_DB / 10), speech * 10 ** (-PAUSE_DB / 10)),
    )
    is_pause = power <= level  # [i]: of the 0.2 s from hop i
    is_pause[: first // HOP_SAMPLES] = False
    if speech == 0 or not is_pause.any():
        return None
    begin, end = longest_run(is_pause)
    return within_pause(begin * HOP_SAMPLES, (end - 1 + WINDOW_HOPS) * HOP_SAMPLES)


def longest_blank(
    is_blank: np.ndarray, position_samples: int, samples: np.ndarray, first: int
) -> tuple[int, int] | None:
    """What `longest_pause` gives, by a model that says in which positions it recognises nothing.

    Args:
        is_blank: (A,) bool, of positions of so many samples.
    """
    begins = np.arange(len(is_blank)) * position_samples
    is_blank = is_blank & (begins >= first) & (begins < len(samples))  # what lies behind is padding
    if not is_blank.any():
        return None
    begin, end = (place * position_samples for place in longest_run(is_blank))
    if end - begin < BLANK_SECONDS * SAMPLING_RATE:
        return None
    begin, end = quietest(hop_power(samples), begin // HOP_SAMPLES, end // HOP_SAMPLES)
    return within_pause(begin * HOP_SAMPLES, end * HOP_SAMPLES)


def within_pause(begin: int, end: int) -> tuple[int, int]:
    """A pause in samples -> where the chunk before it ends and the one behind it starts."""
    kept = min(round(KEPT_SILENCE_SECONDS * SAMPLING_RATE), (end - begin) // 2)
    return int(begin + kept), int(end - kept)


def longest_run(flags: np.ndarray) -> tuple[int, int]:
    """First place of the longest run of True, of several the last, and the place behind its end."""
    runs = np.flatnonzero(np.diff(flags, prepend=False, append=False)).reshape(-1, 2)
    lengths = runs[:, 1] - runs[:, 0]
    begin, end = runs[np.flatnonzero(lengths == lengths.max())[-1]]
    return int(begin), int(end)


def hop_power(samples: np.ndarray) -> np.ndarray:
    """(n,) samples at 16 kHz -> the mean power of each whole 10 ms."""
    hops = len(samples) // HOP_SAMPLES
    frames = samples[: hops * HOP_SAMPLES].reshape(hops, HOP_SAMPLES).astype(np.float64)
    return (frames**2).mean(axis=1)


def gap_between(power: np.ndarray, left: int, right: int) -> tuple[int, int]:
    """Where one word ends and the next starts, in hops of `hop_power`: around the quiet between them, if any.

    Args:
        left: a hop in which the one is heard for certain, or 0. right: one of the next, or the end.
    """
    if right - left > 2 * REACH_HOPS:
        return quietest(power, left, left + REACH_HOPS)[0], quietest(power, right - REACH_HOPS, right)[1]
    begin, end = quietest(power, left, right)
    level = np.percentile(power, SPEECH_PERCENTILE) * 10 ** (-PAUSE_DB / 10) if len(power) else 0.0
    if right == len(power) or (end - begin >= GAP_HOPS and power[begin:end].max() <= level):
        return begin, end
    start = max(left, right - LEAD_HOPS)
    return start, start


def quietest(power: np.ndarray, begin: int, end: int) -> tuple[int, int]:
    """The longest quiet stretch between two hops.

    Quiet is what is hardly louder than the quietest hop there, so noise behind speech does no harm.
    """
    inside = power[begin:end]
    if not len(inside):
        return begin, begin
    floor = np.percentile(power, SPEECH_PERCENTILE) * 10 ** (-FLOOR_DB / 10)
    first, behind = longest_run(inside <= max(inside.min() * 10 ** (REST_DB / 10), floor))
    return begin + first, begin + behind


# ---------------------------------------------------------------- the words of a recording


@dataclass(frozen=True)
class Word:
    """A word of a transcript; its times in seconds, where a CTC head was asked."""

    text: str
    start: float = 0.0
    end: float = 0.0
    confidence: float = 0.0


def join(left: list[Word], right: list[Word], overlap: float) -> list[Word]:
    """The words of two neighbouring chunks in one row; `overlap` is what both heard, in seconds.

    The longest run of words that the end of one and the start of the other have in common joins them, of
    several the one that drops the fewest words. It must be as long as what is dropped on either side.
    """
    window = int(np.ceil(overlap * MAX_WORDS_PER_SECOND))
    tail = [bare(word.text) for word in left[max(len(left) - window, 0) :]]
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


def segments(words: list[Word]) -> list[list[Word]]:
    """Words in groups: a new one after the end of a sentence or a pause."""
    groups: list[list[Word]] = []
    for word in words:
        last = groups[-1][-1] if groups else None
        if (
            last is None
            or last.text.endswith(SENTENCE_ENDS)
            or word.start - last.end >= SEGMENT_PAUSE_SECONDS
        ):
            groups.append([])
        groups[-1].append(word)
    return groups


def timed(parts: list[list[Word]]) -> list[dict[str, Any]]:
    """Parts of a transcript as users get them. Where chunks overlap time never runs backwards."""
    chunks, now = [], 0.0
    for part in parts:
        start = max(part[0].start, now)
        now = max(part[-1].end, start)
        chunks.append(
            {
                "text": " ".join(word.text for word in part),
                "timestamp": (round(start, 2), round(now, 2)),
                "confidence": round(sum(word.confidence for word in part) / len(part), 4),
            }
        )
    return chunks
