"""Time and memory of a training step, and what each of the project's savings is worth.

    python benchmarks/training_step.py --encoder DIR --llm DIR --dataset DIR

A step is forward, backward, clipping and AdamW of the trained weights, on the CPU in float32. `SETTINGS`
holds our way and others that undo one saving each; to measure another way, add a row. All settings see the
same clips and take turns in one process (A B C A B C ...), so a machine that slows down does not bend a
ratio. Peak memory comes from one fresh process per setting, which nothing before it has shaped. Audio and
mel are prepared beforehand: data loader workers do that beside the step.
"""

import ctypes
import gc
import json
import multiprocessing
import os
import random
import re
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from tqdm import tqdm

from modeling_slam import SlamAsrForConditionalGeneration
from modeling_slam.cli import clear_errors, parse_arguments
from modeling_slam.data import DataArguments, load_speech
from modeling_slam.data.collator import SpeechCollator
from modeling_slam.training.arguments import LoraArguments, ModelArguments
from modeling_slam.training.assembly import build_config, build_model, build_processor

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Setting:
    """A way to run the step; the defaults are ours."""

    pad_to_seconds: float | None = None
    grouped: bool = True  # batches of clips of like length
    full_logits: bool = False  # vocabulary projected at every position, not at the labels alone
    checkpointing: bool = False  # activations computed again in the backward pass
    frozen_gradients: bool = False  # gradients of the LLM's frozen weights too, to be thrown away


OURS = "ours"
SETTINGS = {
    OURS: Setting(),
    "unsorted batches": Setting(grouped=False),
    "full logits": Setting(full_logits=True),
    "gradient checkpointing": Setting(checkpointing=True),
    "frozen-weight gradients": Setting(frozen_gradients=True),
    "30 s padding": Setting(pad_to_seconds=30.0),
    # Everything above but gradients of frozen weights: nobody would ask for those.
    "plain": Setting(pad_to_seconds=30.0, grouped=False, full_logits=True, checkpointing=True),
}


@dataclass
class BenchmarkArguments:
    """Benchmark"""

    settings: list[str] = field(
        default_factory=lambda: list(SETTINGS), metadata={"help": "What to measure, 'ours' among it."}
    )
    lora_ranks: list[int] = field(
        default_factory=lambda: [0, 16], metadata={"help": "LoRA ranks to train; 0 is the projector alone."}
    )
    steps: int = field(default=8, metadata={"help": "Timed steps of each setting, after one to warm up."})
    batch_size: int = field(default=4, metadata={"help": "Clips per step."})
    threads: int = field(default=2, metadata={"help": "CPU threads."})
    seed: int = field(default=0, metadata={"help": "Seed of the choice of clips, their order and dropout."})
    output: str = field(
        default="benchmarks/results/training_step.json", metadata={"help": "JSON file for every sample."}
    )

    def __post_init__(self):
        if OURS not in self.settings or not set(self.settings) <= set(SETTINGS):
            raise ValueError(f"`settings` must be {OURS!r} and any of {[*SETTINGS]}, got {self.settings}.")
        if min(self.steps, self.batch_size, self.threads) < 1:
            raise ValueError("`steps`, `batch_size` and `threads` must be at least 1.")


@dataclass
class StepBench:
    """One model and its clips. Holds no weights, so it can be sent to a fresh process."""

    bench_args: BenchmarkArguments
    model_args: ModelArguments
    lora_args: LoraArguments
    rows: list[dict[str, Any]]  # of `load_speech`, in random order

    def build(self) -> tuple[SlamAsrForConditionalGeneration, torch.optim.Optimizer]:
        torch.set_num_threads(self.bench_args.threads)
        transformers.set_seed(self.bench_args.seed)
        config = build_config(self.model_args, self.lora_args)
        model = build_model(config, build_processor(self.model_args, config), self.model_args, bf16=False)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return model, torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.01)

    def batches(self, setting: Setting) -> list[Batch]:
        """All the clips, in this setting's order and padding."""
        seconds = setting.pad_to_seconds or self.model_args.pad_to_seconds
        padded = replace(self.model_args, pad_to_seconds=seconds)
        collate = SpeechCollator(build_processor(padded, build_config(padded, self.lora_args)))
        rows = sorted(self.rows, key=lambda row: row["duration"]) if setting.grouped else self.rows
        size = self.bench_args.batch_size
        return [collate(rows[start : start + size]) for start in range(0, len(rows), size)]

    def time_in_turn(self) -> dict[str, list[float]]:
        """Seconds of every timed step, by setting."""
        model, optimizer = self.build()
        batches = {name: self.batches(SETTINGS[name]) for name in self.bench_args.settings}
        seconds: dict[str, list[float]] = {name: [] for name in batches}
        turns = [*product(range(-1, self.bench_args.steps), batches)]  # round -1 warms up
        for number, name in tqdm(turns, desc="timing", unit="step"):
            prepare(model, SETTINGS[name])
            start = time.perf_counter()
            training_step(model, optimizer, batches[name][number], SETTINGS[name])
            if number >= 0:
                seconds[name].append(time.perf_counter() - start)
        return seconds

    def peak_memory(self, name: str) -> dict[str, Any]:
        """Bytes by which a step on the heaviest batch raises resident memory; run in a fresh process.

        The weights are there before; gradients, AdamW's state, activations and logits count.
        """
        model, optimizer = self.build()
        batch = max(self.batches(SETTINGS[name]), key=lambda batch: batch["input_ids"].numel())
        prepare(model, SETTINGS[name])
        for parameter in model.parameters():
            parameter.sum()  # a memory-mapped weight enters memory when it is used
        gc.collect()
        before = peak_bytes(start_anew=True)
        torch.manual_seed(self.bench_args.seed)
        # AdamW's state exists from the end of the first step on, so the second one has the peak.
        losses = [training_step(model, optimizer, batch, SETTINGS[name]) for _ in range(2)]
        peak = peak_bytes()
        return {"peak_extra_bytes": peak - before if peak and before else None, "losses": losses}


