"""Two-sided pruning in a report: the table and the picture of WER, parameters and time over both depths."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib import pyplot as plt

from modeling_slam.analysis.depths import LLM_DEPTH, depth_front
from modeling_slam.analysis.frames import each_row, keyed
from modeling_slam.analysis.results import StudyResults
from modeling_slam.analysis.tables import MODES
from modeling_slam.report.line_styles import MARKERS
from modeling_slam.report.view import View
from modeling_slam.report.written import (
    ReportTable,
    language_name,
    millions,
    percent,
    plain,
    table_of_rows,
    whole,
    yes_no,
)

# Column -> what the horizontal axis says, and by what the values are divided.
COSTS = {
    "parameters": ("encoder, LLM and LoRA (million parameters)", 1e6),
    "real_time_factor": ("real-time factor", 1.0),
}


def depth_front_table(study: StudyResults, view: View) -> ReportTable:
    name, title = "depth_front", "Encoder depth and LLM depth"
    note = (
        "Means over seeds. Front: no other row of the language is as good in WER, parameters and real-time "
        "factor, and better in one. The factor is of the machine that decoded, and noisy if it did other "
        "work."
    )
    data = depth_front(study.runs, study.axes)
    if data.empty:
        return ReportTable(name, title, note, data, data)
    columns = {
        "wer": ("WER (%)", percent),
        "parameters": ("encoder + LLM + LoRA (M)", millions),
        "real_time_factor": ("real-time factor", lambda value: f"{value:.3f}"),
        "seeds": ("seeds", whole),
        "on_front": ("front", yes_no),
    }
    columns = {column: how for column, how in columns.items() if column in data}
    return table_of_rows(name, title, note, data, columns, axes=study.axes)


def plot_depth_front(study: StudyResults, view: View) -> Any | None:
    """WER against parameters and against time: a line for each LLM depth, along the encoder's."""
    data = depth_front(study.runs, study.axes)
    if data.empty:
        return None
    costs = [cost for cost in COSTS if cost in data]
    languages = list(data["language"].unique())
    panels = [(language, cost) for language in languages for cost in costs]
    placed = (len(panels), 1) if view.narrow else (len(languages), len(costs))
    size = (4.6 * placed[1], 3.4 * placed[0])
    figure, axes = plt.subplots(*placed, figsize=size, squeeze=False, layout="constrained")
    depths = [values[LLM_DEPTH] for values, _ in keyed(data.sort_values(LLM_DEPTH), [LLM_DEPTH])]
    shades = colormaps["viridis"](np.linspace(0, 0.9, len(depths)))
    lines, colours = ["encoder_name", "mode", *study.axes], dict(zip(depths, shades, strict=True))
    for axis, (language, cost) in zip(axes.flat, panels, strict=True):
        draw_costs(axis, data[data["language"] == language], cost, lines, colours)
        axis.set_title(language_name(language))
    axes.flat[0].legend(fontsize="small")
    return figure


def draw_costs(axis: Any, data: pd.DataFrame, cost: str, lines: Sequence[str], colours: Any) -> None:
    """One panel; what the columns `lines` tell apart is a line each."""
    title, unit = COSTS[cost]
    for values, line in keyed(data, lines):
        depth, mode = values[LLM_DEPTH], values["mode"]
        colour, label = colours[depth], f"{plain(depth) or 'all'} LLM layers, {MODES[mode]}"
        axis.plot(
            line[cost] / unit, 100 * line["wer"], MARKERS[mode], color=colour, mfc="none", linestyle="-",
            linewidth=0.8, label=label,
        )  # fmt: skip
        for row in each_row(line):
            place = (getattr(row, cost) / unit, 100 * row.wer)
            if row.on_front:
                axis.plot(*place, MARKERS[mode], color=colour)
            axis.annotate(f"{row.keep_layers}L", place, fontsize=7, xytext=(4, 4), textcoords="offset points")
    axis.set(xlabel=title, ylabel="WER (%)")
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)


def caption(study: StudyResults, view: View) -> str:
    return (
        "WER against parameters and time, a line for each depth of the LLM and a point for each of the "
        "encoder; filled: no other is as good in all three."
    )
