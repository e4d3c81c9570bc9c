"""Each clip counts once, also where batches are made even.

Several processes get equally many batches of an epoch: where the last are too few or too short, clips of its
beginning come once more, to keep the processes in step. `EachClipOnce`, a base of any trainer, takes them out
again, in training and for the loss of a validation.
"""

from collections.abc import Iterator
from typing import Any

import torch
from transformers import Trainer

REPEATED = "repeated"  # in a batch of none but repeated clips: it must not count


class EachClipOnce(Trainer):
    """Its batches have the clips alone that no other batch has."""

    args: Any

    def get_batch_samples(self, epoch_iterator: Iterator, *args: Any, **kwargs: Any) -> Any:
        return super().get_batch_samples(self._each_once(epoch_iterator), *args, **kwargs)

    def _each_once(self, batches: Iterator) -> Iterator:
        clips: Any = self.train_dataset
        for batch in batches:
            yield self.own_clips_of(batch, len(clips), self.args.train_batch_size, self.args.batch_seconds)

    def own_clips_of(self, batch: Any, clips: int, size: int, by_budget: float | None = None) -> Any:
        """A batch of `clips` in all; `size` is that of a full one, where batches are not cut by a budget."""
        state = self.accelerator.gradient_state
        if self.args.world_size == 1 or self.args.dataloader_drop_last or not state.end_of_dataloader:
            return batch
        has, process = len(batch["labels"]), self.args.process_index
        if by_budget is None:
            own = own_in_last(clips, size, self.args.world_size, process)
        else:  # whole batches are repeated
            batches = state.active_dataloader.batch_sampler
            while hasattr(batches, "batch_sampler"):
                batches = batches.batch_sampler
            own = has * own_in_last(len(batches), 1, self.args.world_size, process)
        return batch if own >= has else own_clips(batch, own)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        is_repeated = inputs.pop(REPEATED, False)
        loss: Any = super().compute_loss(model, inputs, *args, **kwargs)
        return 0.0 * loss if is_repeated else loss


def own_in_last(clips: int, batch: int, processes: int, process: int) -> int:
    """How many clips of a process's last batch are not repeated, of `clips` in batches of `batch`."""
    left = clips % (batch * processes)
    return max(0, min(batch, left - process * batch)) if left else batch


def own_clips(batch: dict[str, Any], number: int) -> dict[str, Any]:
    """The batch with its first `number` clips alone; without any it keeps one, which has no labels."""
    own = {name: rows[: max(1, number)] for name, rows in batch.items()}
    if not number:
        own |= {"labels": torch.full_like(own["labels"], -100), REPEATED: True}
    return own
