"""Mixing: shares of the clips that are drawn, in passes that meet every clip of a dataset equally often."""

from collections import Counter

import pytest
from datasets import Dataset

from modeling_slam.data import DataArguments, DataError
from modeling_slam.data.mixing import SHARE, Mixture, mixture_of, quotas, with_shares

SETS = ("queen", "sky", "talk")


def clips(*sizes: int) -> Dataset:
    return Dataset.from_dict(
        {"dataset": [name for name, n in zip(SETS, sizes, strict=False) for _ in range(n)]}
    )


def shares(*sizes: int, **settings) -> dict[str, float]:
    arguments = DataArguments(list(SETS[: len(sizes)]), **settings)
    mixed = with_shares(clips(*sizes), arguments)
    return dict(zip(mixed["dataset"], mixed[SHARE], strict=True))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"dataset_weights": [2, 1, 1]}, (0.5, 0.25, 0.25)),
        ({"dataset_weights": [0.1, 0.1, 0.6]}, (0.125, 0.125, 0.75)),
        ({"dataset_temperature": 1}, (64 / 84, 16 / 84, 4 / 84)),
        ({"dataset_temperature": 2}, (8 / 14, 4 / 14, 2 / 14)),  # square roots
        ({"dataset_temperature": 1e9}, (1 / 3, 1 / 3, 1 / 3)),
    ],
)
def test_shares_are_as_weighed_or_a_root_of_the_size(settings, expected):
    assert tuple(shares(64, 16, 4, **settings).values()) == pytest.approx(expected)


def test_without_either_setting_nothing_is_mixed():
    arguments = DataArguments(list(SETS))
    same = with_shares(clips(3, 2, 1), arguments)
    assert same.column_names == ["dataset"]
    assert mixture_of(same, seed=0) is None


@pytest.mark.parametrize("total", [7, 84, 1000])
def test_an_epoch_has_as_many_clips_as_there_are_shared_out_to_the_nearest(total):
    counts = quotas({"queen": 0.5, "sky": 0.3, "talk": 0.2}, total)
    assert sum(counts.values()) == total
    assert all(
        abs(counts[name] - total * share) < 1 for name, share in zip(counts, (0.5, 0.3, 0.2), strict=True)
    )


def test_every_clip_of_a_dataset_is_met_equally_often_over_the_epochs():
    datasets = clips(10, 7, 3)["dataset"][:]
    weights = {"queen": 0.2, "sky": 0.35, "talk": 0.45}
    mixture = Mixture(datasets, [weights[name] for name in datasets], seed=3)
    met = Counter()
    for epoch in range(9):
        drawn = mixture.draw(epoch)
        assert len(drawn) == 20
        assert Counter(datasets[place] for place in drawn) == {"queen": 4, "sky": 7, "talk": 9}
        met.update(drawn)
        for name in SETS:
            times = [met[place] for place in range(20) if datasets[place] == name]
            assert max(times) - min(times) <= 1


def test_which_clips_an_epoch_has_follows_from_seed_and_epoch_alone():
    datasets = clips(10, 10)["dataset"][:]

    def drawn(seed: int) -> list[list[int]]:
        mixture = Mixture(datasets, [0.3] * 10 + [0.7] * 10, seed)
        return [mixture.draw(epoch) for epoch in (2, 0, 1)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert drawn(1)[0] != drawn(1)[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset_weights": [1, 2]}, r"`dataset_weights` has 2 values \(1, 2\) and `dataset` names 3"),
        ({"dataset_weights": [1, 2, 3, 4]}, "has 4 values"),
        ({"dataset_weights": [1, 0, 1]}, "must be above 0, got 1, 0, 1"),
        ({"dataset_weights": [1, float("inf"), 1]}, "must be above 0"),
        ({"dataset_weights": [1, float("nan"), 1]}, "must be above 0"),
        ({"dataset_weights": [1e308, 1e308, 1]}, "must be above 0"),
        ({"dataset_temperature": 0.0}, "`dataset_temperature` must be above 0, got 0"),
        ({"dataset_temperature": 2, "dataset_weights": [1, 1, 1]}, "leave one out"),
        ({"dataset": ["queen"], "dataset_weights": [1]}, "is for several datasets"),
        ({"dataset": ["queen"], "dataset_temperature": 2}, "is for several datasets"),
    ],
)
def test_shares_that_cannot_be_meant_are_refused_at_once(settings, message):
    with pytest.raises(ValueError, match=message):
        DataArguments(**{"dataset": list(SETS), **settings})


def test_a_dataset_that_would_never_be_drawn_is_refused():
    with pytest.raises(DataError, match="talk has a share in the training clips, and no clip of it"):
        with_shares(clips(5, 5), DataArguments(list(SETS), dataset_weights=[1, 1, 1]))
    with pytest.raises(DataError, match=r"sky gets a share of 0\.001.*an epoch has 10"):
        shares(5, 5, dataset_weights=[999, 1])


@pytest.mark.parametrize("temperature", [0.3, 1e-3, 1e-320])
def test_a_temperature_near_zero_leaves_a_small_dataset_nothing_and_is_refused(temperature):
    """The reverse of a temperature, meant as an exponent: the power of a size would be beyond all numbers."""
    with pytest.raises(DataError, match=r"(sky|talk) gets a share of .* none would be of it"):
        shares(90, 3, 2, dataset_temperature=temperature)
