"""How sure is an error rate? Intervals that stay honest with few utterances, few speakers and few errors.

A corpus rate is errors over words, summed over units: utterances, or speakers where one speaker's errors go
together. Its variance is that of a ratio of two such sums. The interval is Wilson's: all rates p from which
the observed one is at most `t` standard errors of p away, so that it has a width where nothing went wrong,
and never reaches below zero. Three choices keep it from claiming too much:

- The number of words counts as it is worth: divided by `phi`, how many times larger the variance is than that
  of independent words, which is taken to be at least 1. By speaker it is at least what it is by utterance.
- `t` has the degrees of freedom of the units that carry information: Kish's effective number of units less
  one, and at most the number of units with errors, from which `phi` was estimated.
- Where that says less than nothing (one unit, no error), a unit counts as one trial, right or wrong as a
  whole: the largest variance there is as long as no unit has more errors than words.

For one trial a unit this is Wilson's interval, for many units and errors the normal one. Nothing is drawn, so
two calls agree. How often it holds the true rate: docs/evaluation.md.

Sources: Wilson, JASA 22, 1927; Kish, Survey Sampling, 1965 (design effect, effective number); Korn and
Graubard, Survey Methodology 24, 1998 (intervals of rare proportions in clusters); Cameron and Miller, Journal
of Human Resources 50, 2015 (t of the number of clusters); Zou and Donner, Statistics in Medicine 27, 2008
(the interval of a difference from those of its parts)
"""

from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd
from scipy import stats

CONFIDENCE = 0.95
# Stands in metrics.json: intervals of files without it, or with another, are made anew from the predictions.
INTERVAL_METHOD = "score, cluster t"


def unit_codes(groups: Sequence[Hashable]) -> np.ndarray:
    """(N,) number of each label's unit. Whoever has no label (None, NaN, blank) is a unit of their own."""
    labels = pd.Series(list(groups), dtype=object)
    missing = labels.isna() | labels.map(lambda label: isinstance(label, str) and not label.strip())
    codes = pd.factorize(labels.where(~missing))[0]  # -1 where missing
    codes[missing] = codes.max(initial=-1) + 1 + np.arange(missing.sum())
    return codes


def total(values: np.ndarray, groups: Sequence[Hashable] | None) -> np.ndarray:
    """Sums over the utterances of each unit; the values themselves without groups."""
    values = np.asarray(values, dtype=float)
    return values if groups is None else np.bincount(unit_codes(groups), weights=values)


def interval_of_rate(
    errors: np.ndarray,
    lengths: np.ndarray,
    groups: Sequence[Hashable] | None = None,
    confidence: float = CONFIDENCE,
) -> list[float]:
    """[low, high] of sum(errors) / sum(lengths), both (N,) by utterance, drawn by `groups` if given.

    An interval by group holds that by utterance: four speakers never say more than their utterances.
    """
    words = max(float(np.sum(lengths)), 1.0)
    rate = float(np.sum(errors)) / words
    bounded = bool(np.all(np.asarray(errors) <= np.asarray(lengths)))
    spread = spread_of_rate(np.asarray(errors), np.asarray(lengths), bounded, confidence)
    if groups is not None:
        of_groups = (total(errors, groups), total(lengths, groups), bounded, confidence)
        spread = max(spread, spread_of_rate(*of_groups))
    return score_interval(rate, spread / words, bounded)


def score_interval(rate: float, spread: float, bounded: bool) -> list[float]:
    """All p with (rate - p)^2 <= spread * p, or <= spread * p (1 - p) where rates are bounded by one."""
    widening = spread if bounded else 0.0
    middle = rate + spread / 2
    room = spread * rate * (1 - rate if bounded else 1) + spread**2 / 4
    low, high = ((middle + side * np.sqrt(room)) / (1 + widening) for side in (-1, 1))
    return [float(min(max(low, 0.0), rate)), float(max(high, rate))]  # whatever rounding does


def spread_of_rate(errors: np.ndarray, lengths: np.ndarray, bounded: bool, confidence: float) -> float:
    """t^2 phi: the squared quantile times how many words are worth one independent word.

    Raises:
        ValueError: `confidence` is no share.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must be between 0 and 1, such as {CONFIDENCE}, got {confidence}.")
    units, words = len(errors), max(lengths.sum(), 1.0)
    rate = errors.sum() / words
    unit_words = max((lengths.astype(float) ** 2).sum() / words, 1.0)
    own_variance = rate * (1 - rate if bounded else 1) / words  # of independent words
    residuals = errors - rate * lengths
    phi = 1.0
    if own_variance > 0 and units > 1:
        phi = max(units / (units - 1) * (residuals**2).sum() / words**2 / own_variance, 1.0)
    freedom = max(words / unit_words - 1, 1.0)
    informative = int((errors > 0).sum())
    if bounded:  # as with errors, so with words that are right
        informative = min(informative, int((errors < lengths).sum()))
    if units == 1:
        informative = 0  # it does not tell how units differ
    tail = (1 + confidence) / 2
    as_trials = float(stats.norm.ppf(tail) ** 2 * unit_words)
    if informative:
        as_trials = min(as_trials, stats.t.ppf(tail, min(freedom, informative)) ** 2 * phi)
    if bounded:
        return float(as_trials)
    return float(max(as_trials, stats.t.ppf(tail, freedom) ** 2 * phi))


def interval_of_difference(
    differences: np.ndarray,
    lengths: np.ndarray,
    groups: Sequence[Hashable] | None = None,
    confidence: float = CONFIDENCE,
) -> list[float]:
    """[low, high] of sum(differences) / sum(lengths), (N,) errors of one run less those of another.

    The difference is what is worse less what is better, two rates that exclude each other within a unit, and
    its interval follows from theirs and their correlation. Both have the larger spread of the two: where one
    run looped once, the other may as well, and one unit that differs much says nothing of the rest. By group
    it holds that by utterance. Where no unit differs it is Tango's for matched pairs, 0 -+ z^2 / (n + z^2).
    """
    units, words = total(differences, groups), total(lengths, groups)
    parts = [np.maximum(units, 0), np.maximum(-units, 0)]
    worse, better = (part.sum() / max(words.sum(), 1) for part in parts)
    bounded = bool(np.all(np.abs(units) <= words))
    spread = max(spread_of_rate(part, words, bounded, confidence) for part in parts) / max(words.sum(), 1)
    (worse_low, worse_high), (better_low, better_high) = (
        score_interval(float(rate), spread, bounded) for rate in (worse, better)
    )
    residuals = [part - rate * words for part, rate in zip(parts, (worse, better), strict=True)]
    size = np.sqrt((residuals[0] ** 2).sum() * (residuals[1] ** 2).sum())
    correlation = float((residuals[0] * residuals[1]).sum() / size) if size else 0.0

    def reach(one: float, other: float) -> float:
        return float(np.sqrt(max(one**2 + other**2 - 2 * correlation * one * other, 0.0)))

    difference = float(worse - better)
    low = difference - reach(worse - worse_low, better_high - better)
    high = difference + reach(worse_high - worse, better - better_low)
    if groups is not None:
        bounds = interval_of_difference(differences, lengths, confidence=confidence)
        low, high = min(low, bounds[0]), max(high, bounds[1])
    return [low, high]
