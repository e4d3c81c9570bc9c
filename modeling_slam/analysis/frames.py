"""How the analysis goes through a frame of runs: by groups, row by row, along an axis, over seeds alone."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

X = "keep_layers"  # what curves run along, unless told otherwise
BY = ("mode",)  # what tells the curves of one encoder and language apart, unless told otherwise
By = str | Sequence[str]


def columns(by: By) -> list[str]:
    return [by] if isinstance(by, str) else list(by)


def beside_mode(by: By) -> list[str]:
    """What keeps runs apart where LoRA is compared with none."""
    return [column for column in columns(by) if column != "mode"]


def groups(frame: pd.DataFrame, keys: By) -> Iterator[tuple[Any, pd.DataFrame]]:
    """(key, its rows), in order of appearance; the key is a tuple if `keys` is a list.

    An empty frame has no groups, and need not have the columns.
    """
    if frame.empty:
        return iter(())
    by = keys if isinstance(keys, str) else list(dict.fromkeys(keys))
    grouped: Any = frame.groupby(by, sort=False, observed=True, dropna=False)
    return iter(grouped)


def keyed(frame: pd.DataFrame, keys: Sequence[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """As `groups`, with the key as a dictionary: column -> value, None where there is none.

    A run that is older than an axis of its study has no value on it; NaN is never the NaN of another row.
    """
    names = list(dict.fromkeys(keys))
    for key, rows in groups(frame, names):
        values = (None if pd.isna(value) else value for value in key)
        yield dict(zip(names, values, strict=True)), rows


def each_row(frame: pd.DataFrame) -> Iterator[Any]:
    """One named tuple a row, without the index."""
    return iter(frame.itertuples(index=False))


def over_seeds(runs: pd.DataFrame) -> pd.DataFrame:
    """These runs, which a mean may be taken of: they differ in their seed alone.

    Raises:
        ValueError: two have one seed, so they differ in something else.
    """
    twice = runs[runs["seed"].duplicated(keep=False)]
    if len(twice):
        first, second = twice["name"].iloc[:2]
        raise ValueError(
            f"{first} and {second} differ in more than their seed, so no mean is taken of them. Name what "
            "they differ in as `x` or in `by`, or choose among the runs."
        )
    return runs


def tops(runs: pd.DataFrame, x: str) -> pd.Series:
    """For each run the value of `x` that the smaller ones are compared with.

    The layers of the full encoder, or of another axis the largest value that the encoder's runs have.
    """
    return runs["encoder_layers"] if x == X else runs.groupby("encoder_name")[x].transform("max")
