"""What a test set is measured by: `METRICS`, and the counts per utterance that every figure follows from.

jiwer aligns each utterance once; corpus rates, intervals and the authors' batch mean are sums over the same
counts, so they cannot disagree. metrics.json, the summary on the terminal, a study's index and report and the
model card go through `METRICS`: to add a metric, add its row. `evaluate.load("wer")` needs the network;
`SpeechErrorRate` is the same kind of object and works offline.

Rates are fractions. A rate without any reference word divides by one, as jiwer does: an empty reference adds
nothing to the denominator, and every word predicted for it counts as an insertion.

Source: jiwer, https://github.com/jitsi/jiwer
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import datasets
import evaluate
import jiwer
import numpy as np

from modeling_slam.evaluation.intervals import CONFIDENCE, interval_of_rate
from modeling_slam.evaluation.loops import is_loop
from modeling_slam.evaluation.predictions import Prediction
from modeling_slam.evaluation.whisper_rules import whisper_texts

# The paper trains with batches of 4, and its code averages the WER of such batches.
AUTHORS_BATCH_SIZE = 4
PLATEAU_WER = 0.8  # from here on a model may write what a transcript could say, without listening


@dataclass(frozen=True)
class ErrorCounts:
    """Alignment counts, one entry per utterance, each of shape (N,)."""

    substitutions: np.ndarray
    deletions: np.ndarray
    insertions: np.ndarray
    hits: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        return self.substitutions + self.deletions + self.insertions

    @property
    def reference_lengths(self) -> np.ndarray:
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float:
        """The corpus rate: all errors over all reference units."""
        return float(self.errors.sum() / max(self.reference_lengths.sum(), 1))


def count_word_errors(references: Sequence[str], predictions: Sequence[str]) -> ErrorCounts:
    return error_counts(jiwer.process_words(list(references), list(predictions)))


def count_character_errors(references: Sequence[str], predictions: Sequence[str]) -> ErrorCounts:
    return error_counts(jiwer.process_characters(list(references), list(predictions)))


def error_counts(output: jiwer.WordOutput | jiwer.CharacterOutput) -> ErrorCounts:
    """The counts of what jiwer has aligned."""
    kinds = {"substitute": 0, "delete": 1, "insert": 2, "equal": 3}
    counts = np.zeros((4, len(output.alignments)), dtype=np.int64)
    for utterance, chunks in enumerate(output.alignments):
        for chunk in chunks:
            in_reference = chunk.ref_end_idx - chunk.ref_start_idx
            in_prediction = chunk.hyp_end_idx - chunk.hyp_start_idx
            counts[kinds[chunk.type], utterance] += max(in_reference, in_prediction)
    return ErrorCounts(*counts)


def rate_interval(
    counts: ErrorCounts, groups: Sequence[Hashable] | None = None, confidence: float = CONFIDENCE
) -> list[float]:
    """[low, high] of the corpus rate; the method stands in `intervals.py`.

    With `groups` (one label per utterance, such as its speaker) whole groups count as one observation: the
    honest choice where one speaker's errors go together. An utterance without a label is a group of its own.
    """
    return interval_of_rate(counts.errors, counts.reference_lengths, groups, confidence)


bootstrap_interval = rate_interval  # its name while it was one: what people wrote from the docs still runs


def batch_mean_rate(counts: ErrorCounts, batch_size: int = AUTHORS_BATCH_SIZE) -> float:
    """The authors' figure: the mean of the corpus rates of consecutive batches, the last one possibly short.

    Short utterances weigh more than in the corpus rate, and the result depends on order and batch size.
    """
    starts = np.arange(0, len(counts.hits), batch_size)
    errors = np.add.reduceat(counts.errors, starts)
    lengths = np.add.reduceat(counts.reference_lengths, starts)
    return float(np.mean(errors / np.maximum(lengths, 1)))


def utterance_errors(words: ErrorCounts) -> ErrorCounts:
    """One unit an utterance, substituted if any of its words is wrong: SER, the sentence error rate."""
    wrong = (words.errors > 0).astype(np.int64)
    none = np.zeros_like(wrong)
    return ErrorCounts(wrong, none, none, 1 - wrong)


@dataclass(frozen=True)
class Scored:
    """What a metric is computed from: one test set in dataset order, texts normalised.

    `written` has references and predictions with case and punctuation, of a model that writes these.
    """

    references: Sequence[str]
    predictions: Sequence[str]
    batch_mean_size: int = AUTHORS_BATCH_SIZE
    rows: Sequence[Prediction] = ()  # how they were decoded; empty where only the texts are known
    token_limit: Callable[[float], int] | None = None  # of a clip of so many seconds
    written: tuple[Sequence[str], Sequence[str]] | None = None

    @cached_property
    def words(self) -> ErrorCounts:
        return count_word_errors(self.references, self.predictions)

    @cached_property
    def characters(self) -> ErrorCounts:
        return count_character_errors(self.references, self.predictions)

    @cached_property
    def words_by_whisper(self) -> ErrorCounts:
        return count_word_errors(
            whisper_texts((row.raw_reference, row.language) for row in self.rows),
            whisper_texts((row.raw_prediction, row.language) for row in self.rows),
        )

    @cached_property
    def words_as_written(self) -> ErrorCounts:
        return count_word_errors(*(self.written or ((), ())))

    @property
    def utterances(self) -> int:
        return len(self.references)

    @property
    def empty(self) -> int:
        return sum(not prediction for prediction in self.predictions)

    @property
    def loops(self) -> int:
        return sum(map(is_loop, self.references, self.predictions))

    @property
    def audio_seconds(self) -> float:
        return sum(row.duration for row in self.rows)

    @property
    def decode_seconds(self) -> float:
        """Of all processes together: two processes that take a minute each make two minutes."""
        return sum(row.seconds for row in self.rows)

    @property
    def truncated(self) -> int:
        limit = self.token_limit
        return 0 if limit is None else sum(row.tokens >= limit(row.duration) for row in self.rows)


Value = Callable[[Scored], float | int]
Unit = Literal["rate", "words", "utterances", "seconds", "ratio"]


@dataclass(frozen=True)
class Metric:
    """One figure of metrics.json, under its key in `METRICS`.

    Attributes:
        title: its column in tables and cards, and what the terminal calls it.
        meaning: for the legend of a card.
        unit: a rate is a fraction; words and utterances are counted.
        lower_is_better: None for what says how much was scored, not how well.
        value: how it follows from what was scored.
        counts: of an error rate: then `value` is their rate, and NAME_interval its 95 % interval.
        needs_rows: whether the texts alone do not tell it.
        needs_written: whether it is one of models that write case and punctuation.
    """

    title: str
    meaning: str
    unit: Unit
    lower_is_better: bool | None
    value: Value
    counts: Callable[[Scored], ErrorCounts] | None = None
    needs_rows: bool = False
    needs_written: bool = False

    def follows_from(self, scored: Any) -> bool:
        return bool(scored.rows or not self.needs_rows) and bool(scored.written or not self.needs_written)

    def write(self, value: float) -> str:
        """A value for people, with its title where it is a count."""
        return {
            "rate": f"{100 * value:.2f} %",
            "words": f"{value:,} {self.title}",
            "utterances": f"{value:,} {self.title}",
            "seconds": f"{value:,.0f} s {self.title}",
            "ratio": f"{self.title} {value:.3f}",
        }[self.unit]


def error_rate(title: str, meaning: str, counts: Callable[[Scored], ErrorCounts], **needs: bool) -> Metric:
    return Metric(title, meaning, "rate", True, lambda scored: counts(scored).rate, counts, **needs)


METRICS: dict[str, Metric] = {
    "wer": error_rate("WER", "wrong words over reference words", lambda scored: scored.words),
    "cer": error_rate(
        "CER", "wrong characters over reference characters", lambda scored: scored.characters
    ),
    "ser": error_rate(
        "SER", "utterances with any wrong word", lambda scored: utterance_errors(scored.words)
    ),
    "whisper_wer": error_rate(
        "WER by Whisper's rules", "the WER of leaderboards, after Whisper's own text normalisation",
        lambda scored: scored.words_by_whisper, needs_rows=True,
    ),
    "written_wer": error_rate(
        "WER as written", "the WER with case and punctuation as they are written",
        lambda scored: scored.words_as_written, needs_written=True,
    ),
    "batch_mean_wer": Metric(
        "batch-mean WER", "mean of the WERs of batches, the authors' figure", "rate", True,
        lambda scored: batch_mean_rate(scored.words, scored.batch_mean_size),
    ),
    "substitutions": Metric(
        "substituted", "wrong words in the place of others", "words", True,
        lambda scored: int(scored.words.substitutions.sum()),
    ),
    "deletions": Metric(
        "deleted", "reference words left out", "words", True,
        lambda scored: int(scored.words.deletions.sum()),
    ),
    "insertions": Metric(
        "inserted", "words that no reference word stands for", "words", True,
        lambda scored: int(scored.words.insertions.sum()),
    ),
    "hits": Metric(
        "right", "reference words that were recognised", "words", False,
        lambda scored: int(scored.words.hits.sum()),
    ),
    "reference_words": Metric(
        "of the reference", "words of all references", "words", None,
        lambda scored: int(scored.words.reference_lengths.sum()),
    ),
    "utterances": Metric(
        "in all", "utterances", "utterances", None, lambda scored: scored.utterances
    ),
    "empty_predictions": Metric(
        "empty", "utterances for which nothing was written", "utterances", True,
        lambda scored: scored.empty,
    ),
    "truncated_predictions": Metric(
        "cut at the token limit", "utterances cut at the limit of tokens", "utterances", True,
        lambda scored: scored.truncated, needs_rows=True,
    ),
    "repetition_loops": Metric(
        "with a loop", "utterances that repeat a word or phrase four times in a row", "utterances", True,
        lambda scored: scored.loops,
    ),
    "audio_seconds": Metric(
        "of audio", "length of all clips", "seconds", None, lambda scored: scored.audio_seconds,
        needs_rows=True,
    ),
    "decode_seconds": Metric(
        "of decoding", "time of all processes together", "seconds", True,
        lambda scored: scored.decode_seconds, needs_rows=True,
    ),
    "real_time_factor": Metric(
        "real-time factor", "decoding time over audio time", "ratio", True,
        lambda scored: scored.decode_seconds / scored.audio_seconds, needs_rows=True,
    ),
}  # fmt: skip
# Those that tables and cards show with an interval, the first one first.
ERROR_RATES = [name for name, metric in METRICS.items() if metric.counts]


def interval_of(name: str) -> str:
    """The key of a rate's interval in metrics.json."""
    return f"{name}_interval"


