"""Makes `counts.parquet` of an evaluation when its run ends; what is in it stands in `counts.py`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from modeling_slam.analysis.convergence import last_fall, log_of
from modeling_slam.analysis.counts import BANDS, BY_BAND, COUNTS_FILE, band_of, further_rates
from modeling_slam.analysis.error_types import error_type
from modeling_slam.analysis.frames import each_row
from modeling_slam.analysis.results import read_metrics, read_rows, trained_on
from modeling_slam.analysis.utterances import COUNTS, operations, utterance_frame
from modeling_slam.common.files import write_bytes
from modeling_slam.evaluation.metrics import AUTHORS_BATCH_SIZE, METRICS
from modeling_slam.evaluation.predictions import Prediction
from modeling_slam.evaluation.report import scored_rows
from modeling_slam.evaluation.whisper_rules import rules_in_use

OF_A_CLIP = ("dataset", "language", "speaker", "duration", "seconds", "alignment", *COUNTS, "loop")


def write_counts(
    directory: Path,
    run_directory: Path,
    occurrences: Mapping[str, int] | None,
    token_limit: Callable[[float], int],
) -> None:
    """Write `counts.parquet` beside the predictions in `directory`, of the run in `run_directory`.

    Args:
        occurrences: of each word in the training text; None if not known.
        token_limit: tokens at which the transcript of a clip of so many seconds was cut.
    """
    metrics = read_metrics(directory)
    counts = counts_of(read_rows(directory), metrics, occurrences, token_limit)
    counts.attrs |= {"data": trained_on(run_directory), "fall": last_fall(log_of(run_directory))}
    write_bytes(directory / COUNTS_FILE, counts.to_parquet(index=False))


def counts_of(
    rows: Sequence[Prediction],
    metrics: Mapping[str, Any],
    occurrences: Mapping[str, int] | None,
    token_limit: Callable[[float], int],
) -> pd.DataFrame:
    """The table of these predictions and the metrics.json beside them."""
    settings = metrics.get("settings", {})
    style = settings.get("text_style", "normalized")
    frame = utterance_frame("", rows)
    scored = scored_rows(rows, style)
    counts = frame[list(OF_A_CLIP)].assign(
        empty=[not row.prediction for row in rows],
        truncated=[row.tokens >= token_limit(row.duration) for row in rows],
        kind=[error_type(row.reference, row.prediction, row.raw_reference, row.language) for row in rows],
    )
    for rate in further_rates():
        of_rate = METRICS[rate].counts
        if of_rate is not None and METRICS[rate].follows_from(scored):
            of_clips = of_rate(scored)
            counts = counts.assign(
                **{f"{rate}_errors": of_clips.errors, f"{rate}_length": of_clips.reference_lengths}
            )
    counts = counts.reset_index()
    if occurrences is not None:
        bands = pd.DataFrame(
            [words_by_band(clip, occurrences) for clip in each_row(frame)], columns=BAND_COLUMNS
        )
        counts = pd.concat([counts, bands], axis="columns")
    counts.attrs = {
        "scored": {
            "parameters": metrics["parameters"],
            "split": settings.get("split", "test"),
            "text_style": style,
            "whisper_rules": rules_in_use(row.language for row in rows),
            "batch_mean_size": metrics.get("batch_mean_size", AUTHORS_BATCH_SIZE),
        },
        "distinct_words": len({word for row in rows for word in row.reference.split()}),
    }
    return counts


BAND_COLUMNS = [f"{what}_{band}" for band in BANDS for what in BY_BAND]


def words_by_band(clip: Any, occurrences: Mapping[str, int]) -> dict[str, int]:
    """Reference words and errors of one clip, by how often the word stood in the training text."""
    counts = dict.fromkeys(BAND_COLUMNS, 0)
    said, heard = iter(clip.reference.split()), iter(clip.prediction.split())
    kinds = {"s": "substitutions", "d": "deletions", "i": "insertions"}
    for letter, size in operations(clip.alignment):
        for _ in range(size):
            written = next(heard) if letter != "d" else ""
            word = written if letter == "i" else next(said)
            band = band_of(occurrences.get(word, 0))
            if letter != "i":
                counts[f"words_{band}"] += 1
            if letter != "e":
                counts[f"{kinds[letter]}_{band}"] += 1
    return counts
