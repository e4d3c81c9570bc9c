"""`python -m benchmarks gpu`: is it right on this device, then how fast and in how much memory.

    python -m benchmarks gpu --out DIR [--minutes 8] [--device cpu --size tiny]

Order: the checks; Whisper medium's 22 layers with Qwen2.5-3B, training and evaluation, ours and plain;
large-v2; small; the other depths of medium; then each ingredient of variants.py, where ours lacks it: in
training, in decoding (a static cache, in CUDA graphs), and features on the device.
"""

import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import transformers

from benchmarks.gpu.checks import Checks
from benchmarks.gpu.device import Device
from benchmarks.gpu.lines import BrokenDeviceError, Lines, OutOfTimeError
from benchmarks.gpu.peer import measure_peer
from benchmarks.gpu.sizes import LORA_RANK, SIZES
from benchmarks.gpu.speed import Speed
from benchmarks.gpu.table import write_table
from benchmarks.gpu.variants import TRAININGS
from benchmarks.sides import REPOSITORY, commit
from modeling_slam.common.command_line import clear_errors, parse_arguments

DESCRIPTION = "Is it right on this GPU, how fast, and in how much memory; random weights, nothing is fetched."
USAGE = "python -m benchmarks gpu --out DIR [--flag value ...]"


@dataclass
class GpuArguments:
    """What is measured, and for how long."""

    out: str = field(metadata={"help": "Directory that receives gpu.jsonl and gpu.md."})
    device: str = field(default="cuda", metadata={"help": "A device of torch: cuda, cpu."})
    size: Literal["real", "tiny"] = field(
        default="real", metadata={"help": "Models of the real sizes; tiny ones try the command out."}
    )
    minutes: float | None = field(
        default=None, metadata={"help": "Stop after so many; the same command goes on."}
    )
    peer: str | None = field(
        default=None, metadata={"help": "Another implementation's command (benchmarks/README.md)."}
    )

    def __post_init__(self):
        if self.minutes is not None and self.minutes <= 0:
            raise ValueError(f"`minutes` must be positive, got {self.minutes}.")


def about(arguments: GpuArguments, device: Device) -> dict[str, Any]:
    """What all figures of a directory have in common."""
    return {
        "device": device.name,
        "device_gib": device.gib,
        "size": arguments.size,
        "llm": f"Qwen2.5-{SIZES[arguments.size].llm}",
        "lora_rank": LORA_RANK,
        "dtype": "bfloat16",
        "commit": commit(REPOSITORY),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def measure(arguments: GpuArguments, device: Device, lines: Lines) -> None:
    """All cases, the most wanted first; what `lines` has is not measured again."""
    checks = Checks(device, arguments.size)
    for name, check in checks.all().items():
        lines.line({"part": "check", "name": name}, check)
    speed = Speed(device, arguments.size, lines)
    speed.peak()
    first = speed.sizes.models[0]
    for model in speed.sizes.models:
        for side in ("ours", "plain"):
            speed.trainings(model, side)
        for side in ("ours", "plain"):
            speed.evaluations(model, side)
        if model == first and arguments.peer is not None:
            speed.release()
            measure_peer(arguments.peer, model, speed)
    batch, eval_batch = speed.sizes.compared_batch, speed.sizes.eval_batch_sizes[0]
    for variant in TRAININGS:
        speed.training(first, "ours", batch, variant)
    speed.evaluation(first, "ours", eval_batch, beams=1)
    for beams in (1, 2):
        speed.evaluation(first, "ours", eval_batch, beams=beams, variant="static cache")
    for where in ("loader", "device"):
        speed.features(first, where)


def main(argv: list[str] | None = None) -> None:
    [arguments] = parse_arguments(GpuArguments, description=DESCRIPTION, argv=argv, usage=USAGE)
    with clear_errors():
        if arguments.device == "cuda":  # one GPU: transformers' Trainer would take all
            os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
        device = Device(arguments.device)
        lines = Lines(Path(arguments.out), about(arguments, device), device, arguments.minutes)
        ending = "All is measured."
        try:
            measure(arguments, device, lines)
        except OutOfTimeError:
            ending = "The time is over. The same command goes on where this one stopped."
        except BrokenDeviceError as error:
            raise SystemExit(
                f"error: the device failed in {error}. The same command goes on behind it."
            ) from error
        finally:
            table = write_table(lines)
    print(f"\n{table}\n{ending} Every line: {lines.path}")
