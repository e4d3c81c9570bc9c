"""What a report is to show of a study: along which axis, and whose numbers stand beside ours.

A section makes a `ReportTable` of a study and such a view, a plot a figure. The command line hands in whose
numbers they are; nothing here knows.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from modeling_slam.analysis import StudyResults
from modeling_slam.analysis.frames import X, beside_mode
from modeling_slam.report.written import WHOSE, Columns, ReportTable, plain


@dataclass(frozen=True)
class Others:
    """Published numbers in the frames that ours come in.

    Attributes:
        whose: what their rows are told by, such as "the paper".
        mark: stands before their figure where it shares a cell with ours.
        source: where they were published, as arXiv:NUMBER.
        rows: name of a table -> their rows of it.
    """

    whose: str
    mark: str
    source: str
    rows: Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class View:
    """How a report looks at a study.

    Attributes:
        x: the column that curves run along.
        by: columns that tell the curves of one encoder and language apart; all that runs differ in if None.
        others: numbers to stand beside ours.
        sections: tables before the report's own.
        plots: figures after the report's own, as in `plots.PLOTS`.
        narrow: whether panels of a figure stand below each other, for phones.
    """

    x: str = X
    by: Sequence[str] | None = None
    others: Others | None = None
    sections: Sequence["Section"] = ()
    plots: Mapping[str, "Plot"] = field(default_factory=dict)
    narrow: bool = False

    @property
    def along_depth(self) -> bool:
        return self.x == X

    @property
    def curves(self) -> dict[str, Any]:
        """`x` and `by`, as the functions of the analysis take them."""
        return {"x": self.x, "by": list(self.by or ())}

    def of(self, study: StudyResults) -> "View":
        """This view with `by` filled in.

        Raises:
            ValueError: `x` or `by` is no column of the study's runs, or `x` none of numbers.
        """
        axes = [X, *study.axes]
        if self.x not in study.runs or not pd.api.types.is_numeric_dtype(study.runs[self.x]):
            raise ValueError(
                f"`x` must be an axis of the study with numbers: {', '.join(axes)}. Got {self.x!r}."
            )
        if unknown := [column for column in self.by or () if column not in study.runs]:
            raise ValueError(f"`by` must name what the study's runs differ in, got {', '.join(unknown)}.")
        differing = [axis for axis in axes if axis != self.x and study.runs[axis].nunique(dropna=False) > 1]
        return dataclasses.replace(self, by=self.by or ["mode", *differing])

    def below(self, name: str, ours: pd.DataFrame) -> pd.DataFrame:
        """Our rows of a table and, below them, theirs, told apart by `whose`."""
        theirs = self.theirs(name)
        if theirs is None or self.others is None:
            return ours
        rows = theirs.assign(whose=self.others.whose, runs=None)
        return pd.concat([ours.assign(whose="this study"), rows], ignore_index=True)

    def theirs(self, name: str) -> pd.DataFrame | None:
        return None if self.others is None else self.others.rows.get(name)

    def whose(self, name: str) -> Columns:
        """The column that tells the rows of `below` apart."""
        return {} if self.theirs(name) is None else WHOSE

    def told_apart(self, study: StudyResults, values: Mapping[str, Any]) -> str:
        """What the further columns of `by` say of a run, for a legend: ", hours of training speech 5"."""
        titles = {X: "layers", **study.axes}
        further = beside_mode(self.by or ())
        return "".join(f", {titles.get(name, name)} {plain(values[name])}" for name in further)


Section = Callable[[StudyResults, View], ReportTable]
# Caption, or what writes it; and what draws the figure.
Plot = tuple[str | Callable[[StudyResults, View], str], Callable[[StudyResults, View], Any]]
