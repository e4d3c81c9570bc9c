"""Batches of clips: of like lengths, each clip once an epoch, in an order that seed and epoch fix."""

from itertools import chain

import pytest
import torch

from modeling_slam.training.sampling import SeededLengthGroups, SpeechBudgetBatches

LENGTHS = torch.randint(50, 3000, (96,), generator=torch.Generator().manual_seed(0)).tolist()
BUDGET = 6000


def groups(epoch: int) -> list[list[int]]:
    """Batches of 4 as a fresh sampler gives them."""
    order = list(SeededLengthGroups(4, LENGTHS, seed=42, epoch=lambda: epoch))
    return [order[start : start + 4] for start in range(0, len(order), 4)]


def budgets(epoch: int) -> list[list[int]]:
    return list(SpeechBudgetBatches(BUDGET, LENGTHS, seed=42, epoch=lambda: epoch))


@pytest.mark.parametrize("batches_of", [groups, budgets])
def test_the_order_of_clips_follows_from_seed_and_epoch_alone(batches_of):
    """Whatever the process has drawn before, and whether or not it has been through the epochs before."""
    orders = [batches_of(epoch) for epoch in range(3)]
    assert orders[0] != orders[1] != orders[2]
    assert all(sorted(chain.from_iterable(order)) == list(range(96)) for order in orders)
    torch.rand(7)
    assert [batches_of(epoch) for epoch in (2, 0, 1)] == [orders[2], orders[0], orders[1]]


@pytest.mark.parametrize("batches_of", [groups, budgets])
def test_clips_of_a_batch_are_of_like_length(batches_of):
    assert padding(batches_of(0)) < 0.5 * padding([[*range(n, n + 4)] for n in range(0, 96, 4)])


def padding(batches: list[list[int]]) -> float:
    """Share of the batches' frames."""
    real = sum(LENGTHS)
    return 1 - real / sum(len(batch) * max(LENGTHS[clip] for clip in batch) for batch in batches)


def test_batches_keep_their_budget_and_use_it():
    seconds = [sum(LENGTHS[clip] for clip in batch) for batch in budgets(0)]
    assert max(seconds) <= BUDGET
    assert sum(seconds) / len(seconds) > 0.7 * BUDGET


def test_every_epoch_has_as_many_batches():
    sampler = SpeechBudgetBatches(BUDGET, LENGTHS, seed=42, epoch=lambda: 0)
    assert {len(budgets(epoch)) for epoch in range(4)} == {len(sampler)}


def test_a_clip_beyond_the_budget_is_a_batch_of_its_own():
    batches = list(SpeechBudgetBatches(5, [2, 9, 2], seed=0, epoch=lambda: 0))
    assert sorted(map(sorted, batches)) == [[0, 2], [1]]
