"""Where the errors are: by length of the clip, by how rare a word is, and outputs that fail altogether."""

from collections.abc import Iterable, Sequence
from math import nan

import numpy as np
import pandas as pd

from modeling_slam.analysis.counts import BANDS, BY_BAND
from modeling_slam.analysis.frames import each_row, groups
from modeling_slam.analysis.results import CURVE, StudyResults
from modeling_slam.analysis.utterances import operations

SECONDS = (0, 2, 4, 6, 8, 10, 15, 30)
OCCURRENCES = (1, 2, 6, 21, 101)  # lowest number of occurrences of each band
RUN = ["name", *CURVE, "keep_layers", "mode", "seed"]


def wer_by_length(study: StudyResults, edges: Sequence[float] = SECONDS) -> pd.DataFrame:
    """Corpus WER of the clips of each length, in seconds: one row for each run and band that has clips."""
    rows = []
    for run in each_row(study.runs):
        frame = study.utterances(run.name)
        bands = pd.cut(frame["duration"], [*edges[:-1], max(edges[-1], frame["duration"].max())])
        for band, clips in groups(frame.assign(band=bands).sort_values("band"), "band"):
            rows.append(
                {
                    **{column: getattr(run, column) for column in (*RUN, *study.axes)},
                    "longest": band.right,
                    "seconds": f"{band.left:g} to {band.right:g}",
                    "wer": clips["errors"].sum() / max(clips["reference_words"].sum(), 1),
                    "utterances": len(clips),
                    "reference_words": int(clips["reference_words"].sum()),
                }
            )
    return pd.DataFrame(rows)


def wer_by_part(study: StudyResults) -> pd.DataFrame:
    """Corpus WER by dataset and by language: one row for each run and part, of runs that have several."""
    rows = []
    for run in each_row(study.runs):
        frame = study.utterances(run.name)
        for column, prefix in (("dataset", ""), ("language", "language ")):
            parts = frame[column].fillna("unknown")
            if parts.nunique() < 2:
                continue
            for part, clips in groups(frame.assign(part=parts), "part"):
                rows.append(
                    {
                        **{name: getattr(run, name) for name in (*RUN, *study.axes)},
                        "part": f"{prefix}{part}",
                        "order": f"{column} {part}",
                        "wer": clips["errors"].sum() / max(clips["reference_words"].sum(), 1),
                        "utterances": len(clips),
                        "reference_words": int(clips["reference_words"].sum()),
                    }
                )
    return pd.DataFrame(rows)


def misses_by_frequency(study: StudyResults, bands: Sequence[int] = OCCURRENCES) -> pd.DataFrame:
    """Share of reference words that were substituted or deleted, by how often the word is in the test set.

    Inserted words have no reference word and are not counted, so the bands do not add up to the WER. Runs
    without texts are left out; `errors_by_frequency` has them.
    """
    rows = []
    for run in each_row(study.runs):
        if study.is_without_text(run.name):
            continue
        words = reference_words(study.utterances(run.name))
        occurrences = words.groupby("word")["missed"].transform("size")
        band = np.searchsorted(bands, occurrences, side="right") - 1
        for order, group in groups(words.assign(band=band).sort_values("band"), "band"):
            rows.append(
                {
                    **{column: getattr(run, column) for column in (*RUN, *study.axes)},
                    "band": int(order),
                    "occurrences": band_name(bands, int(order)),
                    "missed": group["missed"].mean(),
                    "reference_words": len(group),
                }
            )
    return pd.DataFrame(rows)


def errors_by_frequency(study: StudyResults) -> pd.DataFrame:
    """Errors by how often the word stood in the run's training text: one row for each run and band.

    `wer` = errors of the band over its reference words, NaN where it has none; insertions count where the
    inserted word belongs, so the errors of all bands are those of the run. Of runs whose counts.parquet has
    bands.
    """
    rows = []
    for run in each_row(study.runs):
        counts = study.counts(run.name)
        if counts is None or f"words_{BANDS[0]}" not in counts:
            continue
        for order, band in enumerate(BANDS):
            sums = {what: int(counts[f"{what}_{band}"].sum()) for what in BY_BAND}
            errors = sum(sums.values()) - sums["words"]
            if sums["words"] or errors:
                rows.append(
                    {
                        **{column: getattr(run, column) for column in (*RUN, *study.axes)},
                        "band": order,
                        "occurrences": band,
                        "wer": errors / sums["words"] if sums["words"] else nan,
                        **{kind: sums[kind] for kind in BY_BAND[1:]},
                        "reference_words": sums["words"],
                    }
                )
    return pd.DataFrame(rows)


def reference_words(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a reference word: `word`, and whether it was `missed` (substituted or deleted)."""
    words, missed = [], []
    for reference, alignment in zip(frame["reference"], frame["alignment"], strict=True):
        words += reference.split()
        for kind, size in operations(alignment):
            if kind != "i":
                missed += [kind != "e"] * size
    return pd.DataFrame({"word": words, "missed": missed})


def band_name(bands: Sequence[int], band: int) -> str:
    if band == len(bands) - 1:
        return f"{bands[band]} or more"
    low, high = bands[band], bands[band + 1] - 1
    return f"{low}" if low == high else f"{low} to {high}"


def failure_rates(runs: pd.DataFrame, axes: Iterable[str] = ()) -> pd.DataFrame:
    """Share of a run's outputs that are empty, loop, or were cut at the token limit."""
    rates = {
        name: runs[f"{name}_predictions" if name != "loop" else "repetition_loops"] / runs["utterances"]
        for name in ("empty", "loop", "truncated")
    }
    return runs[[*RUN, *axes, "utterances"]].assign(**rates, runs=[[name] for name in runs["name"]])
