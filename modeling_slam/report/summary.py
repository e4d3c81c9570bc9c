"""A study in a few sentences, for the top of its report: best runs, what pruning and LoRA do, any doubts."""

from collections.abc import Collection
from typing import Any

import pandas as pd

from modeling_slam.analysis import curves, tables
from modeling_slam.analysis.frames import each_row, groups, keyed
from modeling_slam.analysis.results import StudyResults
from modeling_slam.report.plots import baselines_of
from modeling_slam.report.view import View
from modeling_slam.report.written import language_name, mode_name, percent


def summary(study: StudyResults, view: View, doubtful: Collection[str]) -> list[str]:
    """Whole sentences, each about one question; a question that the study cannot answer has none.

    `doubtful` are the runs that had not converged.
    """
    sentences = [best_run(study, language, doubtful) for language in study.runs["language"].unique()]
    if view.along_depth:
        sentences += [safe_cuts(study, view, doubtful)]
    sentences += [what_lora_does(study)]
    if doubtful:
        sentences.append(
            f"{len(doubtful)} of {len(study.runs)} runs had not converged: what they say of pruning and LoRA "
            "may be a matter of training."
        )
    return [sentence for sentence in sentences if sentence]


def best_run(study: StudyResults, language: str, doubtful: Collection[str]) -> str:
    runs = study.runs[study.runs["language"] == language]
    none = "no run had converged, and " if runs["name"].isin(doubtful).all() else ""
    best = runs.loc[runs["wer"].idxmin()]
    sentence = (
        f"{language_name(language)}: {none}the lowest WER is {percent(best['wer'])} %, by "
        f"{best['encoder_name']} with {best['keep_layers']} of {best['encoder_layers']} layers, "
        f"{mode_name(best['mode'])}."
    )
    for encoder, wer in baselines_of(study, language):
        sentence += f" Whisper {encoder} with its own decoder has {percent(wer)} %."
    return sentence


def safe_cuts(study: StudyResults, view: View, doubtful: Collection[str]) -> str:
    """What can be removed; beside a run that had not converged nothing is safe."""
    deepest = curves.deepest_safe_cuts(curves.safe_zone(study, **view.curves), study.runs, **view.curves)
    if deepest.empty:
        return ""
    sound = deepest["runs"].map(lambda names: not any(name in doubtful for name in names))
    safe = deepest[sound & (deepest["removed"] > 0)]
    limit = f"costs less than {100 * curves.SAFE_POINTS:g} points of WER and is not significantly worse"
    if safe.empty:
        return f"Pruning: no curve of runs that converged has a cut that {limit}."
    most = safe.loc[safe["removed"].idxmax()]
    layers = "layer" if most["removed"] == 1 else "layers"
    condition = ", ".join(
        [most["encoder_name"], language_name(most["language"])]
        + ([mode_name(most["mode"])] if "mode" in most else [])
    )
    return (
        f"Pruning: {len(safe)} of {len(deepest)} curves have a cut that {limit}; the deepest removes "
        f"{most['removed']:g} {layers} ({condition})."
    )


def what_lora_does(study: StudyResults) -> str:
    """Over all pairs of a run without LoRA and with it that differ in nothing else but their seeds."""
    changes = []
    for _, cell in keyed(study.runs, ["encoder_name", "language", "keep_layers", *study.axes]):
        wer = {mode: runs["wer"].mean() for mode, runs in groups(cell, "mode")}
        if wer.keys() == tables.MODES.keys():
            changes.append(wer["lora"] - wer["projector"])
    if not changes:
        return ""
    lower, higher = [c for c in changes if c < 0], [c for c in changes if c > 0]
    sentence = f"LoRA: it lowers the WER in {len(lower)} of {len(changes)} comparisons"
    sentence += f", by {-100 * min(lower):.1f} points at most" if lower else ""
    sentence += f", and raises it in {len(higher)}, by up to {100 * max(higher):.1f}" if higher else ""
    return f"{sentence}."


def warnings(doubtful: pd.DataFrame) -> list[tuple[str, list[tuple[str, str]]]]:
    """Reasons why runs count as not converged, each with its (run, figures)."""
    reasons = {
        "plateau": "Their WER is 80 % or more, as of a model that writes without listening",
        "validation WER": "Their validation WER was still falling in the last fifth of the steps",
        "training loss": "Their training loss was still falling in the last fifth of the steps",
    }
    return [
        (reason, [(run.name, figures(run)) for run in each_row(doubtful[doubtful["watched"] == watched])])
        for watched, reason in reasons.items()
        if (doubtful["watched"] == watched).any()
    ]


def figures(run: Any) -> str:
    if run.watched == "training loss":
        return f"{run.before:.2f} to {run.after:.2f}"
    before = "" if pd.isna(run.before) else f"{percent(run.before)} to "
    return f"{before}{percent(run.after)} %"
