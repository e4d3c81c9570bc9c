"""Which runs had not converged when their training ended, and how one can tell.

A run has not converged if its WER on the test set is 80 % or more, or if in the last fifth of its steps what
it is watched by was still falling steeply: the WER of its validations by more than a tenth and a point, or
where there were none the training loss by more than a fifth. Such a run says how far it was trained, not what
its encoder can do. Where the log of the training is gone, the WER alone decides.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from modeling_slam.analysis.frames import each_row
from modeling_slam.analysis.results import StudyResults
from modeling_slam.common.files import read_entries
from modeling_slam.evaluation.metrics import PLATEAU_WER

TRAINER_STATE = "trainer_state.json"  # the trainer's own record, beside the model or in its place
LAST_PART = 0.2  # of the steps
WER_FALL, POINT = 0.1, 0.01  # relative, and at least
LOSS_FALL = 0.2
FEWEST_LOSSES = 3  # in the last part and in the one before it, or the noise of batches would decide


def not_converged(study: StudyResults) -> pd.DataFrame:
    """A row for each run that had not converged: `name`, `watched`, and how it fell, `before` and `after`.

    `watched` is "plateau" for a WER of 80 % or more, with the WER in `after`; else "validation WER" or
    "training loss".
    """
    rows = []
    for run in each_row(study.runs):
        if run.wer >= PLATEAU_WER:
            rows.append({"name": run.name, "watched": "plateau", "after": run.wer})
        elif study.directory is not None and (fall := fall_of(study, run.name)):
            rows.append({"name": run.name} | fall)
    return pd.DataFrame(rows, columns=["name", "watched", "before", "after"])


def fall_of(study: StudyResults, run: str) -> dict[str, Any]:
    """As `last_fall`, from the log of a run's training, or from what its counts say of it."""
    if study.is_without_text(run):
        counts = study.counts(run)
        return {} if counts is None else counts.attrs.get("fall", {})
    return last_fall(log_of(study.run_directory(run)))


def log_of(directory: Path) -> list[dict[str, Any]]:
    """The log of a run's training, from what the trainer left; empty if it is gone or damaged."""
    for file in (directory / TRAINER_STATE, directory / "model" / TRAINER_STATE):
        try:
            log = read_entries(file, "log_history")["log_history"]
        except (OSError, ValueError):
            continue
        if isinstance(log, list):
            return [entry for entry in log if isinstance(entry, dict) and is_number(entry.get("step"))]
    return []


def is_number(value: Any) -> bool:
    """Whether it is one that can be compared: a loss that was lost is NaN, or null where JSON has none."""
    return isinstance(value, int | float) and math.isfinite(value)


def last_fall(log: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What still fell steeply in the last fifth of a training, from where to where; empty if nothing did."""
    steps = max((entry["step"] for entry in log), default=0)
    wers = [(entry["step"], entry["eval_wer"]) for entry in log if is_number(entry.get("eval_wer"))]
    before, last = parts(wers, (0, 1 - LAST_PART, 1), steps)
    if before and last:
        fall = {"watched": "validation WER", "before": min(before), "after": min(last)}
        return fall if fall["before"] - fall["after"] > max(WER_FALL * fall["before"], POINT) else {}
    losses = [(entry["step"], entry["loss"]) for entry in log if is_number(entry.get("loss"))]
    before, last = parts(losses, (1 - 2 * LAST_PART, 1 - LAST_PART, 1), steps)
    if min(len(before), len(last)) < FEWEST_LOSSES:
        return {}
    fall = {"watched": "training loss", "before": mean(before), "after": mean(last)}
    return fall if fall["after"] < (1 - LOSS_FALL) * fall["before"] else {}


def parts(
    values: Sequence[tuple[float, float]], bounds: tuple[float, float, float], steps: float
) -> tuple[list[float], list[float]]:
    """The values of (step, value) pairs between the first two and the last two bounds, shares of `steps`."""
    low, middle, high = (bound * steps for bound in bounds)
    return (
        [value for step, value in values if low < step <= middle],
        [value for step, value in values if middle < step <= high],
    )


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
