"""Disk and time of a training.

Disk: base models as their configurations state them (a directory takes none), the encoder's cached frames,
checkpoints with the optimizer's state. Time: clips over clips a second, or the operations of study/cost.py
over the rate that a benchmark sustained.
"""

import json
import statistics
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedConfig

from modeling_slam import SlamAsrConfig
from modeling_slam.analysis.parameters import parameter_counts
from modeling_slam.plan.memory import TRAINED_BYTES
from modeling_slam.study.cost import TOKENIZER_BYTES, TokenRates, training_flops

OPTIMIZER_BYTES = 8


def download_bytes(model_id: str, config: PreTrainedConfig, is_llm: bool) -> float:
    """Of a base model's weights, whole: Whisper's decoder is in the same file. None for a directory.

    Where the configuration does not say in which type they are stored: an LLM's in 16 bits, others in 32.
    """
    if Path(model_id).is_dir():
        return 0.0
    with torch.device("meta"):
        model = (AutoModelForCausalLM if is_llm else AutoModel).from_config(config)
    stored = config.dtype if isinstance(config.dtype, torch.dtype) else None
    stored = stored or (torch.bfloat16 if is_llm else torch.float32)
    return float(stored.itemsize * sum(weight.numel() for weight in model.parameters()))


def frame_bytes(config: SlamAsrConfig, hours: float, dtype: torch.dtype) -> float:
    """Of the encoder's output for so much speech, at one depth."""
    return 3600 * hours * TokenRates(config).frames * config.audio_config.hidden_size * dtype.itemsize


def checkpoint_bytes(trained: int, lora: int, kept: int) -> tuple[float, float]:
    """Of the model that a run ends with, and of `kept` checkpoints beside it."""
    model = TRAINED_BYTES * (trained + lora) + TOKENIZER_BYTES  # LoRA is there once more, for PEFT
    return model, kept * (model + OPTIMIZER_BYTES * trained)


def measured_rate(path: Path, adds_lora: bool) -> tuple[float, str]:
    """Floating-point operations a second of training, and where they were measured, of a `benchmark.json`.

    Raises:
        ValueError: the file has no training of ours. OSError: it cannot be read.
    """
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        rows = [row for row in results["rows"] if (row["part"], row["side"]) == ("training", "ours")]
        fitting = [row for row in rows if row["setting"].startswith("LoRA") is adds_lora] or rows
        rate = fitting[0]["needed_flop"] / statistics.median(fitting[0]["samples"])
        device = results["about"]["device"]
    except (KeyError, IndexError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"`--throughput {path}` must be the benchmark.json of `python -m benchmarks --parts training`; "
            "it holds no training of ours."
        ) from error
    return rate, f"{rate / 1e9:,.0f} GFLOP/s, measured on {device} ({path})"


def training_seconds(
    config: SlamAsrConfig, clips: float, clip_seconds: float, rate: float, checkpointing: bool
) -> float:
    flops = training_flops(parameter_counts(config), TokenRates(config), clips, clip_seconds)
    return flops * (4 / 3 if checkpointing else 1) / rate  # one more forward pass, of three passes' work


def clips_seen(run: Any, clips: float) -> float:
    """What a training goes through; `clips` of one epoch."""
    if run.max_steps > 0:
        return run.max_steps * run.per_device_train_batch_size * run.gradient_accumulation_steps
    return run.num_train_epochs * clips
