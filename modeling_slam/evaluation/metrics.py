"""Word and character error rate: counts per utterance first, every figure from those counts.

jiwer aligns each utterance once; corpus rates, intervals and the authors' batch mean are sums over the same
counts, so they cannot disagree. `evaluate.load("wer")` needs the network; `SpeechErrorRate` is the same kind
of object and works offline. To add a figure, compute it from `ErrorCounts` in `error_rates`.

Rates are fractions. A rate without any reference word divides by one, as jiwer does: an empty reference adds
nothing to the denominator, and every word predicted for it counts as an insertion.

Source: jiwer, https://github.com/jitsi/jiwer; bootstrap over utterances: Bisani and Ney, ICASSP 2004
"""

from collections.abc import Sequence
from dataclasses import dataclass

import datasets
import evaluate
import jiwer
import numpy as np

# The paper trains with batches of 4, and its code averages the WER of such batches.
AUTHORS_BATCH_SIZE = 4


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


def bootstrap_interval(
    counts: ErrorCounts,
    groups: Sequence[str] | None = None,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[float]:
    """Percentile interval [low, high] of the corpus rate, resampling utterances with replacement.

    With `groups` (one label per utterance, such as its speaker) whole groups are drawn instead: the honest
    choice where one speaker's errors go together.
    """
    errors, lengths = counts.errors, counts.reference_lengths
    if groups is not None:
        _, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        errors, lengths = np.bincount(group, weights=errors), np.bincount(group, weights=lengths)
    generator = np.random.default_rng(seed)
    rates = np.empty(resamples)
    for draw in range(resamples):  # one draw at a time: 2000 draws of 15,000 clips at once would be 240 MB
        picked = generator.integers(len(errors), size=len(errors))
        rates[draw] = errors[picked].sum() / max(lengths[picked].sum(), 1)
    tail = (1 - confidence) / 2
    return [float(bound) for bound in np.quantile(rates, [tail, 1 - tail])]


def batch_mean_rate(counts: ErrorCounts, batch_size: int = AUTHORS_BATCH_SIZE) -> float:
    """The authors' figure: the mean of the corpus rates of consecutive batches, the last one possibly short.

    Short utterances weigh more than in the corpus rate, and the result depends on order and batch size.
    """
    starts = np.arange(0, len(counts.hits), batch_size)
    errors = np.add.reduceat(counts.errors, starts)
    lengths = np.add.reduceat(counts.reference_lengths, starts)
    return float(np.mean(errors / np.maximum(lengths, 1)))


def error_rates(
    references: Sequence[str],
    predictions: Sequence[str],
    batch_mean_size: int = AUTHORS_BATCH_SIZE,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, float | int | list[float]]:
    """All scores of one set in dataset order, under the names of metrics.json."""
    if not len(references) or len(references) != len(predictions):
        raise ValueError(
            f"Scoring needs one prediction per reference and at least one pair, got {len(references)} "
            f"references and {len(predictions)} predictions."
        )
    words = count_word_errors(references, predictions)
    characters = count_character_errors(references, predictions)
    return {
        "wer": words.rate,
        "wer_interval": bootstrap_interval(words, resamples=resamples, seed=seed),
        "cer": characters.rate,
        "cer_interval": bootstrap_interval(characters, resamples=resamples, seed=seed),
        "batch_mean_wer": batch_mean_rate(words, batch_mean_size),
        "batch_mean_size": batch_mean_size,
        "substitutions": int(words.substitutions.sum()),
        "insertions": int(words.insertions.sum()),
        "deletions": int(words.deletions.sum()),
        "hits": int(words.hits.sum()),
        "reference_words": int(words.reference_lengths.sum()),
        "utterances": len(references),
    }


class SpeechErrorRate(evaluate.Metric):
    """`SpeechErrorRate(keep_in_memory=True).compute(predictions=..., references=...)` gives `error_rates`.

    Texts are compared as they come: normalise both sides first (`modeling_slam.data.text.normalize_text`).
    `add_batch` and `compute` work as for any `evaluate` metric.
    """

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description="Corpus WER and CER with counts and bootstrap 95 % intervals.",
            citation="",
            inputs_description="predictions, references: normalised transcripts, one string per utterance.",
            features=datasets.Features({"predictions": text, "references": text}),
            reference_urls=["https://github.com/jitsi/jiwer"],
        )

    def _compute(self, *, predictions: Sequence[str] = (), references: Sequence[str] = (), **kwargs) -> dict:
        return error_rates(references, predictions, **kwargs)
