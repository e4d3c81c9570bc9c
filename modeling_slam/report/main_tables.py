"""The paper's tables as a report shows them: its findings as questions, and Tables 1 to 7.

Each section is one function from a study to a `ReportTable`. With `paper` the paper's rows stand below ours.
"""

from typing import Any

import pandas as pd

from modeling_slam.analysis import error_types, tables
from modeling_slam.analysis.frames import each_row, groups
from modeling_slam.analysis.results import StudyResults
from modeling_slam.paper.findings import findings
from modeling_slam.paper.published import paper_results, paper_table1, paper_table4, paper_table7
from modeling_slam.report.written import (
    WHOSE,
    ReportTable,
    language_name,
    millions,
    percent,
    signed,
    signed_millions,
    table_of_rows,
    whole,
    with_paper,
)  # fmt: skip


def findings_table(study: StudyResults, paper: bool) -> ReportTable:
    data = findings(study)
    written = pd.DataFrame({"finding of the paper": data["finding"]})
    if paper:
        theirs = findings(paper_results())
        written["in the paper"] = [counted(row) for row in each_row(theirs)]
        data = data.merge(theirs, on="finding", suffixes=("", "_paper"))
    written["in this study"] = [counted(row) for row in each_row(data)]
    note = "In how many conditions (encoder and language; or each depth) it holds, of those that can tell."
    return ReportTable("findings", "Do the paper's findings hold?", note, data, written)


def counted(row: Any) -> str:
    return f"{row.holds} of {row.of} ({row.figures})" if row.of else "cannot be told"


def table1(study: StudyResults, paper: bool) -> ReportTable:
    data = tables.data_statistics(study)
    if paper:
        data = with_paper(data, paper_table1())
    columns = {
        "split": ("split", str),
        "clips": ("clips", whole),
        "hours": ("hours", lambda value: f"{value:.2f}"),
        **{name: (name.replace("_", " "), whole) for name in ("words", "distinct_words", "speakers")},
        **(WHOSE if paper else {}),
    }
    return table_of_rows(
        "table1_data", "Table 1: data", "The test split is counted in the predictions.", data, columns
    )


def table2(study: StudyResults, paper: bool) -> ReportTable:
    data = tables.wer_by_depth(study.runs)
    theirs = tables.wer_by_depth(paper_results().runs) if paper else None
    rows, links = [], {}
    for (encoder, layers), depth in groups(data, ["encoder_name", "keep_layers"]):
        row = {
            "encoder": encoder,
            "layers": str(layers),
            "Red.%": percent(depth["encoder_reduction"].iloc[0]),
        }
        for cell in each_row(depth):
            column = f"{language_name(cell.language)}, {'+ LoRA' if cell.mode == 'lora' else 'projector'}"
            row[column] = with_bounds(cell) + beside(cell, theirs)
            links[len(rows), column] = cell.runs
        rows.append(row)
    note = (
        "WER in %, in brackets its 95 % bootstrap interval over utterances (of seeds: mean and range). "
        "Red.%: encoder parameters removed. projector: trained alone; + LoRA: with LoRA."
    )
    if theirs is not None:
        note += " P: the paper's WER of this depth, ours - theirs, * where it is outside our interval."
        if not any("P " in str(value) for row in rows for value in row.values()):
            note += " The paper has no depth of these encoders."
    data = data.assign(runs=data["runs"].map(" ".join))
    return ReportTable(
        "table2_wer", "Table 2: WER by depth", note, data, pd.DataFrame(rows).fillna(""), links
    )


def with_bounds(cell: Any) -> str:
    bounds = "" if pd.isna(cell.wer_low) else f" [{percent(cell.wer_low)}, {percent(cell.wer_high)}]"
    return percent(cell.wer) + bounds


def beside(cell: Any, paper: pd.DataFrame | None) -> str:
    """The paper's WER of the same depth, if it has one."""
    if paper is None:
        return ""
    keys = ("encoder_name", "keep_layers", "language", "mode")
    found = tables.find_runs(paper, **{key: getattr(cell, key) for key in keys})
    if found.empty:
        return ""
    theirs = found["wer"].iloc[0]
    outside = not cell.wer_low <= theirs <= cell.wer_high
    return f" P {percent(theirs)}, {signed(cell.wer - theirs)}{'*' if outside else ''}"


