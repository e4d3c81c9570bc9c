"""What a trainer saves is there as a whole or not at all, also where the disk is full.

`WholeSaves` is a base of any trainer. A checkpoint that has no room is taken away again; a model and the
files beside it are written into a directory of their own and moved when they are whole.
"""

import contextlib
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from modeling_slam.common.files import (
    DiskFullError,
    is_no_room,
    naming_what_has_no_room,
    replacing,
    write_json,
)
from modeling_slam.training.sharding import ShardedTrainer

STAGING = ".saving"  # in the directory of a model, while it is written


class WholeSaves(ShardedTrainer):
    """Saves as transformers does, or raises a `DiskFullError` with everything as it was before."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        directory = Path(self._get_output_dir(trial=trial), name)
        try:
            super()._save_checkpoint(model, trial)
        except Exception as error:
            if not is_no_room(error):
                raise
            shutil.rmtree(directory, ignore_errors=True)
            needed = saved_bytes(self.model) + optimizer_bytes(self.optimizer)
            raise DiskFullError(directory, needed) from error

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        # A checkpoint is whole when its state is there, which comes last; DeepSpeed writes in parts.
        if _internal_call or self.is_deepspeed_enabled:
            super().save_model(output_dir, _internal_call)
            return
        directory = Path(output_dir or str(self.args.output_dir))
        if not self.args.should_save:
            super().save_model(str(directory / STAGING))
            return
        with moving_into(directory, saved_bytes(self.model)) as staging:
            super().save_model(str(staging))

    def save_state(self) -> None:
        if self.is_world_process_zero():
            with replacing(Path(str(self.args.output_dir), TRAINER_STATE_NAME)) as temporary:
                self.state.save_to_json(str(temporary))

    def save_metrics(self, split: str, metrics: dict[str, float], combined: bool = True) -> None:
        """`SPLIT_results.json`; no second file that holds the same."""
        if self.is_world_process_zero():
            write_json(Path(str(self.args.output_dir), f"{split}_results.json"), metrics)


@contextlib.contextmanager
def moving_into(directory: Path, needed: int) -> Generator[Path]:
    """A directory to write a model into; its files are moved into `directory` when all are written.

    Raises:
        DiskFullError: there is no room; `directory` is as it was.
    """
    staging = directory / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    with naming_what_has_no_room(directory / "model.safetensors", needed):
        try:
            yield staging
            written = [path.relative_to(staging) for path in sorted(staging.rglob("*")) if path.is_file()]
            for old in directory.glob("model*.safetensors*"):  # of a model in another number of files
                if old.relative_to(directory) not in written:
                    old.unlink()
            for path in written:
                (directory / path).parent.mkdir(exist_ok=True)
                (staging / path).replace(directory / path)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def saved_bytes(model: Any) -> int:
    """About what a checkpoint of a model takes: a lean one holds the trained weights, a full one all."""
    is_lean = getattr(model.config, "is_lean", True)
    return sum(weight.nbytes for weight in model.parameters() if weight.requires_grad or not is_lean)


def optimizer_bytes(optimizer: Any) -> int:
    """What the state of an optimizer takes."""
    states = () if optimizer is None else optimizer.state.values()
    return sum(value.nbytes for state in states for value in state.values() if torch.is_tensor(value))
