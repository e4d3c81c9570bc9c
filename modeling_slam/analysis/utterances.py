"""One row an utterance: what was said and heard, jiwer's alignment, and the counts that follow from it."""

import re
from collections.abc import Sequence
from dataclasses import asdict

import jiwer
import pandas as pd

from modeling_slam.evaluation.loops import is_loop
from modeling_slam.evaluation.metrics import error_counts
from modeling_slam.evaluation.predictions import Prediction

COUNTS = ["substitutions", "deletions", "insertions", "hits"]


def utterance_frame(run: str, rows: Sequence[Prediction]) -> pd.DataFrame:
    """Predictions with jiwer's alignment of each utterance and the counts that follow from it."""
    output = jiwer.process_words([row.reference for row in rows], [row.prediction for row in rows])
    counts = error_counts(output)
    frame = (
        pd.DataFrame([asdict(row) for row in rows])
        .drop(columns="hotwords")
        .assign(
            run=run,
            **{name: getattr(counts, name) for name in COUNTS},
            errors=counts.errors,
            reference_words=counts.reference_lengths,
            alignment=[encode_alignment(chunks) for chunks in output.alignments],
            loop=[is_loop(row.reference, row.prediction) for row in rows],
        )
    )
    frame["wer"] = frame["errors"] / frame["reference_words"].clip(lower=1)
    return frame.set_index("id")


def encode_alignment(chunks: Sequence[jiwer.AlignmentChunk]) -> str:
    """jiwer's chunks as a string: a letter and a number of words each."""
    letters = {"equal": "e", "substitute": "s", "delete": "d", "insert": "i"}
    return "".join(
        f"{letters[chunk.type]}"
        f"{max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)}"
        for chunk in chunks
    )


def operations(alignment: str) -> list[tuple[str, int]]:
    """(letter, number of words) of an alignment in that form."""
    return [(letter, int(size)) for letter, size in re.findall(r"([esdi])(\d+)", alignment)]


def same_utterances(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """`second` in the order of `first`.

    Raises:
        ValueError: the two do not hold the same ids with the same references, so no pair of them compares.
    """
    if set(first.index) != set(second.index):
        raise ValueError(
            f"{first['run'].iloc[0]} and {second['run'].iloc[0]} were decoded on different clips "
            f"({len(set(first.index) ^ set(second.index))} ids are in one alone). "
            "Evaluate both on one test set."
        )
    second = second.loc[first.index]
    # Of a run whose texts were not kept the number of words must do.
    known = (
        "reference"
        if first["reference"].notna().all() and second["reference"].notna().all()
        else "reference_words"
    )
    if not (first[known] == second[known]).all():
        raise ValueError(
            f"{first['run'].iloc[0]} and {second['run'].iloc[0]} have the same ids with other references. "
            "Evaluate both with the same text rules."
        )
    return second
