"""The main tables of a report, Tables 1 to 7: data, WER along an axis, sweet spots, and what LoRA does.

Each section is one function from a study and a view to a `ReportTable`; the view may put others' rows below.
"""

from typing import Any

import pandas as pd

from modeling_slam.analysis import error_types, tables
from modeling_slam.analysis.convergence import not_converged
from modeling_slam.analysis.frames import each_row, keyed
from modeling_slam.analysis.results import StudyResults
from modeling_slam.report.view import View
from modeling_slam.report.written import (
    UNCONVERGED,
    ReportTable,
    language_name,
    millions,
    percent,
    plain,
    signed,
    signed_millions,
    table_of_rows,
    whole,
    written_axis,
)  # fmt: skip


def table1(study: StudyResults, view: View) -> ReportTable:
    name = "table1_data"
    data = view.below(name, tables.data_statistics(study))
    columns = {
        "split": ("split", str),
        "clips": ("clips", whole),
        "hours": ("hours", lambda value: f"{value:.2f}"),
        **{name: (name.replace("_", " "), whole) for name in ("words", "distinct_words", "speakers")},
        **view.whose(name),
    }
    note = "The test split is counted in the predictions."
    return table_of_rows(name, "Table 1: data", note, data, columns, axes=study.axes)


def table2(study: StudyResults, view: View) -> ReportTable:
    name = "table2_wer"
    data = tables.wer_table(study.runs, **view.curves)
    theirs = view.theirs(name)
    rows, links, doubtful = [], {}, set(not_converged(study)["name"])
    for values, cells in keyed(data, [*view.panels, view.x]):
        row = {
            title: write(values[axis]) for axis in values for title, write in [written_axis(axis, study.axes)]
        }
        if view.along_depth:
            row["Red.%"] = percent(cells["encoder_reduction"].iloc[0])
        for cell in each_row(cells):
            parts = [language_name(cell.language)] if view.by_language else []
            column = ", ".join(filter(None, [*parts, curve_name(study, view, cell)])) or "WER"
            mark = f" {UNCONVERGED}" if doubtful.intersection(cell.runs) else ""
            row[column] = with_bounds(cell) + mark + beside(cell, theirs, view)
            links[len(rows), column] = cell.runs
        rows.append(row)
    note = "WER in %, in brackets its 95 % interval over utterances"
    note += " (of seeds: mean and range)." if (data["seeds"] > 1).any() else "."
    note += " Red.%: encoder parameters removed." if view.along_depth else ""
    titles = " ".join(column for row in rows for column in row)
    note += " projector: trained alone." if ", projector" in titles else ""
    note += " + LoRA: with LoRA." if "+ LoRA" in titles else ""
    written = " ".join(str(value) for row in rows for value in row.values())
    note += f" {UNCONVERGED}: of a run that had not converged." if UNCONVERGED in written else ""
    if theirs is not None and view.others is not None:
        mark, whose = view.others.mark, view.others.whose
        if f" {mark} " in written:
            note += f" {mark}: {whose}'s WER of this depth, ours - theirs"
            note += ", * where it is outside our interval." if "*" in written else "."
        else:
            note += f" {whose.capitalize()} has no depth of these encoders."
    data = data.assign(runs=data["runs"].map(" ".join))
    title = "depth" if view.along_depth else written_axis(view.x, study.axes)[0]
    return ReportTable(name, f"Table 2: WER by {title}", note, data, pd.DataFrame(rows).fillna(""), links)


def curve_name(study: StudyResults, view: View, cell: Any) -> str:
    """What tells this line from the others of its panel."""
    values = {column: getattr(cell, column) for column in view.lines}
    mode = {"lora": "+ LoRA", "projector": "projector"}.get(values.get("mode", ""), "")
    return (mode + view.told_apart(study, values, view.lines)).removeprefix(", ")


def with_bounds(cell: Any) -> str:
    bounds = "" if pd.isna(cell.wer_low) else f" [{percent(cell.wer_low)}, {percent(cell.wer_high)}]"
    return percent(cell.wer) + bounds


