"""What cutting costs: the error rate of sentences in one long recording, and of the same ones one by one.

    python benchmarks/long_audio.py --model DIR --dataset DIR --language nl --minutes 10

Test clips are put one after the other in random order, with pauses of random length that hold the clip's own
background noise. The pipeline transcribes that recording, and each clip by itself; both texts are normalised
and scored by jiwer as one, so that it does not matter between which clips a word falls. Prints JSON;
`difference` is what the long recording loses, in points of WER.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jiwer
import numpy as np
from tqdm import tqdm

from modeling_slam import SlamAsrForConditionalGeneration, SlamAsrPipeline, SlamAsrProcessor
from modeling_slam.common.command_line import clear_errors, parse_arguments
from modeling_slam.data import DataArguments, load_speech, normalize_text
from modeling_slam.model.audio_io import load_audio
from modeling_slam.model.audio_lengths import SAMPLING_RATE
from modeling_slam.model.long_audio import mean_power, split
from modeling_slam.model.pipeline_slam import CHUNK_SECONDS


@dataclass
class LongAudioArguments:
    """The model, the recording, and how it is transcribed."""

    model: str = field(metadata={"help": "Directory or Hub id of a checkpoint."})
    minutes: float = field(default=10.0, metadata={"help": "Length of the long recording."})
    pause_seconds: list[float] = field(
        default_factory=lambda: [0.2, 0.8], metadata={"help": "Shortest and longest pause between two clips."}
    )
    seed: int = field(default=0, metadata={"help": "Of the order of the clips, and of the pauses."})
    chunk_lengths: list[float] = field(
        default_factory=list,
        metadata={"help": "Values of `chunk_length_s` to compare; by default the checkpoint's own."},
    )
    num_beams: int = field(default=1, metadata={"help": "Beams of decoding."})
    batch_size: int = field(default=1, metadata={"help": "Chunks and clips decoded together."})


def measure(
    transcribe: SlamAsrPipeline, rows: Sequence[dict[str, Any]], arguments: LongAudioArguments
) -> dict[str, Any]:
    """WER of clips (`audio`, `text`, `language`) one by one and in one recording, and what was decoded."""
    clips = [load_audio(row["audio"]) for row in rows]
    recording = join_clips(clips, arguments.pause_seconds, np.random.default_rng(arguments.seed))
    reference = " ".join(row["text"] for row in rows)
    language = rows[0]["language"]
    settings = {"batch_size": arguments.batch_size, "num_beams": arguments.num_beams}

    started = time.perf_counter()
    texts = [
        result["text"] for result in tqdm(transcribe((clip for clip in clips), **settings), total=len(clips))
    ]
    alone = normalize_text(" ".join(texts), language)
    report: dict[str, Any] = {
        "clips": len(clips),
        "minutes": len(recording) / SAMPLING_RATE / 60,
        "wer_one_by_one": jiwer.wer(reference, alone),
        "seconds_one_by_one": time.perf_counter() - started,
        "long": [],
    }
    for seconds in arguments.chunk_lengths or [transcribe.processor.chunk_seconds or CHUNK_SECONDS]:
        started = time.perf_counter()
        text = transcribe(recording, chunk_length_s=seconds, **settings)["text"]
        took = time.perf_counter() - started
        chunks = list(split([recording], seconds, seconds))
        wer = jiwer.wer(reference, normalize_text(text, language))
        report["long"].append(
            {
                "chunk_length_s": seconds,
                "chunks": len(chunks),
                "cuts_without_pause": sum(chunk.overlap > 0 for chunk in chunks),
                "wer": wer,
                "difference": 100 * (wer - report["wer_one_by_one"]),
                "seconds": took,
            }
        )
    return report


def join_clips(
    clips: Sequence[np.ndarray], pause_seconds: Sequence[float], rng: np.random.Generator
) -> np.ndarray:
    """The clips in a row, each followed by a pause as loud as its own background."""
    shortest, longest = pause_seconds
    parts = []
    for clip in clips:
        background = np.sqrt(np.percentile(mean_power(clip), 5))
        pause = rng.standard_normal(round(rng.uniform(shortest, longest) * SAMPLING_RATE))
        parts += [clip, (background * pause).astype(np.float32)]
    return np.concatenate(parts)


def choose(
    rows: Sequence[dict[str, Any]], minutes: float, pause_seconds: Sequence[float]
) -> list[dict[str, Any]]:
    """The first rows that fill so many minutes; all if they do not."""
    chosen, seconds = [], 0.0
    for row in rows:
        if seconds >= 60 * minutes:
            break
        chosen.append(row)
        seconds += row["duration"] + sum(pause_seconds) / 2
    return chosen


def main() -> None:
    arguments, data = parse_arguments(
        LongAudioArguments, DataArguments, description="WER of one long recording and of its sentences."
    )
    with clear_errors():
        dataset, _ = load_speech(data, "test")
        model = SlamAsrForConditionalGeneration.from_pretrained(arguments.model)
        processor = SlamAsrProcessor.from_pretrained(arguments.model)
    rows = list(dataset.shuffle(arguments.seed))
    rows = choose(rows, arguments.minutes, arguments.pause_seconds)
    print(json.dumps(measure(SlamAsrPipeline(model, processor), rows, arguments), indent=1))


if __name__ == "__main__":
    main()
