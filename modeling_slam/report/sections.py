"""The tables of a report, in its order: the paper's, and those beyond it.

Each section is one function from a study to a `ReportTable`, named in `SECTIONS`. The numbers come from
`tables`, `curves`, `breakdowns` and `error_types`. With `paper` the paper's rows stand below ours.
"""

from collections.abc import Callable

import pandas as pd

from modeling_slam.analysis import breakdowns, curves
from modeling_slam.analysis.frames import each_row, groups
from modeling_slam.analysis.results import StudyResults
from modeling_slam.analysis.significance import compare
from modeling_slam.evaluation.metrics import ERROR_RATES, METRICS
from modeling_slam.paper.published import paper_results
from modeling_slam.report.main_tables import (
    findings_table,
    table1,
    table2,
    table3,
    table4,
    table5,
    table6,
    table7,
    with_bounds,
)
from modeling_slam.report.written import (
    WHOSE,
    ReportTable,
    depths,
    language_name,
    millions,
    p_value,
    percent,
    signed,
    table_of_rows,
    with_paper,
    yes_no,
)  # fmt: skip


def safe_zone_table(study: StudyResults, paper: bool) -> ReportTable:
    data = curves.safe_zone(study)
    columns = {
        "degradation": ("degradation (points)", signed),
        "low": ("low", signed),
        "high": ("high", signed),
        "bootstrap_p": ("p, bootstrap", p_value),
        "mapsswe_p": ("p, MAPSSWE", p_value),
        "significant": ("significant", yes_no),
        "safe": ("safe", yes_no),
    }
    note = (
        f"Each depth against the whole encoder trained in the same way. Safe: less than "
        f"{100 * curves.SAFE_POINTS:g} points worse and not significantly (both tests at 5 %), and so are "
        "all lighter cuts. low, high: 95 % interval of the degradation by paired bootstrap over utterances; "
        "with few clips few differences are significant, and high is the worst that is not ruled out."
    )
    return table_of_rows("safe_zone", "Safe pruning zone", note, data, columns)


def deepest_table(study: StudyResults, paper: bool) -> ReportTable:
    data = curves.deepest_safe_cuts(curves.safe_zone(study), study.runs)
    if paper:
        theirs = paper_results()
        data = with_paper(data, curves.deepest_safe_cuts(curves.safe_zone(theirs), theirs.runs))
    columns = {
        "removed": ("layers removed", str),
        "degradation": ("degradation (points)", signed),
        **(WHOSE if paper else {}),
    }
    note = "The deepest safe cut of each curve. The paper's have no test: there the threshold alone decides."
    return table_of_rows("deepest_safe_cuts", "Deepest safe cuts", note, data, columns)


def lora_tests(study: StudyResults, paper: bool) -> ReportTable:
    rows = []
    for key, cell in groups(study.runs, ["encoder_name", "language", "keep_layers", "seed"]):
        modes = dict(zip(cell["mode"], cell["name"], strict=True))
        if len(modes) == 2:
            test = compare(study, modes["projector"], modes["lora"])
            names = dict(zip(("encoder_name", "language", "keep_layers", "seed"), key, strict=True))
            rows.append(names | vars(test) | {"significant": test.significant, "runs": list(modes.values())})
    data = pd.DataFrame(rows)
    columns = {
        "difference": ("LoRA - without (points)", signed),
        "low": ("low", signed),
        "high": ("high", signed),
        "bootstrap_p": ("p, bootstrap", p_value),
        "mapsswe_p": ("p, MAPSSWE", p_value),
        "significant": ("significant", yes_no),
    }
    note = "Paired tests on the same clips."
    return table_of_rows("lora_tests", "Is LoRA's gain significant?", note, data, columns)


def shapes_table(study: StudyResults, paper: bool) -> ReportTable:
    data = curves.curve_shapes(study.runs)
    if paper:
        data = with_paper(data, curves.curve_shapes(paper_results().runs))
    columns = {
        "steps": ("steps", str),
        "falls": ("falls", str),
        "largest_fall": ("largest fall (points)", percent),
        "instability": ("instability", lambda value: f"{value:.2f}"),
        "spikes": ("spikes", depths),
        **(WHOSE if paper else {}),
    }
    note = (
        "From each depth to the next smaller one. falls: steps that lower the WER. instability: sum of falls "
        "over sum of all changes. spikes: depths more than a point above both neighbours."
    )
    return table_of_rows("curve_shapes", "Monotonicity", note, data, columns)