def prepare(model: SlamAsrForConditionalGeneration, setting: Setting) -> None:
    model.freeze()
    if setting.frozen_gradients:
        model.language_model.requires_grad_(True)
    model.activation_checkpointing_disable()
    if setting.checkpointing:
        model.activation_checkpointing_enable()
    model.train()


def training_step(
    model: SlamAsrForConditionalGeneration, optimizer: torch.optim.Optimizer, batch: Batch, setting: Setting
) -> float:
    if setting.full_logits:
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        logits = model(**inputs, use_cache=False).logits  # (B, L, V)
        next_labels = nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=-100)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), next_labels.flatten(), ignore_index=-100)
    else:
        loss = model(**batch).loss
    loss.backward()
    nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
    optimizer.step()
    model.zero_grad(set_to_none=True)
    return loss.item()


def peak_bytes(start_anew: bool = False) -> int | None:
    """Peak of this process's resident memory since it was told to start anew; `None` without /proc."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    if start_anew:
        ctypes.CDLL(None).malloc_trim(0)  # what is free goes back, so that the step must ask for it
        Path("/proc/self/clear_refs").write_text("5")
    return 1024 * int(re.findall(r"VmHWM:\s*(\d+) kB", status.read_text())[0])


def choose_clips(bench_args: BenchmarkArguments, data_args: DataArguments) -> list[dict[str, Any]]:
    speech, _ = load_speech(data_args, "train")
    wanted = bench_args.batch_size * bench_args.steps
    if len(speech) < wanted:
        raise ValueError(f"{wanted} clips are needed, the train split has {len(speech)}: lower `steps`.")
    return [speech[i] for i in random.Random(bench_args.seed).sample(range(len(speech)), wanted)]


def measure(bench: StepBench) -> dict[str, dict[str, Any]]:
    """All settings: memory each in a process of its own, then time in turn in this one."""
    results: dict[str, dict[str, Any]] = {}
    for name in tqdm(bench.bench_args.settings, desc="memory", unit="setting"):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
            results[name] = fresh.submit(bench.peak_memory, name).result()
    check_same_losses(results)
    for name, seconds in bench.time_in_turn().items():
        results[name]["median_seconds"] = statistics.median(seconds)
        results[name]["clips_per_second"] = len(bench.rows) / sum(seconds)
        results[name]["seconds"] = seconds
    for result in results.values():
        result["ratio_to_ours"] = result["median_seconds"] / results[OURS]["median_seconds"]
    return results


def check_same_losses(results: dict[str, dict[str, Any]]) -> None:
    """On equal batches a setting must have our losses, before an update and after it."""
    ours = results[OURS]["losses"]
    for name, losses in [(name, result["losses"]) for name, result in results.items()]:
        equal_batches = SETTINGS[name].grouped and SETTINGS[name].pad_to_seconds is None
        if equal_batches and not torch.allclose(torch.tensor(losses), torch.tensor(ours), rtol=1e-4):
            raise RuntimeError(f"{name!r} computes something else: losses {losses}, ours {ours}.")


def table(results: dict[str, dict[str, Any]]) -> str:
    lines = ["| setting | s per step (median) | range | clips/s | ratio to ours | peak extra MiB |"]
    lines += ["|---|---|---|---|---|---|"]
    for name, result in results.items():
        seconds, extra = result["seconds"], result["peak_extra_bytes"]
        cells = [name, f"{result['median_seconds']:.3g}", f"{min(seconds):.3g} to {max(seconds):.3g}"]
        cells += [f"{result['clips_per_second']:.3g}", f"{result['ratio_to_ours']:.2f}"]
        cells += ["not measured" if extra is None else str(round(extra / 2**20))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    cpu = re.search(r"model name\s*: (.*)", cpuinfo.read_text() if cpuinfo.exists() else "")
    return {
        "cpu": cpu[1] if cpu else None,
        "cores": os.cpu_count(),
        "load_average_before": os.getloadavg()[0],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def short_name(source: str) -> str:
    """A Hub id as it is; of a directory its name, not where it lies on this machine."""
    return Path(source).name if Path(source).exists() else source


def main() -> None:
    bench_args, model_args, data_args = parse_arguments(
        BenchmarkArguments, ModelArguments, DataArguments, description="Time and memory of a training step."
    )
    report: dict[str, Any] = {"machine": machine()} | asdict(bench_args)
    report |= {"encoder": short_name(model_args.encoder), "keep_layers": model_args.keep_layers}
    report |= {"llm": short_name(model_args.llm), "dataset": short_name(data_args.dataset)}
    output = Path(report.pop("output"))
    output.parent.mkdir(parents=True, exist_ok=True)
    with clear_errors():
        build_config(model_args, LoraArguments())  # a base model that cannot be found shows here
        rows = choose_clips(bench_args, data_args)
    report |= {"clip_seconds": [row["duration"] for row in rows], "training": {}}
    for rank in bench_args.lora_ranks:
        title = f"LoRA, rank {rank}" if rank else "projector only"
        print(f"\n{title}; {bench_args.batch_size} clips a step", flush=True)
        results = measure(StepBench(bench_args, model_args, LoraArguments(lora_rank=rank), rows))
        print(table(results), flush=True)
        report["training"][title] = results
        output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"\nEvery sample: {output}")


if __name__ == "__main__":
    main()
