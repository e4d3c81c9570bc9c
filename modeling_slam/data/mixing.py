"""Mixing: how often the clips of each dataset are trained on, where several are.

    --dataset a b c --dataset_weights 2 1 1        half of the clips drawn are a's
    --dataset a b c --dataset_temperature 3        shares are size^(1/3): small sets are drawn more often

An epoch has as many clips as all datasets together. A set with more than its own share is met several times,
one with less in part; whatever the share, its clips come in shuffled passes that go on from epoch to epoch:
none is met a second time before all were met once. Which clips an epoch has follows from seed and epoch
alone. Without either setting every clip is met once in an epoch.

The shares travel as a column of the training clips, so whatever trains on some of them mixes these alike.

Source: temperature-scaled mixing as in T5, https://huggingface.co/papers/1910.10683, section 3.5.2: 1 is by
size, a high temperature makes all equal. The exponent of multilingual BERT, XLM-R and mT5
(https://huggingface.co/papers/2010.11934, 0.3 there) is 1 / temperature.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modeling_slam.data.arguments import DataArguments
from modeling_slam.data.clips import DataError
from modeling_slam.data.joining import names_of

SHARE = "dataset_share"  # column: the share of a clip's dataset in the clips that are drawn


def with_shares(clips: Any, arguments: DataArguments) -> Any:
    """The training clips with the column `SHARE`, if the arguments ask for a mixture.

    Raises:
        DataError: a dataset has no clips to draw, or so small a share that an epoch has none of them.
    """
    if arguments.dataset_weights is None and arguments.dataset_temperature is None:
        return clips
    names = names_of(arguments.each)
    datasets = clips["dataset"][:]
    sizes = {name: datasets.count(name) for name in names}
    if empty := [name for name, size in sizes.items() if not size]:
        raise DataError(f"{empty[0]} has a share in the training clips, and no clip of it is left to draw.")
    if arguments.dataset_temperature is not None:
        largest = max(sizes.values())  # powers of what is at most 1 never overflow
        weights = [(size / largest) ** (1 / arguments.dataset_temperature) for size in sizes.values()]
    else:
        weights = arguments.dataset_weights or []
    shares = {name: weight / sum(weights) for name, weight in zip(names, weights, strict=True)}
    for name, quota in quotas(shares, len(clips)).items():
        if not quota:
            raise DataError(
                f"{name} gets a share of {shares[name]:.2g} in the training clips, and an epoch has "
                f"{len(clips):,}: none would be of it. Give it more, or leave it out."
            )
    return clips.add_column(SHARE, [shares[name] for name in datasets])


def quotas(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole numbers that add up to `total`, as near to these shares as can be: by the largest remainder."""
    whole = sum(shares.values())
    exact = {name: total * share / whole for name, share in shares.items()}
    counts = {name: int(number) for name, number in exact.items()}
    left = sorted(exact, key=lambda name: (counts[name] - exact[name], name))[: total - sum(counts.values())]
    return {name: count + (name in left) for name, count in counts.items()}


class Mixture:
    """Draws the clips of each epoch."""

    def __init__(self, datasets: Sequence[str], shares: Sequence[float], seed: int):
        """`datasets` and `shares` of each clip, in the order of the training data."""
        places: dict[str, list[int]] = {}
        for place, name in enumerate(datasets):
            places.setdefault(name, []).append(place)
        self.places = {name: np.asarray(of_set) for name, of_set in places.items()}
        self.quotas = quotas({name: shares[of_set[0]] for name, of_set in places.items()}, len(datasets))
        self.seed = seed

    def draw(self, epoch: int) -> list[int]:
        """The places of the clips that this epoch has, as many as there are clips, dataset by dataset."""
        return [
            int(place)
            for number, (name, places) in enumerate(self.places.items())
            for place in self._from_passes(number, places, epoch * self.quotas[name], self.quotas[name])
        ]

    def _from_passes(self, number: int, places: np.ndarray, start: int, count: int) -> np.ndarray:
        """`count` of the endless row of shuffled passes over a dataset, from `start` on."""
        first, last = start // len(places), (start + count) // len(places)
        passes = [
            np.random.default_rng((self.seed, number, one)).permutation(places)
            for one in range(first, last + 1)
        ]
        begin = start - first * len(places)
        return np.concatenate(passes)[begin : begin + count]

    def describe(self) -> str:
        """A line for the log: how many clips of each dataset an epoch has."""
        return "An epoch has " + ", ".join(
            f"{self.quotas[name]:,} clips of {name} ({self.quotas[name] / len(places):.2f} times each)"
            for name, places in self.places.items()
        )


def mixture_of(clips: Any, seed: int) -> Mixture | None:
    """The mixture that `SHARE` asks for; None without that column."""
    if SHARE not in getattr(clips, "column_names", ()):
        return None
    return Mixture(clips["dataset"][:], clips[SHARE][:], seed)