def pareto_table(study: StudyResults, paper: bool) -> ReportTable:
    data = curves.pareto_front(study.runs)
    front = data[data["on_front"]].sort_values(["language", "wer"]).reset_index(drop=True)
    columns = {
        "wer": ("WER (%)", percent),
        "parameters": ("encoder + LoRA (M)", millions),
        **(
            {"real_time_factor": ("real-time factor", lambda value: f"{value:.3f}")}
            if "real_time_factor" in data
            else {}
        ),
    }
    note = (
        "Runs that no other run of the language beats in WER, parameters and real-time factor at once. The "
        "factor is of the machine that decoded, and noisy if it did other work."
    )
    return table_of_rows("pareto", "Pareto front", note, data, columns, front)


def failures_table(study: StudyResults, paper: bool) -> ReportTable:
    data = breakdowns.failure_rates(study.runs)
    columns = {
        "empty": ("empty (%)", lambda value: percent(value, 2)),
        "loop": ("repetition loop (%)", lambda value: percent(value, 2)),
        "truncated": ("cut at the limit (%)", lambda value: percent(value, 2)),
    }
    return table_of_rows("failures", "Failed outputs", "Share of utterances.", data, columns)


def bands_in_columns(data: pd.DataFrame, band: str, value: str) -> pd.DataFrame:
    """One row an encoder, language, depth and mode; one column a band, with the mean over seeds."""
    keys = ["encoder_name", "language", "keep_layers", "mode"]
    wide = data.pivot_table(index=keys, columns=band, values=value, sort=False)
    runs = data.groupby(keys, sort=False)["name"].agg(lambda names: list(names.unique()))
    return wide.assign(runs=runs).reset_index()


def band_table(
    name: str, title: str, note: str, data: pd.DataFrame, band: str, order: str, value: str
) -> ReportTable:
    """Bands side by side, in per cent; the data has one row a run and band."""
    bands = data.drop_duplicates(order).sort_values(order)[band]
    rows = bands_in_columns(data, band, value)
    data = data.assign(runs=[[run] for run in data["name"]])
    return table_of_rows(name, title, note, data, {one: (one, percent) for one in bands}, rows)


def lengths_table(study: StudyResults, paper: bool) -> ReportTable:
    data = breakdowns.wer_by_length(study)
    title, note = "WER by length of the clip", "WER in % by seconds."
    return band_table("wer_by_length", title, note, data, "seconds", "longest", "wer")


def frequency_table(study: StudyResults, paper: bool) -> ReportTable:
    data = breakdowns.misses_by_frequency(study)
    title = "Missed words by frequency"
    note = "Reference words substituted or deleted, in %, by how often the word occurs in the test set."
    return band_table("misses_by_frequency", title, note, data, "occurrences", "band", "missed")


def seeds_table(study: StudyResults, paper: bool) -> ReportTable:
    data = curves.seed_spread(study.runs)
    columns = {
        "seeds": ("seeds", str),
        **{name: (f"{title} (%)", percent) for name, title in
           {"mean": "mean WER", "std": "deviation", "min": "lowest", "max": "highest"}.items()},
    }  # fmt: skip
    return table_of_rows("seeds", "Spread over seeds", "Deviation with n - 1.", data, columns)


def baselines_table(study: StudyResults, paper: bool) -> ReportTable:
    data = study.baselines
    note = "The whole Whisper with its own decoder on the same clips."
    if data.empty:
        return ReportTable("baselines", "Whisper with its own decoder", note, data, data)
    written = pd.DataFrame(
        {
            "Whisper": data["encoder_name"],
            "language": data["language"].map(language_name),
            "WER (%)": [with_bounds(row) for row in each_row(data)],
            **{f"{METRICS[name].title} (%)": data[name].map(percent) for name in ERROR_RATES[1:]},
            "S / D / I": [f"{r.substitutions} / {r.deletions} / {r.insertions}" for r in each_row(data)],
            "parameters (M)": data["total_parameters"].map(millions),
        }
    )
    return ReportTable("baselines", "Whisper with its own decoder", note, data, written)


SECTIONS: list[Callable[[StudyResults, bool], ReportTable]] = [
    findings_table, table2, table3, table4, table5, table6, table7,
    safe_zone_table, deepest_table, lora_tests, shapes_table, pareto_table,
    failures_table, lengths_table, frequency_table, seeds_table, baselines_table, table1,
]  # fmt: skip


def report_tables(study: StudyResults, paper: bool) -> list[ReportTable]:
    """Every table that has something to say about this study."""
    made = [section(study, paper) for section in SECTIONS]
    return [table for table in made if len(table.shown)]
