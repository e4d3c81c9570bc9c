"""The report of a run: metrics.json and the summary on the terminal, both from predictions alone.

Nothing here needs the model, so a set is decoded once and scored as often as one likes.
"""

import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from modeling_slam.data.text import written_text
from modeling_slam.evaluation.hotwords import hotword_scores, summary_of
from modeling_slam.evaluation.intervals import INTERVAL_METHOD
from modeling_slam.evaluation.metrics import ERROR_RATES, METRICS, Scored, interval_of, measure
from modeling_slam.evaluation.predictions import Prediction
from modeling_slam.evaluation.whisper_rules import HOW_TO_GET_SPELLINGS, rules_in_use
from modeling_slam.model.configuration_slam import TextStyle

# Key of metrics.json -> what its rows are told apart by.
PARTS: dict[str, Callable[[Prediction], str | None]] = {
    "by_dataset": lambda row: row.dataset,
    "by_language": lambda row: row.language,
}
TITLES_OF_PARTS = {"by_dataset": "{}", "by_language": "language {}"}
UNKNOWN = "unknown"
FIGURES_OF_PARTS = (*ERROR_RATES, "reference_words", "utterances", "audio_seconds")
PACKAGES = ("torch", "transformers", "peft", "datasets", "jiwer", "numpy", "av", "soxr")
EXAMPLES = 5


def score(
    rows: Sequence[Prediction],
    token_limit: Callable[[float], int],
    batch_mean_size: int,
    text_style: TextStyle = "normalized",
) -> dict[str, Any]:
    """All figures of metrics.json that follow from the predictions of a model of this style."""
    scored = scored_rows(rows, text_style, batch_mean_size=batch_mean_size, token_limit=token_limit)
    return (
        measure(scored)
        | score_parts(rows, text_style)
        | hotword_scores(rows)
        | {
            "interval_method": INTERVAL_METHOD,
            "batch_mean_size": batch_mean_size,
            "whisper_rules": rules_in_use(row.language for row in rows),
        }
    )


def score_parts(rows: Sequence[Prediction], text_style: TextStyle) -> dict[str, dict[str, dict[str, Any]]]:
    """`by_dataset` and `by_language`: the figures of each by its name, where there are several."""
    parts = {}
    for key, name_of in PARTS.items():
        groups: dict[str, list[Prediction]] = {}
        for row in rows:
            groups.setdefault(name_of(row) or UNKNOWN, []).append(row)
        if len(groups) > 1:
            parts[key] = {
                name: measure(scored, [one for one in FIGURES_OF_PARTS if METRICS[one].follows_from(scored)])
                for name, group in groups.items()
                for scored in [scored_rows(group, text_style)]
            }
    return parts


def scored_rows(rows: Sequence[Prediction], text_style: TextStyle, **settings: Any) -> Scored:
    """The predictions of a model of this style, as metrics read them; `settings` are fields of `Scored`."""
    written = written_texts(rows) if text_style == "written" else None
    texts = [row.reference for row in rows], [row.prediction for row in rows]
    return Scored(*texts, rows=rows, written=written, **settings)


def written_texts(rows: Sequence[Prediction]) -> tuple[list[str], list[str]]:
    """References and predictions with their case and punctuation."""
    return [written_text(row.raw_reference) for row in rows], [
        written_text(row.raw_prediction) for row in rows
    ]


def package_versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def summary(metrics: dict[str, Any], rows: Sequence[Prediction]) -> str:
    """The report for people: error rates with their intervals, then a line for each unit, then examples."""
    lines = [
        f"{METRICS[name].title}  {METRICS[name].write(metrics[name])}   "
        f"95 % interval {interval(metrics[interval_of(name)])}"
        for name in ERROR_RATES
        if name in metrics
    ]
    lines += table_of_parts(metrics)
    lines.append(f"Whisper's rules: {metrics['whisper_rules']}{spellings_advice(metrics['whisper_rules'])}")
    units: dict[str, list[str]] = {}
    for name, metric in METRICS.items():
        if name not in ERROR_RATES and name in metrics:
            title = f"{metric.title} " if metric.unit == "rate" else ""
            units.setdefault(metric.unit, []).append(title + metric.write(metrics[name]))
    lines += [f"{unit}: {', '.join(written)}" for unit, written in units.items()]
    lines += summary_of(metrics)
    lines += [
        "parameters: " + ", ".join(f"{name} {count:,}" for name, count in metrics["parameters"].items()),
        "",
    ]
    as_written = "written_wer" in metrics
    for row in rows[:: max(len(rows) // EXAMPLES, 1)][:EXAMPLES]:
        reference, prediction = (
            (row.raw_reference, row.raw_prediction) if as_written else (row.reference, row.prediction)
        )
        lines += [row.id, f"  reference:  {reference}", f"  prediction: {prediction}"]
    return "\n".join(lines)


def parts_of(metrics: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(title, figures) of each dataset and language in a metrics.json; none where it is of one."""
    return [
        (TITLES_OF_PARTS[key].format(name), part)
        for key in PARTS
        for name, part in metrics.get(key, {}).items()
    ]


def table_of_parts(metrics: dict[str, Any]) -> list[str]:
    """A row for each dataset and language, if there are several, under the names of the columns."""
    rates = [name for name in ERROR_RATES if name in metrics]
    head = ["", *(METRICS[name].title for name in rates), "95 % interval of WER", "clips"]
    table = [
        [
            title,
            *(METRICS[rate].write(part[rate]) for rate in rates),
            interval(part[interval_of("wer")]),
            f"{part['utterances']:,}",
        ]
        for title, part in parts_of(metrics)
    ]
    if not table:
        return []
    widths = [max(map(len, column)) for column in zip(head, *table, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in [head, *table]
    ]


def spellings_advice(rules: str) -> str:
    return f"; to get the list: {HOW_TO_GET_SPELLINGS}" if "without" in rules else ""


def interval(bounds: Sequence[float]) -> str:
    return " to ".join(f"{100 * bound:.2f} %" for bound in bounds)
