"""The paper beside a study: its rows below ours, its findings as questions, its curves in grey.

`paper_view` is what `python -m modeling_slam.study report --paper` hands to the report.
"""

import functools
from typing import Any

import pandas as pd

from modeling_slam.analysis.curves import curve_shapes, deepest_safe_cuts, safe_zone
from modeling_slam.analysis.frames import each_row, keyed
from modeling_slam.analysis.results import StudyResults
from modeling_slam.analysis.tables import MODES, lora_gain, sweet_spots, wer_table
from modeling_slam.paper.findings import findings
from modeling_slam.paper.published import (
    SOURCE,
    paper_results,
    paper_table1,
    paper_table4,
    paper_table7,
)
from modeling_slam.report.plots import CEILING, COLOURS, MARKERS, label_rows, legend, panels
from modeling_slam.report.view import Others, View
from modeling_slam.report.written import ReportTable, language_name

AGAINST_PAPER = (
    "WER against the share of encoder parameters removed, beside the paper's. Test sets and LLM may differ: "
    "compare the shapes, not the heights."
)


def paper_view(beside: bool = True) -> View:
    """The view that asks for the paper's findings and, if `beside`, puts its numbers beside ours."""
    sections = (functools.partial(findings_table, beside=beside),)
    if not beside:
        return View(sections=sections)
    return View(others=the_paper(), sections=sections, plots={"against_paper": (AGAINST_PAPER, plot_against)})


def the_paper() -> Others:
    """The paper's rows of every table that it tells."""
    paper = paper_results()
    rows = {
        "table1_data": paper_table1(),
        "table2_wer": wer_table(paper.runs),
        "table3_sweet_spots": sweet_spots(paper.runs),
        "table4_degraded": paper_table4(),
        "table5_lora_gain": lora_gain(paper.runs),
        "table7_errors": paper_table7(),
        "deepest_safe_cuts": deepest_safe_cuts(safe_zone(paper), paper.runs),
        "curve_shapes": curve_shapes(paper.runs),
    }
    return Others("the paper", "P", SOURCE, rows)


def findings_table(study: StudyResults, view: View, beside: bool) -> ReportTable:
    data = findings(study)
    written = pd.DataFrame({"finding of the paper": data["finding"]})
    if beside:
        theirs = findings(paper_results())
        written["in the paper"] = [counted(row) for row in each_row(theirs)]
        data = data.merge(theirs, on="finding", suffixes=("", "_paper"))
    written["in this study"] = [counted(row) for row in each_row(data)]
    note = "In how many conditions (encoder and language; or each depth) it holds, of those that can tell."
    return ReportTable("findings", "Do the paper's findings hold?", note, data, written)


def counted(row: Any) -> str:
    return f"{row.holds} of {row.of} ({row.figures})" if row.of else "cannot be told"


def plot_against(study: StudyResults, view: View) -> Any:
    """WER against the share of encoder parameters removed: ours in colour, the paper's encoders in grey."""
    ours, paper = wer_table(study.runs, by=["mode", *study.axes]), wer_table(paper_results().runs)
    languages = list(ours["language"].unique())
    figure, axes = panels(view, len(MODES), len(languages))
    widest = 105 * max(paper["encoder_reduction"].max(), ours["encoder_reduction"].max())
    dashes = {"small": ":", "medium": "--", "large-v2": "-."}
    for row, mode in enumerate(MODES):
        for column, language in enumerate(languages):
            axis = axes[row][column]
            axis.set_title(f"{language_name(language)}, {MODES[mode]}")
            for table, whose in ((paper, "the paper"), (ours, "this study")):
                cell = table[(table["language"] == language) & (table["mode"] == mode)]
                style: dict[str, Any] = {"color": "0.5"}
                if table is ours:
                    style = {"color": COLOURS[mode], "marker": MARKERS[mode]}
                for values, curve in keyed(cell, ["encoder_name", *(study.axes if table is ours else [])]):
                    encoder = values["encoder_name"] + (
                        view.told_apart(study, values) if table is ours else ""
                    )
                    dash = dashes[encoder] if table is paper else "-"
                    removed, wer = 100 * curve["encoder_reduction"], 100 * curve["wer"]
                    axis.plot(removed, wer, linestyle=dash, label=f"{encoder}, {whose}", **style)
            axis.set_ylim(0, CEILING)
            axis.set_xlim(-widest / 20, widest)
            axis.grid(alpha=0.3)
    label_rows(view, axes, "WER (%)")
    for axis in axes.flat if view.narrow else axes[-1]:
        axis.set_xlabel("encoder parameters removed (%)")
    legend(figure, axes)
    return figure
