"""Batches of clips: of like lengths, each clip once an epoch, in an order that seed and epoch fix."""

from itertools import chain

import pytest
import torch

from modeling_slam.data.mixing import Mixture
from modeling_slam.training.sampling import DrawnClips, SeededLengthGroups, SpeechBudgetBatches

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


def padding(batches: list[list[int]], lengths: list[int] = LENGTHS) -> float:
    """Share of the batches' frames."""
    real = sum(lengths)
    return 1 - real / sum(len(batch) * max(lengths[clip] for clip in batch) for batch in batches)


@pytest.mark.parametrize("clips", [1091, 2100, 12_000])
def test_large_batches_by_seconds_hold_little_padding_whatever_the_number_of_clips(clips):
    """A batch must not hold the shortest clips of those sorted together and the longest of others."""
    lengths = torch.randint(50, 1500, (clips,), generator=torch.Generator().manual_seed(0)).tolist()
    batches = SpeechBudgetBatches(24_000, lengths, seed=0, epoch=lambda: 0).batches
    assert padding(batches, lengths) < 0.06


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


MIXTURE = Mixture(["large"] * 80 + ["small"] * 16, [0.5] * 96, seed=42)


def mixed(kind: str, epoch: int) -> list[int]:
    """The clips of an epoch in their order."""
    settings = {"seed": 42, "epoch": lambda: epoch, "draw": MIXTURE.draw}
    if kind == "budget":
        return list(chain.from_iterable(SpeechBudgetBatches(BUDGET, LENGTHS, **settings)))
    if kind == "groups":
        return list(SeededLengthGroups(4, LENGTHS, **settings))
    return list(DrawnClips(96, **settings, in_order=kind == "in order"))


@pytest.mark.parametrize("kind", ["groups", "random", "in order"])
def test_an_epoch_of_a_mixture_has_the_clips_that_are_drawn_for_it(kind):
    for epoch in (1, 0, 2):
        assert sorted(mixed(kind, epoch)) == sorted(MIXTURE.draw(epoch))
        assert mixed(kind, epoch) == mixed(kind, epoch)
    assert (mixed(kind, 0) == sorted(mixed(kind, 0))) == (kind == "in order")


def test_batches_by_seconds_of_a_mixture_are_as_many_in_every_epoch_within_the_budget():
    for epoch in range(12):
        batches = list(
            SpeechBudgetBatches(BUDGET, LENGTHS, seed=42, epoch=lambda epoch=epoch: epoch, draw=MIXTURE.draw)
        )
        assert len(batches) == len(SpeechBudgetBatches(BUDGET, LENGTHS, 42, lambda: 0, MIXTURE.draw))
        assert all(sum(LENGTHS[clip] for clip in batch) <= BUDGET for batch in batches)
        small = sum(clip >= 80 for batch in batches for clip in batch) / sum(map(len, batches))
        assert small == pytest.approx(0.5, abs=0.1), "one in six of the clips, half of those drawn"
    assert mixed("budget", 3) == mixed("budget", 3) != mixed("budget", 4)