def table3(study: StudyResults, paper: bool) -> ReportTable:
    data = tables.sweet_spots(study.runs)
    if paper:
        data = with_paper(data, tables.sweet_spots(paper_results().runs))
    wers = [name for name in data.columns if name.startswith("wer_")]
    columns = {
        "parameters": ("encoder + LoRA (M)", millions),
        "net_change": ("net change (M)", signed_millions),
        "net_change_share": ("net change (%)", signed),
        **{name: (f"WER {language_name(name.removeprefix('wer_'))}", percent) for name in wers},
        "better": ("languages below the whole encoder", str),
        **(WHOSE if paper else {}),
    }
    note = (
        "For each encoder: whole, whole with LoRA, and the pruned depth with LoRA of the lowest mean WER. "
        "Change against the whole encoder without LoRA."
    )
    return table_of_rows("table3_sweet_spots", "Table 3: sweet spots", note, data, columns)


def table4(study: StudyResults, paper: bool) -> ReportTable:
    data = tables.degraded_utterances(study)
    if paper:
        data = with_paper(data, paper_table4())
    columns = {
        "pruned": ("degraded by pruning (%)", percent),
        "pruned_lora": ("with LoRA (%)", percent),
        "recovery": ("recovery (points)", signed),
        **(WHOSE if paper else {}),
    }
    note = "Utterances with a higher WER than under the whole encoder without LoRA, after the shallowest cut."
    return table_of_rows("table4_degraded", "Table 4: degraded utterances", note, data, columns)


def table5(study: StudyResults, paper: bool) -> ReportTable:
    data = tables.lora_gain(study.runs)
    if paper:
        data = with_paper(data, tables.lora_gain(paper_results().runs))
    columns = {
        "full": ("won on the whole encoder (points)", signed),
        "pruned": ("won after the cut (points)", signed),
        "larger": (
            "wins more",
            lambda value: "" if pd.isna(value) else {"full": "whole", "pruned": "cut"}[value],
        ),
        **(WHOSE if paper else {}),
    }
    note = "WER without LoRA - WER with LoRA, whole encoder and shallowest cut."
    return table_of_rows("table5_lora_gain", "Table 5: what LoRA wins", note, data, columns)


TRANSCRIPTS = {"reference": "reference", "pruned": "after the cut", "pruned_lora": "with LoRA"}


def table6(study: StudyResults, paper: bool) -> ReportTable:
    data = error_types.recovered_utterances(study)
    columns = {
        "kind": ("kind", str),
        **{name: (title, str) for name, title in TRANSCRIPTS.items()},
    }
    counts = ", ".join(f"{kind} {count}" for kind, count in data["kind"].value_counts().items())
    note = (
        "Utterances with WER above 0.8 after the shallowest cut that LoRA gets right, sorted by the rules of "
        f"modeling_slam/analysis/error_types.py. {len(data)} in all" + (f": {counts}." if counts else ".")
    )
    some = data.groupby(["encoder_name", "language", "kind"], sort=False).head(3).reset_index(drop=True)
    if len(some) < len(data):
        note += " At most three of a kind are shown; the CSV has all."
    return table_of_rows("table6_recovered", "Table 6: won back by LoRA", note, data, columns, some)


def table7(study: StudyResults, paper: bool) -> ReportTable:
    data = tables.error_change(study.runs)
    if paper:
        data = with_paper(data, paper_table7())
    kinds = ("substitutions", "insertions", "deletions", "total")
    columns = {**{kind: (f"{kind} (%)", signed) for kind in kinds}, **(WHOSE if paper else {})}
    note = (
        "Change of the count of each word error by LoRA, after the shallowest cut; empty if there was none."
    )
    return table_of_rows("table7_errors", "Table 7: change of errors", note, data, columns)
