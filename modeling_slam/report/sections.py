"""The tables of a report, in its order: the main ones, and those beyond them.

Each section is one function from a study and a view to a `ReportTable`, named in `SECTIONS`. The numbers come
from `tables`, `curves`, `breakdowns` and `error_types` of the analysis.
"""

from collections.abc import Iterable

import pandas as pd

from modeling_slam.analysis import breakdowns, curves
from modeling_slam.analysis.frames import each_row, keyed
from modeling_slam.analysis.results import StudyResults, shown_rates
from modeling_slam.analysis.significance import MIN_UNITS, compare, family
from modeling_slam.evaluation.metrics import METRICS
from modeling_slam.report.depth_front import depth_front_table
from modeling_slam.report.main_tables import (
    table1,
    table2,
    table3,
    table4,
    table5,
    table6,
    table7,
    with_bounds,
)
from modeling_slam.report.view import Section, View
from modeling_slam.report.written import (
    ReportTable,
    at_depths,
    at_values,
    language_name,
    millions,
    p_value,
    percent,
    signed,
    table_of_rows,
    whole,
    yes_no,
)  # fmt: skip

HOLM_NOTE = (
    "p, Holm: of both tests together, corrected for the number of tests in this table; significant: below "
    f"5 %. Of fewer than {MIN_UNITS} clips no test is given."
)


def safe_zone_table(study: StudyResults, view: View) -> ReportTable:
    data = curves.safe_zone(study, **view.curves)
    columns = {
        "degradation": ("degradation (points)", signed),
        "low": ("low", signed),
        "high": ("high", signed),
        "bootstrap_p": ("p, bootstrap", p_value),
        "mapsswe_p": ("p, MAPSSWE", p_value),
        "holm_p": ("p, Holm", p_value),
        "significant": ("significant", yes_no),
        "safe": ("safe", yes_no),
    }
    note = (
        f"Each depth against the whole encoder trained in the same way. Safe: less than "
        f"{100 * curves.SAFE_POINTS:g} points worse, not significantly (both tests, each alone, at 5 %), and "
        "so are all lighter cuts. low, high: 95 % interval of the degradation over utterances; with few "
        f"clips few differences are significant, and high is the worst that is not ruled out. {HOLM_NOTE}"
    )
    return table_of_rows("safe_zone", "Safe pruning zone", note, data, columns, axes=study.axes)


def deepest_table(study: StudyResults, view: View) -> ReportTable:
    name = "deepest_safe_cuts"
    zone = curves.safe_zone(study, **view.curves)
    data = view.below(name, curves.deepest_safe_cuts(zone, study.runs, **view.curves))
    columns = {
        "removed": ("layers removed", whole),
        "degradation": ("degradation (points)", signed),
        **view.whose(name),
    }
    note = "The deepest safe cut of each curve."
    if view.whose(name) and view.others is not None:
        note += f" {view.others.whose.capitalize()}'s have no test: there the threshold alone decides."
    return table_of_rows(name, "Deepest safe cuts", note, data, columns, axes=study.axes)


def paired_tests(
    study: StudyResults, name: str, title: str, column: str, pair: tuple[str, str], said: str
) -> ReportTable:
    """A test for every two runs, or evaluations of one, that differ in `column` alone: the second of the pair
    against the first."""
    alike = ["encoder_name", "language", "keep_layers", "mode", *study.axes, "seed"]
    keys, tests = [], []
    for key, cell in keyed(study.runs, [one for one in alike if one != column]):
        names = dict(zip(cell[column], cell["name"], strict=True))
        if set(pair) <= names.keys():
            runs = [names[value] for value in pair]
            wers = {f"wer_{value}": wer for value, wer in zip(cell[column], cell["wer"], strict=True)}
            keys.append(key | wers | {"runs": runs})
            tests.append(compare(study, *runs))
    data = pd.concat([pd.DataFrame(keys), family(tests)], axis="columns")
    columns = {
        **{f"wer_{value}": (f"WER {value} (%)", percent) for value in pair},
        "difference": (f"{said} (points)", signed),
        "low": ("low", signed),
        "high": ("high", signed),
        "bootstrap_p": ("p, bootstrap", p_value),
        "mapsswe_p": ("p, MAPSSWE", p_value),
        "holm_p": ("p, Holm", p_value),
        "significant": ("significant", yes_no),
    }
    note = f"Paired tests on the same clips. {HOLM_NOTE}"
    return table_of_rows(name, title, note, data, columns, axes=study.axes)


