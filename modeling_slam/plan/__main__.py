"""What a training will take, before any weight or clip is fetched: `slam-asr plan RECIPE [--flags of train]`.

    slam-asr plan nl-medium --gpu 24GB --train_hours 54
    slam-asr plan nl-medium --gpu 12GB --fit true

Of the base models the configurations are read, and nothing else. docs/plan.md: what is computed, and how far
off it is.
"""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from modeling_slam import SlamAsrConfig
from modeling_slam.common import known_models
from modeling_slam.common.command_line import clear_errors, parse_arguments
from modeling_slam.common.numbers import check_numbers
from modeling_slam.data import DataArguments
from modeling_slam.evaluation.arguments import EvaluationArguments
from modeling_slam.plan.costs import (
    checkpoint_bytes,
    clips_seen,
    download_bytes,
    frame_bytes,
    measured_rate,
    training_seconds,
)
from modeling_slam.plan.fit import fit, flags_of
from modeling_slam.plan.memory import CTC_TOKENS, Load, decoding_memory, training_memory
from modeling_slam.plan.saved import on_meta
from modeling_slam.publishing.arguments import PushArguments
from modeling_slam.training.alignment import AlignmentArguments, wants_head
from modeling_slam.training.arguments import (
    LoraArguments,
    ModelArguments,
    RunArguments,
    bf16_is_native,
)
from modeling_slam.training.assembly import architecture, base_config, check_llm, frozen_dtype
from modeling_slam.training.augmentation import AugmentationArguments
from modeling_slam.training.by_projector import settle
from modeling_slam.training.feature_cache import CacheArguments

DESCRIPTION = "Parameters, memory, disk and time of a training, before anything but configurations is read."
USAGE = "%(prog)s [RECIPE] [--flags of train] [--gpu 24GB]"
GIB = 2**30


@dataclass
class PlanArguments:
    """What is planned for"""

    gpu: str | None = field(default=None, metadata={"help": "Memory of the device, such as 24GB (GiB)."})
    fit: bool = field(default=False, metadata={"help": "Propose flags with which the training fits there."})
    train_hours: float | None = field(
        default=None, metadata={"help": "Hours of speech; by default `max_train_hours`."}
    )
    mean_seconds: float = field(
        default=5.0, metadata={"help": "Length of a clip on average; Common Voice's is 5 s."}
    )
    clips_per_second: float | None = field(
        default=None, metadata={"help": "Training speed of your device, from another run's log."}
    )
    throughput: str | None = field(
        default=None, metadata={"help": "Speed from a benchmark.json of `python -m benchmarks`."}
    )

    def __post_init__(self):
        check_numbers(self, ("train_hours", "mean_seconds", "clips_per_second"), above=0)
        if self.fit and self.gpu is None:
            raise ValueError("`--fit` needs `--gpu`: the memory that is there, such as 24GB.")
        if self.clips_per_second and self.throughput:
            raise ValueError("`clips_per_second` and `throughput` both say how fast it is; leave one out.")
        self.room = None if self.gpu is None else bytes_of(self.gpu)


@dataclass
class PlannedRun(RunArguments):
    """Training run"""

    output_dir: str = field(default="-", metadata={"help": "Nothing is written."})

    def __post_init__(self):
        self.asked_bf16 = self.bf16
        super().__post_init__()


TYPES = (
    PlanArguments, ModelArguments, LoraArguments, DataArguments, CacheArguments, AugmentationArguments,
    AlignmentArguments, PlannedRun, PushArguments,
)  # fmt: skip
USUAL = {
    "gpu", "fit", "train_hours", "mean_seconds", "clips_per_second", "throughput", "encoder", "llm",
    "keep_layers", "lora_rank", "per_device_train_batch_size", "gradient_checkpointing", "quantization",
    "max_seconds",
}  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    groups = parse_arguments(*TYPES, description=DESCRIPTION, argv=argv, usage=USAGE, usual=USUAL)
    with clear_errors():
        print("\n".join(plan(*groups)))


def plan(
    asked: PlanArguments,
    model_args: ModelArguments,
    lora_args: LoraArguments,
    data_args: DataArguments,
    cache_args: CacheArguments,
    _augment: AugmentationArguments,
    align_args: AlignmentArguments,
    run: PlannedRun,
    _push: PushArguments,
) -> list[str]:
    """The lines of the plan."""
    settle(model_args.projector_type, align_args, run)
    config = planned_config(model_args, lora_args)
    if wants_head(config, align_args, run):
        config.ctc_vocab_size = CTC_TOKENS
    gives_bf16 = asked.room is not None or bf16_is_native()
    bf16 = gives_bf16 if run.asked_bf16 is None else run.asked_bf16
    seconds = model_args.pad_to_seconds or data_args.max_seconds
    clips = run.per_device_train_batch_size
    if run.batch_seconds is not None:
        clips = max(1, int(run.batch_seconds / seconds))
    load = Load(
        clips, seconds, frozen_dtype(model_args, bf16), bool(run.gradient_checkpointing),
        model_args.quantization, str(getattr(run.optim, "value", run.optim)), asked.room is not None,
        run.loss_positions,
    )  # fmt: skip
    chosen, memory, fits = load, training_memory(config, load), True
    lines = [*parameters(config), "", *memory_lines("Training", load, memory, asked.room)]
    if asked.fit:
        chosen, memory, fits = fit(config, load, asked.room or 0.0)
        flags = " ".join(flags_of(load, chosen, run)) or "nothing to change"
        told = "Fits with" if fits else "Does not fit; the least is with"
        lines += [f"  {told}: {flags} ({memory['total'] / GIB:.2f} GiB)"]
    lines += ["", *decoding_lines(config, chosen, seconds, asked.room)]
    hours = asked.train_hours or data_args.max_train_hours
    needs_frames = bool(cache_args.cache_features or align_args.align_epochs or run.train_depths)
    lines += [
        "",
        *disk_lines(config, model_args, run, hours if needs_frames else None, load.dtype, needs_frames),
    ]
    return [*lines, "", time_line(config, asked, run, hours, chosen)]


