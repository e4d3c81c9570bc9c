"""A run's directory: what was asked for, and which checkpoint to go on from.

`run.json` holds the settings a run was started with. A directory that holds another run is refused, and so is
resuming with settings that would make the rest of the run another one.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import SAFE_WEIGHTS_NAME

from modeling_slam.data import DataArguments
from modeling_slam.training.arguments import LoraArguments, ModelArguments, RunArguments

RUN_FILE = "run.json"
# Settings of the trainer that shape the result; a resumed run must not change them.
RESULT_SETTINGS = (
    "learning_rate",
    "weight_decay",
    "max_grad_norm",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "batch_seconds",
    "gradient_accumulation_steps",
    "world_size",
    "train_sampling_strategy",
    "bf16",
    "seed",
    "data_seed",
    "optim",
)


def result_settings(
    model_args: ModelArguments, lora_args: LoraArguments, data_args: DataArguments, run_args: RunArguments
) -> dict[str, Any]:
    """Every setting that the trained weights depend on, as plain JSON."""
    run = {name: getattr(run_args, name) for name in RESULT_SETTINGS}
    settings = {"model": asdict(model_args), "lora": asdict(lora_args), "data": asdict(data_args), "run": run}
    return json.loads(json.dumps(settings, default=str))


def claim_run_directory(run_args: RunArguments, settings: dict[str, Any]) -> str | None:
    """Check that the directory is free, or that the run in it may go on; return its checkpoint.

    The main process looks and tells the others, which may come when it has begun to write.

    Raises:
        ValueError: it holds another run, or the checkpoint is not there or belongs to other settings.
    """
    checkpoint = [None]
    if PartialState().is_main_process:
        checkpoint = [_claim(Path(run_args.output_dir), run_args.resume_from_checkpoint, settings)]
    broadcast_object_list(checkpoint)
    return checkpoint[0]


def _claim(directory: Path, resume: str | None, settings: dict[str, Any]) -> str | None:
    holds_something = directory.exists() and any(directory.iterdir())
    if resume is None:
        if holds_something:
            raise ValueError(
                f"`output_dir` {directory} is not empty. Go on with the run in it by "
                "`--resume_from_checkpoint last`, or name another directory."
            )
        return None
    checkpoint = find_checkpoint(directory, resume)
    if checkpoint is None and not holds_something:
        return None
    if checkpoint is not None and checkpoint.resolve().parent != directory.resolve():
        raise ValueError(
            f"{checkpoint} is not in `output_dir` {directory}. A run goes on in its own directory: set "
            f"`output_dir` to {checkpoint.parent}."
        )
    run_file = directory / RUN_FILE
    if not run_file.exists():
        raise ValueError(f"{directory} cannot be resumed: {run_file}, the settings of its run, is missing.")
    differences = differing(json.loads(run_file.read_text(encoding="utf-8")), settings)
    if differences:
        raise ValueError(
            f"{directory} holds a run with other settings: {'; '.join(differences)}. Resume with the "
            "settings it was started with, or start a new run in another `output_dir`."
        )
    # Without a checkpoint the run was killed before its first one, or has ended without any.
    if checkpoint is None and (directory / SAFE_WEIGHTS_NAME).exists():
        raise ValueError(f"{directory} holds a finished model and no checkpoint to go on from.")
    return None if checkpoint is None else str(checkpoint)


def write_run_file(run_args: RunArguments, settings: dict[str, Any]) -> None:
    """Write the settings, whole or not at all; the main process does."""
    if not PartialState().is_main_process:
        return
    directory = Path(run_args.output_dir)
    directory.mkdir(parents=True, exist_ok=True)
    temporary = directory / f".{RUN_FILE}.tmp"
    temporary.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(directory / RUN_FILE)


def find_checkpoint(directory: Path, wanted: str) -> Path | None:
    """The checkpoint `wanted`; for "last" the newest complete one in `directory`, `None` before the first."""
    if wanted != "last":
        checkpoint = Path(wanted)
        if not is_complete(checkpoint):
            raise ValueError(
                f"{checkpoint} is not a complete checkpoint: its trainer_state.json is missing or cut off. "
                "Use `--resume_from_checkpoint last` for the newest complete one in `output_dir`."
            )
        return checkpoint
    candidates = [path for path in directory.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if is_complete(path)]
    return max(candidates, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def is_complete(checkpoint: Path) -> bool:
    """The trainer writes its state last, so a checkpoint with a readable state is whole."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return False
    return True


def differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Settings with two values, as `name was A, is B`."""
    return [
        f"{name} was {before.get(group, {}).get(name)!r}, is {value!r}"
        for group, settings in now.items()
        for name, value in settings.items()
        if before.get(group, {}).get(name) != value
    ]
