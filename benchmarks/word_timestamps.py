"""How far word times are off, on recordings whose word boundaries are known because we joined them.

    python benchmarks/word_timestamps.py --model DIR --dataset DIR --language en

Words are cut out of test clips in which the stretches of sound are as many as the words (digit strings with
pauses are), and joined again in another order: with pauses of random length, and without any. The transcript
is given, so recognition errors do not count. `evenly` is what the same search through words and pauses gives
without a model, with the words spread evenly over the recording: what attention adds is the difference.
Prints JSON, in seconds.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from modeling_slam import SlamAsrForConditionalGeneration, SlamAsrProcessor
from modeling_slam.common.command_line import clear_errors, parse_arguments
from modeling_slam.data import DataArguments, load_speech
from modeling_slam.model.audio_io import load_audio
from modeling_slam.model.audio_lengths import HOP_LENGTH, SAMPLING_RATE
from modeling_slam.model.long_audio import Chunk, mean_power
from modeling_slam.model.word_timestamps import align_words, place_words

SILENCE_POWER = 1e-7  # -70 dB of full scale: below it a clip is silent between words
MIN_SILENCE_HOPS, MIN_SOUND_HOPS = (
    4,
    8,
)  # of 10 ms: shorter silence is inside a word, shorter sound is a click
BACKGROUND = 1e-4  # standard deviation of the noise in pauses: -80 dB
CONDITIONS = {"pauses of 0.05 to 0.6 s": (0.05, 0.6), "no pauses": (0.0, 0.0)}
Span = tuple[float, float]


@dataclass
class WordTimeArguments:
    """The model and how many recordings are made for each condition."""

    model: str = field(metadata={"help": "Directory or Hub id of a checkpoint."})
    recordings: int = field(default=40, metadata={"help": "Recordings of three to six words, per condition."})
    seed: int = field(default=0, metadata={"help": "Seed of the choice of words and pauses."})


def cut_words(rows: Iterable[dict[str, Any]]) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Clips (`audio`, `text`, `speaker`) -> by speaker, words and their samples at 16 kHz."""
    bank: dict[str, list[tuple[str, np.ndarray]]] = {}
    for row in rows:
        samples, words = load_audio(row["audio"]), row["text"].split()
        edges = np.flatnonzero(np.diff(mean_power(samples) > SILENCE_POWER, prepend=False, append=False))
        sounds: list[list[int]] = []
        for start, end in edges.reshape(-1, 2).tolist():
            if sounds and start - sounds[-1][1] < MIN_SILENCE_HOPS:
                sounds[-1][1] = end
            else:
                sounds.append([start, end])
        sounds = [sound for sound in sounds if sound[1] - sound[0] >= MIN_SOUND_HOPS]
        if len(sounds) == len(words):
            cut = [samples[start * HOP_LENGTH : end * HOP_LENGTH] for start, end in sounds]
            bank.setdefault(row["speaker"], []).extend(zip(words, cut, strict=True))
    return bank


def join_words(
    bank: list[tuple[str, np.ndarray]], pauses: Span, rng: np.random.Generator
) -> tuple[np.ndarray, list[str], list[Span]]:
    """Three to six words of one speaker -> the recording, its words, and when each is said."""
    chosen = [bank[index] for index in rng.integers(len(bank), size=rng.integers(3, 7))]
    parts, spans, samples = [], [], 0
    for _, sound in chosen:
        pause = round(rng.uniform(*pauses) * SAMPLING_RATE)
        parts += [BACKGROUND * rng.standard_normal(pause), sound]
        samples += pause + len(sound)
        spans.append(((samples - len(sound)) / SAMPLING_RATE, samples / SAMPLING_RATE))
    parts.append(BACKGROUND * rng.standard_normal(round(rng.uniform(*pauses) * SAMPLING_RATE)))
    return np.concatenate(parts).astype(np.float32), [word for word, _ in chosen], spans


def evenly(words: int, samples: np.ndarray) -> list[Span]:
    """Times without a model: words spread evenly, then moved to where something is said."""
    tokens = -(-len(samples) // (SAMPLING_RATE // 10))
    places = (np.arange(tokens) + 0.5) / tokens * words - 0.5 - np.arange(words)[:, None]
    return place_words(np.exp(-2 * places**2), samples, 5)


def errors(found: list[list[Span]], true: list[list[Span]]) -> dict[str, Any]:
    off = np.abs(np.concatenate(found) - np.concatenate(true))  # (words, 2)
    return {
        name: {
            "mean": round(float(side.mean()), 3),
            "median": round(float(np.median(side)), 3),
            "within_0.1": round(float((side <= 0.1).mean()), 3),
        }
        for name, side in (("start", off[:, 0]), ("end", off[:, 1]))
    }


def measure(model: Any, processor: Any, bank: dict[str, list], recordings: int, seed: int) -> dict[str, Any]:
    """Errors of word starts and ends by condition."""
    report: dict[str, Any] = {}
    for condition, pauses in CONDITIONS.items():
        rng = np.random.default_rng(seed)
        true, ours, even = [], [], []
        for _ in tqdm(range(recordings), desc=condition):
            speaker = sorted(bank)[rng.integers(len(bank))]
            samples, words, spans = join_words(bank[speaker], pauses, rng)
            ids = processor.tokenizer(" ".join(words), add_special_tokens=False)["input_ids"]
            placed = align_words(model, processor, Chunk(samples, 0.0, 0.0, True), ids)
            true.append(spans)
            ours.append([(word.start, word.end) for word in placed])
            even.append(evenly(len(words), samples))
        report[condition] = {
            "words": sum(map(len, true)),
            "ours": errors(ours, true),
            "evenly": errors(even, true),
        }
    return report


def main() -> None:
    arguments, data = parse_arguments(
        WordTimeArguments, DataArguments, description="Errors of word times on joined recordings."
    )
    with clear_errors():
        dataset, _ = load_speech(data, "test")
        bank = cut_words({**row, "speaker": row["speaker"] or "one"} for row in dataset)
        if not bank:
            raise ValueError(
                "No clip has as many stretches of sound as words, so none can be cut into words. Use speech "
                "with pauses between words, such as strings of digits."
            )
        model = SlamAsrForConditionalGeneration.from_pretrained(arguments.model).eval()
        processor = SlamAsrProcessor.from_pretrained(arguments.model)
    print(json.dumps(measure(model, processor, bank, arguments.recordings, arguments.seed), indent=1))


if __name__ == "__main__":
    main()