def lora_tests(study: StudyResults, view: View) -> ReportTable:
    title, said = "Is LoRA's gain significant?", "LoRA - without"
    return paired_tests(study, "lora_tests", title, "mode", ("projector", "lora"), said)


def control_tests(study: StudyResults, view: View) -> ReportTable:
    """What the LLM repairs of what encoder and projector lost, where runs were evaluated by both decoders."""
    title, said = "What does the LLM add to its CTC head?", "LLM - head"
    return paired_tests(study, "control_tests", title, "decoder", ("ctc", "llm"), said)


def shapes_table(study: StudyResults, view: View) -> ReportTable:
    name = "curve_shapes"
    data = view.below(name, curves.curve_shapes(study.runs, **view.curves))
    columns = {
        "steps": ("steps", whole),
        "falls": ("falls", whole),
        "largest_fall": ("largest fall (points)", percent),
        "instability": ("instability", lambda value: f"{value:.2f}"),
        "spikes": ("spikes", at_depths if view.along_depth else at_values),
        **view.whose(name),
    }
    note = (
        "From each depth to the next smaller one. falls: steps that lower the WER. instability: sum of falls "
        "over sum of all changes. spikes: depths more than a point above both neighbours."
    )
    return table_of_rows(name, "Monotonicity", note, data, columns, axes=study.axes)


def pareto_table(study: StudyResults, view: View) -> ReportTable:
    data = curves.pareto_front(study.runs, by=[*view.curves["by"], *study.axes])
    front = data[data["on_front"]].sort_values(["language", "wer"]).reset_index(drop=True)
    columns = {
        "wer": ("WER (%)", percent),
        "parameters": (" + ".join(curves.priced_parts(study.runs)) + " (M)", millions),
        **(
            {"real_time_factor": ("real-time factor", lambda value: f"{value:.3f}")}
            if "real_time_factor" in data
            else {}
        ),
    }
    note = "Runs that no other run of the language beats in WER and parameters at once."
    if "real_time_factor" in data:
        note = (
            "Runs that no other run of the language beats in WER, parameters and real-time factor at once. "
            "The factor is of the machine that decoded, and noisy if it did other work."
        )
    return table_of_rows("pareto", "Pareto front", note, data, columns, front, study.axes)


def failures_table(study: StudyResults, view: View) -> ReportTable:
    data = breakdowns.failure_rates(study.runs, study.axes)
    columns = {
        "empty": ("empty (%)", lambda value: percent(value, 2)),
        "loop": ("repetition loop (%)", lambda value: percent(value, 2)),
        "truncated": ("cut at the limit (%)", lambda value: percent(value, 2)),
    }
    note = "Share of utterances."
    return table_of_rows("failures", "Failed outputs", note, data, columns, axes=study.axes)


def bands_in_columns(data: pd.DataFrame, band: str, value: str, axes: Iterable[str]) -> pd.DataFrame:
    """One row an encoder, language, depth, mode and further axis; one column a band, the mean over seeds."""
    keys = ["encoder_name", "language", "keep_layers", "mode", *axes]
    wide = data.pivot_table(index=keys, columns=band, values=value, sort=False)
    wide = wide.reindex(columns=data[band].unique())  # pandas leaves out a band in which no run has a rate
    runs = data.groupby(keys, sort=False)["name"].agg(lambda names: list(names.unique()))
    return wide.assign(runs=runs).reset_index()


def band_table(
    study: StudyResults,
    name: str,
    title: str,
    note: str,
    data: pd.DataFrame,
    band: str,
    order: str,
    value: str,
) -> ReportTable:
    """Bands side by side, in per cent; the data has one row a run and band, or none."""
    if data.empty:
        return ReportTable(name, title, note, data, data)
    bands = data.drop_duplicates(order).sort_values(order)[band]
    rows = bands_in_columns(data, band, value, study.axes)
    data = data.assign(runs=[[run] for run in data["name"]])
    return table_of_rows(name, title, note, data, {one: (one, percent) for one in bands}, rows, study.axes)


