"""What fits on a device: first what leaves the result as it is, then what does not.

Smaller batches with as many more of them to a step, gradient checkpointing (a third more time), and then a
frozen LLM in 8 and in 4 bits. The clips of an optimizer step stay the same in number.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from modeling_slam import SlamAsrConfig
from modeling_slam.plan.memory import Load, training_memory


def tried(load: Load, may_pack: bool) -> Iterator[Load]:
    """Loads in the order in which they are preferred, this one first."""
    divisors = [n for n in range(load.clips, 0, -1) if load.clips % n == 0]
    packings = [load.quantization]
    if may_pack and load.quantization is None:
        packings += ["8bit", "4bit"]
    elif may_pack and load.quantization == "8bit":
        packings += ["4bit"]
    for packing in packings:
        for checkpointing in [load.checkpointing] if load.checkpointing else [False, True]:
            for clips in divisors:
                yield dataclasses.replace(
                    load, clips=clips, checkpointing=checkpointing, quantization=packing
                )


def fit(config: SlamAsrConfig, load: Load, room: float) -> tuple[Load, dict[str, float], bool]:
    """The first load whose training takes at most `room` bytes, its memory, True; or the last one, False."""
    memory: dict[str, float] = {}
    for candidate in tried(load, may_pack=not config.train_llm):
        memory = training_memory(config, candidate)
        if memory["total"] <= room:
            return candidate, memory, True
    return candidate, memory, False


def flags_of(load: Load, chosen: Load, run: Any) -> list[str]:
    """What to add to the command line of `train.py`, where something changes."""
    flags = []
    if chosen.clips != load.clips:
        parts = load.clips // chosen.clips
        if run.batch_seconds is None:
            flags += ["--per_device_train_batch_size", f"{chosen.clips}"]
        else:
            flags += ["--batch_seconds", f"{run.batch_seconds / parts:g}"]
        flags += ["--gradient_accumulation_steps", f"{run.gradient_accumulation_steps * parts}"]
    if chosen.checkpointing != load.checkpointing:
        flags += ["--gradient_checkpointing", "true"]
    if chosen.quantization != load.quantization:
        flags += ["--quantization", f"{chosen.quantization}"]
    return flags
