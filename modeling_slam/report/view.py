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
from modeling_slam.analysis.results import CURVE
from modeling_slam.report.written import WHOSE, Columns, ReportTable, written_axis


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


# An axis of the study file -> the column of runs that has its names.
COLUMNS = {"encoder": "encoder_name"}


@dataclass(frozen=True)
class View:
    """How a report looks at a study.

    Attributes:
        x: the axis that curves run along.
        lines: axes that the lines of one panel differ in; the mode and all else that runs differ in if empty.
            What is neither along `x` nor a line is a panel of its own.
        others: numbers to stand beside ours.
        sections: tables before the report's own.
        plots: figures after the report's own, as in `plots.PLOTS`.
        withhold: languages and datasets whose texts and clips are not quoted.
        narrow: whether panels of a figure stand below each other, for phones.
        by, ordered: what `of` finds: all that tells curves of an encoder and language apart, and whether the
            values of `x` are numbers.
    """

    x: str = X
    lines: Sequence[str] = ()
    others: Others | None = None
    sections: Sequence["Section"] = ()
    plots: Mapping[str, "Plot"] = field(default_factory=dict)
    withhold: Sequence[str] = ()
    narrow: bool = False
    by: Sequence[str] = ()
    ordered: bool = True

    @property
    def along_depth(self) -> bool:
        return self.x == X

    @property
    def curves(self) -> dict[str, Any]:
        """`x` and `by`, as the functions of the analysis take them."""
        return {"x": self.x, "by": list(self.by)}

    @property
    def panels(self) -> list[str]:
        """Axes that make rows of a table and panels of a figure, beside the language."""
        return [axis for axis in ("encoder_name", *self.by) if axis not in (self.x, *self.lines)]

    @property
    def by_language(self) -> bool:
        """Whether each language has a panel of its own."""
        return "language" not in (self.x, *self.lines)

    def of(self, study: StudyResults) -> "View":
        """This view of that study, with what is left open filled in.

        Raises:
            ValueError: `x` or one of `lines` is no axis of the study, or both are the same.
        """
        axes = ["encoder_name", X, "mode", "language", *study.axes, "seed"]
        x, *lines = (COLUMNS.get(axis, axis) for axis in (self.x, *self.lines))
        for flag, axis in (("x", x), *(("lines", line) for line in lines)):
            if axis not in axes:
                there = ", ".join(axis.removesuffix("_name") for axis in axes)
                raise ValueError(f"`{flag}` must be an axis of the study: {there}. Got {axis!r}.")
        if x in lines:
            raise ValueError(f"`lines` names {self.x}, which `x` is already; leave it out of one of them.")
        differing = [axis for axis in (X, *study.axes) if study.runs[axis].nunique(dropna=False) > 1]
        by = [axis for axis in ("mode", *differing) if axis != x]
        by += [line for line in lines if line not in (*by, *CURVE)]
        ordered = pd.api.types.is_numeric_dtype(study.runs[x]) and study.runs[x].dtype != bool
        return dataclasses.replace(self, x=x, lines=lines or by, by=by, ordered=ordered)

    def quotes(self, frame: pd.DataFrame) -> pd.Series:
        """Whether texts and clip of each row of utterances may be shown."""
        return ~(frame["language"].isin(self.withhold) | frame["dataset"].isin(self.withhold))

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

    def told_apart(
        self, study: StudyResults, values: Mapping[str, Any], columns: Sequence[str] | None = None
    ) -> str:
        """What these columns but the mode, if not given those of `by`, say of a run, for a legend.

        ", hours of training speech 5", for instance.
        """
        further = beside_mode(self.by if columns is None else columns)
        told = [(*written_axis(name, study.axes), values[name]) for name in further]
        return "".join(f", {title} {write(value)}" for title, write, value in told)


Section = Callable[[StudyResults, View], ReportTable]
# Caption, or what writes it; and what draws the figure.
Plot = tuple[str | Callable[[StudyResults, View], str], Callable[[StudyResults, View], Any]]
