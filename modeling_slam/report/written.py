"""How a report writes: a table with its data, its written-out cells and the runs behind them.

Rates become per cent, differences get a sign, parameters are in millions; what is not known is left empty.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from modeling_slam.analysis.tables import MODES

Links = dict[tuple[int, str], list[str]]
UNCONVERGED = "†"  # beside the figures of a run that had not converged
RUNS = "runs"  # the column that does nothing but lead to runs


@dataclass
class ReportTable:
    """One table, as data and as it is read.

    Attributes:
        name: of its files.
        title, note: above and below it; the note says how the numbers are made.
        data: for CSV: plain columns, rates as fractions.
        shown: for people: the same, written out.
        links: (row, column of `shown`) -> names of the runs a cell comes from.
    """

    name: str
    title: str
    note: str
    data: pd.DataFrame
    shown: pd.DataFrame
    links: Links = field(default_factory=dict)


LANGUAGES = {"da": "Danish", "en": "English", "nl": "Dutch"}


def language_name(code: str) -> str:
    return LANGUAGES.get(code, code)


def percent(value: Any, digits: int = 1) -> str:
    return "" if pd.isna(value) else f"{100 * value:.{digits}f}"


def signed(value: Any) -> str:
    """A difference of rates in points, or a change in per cent."""
    return "" if pd.isna(value) else f"{100 * value:+.1f}"


def millions(value: Any) -> str:
    return "" if pd.isna(value) else f"{value / 1e6:.2f}"


def signed_millions(value: Any) -> str:
    return "" if pd.isna(value) else f"{value / 1e6:+.2f}"


def whole(value: Any) -> str:
    """A count; beside rows that have none, pandas makes 5.0 of it."""
    return "" if pd.isna(value) else f"{int(value):,}"


def p_value(value: Any) -> str:
    return "" if pd.isna(value) else f"{value:.3f}" if value >= 0.001 else "< 0.001"


def yes_no(value: Any) -> str:
    return "" if pd.isna(value) else "yes" if value else "no"


def plain(value: Any) -> str:
    return "" if pd.isna(value) else f"{value:g}" if isinstance(value, float) else str(value)


def at_depths(value: Sequence[int]) -> str:
    return ", ".join(f"{layers}L" for layers in value) or "none"


def at_values(value: Sequence[float]) -> str:
    return ", ".join(map(plain, value)) or "none"


def mode_name(mode: str) -> str:
    return MODES.get(mode, mode)


COMMON = {
    "encoder_name": ("encoder", str),
    "language": ("language", language_name),
    "mode": ("trained", mode_name),
    "keep_layers": ("layers", whole),
}
Columns = Mapping[str, tuple[str, Callable[[Any], str]]]


def written_axis(axis: str, axes: Mapping[str, str]) -> tuple[str, Callable[[Any], str]]:
    """Title of an axis and how its values are written; `axes` are the titles of the study's further axes."""
    return COMMON.get(axis, (axes.get(axis, axis), plain))


def shown(data: pd.DataFrame, columns: Columns, axes: Mapping[str, str]) -> pd.DataFrame:
    """`data` written out: only `columns`, under their titles, with the common ones and further axes first."""
    common = COMMON | {name: (title, plain) for name, title in axes.items()}
    every = {name: common[name] for name in common if name in data.columns} | dict(columns)
    return pd.DataFrame({title: [write(v) for v in data[name]] for name, (title, write) in every.items()})


def table_of_rows(
    name: str,
    title: str,
    note: str,
    data: pd.DataFrame,
    columns: Columns,
    rows: pd.DataFrame | None = None,
    axes: Mapping[str, str] | None = None,
) -> ReportTable:
    """A table with a line for each of `rows`, if not given all of `data`.

    `data` says in `runs` what runs each row follows from, and a last column leads to them; rows of others
    have none. `axes` are the titles of the study's further axes.
    """
    if data.empty:
        return ReportTable(name, title, note, data, data)
    rows = data if rows is None else rows
    runs = [run_names(row) for row in rows[RUNS]]
    written = shown(rows, columns, axes or {}).assign(**{RUNS: ["1" if names else "" for names in runs]})
    links = {(place, RUNS): names for place, names in enumerate(runs)}
    data = data.assign(runs=data[RUNS].map(run_names).map(" ".join))
    return ReportTable(name, title, note, data, written, links)


def run_names(value: Any) -> list[str]:
    return value if isinstance(value, list) else []


WHOSE: Columns = {"whose": ("whose", str)}
