"""The report of a run: metrics.json and the summary on the terminal, both from predictions alone.

Nothing here needs the model, so a set is decoded once and scored as often as one likes.
"""

import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from modeling_slam.evaluation.intervals import INTERVAL_METHOD
from modeling_slam.evaluation.metrics import ERROR_RATES, METRICS, Scored, interval_of, measure
from modeling_slam.evaluation.predictions import Prediction

PACKAGES = ("torch", "transformers", "peft", "datasets", "jiwer", "numpy", "soundfile", "soxr")
EXAMPLES = 5


def score(
    rows: Sequence[Prediction], token_limit: Callable[[float], int], batch_mean_size: int
) -> dict[str, Any]:
    """All figures of metrics.json that follow from the predictions."""
    references, predictions = [row.reference for row in rows], [row.prediction for row in rows]
    scored = Scored(references, predictions, batch_mean_size, rows, token_limit)
    return measure(scored) | {"interval_method": INTERVAL_METHOD, "batch_mean_size": batch_mean_size}


def package_versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def summary(metrics: dict[str, Any], rows: Sequence[Prediction]) -> str:
    """The report for people: error rates with their intervals, then a line for each unit, then examples."""
    lines = [
        f"{METRICS[name].title}  {METRICS[name].write(metrics[name])}   "
        f"95 % interval {interval(metrics[interval_of(name)])}"
        for name in ERROR_RATES
    ]
    units: dict[str, list[str]] = {}
    for name, metric in METRICS.items():
        if name not in ERROR_RATES:
            title = f"{metric.title} " if metric.unit == "rate" else ""
            units.setdefault(metric.unit, []).append(title + metric.write(metrics[name]))
    lines += [f"{unit}: {', '.join(written)}" for unit, written in units.items()]
    lines += [
        "parameters: " + ", ".join(f"{name} {count:,}" for name, count in metrics["parameters"].items()),
        "",
    ]
    for row in rows[:: max(len(rows) // EXAMPLES, 1)][:EXAMPLES]:
        lines += [row.id, f"  reference:  {row.reference}", f"  prediction: {row.prediction}"]
    return "\n".join(lines)


def interval(bounds: Sequence[float]) -> str:
    return " to ".join(f"{100 * bound:.2f} %" for bound in bounds)