def measure(scored: Scored, names: Iterable[str] | None = None) -> dict[str, Any]:
    """The metrics of these names, else all that `scored` tells, as metrics.json has them.

    Raises:
        ValueError: there is nothing to score, or not one prediction for each reference.
    """
    references, predictions = len(scored.references), len(scored.predictions)
    if not references or references != predictions:
        raise ValueError(
            f"Scoring needs one prediction per reference and at least one pair, got {references} "
            f"references and {predictions} predictions."
        )
    return figures(scored, names)


def figures(scored: Any, names: Iterable[str] | None = None) -> dict[str, Any]:
    """As `measure`, of a `Scored` or of what stands for one where only its counts are known."""
    if names is None:
        names = [name for name, metric in METRICS.items() if metric.follows_from(scored)]
    values: dict[str, Any] = {}
    for name in names:
        metric = METRICS[name]
        values[name] = metric.value(scored)
        if metric.counts is not None:
            values[interval_of(name)] = rate_interval(metric.counts(scored))
    return values


def error_rates(
    references: Sequence[str],
    predictions: Sequence[str],
    batch_mean_size: int = AUTHORS_BATCH_SIZE,
) -> dict[str, Any]:
    """All that the texts of one set tell, in dataset order, under the names of metrics.json."""
    scored = Scored(references, predictions, batch_mean_size)
    return measure(scored) | {"batch_mean_size": batch_mean_size}


class SpeechErrorRate(evaluate.Metric):
    """`SpeechErrorRate(keep_in_memory=True).compute(predictions=..., references=...)` gives `error_rates`.

    Texts are compared as they come: normalise both sides first (`modeling_slam.data.text.normalize_text`).
    `add_batch` and `compute` work as for any `evaluate` metric.
    """

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description="Corpus WER and CER with counts and 95 % intervals.",
            citation="",
            inputs_description="predictions, references: normalised transcripts, one string per utterance.",
            features=datasets.Features({"predictions": text, "references": text}),
            reference_urls=["https://github.com/jitsi/jiwer"],
        )

    def _compute(self, *, predictions: Sequence[str] = (), references: Sequence[str] = (), **kwargs) -> dict:
        return error_rates(references, predictions, **kwargs)
