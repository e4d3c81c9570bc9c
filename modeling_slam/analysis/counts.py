"""`counts.parquet`: what is kept of an evaluation, a row a clip and no text, so that it may be published.

    id, dataset, language, speaker, duration, seconds      of the clip; `seconds` is the time of its decoding
    alignment                                              how many words in a row are equal, substituted, ...
    substitutions, deletions, insertions, hits             words of that alignment
    RATE_errors, RATE_length                               of each further error rate, such as cer
    loop, empty, truncated, kind                           of the output; `kind` as in error_types.py
    words_BAND, substitutions_BAND, ...                    the same words by frequency, if that is known

All tables and tests follow from it as from the predictions, but for examples. What holds of all clips stands
in the frame's `attrs`, which Parquet keeps: `scored` (parameters, split, text style, rules of Whisper's,
batch of the authors' figure), `data` (clips and hours that were trained on), `fall` (what
`convergence.last_fall` found), and `distinct_words` of the test set.

Bands are of the training text: how often a reference word, or for an insertion the word that was written,
stood in the transcripts that the run was trained on, after normalisation. They are counted when the run ends,
from the list of words that train.py leaves beside the model. Where that list is gone, so are the columns:
nothing else tells the bands later.
"""

import bisect
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from modeling_slam.analysis.utterances import COUNTS
from modeling_slam.evaluation.metrics import ERROR_RATES, METRICS, ErrorCounts, figures

COUNTS_FILE = "counts.parquet"
LEAST = (0, 1, 10, 100, 1000)  # lowest number of occurrences of each band
BANDS = ("0", "1-9", "10-99", "100-999", "1000+")
BY_BAND = ("words", "substitutions", "deletions", "insertions")
OF_WORDS = ("wer", "ser")  # error rates that follow from the counts of words; the others have columns
TEXTS = ("reference", "prediction", "raw_reference", "raw_prediction")


def band_of(occurrences: int) -> str:
    return BANDS[bisect.bisect_right(LEAST, occurrences) - 1]


def further_rates() -> list[str]:
    return [name for name in ERROR_RATES if name not in OF_WORDS]


def read_counts(file: Path) -> pd.DataFrame:
    """The table of one evaluation.

    Raises:
        ValueError: the file is damaged, or is none of these.
    """
    try:
        counts = pd.read_parquet(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read ({error}). Restore it from a copy.") from error
    if missing := sorted({"id", "alignment", *COUNTS} - set(counts.columns)) + ["scored"] * (
        "scored" not in counts.attrs
    ):
        raise ValueError(f"{file} is no table of counts: it has no {', '.join(missing)}.")
    return counts


class Counted:
    """Stands for `metrics.Scored` where only counts are known: what `METRICS` ask of it."""

    def __init__(self, counts: pd.DataFrame):
        self.counts = counts
        self.utterances = len(counts)
        self.empty, self.loops, self.truncated = (
            int(counts[name].sum()) for name in ("empty", "loop", "truncated")
        )
        self.audio_seconds, self.decode_seconds = (
            float(counts[name].sum()) for name in ("duration", "seconds")
        )
        self.batch_mean_size: int = counts.attrs["scored"]["batch_mean_size"]
        self.rows = True  # what needs the predictions follows
        self.written = self.has("written_wer")

    def has(self, rate: str) -> bool:
        return f"{rate}_errors" in self.counts

    @cached_property
    def words(self) -> ErrorCounts:
        return ErrorCounts(*(self.counts[name].to_numpy() for name in COUNTS))

    @property
    def characters(self) -> ErrorCounts:
        return self.of("cer")

    @property
    def words_by_whisper(self) -> ErrorCounts:
        return self.of("whisper_wer")

    @property
    def words_as_written(self) -> ErrorCounts:
        return self.of("written_wer")

    def of(self, rate: str) -> ErrorCounts:
        """Counts with these errors and lengths; which of the errors are insertions is not known."""
        errors, length = (self.counts[f"{rate}_{what}"].to_numpy() for what in ("errors", "length"))
        wrong = np.minimum(errors, length)
        return ErrorCounts(wrong, np.zeros_like(wrong), errors - wrong, length - wrong)

    def measure(self) -> dict[str, Any]:
        """All metrics that follow, with their intervals, as metrics.json has them."""
        unknown = {rate for rate in further_rates() if not self.has(rate)}
        return figures(
            self,
            [name for name, metric in METRICS.items() if name not in unknown and metric.follows_from(self)],
        )


def kept_frame(run: str, counts: pd.DataFrame) -> pd.DataFrame:
    """The rows of `StudyResults.utterances` of a run whose texts were not kept: these are None."""
    frame = counts.assign(run=run, **dict.fromkeys(TEXTS))
    frame["errors"] = frame["substitutions"] + frame["deletions"] + frame["insertions"]
    frame["reference_words"] = frame["hits"] + frame["substitutions"] + frame["deletions"]
    frame["wer"] = frame["errors"] / frame["reference_words"].clip(lower=1)
    return frame.set_index("id")
