"""The last section of a report: a line for each run, with the columns that this study has something for."""

from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd

from modeling_slam.analysis.frames import each_row
from modeling_slam.analysis.results import shown_rates
from modeling_slam.evaluation.metrics import METRICS
from modeling_slam.report.written import UNCONVERGED, millions, mode_name, percent

# Title of a column -> what the note says of it.
EXPLAINED = {
    "S/D/I": "S/D/I: substituted, deleted, inserted words.",
    "parameters (M)": "Parameters: encoder + LoRA in millions.",
    "not converged": "Not converged: see the top of the page.",
}
ERRORS = "errors"  # the column that leads to the error browser


def run_list(runs: pd.DataFrame, doubtful: Collection[str], browsed: Collection[str]) -> list[dict[str, str]]:
    """For each run the written cells by their titles; a column that would be empty is left out.

    `doubtful` are the runs that had not converged, `browsed` those in the error browser.
    """
    rates = shown_rates(runs)
    lines = [line_of(run, rates, doubtful, browsed) for run in each_row(runs)]
    filled = [title for title in lines[0] if any(line[title] for line in lines)]
    return [{title: line[title] for title in filled} for line in lines]


def line_of(
    run: Any, rates: Sequence[str], doubtful: Collection[str], browsed: Collection[str]
) -> dict[str, str]:
    speakers = f"{percent(run.speaker_low)} to {percent(run.speaker_high)} ({run.speakers})"
    return {
        "run": run.name,
        "layers": f"{run.keep_layers} of {run.encoder_layers}",
        "trained": mode_name(run.mode),
        "WER": percent(run.wer, 2),
        "over utterances": f"{percent(run.wer_low)} to {percent(run.wer_high)}",
        "over speakers": speakers if pd.notna(run.speaker_low) else "",
        "not converged": UNCONVERGED if run.name in doubtful else "",
        **{METRICS[name].title: percent(getattr(run, name), 2) for name in rates},
        "S/D/I": f"{run.substitutions}/{run.deletions}/{run.insertions}",
        "words": f"{run.reference_words:,}",
        "parameters (M)": f"{millions(run.encoder_parameters)} + {millions(run.lora_parameters)}",
        "real-time factor": f"{run.real_time_factor:.3f}",
        "training (min)": f"{run.train_seconds / 60:.1f}",
        "commit": (run.commit or "")[:10],
        ERRORS: "errors" if run.name in browsed else "",
    }


def note_of(lines: list[dict[str, str]], whisper_rules: str) -> str:
    """What is to be said of the columns that are there; `whisper_rules` as the runs' metrics name them."""
    speakers = (
        " and, where speakers are known, over speakers (how many)" if "over speakers" in lines[0] else ""
    )
    said = [f"Error rates in %, 95 % intervals over utterances{speakers}."]
    if METRICS["whisper_wer"].title in lines[0]:
        said.append(f"Whisper's rules: {whisper_rules}.")
    return " ".join([*said, *(text for title, text in EXPLAINED.items() if title in lines[0])])
