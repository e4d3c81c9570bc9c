"""Another implementation beside ours: a program that is given a job, as benchmarks/README.md describes it.

It reads models and clips from files, so random base models, an untrained checkpoint and clips are written for
it, of the real sizes some 10 GB, and taken away again.
"""

import shlex
import tempfile
import wave
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.sizes import EPOCH_HOURS, LORA_RANK, MODELS, model_config, processor, write_base_models
from benchmarks.gpu.speed import BATCHES, DTYPE, Clip, Speed
from benchmarks.sides import sides_of
from modeling_slam import SlamAsrForConditionalGeneration
from modeling_slam.model.audio_lengths import SAMPLING_RATE

ROUNDS = 2  # the first has what is done once
NEW_TOKENS = 32  # at most a clip: a peer knows no budget


def measure_peer(command: str, model: str, speed: Speed) -> None:
    """Training at the batch that is compared, and evaluation, into lines of the side "peer"."""
    sizes = speed.sizes
    wanted = {"training": sizes.compared_batch, "evaluation": sizes.eval_batch_sizes[0]}
    facts = {
        part: {"part": part, "model": model, "side": "peer", "batch": batch} for part, batch in wanted.items()
    }
    facts["evaluation"]["beams"] = 2
    with tempfile.TemporaryDirectory() as directory:
        written: dict[str, Any] = {}
        for part, batch in wanted.items():

            def work(part: str = part, batch: int = batch) -> dict[str, Any]:
                if not written:
                    written.update(write_models(Path(directory), model, speed))
                rounds = BATCHES if part == "training" else sizes.eval_batches
                clips = speed.made(batch * rounds)
                job = {"part": part, "way": "peer", "batch_size": batch, "num_beams": 2, **written}
                job |= {"lora_rank": LORA_RANK, "seed": 0, "max_new_tokens": NEW_TOKENS}
                job["clips"] = write_clips(Path(directory), clips)
                return answers(command, job, Path(directory), clips, rounds)

            speed.lines.line(facts[part], work)


def answers(
    command: str, job: dict[str, Any], directory: Path, clips: list[Clip], batches: int
) -> dict[str, Any]:
    with sides_of({"peer": job}, {"peer": (shlex.split(command), {})}, directory) as sides:
        found = [sides["peer"].round() for _ in range(ROUNDS)][-1]
    seconds, rate = found["seconds"], sum(clip["duration"] for clip in clips) / found["seconds"]
    if job["part"] == "evaluation":
        return {"seconds": seconds, "times_real_time": round(rate, 1)}
    return {
        "step_seconds": round(seconds / batches, 5),
        "audio_seconds_per_second": round(rate, 1),
        "epoch_minutes": round(EPOCH_HOURS * 60 / rate, 2),
    }


def write_models(directory: Path, model: str, speed: Speed) -> dict[str, Any]:
    """The job's `encoder`, `llm`, `keep_layers` and `checkpoint`."""
    whisper, layers = MODELS[model]
    bases = write_base_models(directory, speed.size, whisper, speed.sizes.llm, DTYPE)
    config = model_config(speed.size, model, speed.sizes.llm, **bases)
    made = SlamAsrForConditionalGeneration.from_base_models(config, dtype=DTYPE)
    checkpoint = directory / "checkpoint"
    made.save_pretrained(checkpoint)
    processor(config).save_pretrained(checkpoint)
    encoder, llm = bases["audio_model_id"], bases["text_model_id"]
    return {"encoder": encoder, "llm": llm, "keep_layers": layers, "checkpoint": str(checkpoint)}


def write_clips(directory: Path, clips: list[Clip]) -> list[dict[str, Any]]:
    """As 16 kHz WAV, each made clip once."""
    rows = []
    for clip in clips:
        path = directory / f"{clip['id']}.wav"
        if not path.exists():
            with wave.open(str(path), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(SAMPLING_RATE)
                file.writeframes((clip["audio"] * 32767).astype(np.int16).tobytes())
        rows.append({"path": str(path), "text": clip["text"], "duration": clip["duration"]})
    return rows
