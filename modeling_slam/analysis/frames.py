"""Two loops over DataFrames, typed: pandas' own yield what a type checker knows nothing about."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd


def groups(frame: pd.DataFrame, keys: str | Sequence[str]) -> Iterator[tuple[Any, pd.DataFrame]]:
    """(key, its rows), in order of appearance; the key is a tuple if `keys` is a list.

    An empty frame has no groups, and need not have the columns.
    """
    if frame.empty:
        return iter(())
    grouped: Any = frame.groupby(keys if isinstance(keys, str) else list(keys), sort=False, observed=True)
    return iter(grouped)


def each_row(frame: pd.DataFrame) -> Iterator[Any]:
    """One named tuple a row, without the index."""
    return iter(frame.itertuples(index=False))
