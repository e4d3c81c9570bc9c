"""Cost curves: seconds and memory of a training step against what it may grow with, and the slopes expected.

The models have random weights and the base models' own widths, but an LLM of `LLM_LAYERS` layers, which keeps
a curve short; batches are noise of equal lengths. The expected time is that of the operations needed at the
fastest matrix product; the expected memory is weights and what the forward pass keeps for the backward pass,
counted tensor by tensor. Slopes are those of least-squares lines, so a bend (attention over longer clips)
enters both.
"""

import copy
import statistics
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.arguments import BenchmarkArguments
from benchmarks.flops import batch_needs
from benchmarks.machine import MatmulPeak
from benchmarks.memory import give_back_freed_memory, in_fresh_process, peak_extra_bytes, saved_bytes
from benchmarks.tables import table as markdown
from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration
from modeling_slam.model.audio_lengths import SAMPLING_RATE

LLM_LAYERS = 2
INSTRUCTION_TOKENS = 7
LABELS_PER_SECOND = 2.5


@dataclass(frozen=True)
class Point:
    """A batch and the model it goes through."""

    seconds: float = 2.5
    clips: int = 4
    layers: int | None = None  # encoder layers kept, all by default
    vocabulary: int | None = None  # that of the LLM by default

    def config(self, config: SlamAsrConfig) -> SlamAsrConfig:
        config = copy.deepcopy(config)
        config.num_encoder_layers = self.layers or config.num_encoder_layers
        text = config.text_config
        text.num_hidden_layers = min(LLM_LAYERS, text.num_hidden_layers)
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[: text.num_hidden_layers]
        text.vocab_size = self.vocabulary or text.vocab_size
        text.pad_token_id = None
        config.audio_token_id = text.vocab_size
        return config

    def batch(self, config: SlamAsrConfig) -> dict[str, torch.Tensor]:
        """Noise for sound and text, in the shape of `SpeechCollator`'s batches."""
        frames = config.audio_geometry.features_of_samples(round(self.seconds * SAMPLING_RATE))
        audio_tokens = config.audio_tokens(frames // 2)
        labels = round(LABELS_PER_SECOND * self.seconds)
        written = torch.randint(config.text_config.vocab_size, (self.clips, INSTRUCTION_TOKENS + labels))
        heard = torch.full((self.clips, audio_tokens), config.text_config.vocab_size)
        input_ids = torch.cat([heard, written], dim=1)
        targets = torch.full_like(input_ids, -100)
        targets[:, -labels:] = input_ids[:, -labels:]
        return {
            "input_features": torch.randn(self.clips, config.audio_config.num_mel_bins, frames),
            "input_features_mask": torch.ones(self.clips, frames, dtype=torch.bool),
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
            "labels": targets,
        }


def points(name: str, config: SlamAsrConfig) -> dict[float, Point]:
    """Points of a curve by the number that it runs over."""
    long = Point(seconds=10.0)
    if name == "clip seconds":
        return {seconds: Point(seconds=seconds) for seconds in (1, 2, 5, 10, 20, 30)}
    if name == "batch size":
        return {clips: Point(clips=clips) for clips in (1, 2, 4, 8, 16)}
    if name == "kept layers":
        most = config.num_encoder_layers
        kept = range(1, most + 1, max(1, most // 6))
        return {layers: replace(long, layers=layers) for layers in kept}
    if name == "vocabulary":
        sizes = [config.text_config.vocab_size // part for part in (16, 4, 2, 1)]
        return {size: replace(long, vocabulary=size) for size in sizes}
    raise ValueError(
        f"`curves` must be any of clip seconds, batch size, kept layers, vocabulary, got {name!r}."
    )


def build(point: Point, config: SlamAsrConfig) -> tuple[SlamAsrForConditionalGeneration, dict[str, Any]]:
    torch.manual_seed(0)
    config = point.config(config)
    return SlamAsrForConditionalGeneration(config).train(), point.batch(config)


def step(model: SlamAsrForConditionalGeneration, batch: dict[str, Any]) -> None:
    model(**batch).loss.backward()
    model.zero_grad(set_to_none=True)


def times(bench_args: BenchmarkArguments, config: SlamAsrConfig, name: str) -> dict[str, Any]:
    """Median seconds of a step at every point, all points in turn; needed seconds at the peak."""
    torch.set_num_threads(bench_args.threads)
    built = {x: build(point, config) for x, point in points(name, config).items()}
    seconds: dict[float, list[float]] = {x: [] for x in built}
    peak = MatmulPeak()
    for _ in tqdm(range(bench_args.steps + 1), desc=f"time by {name}", unit="round"):
        peak.measure()
        for x, (model, batch) in built.items():
            start = time.perf_counter()
            step(model, batch)
            seconds[x].append(time.perf_counter() - start)
    needed = {x: batch_needs(model.config, batch).total for x, (model, batch) in built.items()}
    return {
        "x": [*built],
        "seconds": [statistics.median(seconds[x][1:]) for x in built],
        "needed_seconds": [needed[x] / peak.best for x in built],
        "matmul_peak": peak.best,
        "samples": [seconds[x][1:] for x in built],
    }


def memories(bench_args: BenchmarkArguments, config: SlamAsrConfig, name: str) -> dict[str, list[int | None]]:
    """Weights, peak beside them, and what the backward pass needs kept, at every point."""
    torch.set_num_threads(bench_args.threads)
    give_back_freed_memory()
    weights, extra, kept = [], [], []
    for point in tqdm(points(name, config).values(), desc=f"memory by {name}", unit="point"):
        model, batch = build(point, config)
        weights.append(sum(parameter.nbytes for parameter in model.parameters()))
        step(model, batch)  # pages of weights, and libraries' own buffers
        extra.append(peak_extra_bytes(lambda: step(model, batch)))  # noqa: B023
        kept.append(saved_bytes(lambda: model(**batch).loss, model))  # noqa: B023
    return {"weight_bytes": weights, "peak_extra_bytes": extra, "kept_bytes": kept}


def measure(bench_args: BenchmarkArguments, config: SlamAsrConfig, name: str) -> dict[str, Any]:
    result = {"curve": name, "llm_layers": LLM_LAYERS} | in_fresh_process(times, bench_args, config, name)
    result |= in_fresh_process(memories, bench_args, config, name)
    result["slopes"] = {
        "seconds": slope(result["x"], result["seconds"]),
        "needed_seconds": slope(result["x"], result["needed_seconds"]),
        "bytes": slope(result["x"], total(result, "peak_extra_bytes")),
        "needed_bytes": slope(result["x"], total(result, "kept_bytes")),
    }
    return result


def total(result: dict[str, Any], what: str) -> list[float]:
    """Weights and the rest at each point."""
    return [weights + rest for weights, rest in zip(result["weight_bytes"], result[what], strict=True)]


def slope(x: list[float], y: list[float]) -> float:
    return float(np.polyfit(x, y, 1)[0])


def table(result: dict[str, Any]) -> str:
    header = [
        result["curve"],
        "s per step",
        "at the peak, s",
        "memory, MiB",
        "weights and kept tensors, MiB",
    ]
    columns = zip(
        result["x"], result["seconds"], result["needed_seconds"],
        total(result, "peak_extra_bytes"), total(result, "kept_bytes"), strict=True,
    )  # fmt: skip
    rows = [
        [f"{x:g}", f"{seconds:.3f}", f"{needed:.3f}", f"{peak / 2**20:.0f}", f"{kept / 2**20:.0f}"]
        for x, seconds, needed, peak, kept in columns
    ]
    return markdown(header, rows) + "\n\n" + slopes_line(result)


def slopes_line(result: dict[str, Any]) -> str:
    slopes = result["slopes"]
    return (
        f"Slope by {result['curve']}: {1000 * slopes['seconds']:.3g} ms, expected "
        f"{1000 * slopes['needed_seconds']:.3g} ms at the peak; {slopes['bytes'] / 2**20:.3g} MiB, expected "
        f"{slopes['needed_bytes'] / 2**20:.3g} MiB."
    )