def lengths_table(study: StudyResults, view: View) -> ReportTable:
    data = breakdowns.wer_by_length(study)
    title, note = "WER by length of the clip", "WER in % by seconds."
    return band_table(study, "wer_by_length", title, note, data, "seconds", "longest", "wer")


def parts_table(study: StudyResults, view: View) -> ReportTable:
    data = breakdowns.wer_by_part(study)
    title, note = "WER by dataset and language", "WER in %, of runs on several of either."
    return band_table(study, "wer_by_part", title, note, data, "part", "order", "wer")


def frequency_table(study: StudyResults, view: View) -> ReportTable:
    data = breakdowns.misses_by_frequency(study)
    title = "Missed words by frequency"
    note = "Reference words substituted or deleted, in %, by how often the word occurs in the test set."
    return band_table(study, "misses_by_frequency", title, note, data, "occurrences", "band", "missed")


def training_frequency_table(study: StudyResults, view: View) -> ReportTable:
    name, title = "errors_by_training_frequency", "WER by frequency in the training text"
    data = breakdowns.errors_by_frequency(study)
    note = "Errors over reference words, in %, by how often the word stood in the transcripts trained on."
    left_out = sorted(set(study.runs["name"]) - set(data.get("name", [])))
    note += f" Not known of {', '.join(left_out)}." if left_out else ""
    return band_table(study, name, title, note, data, "occurrences", "band", "wer")


def seeds_table(study: StudyResults, view: View) -> ReportTable:
    data = curves.seed_spread(study.runs, **view.curves)
    columns = {
        "seeds": ("seeds", whole),
        **{name: (f"{title} (%)", percent) for name, title in
           {"mean": "mean WER", "std": "deviation", "min": "lowest", "max": "highest"}.items()},
    }  # fmt: skip
    note = "Deviation with n - 1."
    return table_of_rows("seeds", "Spread over seeds", note, data, columns, axes=study.axes)


def baselines_table(study: StudyResults, view: View) -> ReportTable:
    data = study.baselines
    note = "The whole Whisper with its own decoder on the same clips."
    if data.empty:
        return ReportTable("baselines", "Whisper with its own decoder", note, data, data)
    written = pd.DataFrame(
        {
            "Whisper": data["encoder_name"],
            "language": data["language"].map(language_name),
            "WER (%)": [with_bounds(row) for row in each_row(data)],
            **{f"{METRICS[name].title} (%)": data[name].map(percent) for name in shown_rates(data)},
            "S / D / I": [f"{r.substitutions} / {r.deletions} / {r.insertions}" for r in each_row(data)],
            "parameters (M)": data["total_parameters"].map(millions),
        }
    )
    return ReportTable("baselines", "Whisper with its own decoder", note, data, written)


SECTIONS: list[Section] = [
    table2, table3, table4, table5, table6, table7,
    safe_zone_table, deepest_table, lora_tests, control_tests, shapes_table, pareto_table, depth_front_table,
    failures_table, lengths_table, parts_table, frequency_table, training_frequency_table, seeds_table,
    baselines_table, table1,
]  # fmt: skip
# These speak of layers removed, and have nothing to say where curves run along something else.
ABOUT_DEPTH = frozenset((table3, table4, table5, table6, table7, safe_zone_table, deepest_table))
ABOUT_ORDER = frozenset((shapes_table,))  # this one speaks of steps, which are there between numbers alone


def report_tables(study: StudyResults, view: View | None = None) -> list[ReportTable]:
    """Every table that has something to say about this study."""
    view = (view or View()).of(study)
    sections = [*view.sections, *SECTIONS]
    silent = (frozenset() if view.along_depth else ABOUT_DEPTH) | (
        frozenset() if view.ordered else ABOUT_ORDER
    )
    made = [section(study, view) for section in sections if section not in silent]
    return [table for table in made if len(table.shown)]
