"""Which clips train together: batches of like lengths, by number of clips or by seconds of speech.

The order follows from seed and epoch alone. transformers draws it from the random state of the process: a run
resumed within an epoch, or processes whose dropout has drawn differently, would meet some clips twice and
others never.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import LengthGroupedSampler, get_length_grouped_indices

CLIPS_TO_SORT = 1000  # lengths are alike within so many clips drawn at random; more would fix who meets whom


def with_lengths(dataset: Any, column: str) -> Any:
    """The clips with a `column` to group batches by: their length in hundredths of a second."""
    return dataset.add_column(column, [round(100 * seconds) for seconds in dataset["duration"]])


class SeededLengthGroups(LengthGroupedSampler):
    """Clips in an order that makes batches of `batch_size` of like lengths."""

    def __init__(self, batch_size: int, lengths: list[int], seed: int, epoch: Callable[[], int]):
        super().__init__(batch_size, lengths=lengths)
        self.seed, self.epoch = seed, epoch

    def __iter__(self) -> Iterator[int]:
        self.generator = torch.Generator().manual_seed(self.seed + self.epoch())
        return super().__iter__()


class SpeechBudgetBatches(Sampler[list[int]]):
    """Batches of like lengths that hold at most `budget` of them together, so that each costs about as much.

    Epochs have the same batches in different orders: their number, which the schedule counts on, is fixed.
    """

    def __init__(self, budget: float, lengths: list[int], seed: int, epoch: Callable[[], int]):
        """`budget` and `lengths` in one unit; a clip longer than the budget is a batch of its own."""
        generator = torch.Generator().manual_seed(seed)
        sort_together = max(1, min(CLIPS_TO_SORT, len(lengths)))
        order = get_length_grouped_indices(lengths, 1, sort_together, generator)
        self.batches = cut_by_budget(order, lengths, budget)
        self.seed, self.epoch = seed, epoch

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch())
        for index in torch.randperm(len(self.batches), generator=generator).tolist():
            yield self.batches[index]


def cut_by_budget(order: list[int], lengths: list[int], budget: float) -> list[list[int]]:
    """Cut `order` into batches where the sum of the clips' lengths stays within the budget."""
    batches: list[list[int]] = []
    left = 0.0
    for index in order:
        if not batches or lengths[index] > left:
            batches.append([])
            left = budget
        batches[-1].append(index)
        left -= lengths[index]
    return batches
