"""A run of `train.py` on the miniature world: seconds, and every part is the real one."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tiny_world import PLAIN, TinyWorld

REPOSITORY = Path(__file__).parents[2]
# One thread: sums are then made in one order, so runs can be compared to the last digit.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
# `--cpu` instead of `--multi_gpu` would start a single process, without a word.
TWO_PROCESSES = (
    "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
    "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
)  # fmt: skip


def flags(world: TinyWorld, output_dir: Path, **changes: Any) -> list[str]:
    """Command line of `train.py`: 48 clips of the miniature world, batches of 4, so 12 steps an epoch."""
    settings = PLAIN | {
        "encoder": world.encoder,
        "llm": world.llm,
        "dataset": world.dataset,
        "output_dir": output_dir,
        "keep_layers": 3,
        "projector_hidden_size": 64,
        "lora_rank": 4,
        "learning_rate": 3e-3,
        "generation_max_new_tokens": 16,
        "dataloader_num_workers": 0,
        "logging_steps": 1,
        "early_stopping_patience": 0,
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return [f"--{name}={value}" for name, value in (settings | changes).items()]


@contextlib.contextmanager
def started(log: Path, *command: str) -> Iterator[subprocess.Popen]:
    """Python with these arguments in its own process, writing to `log`; it does not outlive the block."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=REPOSITORY,
            env=ENVIRONMENT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.terminate()  # a launcher passes it on to its workers
        process.wait()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Sums of runs in this process are made in the order that those of a `started` one are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def history(directory: Path) -> list[dict[str, float]]:
    """What a run has logged, from its own or a checkpoint's directory."""
    return json.loads((directory / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]


def logged(directory: Path, name: str) -> dict[int, float]:
    """Step -> value, for every step where `name` was logged."""
    return {entry["step"]: entry[name] for entry in history(directory) if name in entry}