def beside(cell: Any, others: pd.DataFrame | None, view: View) -> str:
    """Others' WER of the same depth, if they have one."""
    if others is None or view.others is None:
        return ""
    keys = ("encoder_name", "keep_layers", "language", "mode")
    found = tables.find_runs(others, **{key: getattr(cell, key) for key in keys})
    if found.empty:
        return ""
    theirs = found["wer"].iloc[0]
    outside = not cell.wer_low <= theirs <= cell.wer_high
    return f" {view.others.mark} {percent(theirs)}, {signed(cell.wer - theirs)}{'*' if outside else ''}"


def table3(study: StudyResults, view: View) -> ReportTable:
    name = "table3_sweet_spots"
    data = view.below(name, tables.sweet_spots(study.runs, view.curves["by"]))
    wers = [column for column in data.columns if column.startswith("wer_")]
    columns = {
        "parameters": ("encoder + LoRA (M)", millions),
        "net_change": ("net change (M)", signed_millions),
        "net_change_share": ("net change (%)", signed),
        **{column: (f"WER {language_name(column.removeprefix('wer_'))}", percent) for column in wers},
        "better": ("languages below the whole encoder", whole),
        **view.whose(name),
    }
    note = "For each encoder: whole"
    if len(data) and (data["mode"] == "lora").any():
        note += (
            ", whole with LoRA, and the pruned depth with LoRA of the lowest mean WER. Change against the "
        )
        note += "whole encoder without LoRA"
    note += "."
    return table_of_rows(name, "Table 3: sweet spots", note, data, columns, axes=study.axes)


def table4(study: StudyResults, view: View) -> ReportTable:
    name = "table4_degraded"
    data = view.below(name, tables.degraded_utterances(study, **view.curves))
    columns = {
        "pruned": ("degraded by pruning (%)", percent),
        "pruned_lora": ("with LoRA (%)", percent),
        "recovery": ("recovery (points)", signed),
        **view.whose(name),
    }
    note = "Utterances with a higher WER than under the whole encoder without LoRA, after the shallowest cut."
    return table_of_rows(name, "Table 4: degraded utterances", note, data, columns, axes=study.axes)


def table5(study: StudyResults, view: View) -> ReportTable:
    name = "table5_lora_gain"
    data = view.below(name, tables.lora_gain(study.runs, **view.curves))
    columns = {
        "full": ("won on the whole encoder (points)", signed),
        "pruned": ("won after the cut (points)", signed),
        "larger": (
            "wins more",
            lambda value: "" if pd.isna(value) else {"full": "whole", "pruned": "cut"}[value],
        ),
        **view.whose(name),
    }
    note = "WER without LoRA - WER with LoRA, whole encoder and shallowest cut."
    return table_of_rows(name, "Table 5: what LoRA wins", note, data, columns, axes=study.axes)


TRANSCRIPTS = {"reference": "reference", "pruned": "after the cut", "pruned_lora": "with LoRA"}


def table6(study: StudyResults, view: View) -> ReportTable:
    data = error_types.recovered_utterances(study, **view.curves)
    data.loc[~view.quotes(data), list(TRANSCRIPTS)] = None
    columns = {
        "kind": ("kind", str),
        **{name: (title, plain) for name, title in TRANSCRIPTS.items()},
    }
    counts = ", ".join(f"{kind} {count}" for kind, count in data["kind"].value_counts().items())
    note = (
        "Utterances with WER above 0.8 after the shallowest cut that LoRA gets right, sorted by the rules of "
        f"modeling_slam/analysis/error_types.py. {len(data)} in all" + (f": {counts}." if counts else ".")
    )
    some = data.groupby(["encoder_name", "language", "kind"], sort=False).head(3).reset_index(drop=True)
    if len(some) < len(data):
        note += " At most three of a kind are shown; the CSV has all."
    title = "Table 6: won back by LoRA"
    return table_of_rows("table6_recovered", title, note, data, columns, some, study.axes)


def table7(study: StudyResults, view: View) -> ReportTable:
    name = "table7_errors"
    data = view.below(name, tables.error_change(study.runs, **view.curves))
    kinds = ("substitutions", "insertions", "deletions", "total")
    columns = {**{kind: (f"{kind} (%)", signed) for kind in kinds}, **view.whose(name)}
    note = "Change of the count of each word error by LoRA, after the shallowest cut"
    note += "; empty if there was none." if data.reindex(columns=kinds).isna().any(axis=None) else "."
    return table_of_rows(name, "Table 7: change of errors", note, data, columns, axes=study.axes)