def planned_config(model_args: ModelArguments, lora_args: LoraArguments) -> SlamAsrConfig:
    """As `build_config` makes it, of configurations alone: the tokenizer is not read, nor a revision pinned.

    Raises:
        ValueError: a base model cannot be found, or a setting does not fit it.
    """
    named = (
        ("encoder", model_args.encoder, model_args.encoder_revision),
        ("llm", model_args.llm, model_args.llm_revision),
    )
    bases = [base_config(*each, read=known_models.base_config) for each in named]
    check_llm(model_args, bases[1])
    return architecture(model_args, lora_args, *bases)


def parameters(config: SlamAsrConfig) -> list[str]:
    counts = on_meta(config, torch.float32).parameter_counts()
    names = {
        "encoder kept": "encoder_kept", "encoder removed": "encoder_removed", "projector": "projector",
        "LLM kept": "llm", "LLM removed": "llm_removed", "LoRA": "lora",
        "trained": "trainable", "all": "total",
    }  # fmt: skip
    shown = [f"  {name:26}{counts[key] / 1e6:10.2f} M" for name, key in names.items() if counts[key]]
    return ["Parameters", *shown]


def memory_lines(title: str, load: Load, memory: dict[str, float], room: float | None) -> list[str]:
    packed = f", LLM in {load.quantization}" if load.quantization else ""
    kind = str(load.dtype).removeprefix("torch.")
    again = ", gradient checkpointing" if load.checkpointing else ""
    lines = [f"{title}: batches of {load.clips}, clips of up to {load.seconds:g} s, {kind}{packed}{again}"]
    lines += [f"  {part:26}{size / GIB:10.2f} GiB" for part, size in memory.items() if size >= GIB / 200]
    if room is not None:
        word = "fits" if memory["total"] <= room else "does NOT fit"
        lines += [f"  {word} in {room / GIB:g} GiB"]
    return lines


def decoding_lines(config: SlamAsrConfig, load: Load, seconds: float, room: float | None) -> list[str]:
    defaults = EvaluationArguments(model="-", output_dir="-")
    clips = max(1, int(min(defaults.batch_size, defaults.batch_seconds / seconds)))
    load = Load(clips, seconds, load.dtype, quantization=load.quantization, on_gpu=load.on_gpu)
    memory = decoding_memory(config, load, defaults.num_beams)
    return memory_lines(f"Decoding by eval.py, {defaults.num_beams} beams", load, memory, room)


def disk_lines(
    config: SlamAsrConfig, model_args: ModelArguments, run: RunArguments, hours: float | None, dtype: Any,
    needs_frames: bool,
) -> list[str]:  # fmt: skip
    counts = on_meta(config, dtype).parameter_counts()
    kept = 0 if run.save_strategy == "no" else run.save_total_limit or int(run.num_train_epochs)
    model, checkpoints = checkpoint_bytes(counts["trainable"], counts["lora"], kept)
    sizes = {
        f"download {model_args.encoder}": download_bytes(model_args.encoder, config.audio_config, False),
        f"download {model_args.llm}": download_bytes(model_args.llm, config.text_config, True),
        "trained model": model,
        f"{kept} checkpoints": checkpoints,
    }
    lines = ["Disk"]
    if hours is not None:
        sizes["encoder's frames"] = frame_bytes(config, hours, dtype)
    lines += [f"  {name:36}{size / 1e9:10.2f} GB" for name, size in sizes.items() if size]
    if needs_frames and hours is None:
        each = frame_bytes(config, 1.0, dtype) / 1e9
        lines += [f"  {'encoder frames':36}{each:10.2f} GB for an hour of speech; say --train_hours"]
    return lines


def time_line(
    config: SlamAsrConfig, asked: PlanArguments, run: RunArguments, hours: float | None, load: Load
) -> str:
    if hours is None and run.max_steps <= 0:
        return "Time: unknown; say --train_hours, and --clips_per_second or --throughput."
    clips = clips_seen(run, 3600 * (hours or 0.0) / asked.mean_seconds)
    told = f"Time: {clips:,.0f} clips of {asked.mean_seconds:g} s in all"
    if asked.clips_per_second:
        taken, why = (
            clips / asked.clips_per_second,
            f"at {asked.clips_per_second:g} clips a second, as stated",
        )
    elif asked.throughput:
        rate, why = measured_rate(Path(asked.throughput), config.adds_lora)
        taken, why = (
            training_seconds(config, clips, asked.mean_seconds, rate, load.checkpointing),
            f"at {why}",
        )
    else:
        return f"{told}; how long is unknown: say --clips_per_second or --throughput."
    return f"{told}, {taken / 3600:.1f} hours {why}; alignment and validation not counted."


def bytes_of(text: str) -> float:
    """`24GB`, `24 GiB` or `24` as bytes; a GPU's GB are 2^30."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(?:G|GB|GiB)?\s*", text, flags=re.IGNORECASE)
    if match is None or not float(match[1]) > 0:
        raise ValueError(f"`--gpu` must be memory such as 24GB, got {text!r}.")
    return float(match[1]) * GIB


if __name__ == "__main__":
    main()
