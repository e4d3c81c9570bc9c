"""Which clips train together: batches of like lengths, by number of clips or by seconds of speech.

The order follows from seed and epoch alone. transformers draws it from the random state of the process: a run
resumed within an epoch, or processes whose dropout has drawn differently, would meet some clips twice and
others never.

Where datasets are mixed by shares, `draw` of a `Mixture` says which clips an epoch has.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import LengthGroupedSampler, get_length_grouped_indices

Draw = Callable[[int], list[int]]  # epoch -> the places of its clips in the training data
# Lengths are alike within so many clips drawn at random, and within so many batches where these are large, as
# in transformers; more would fix who meets whom.
CLIPS_TO_SORT, BATCHES_TO_SORT = 1000, 50


def with_lengths(dataset: Any, column: str) -> Any:
    """The clips with a `column` to group batches by: their length in hundredths of a second."""
    return dataset.add_column(column, [round(100 * seconds) for seconds in dataset["duration"]])


class SeededLengthGroups(LengthGroupedSampler):
    """Clips in an order that makes batches of `batch_size` of like lengths."""

    def __init__(
        self,
        batch_size: int,
        lengths: list[int],
        seed: int,
        epoch: Callable[[], int],
        draw: Draw | None = None,
    ):
        super().__init__(batch_size, lengths=lengths)
        self.seed, self.epoch, self.draw = seed, epoch, draw

    def __iter__(self) -> Iterator[int]:
        epoch = self.epoch()
        generator = torch.Generator().manual_seed(self.seed + epoch)
        drawn = list(range(len(self))) if self.draw is None else self.draw(epoch)
        lengths = [self.lengths[place] for place in drawn]
        order = get_length_grouped_indices(lengths, self.batch_size, generator=generator)
        return (drawn[number] for number in order)


class DrawnClips(Sampler[int]):
    """The clips that are drawn for an epoch, as many as there are, at random or in the order of the data."""

    def __init__(self, clips: int, seed: int, epoch: Callable[[], int], draw: Draw, in_order: bool):
        self.clips, self.seed, self.epoch, self.draw, self.in_order = clips, seed, epoch, draw, in_order

    def __len__(self) -> int:
        return self.clips

    def __iter__(self) -> Iterator[int]:
        epoch = self.epoch()
        drawn = sorted(self.draw(epoch))
        if self.in_order:
            return iter(drawn)
        generator = torch.Generator().manual_seed(self.seed + epoch)
        return (drawn[number] for number in torch.randperm(len(drawn), generator=generator).tolist())


class SpeechBudgetBatches(Sampler[list[int]]):
    """Batches of like lengths that hold at most `budget` of them together, so that each costs about as much.

    Epochs have the same batches in different orders: their number, which the schedule counts on, is fixed.
    What is drawn anew for each epoch makes other batches; it then has as many as the first epoch, for which a
    few are left out, or come twice.
    """

    def __init__(
        self,
        budget: float,
        lengths: list[int],
        seed: int,
        epoch: Callable[[], int],
        draw: Draw | None = None,
    ):
        """`budget` and `lengths` in one unit; a clip longer than the budget is a batch of its own."""
        self.budget, self.lengths = budget, lengths
        self.seed, self.epoch, self.draw = seed, epoch, draw
        self.batches = self._batches(list(range(len(lengths))) if draw is None else draw(0))

    def _batches(self, clips: list[int]) -> list[list[int]]:
        generator = torch.Generator().manual_seed(self.seed)
        lengths = [self.lengths[place] for place in clips]
        clips_a_batch = self.budget * len(lengths) / max(1, sum(lengths))
        sort_together = max(CLIPS_TO_SORT, round(BATCHES_TO_SORT * clips_a_batch))
        sort_together = max(1, min(sort_together, len(lengths)))
        order = get_length_grouped_indices(lengths, 1, sort_together, generator)
        cut = cut_by_budget(back_and_forth(order, sort_together), lengths, self.budget)
        return [[clips[number] for number in batch] for batch in cut]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        epoch = self.epoch()
        batches = self.batches if self.draw is None else self._batches(self.draw(epoch))
        generator = torch.Generator().manual_seed(self.seed + epoch)
        order = torch.randperm(len(batches), generator=generator).tolist()
        for index in itertools.islice(itertools.cycle(order), len(self)):
            yield batches[index]


def back_and_forth(order: list[int], sorted_together: int) -> list[int]:
    """Every second of the groups that were sorted, backwards: a batch across two of them has like lengths."""
    groups = (order[start : start + sorted_together] for start in range(0, len(order), sorted_together))
    return [clip for number, group in enumerate(groups) for clip in group[:: -1 if number % 2 else 1]]


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
