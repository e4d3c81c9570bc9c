"""Is one run really better than another? Paired tests on the same utterances.

Two tests, because they assume different things, and both must say so. The wild bootstrap gives the
difference of every utterance (or speaker) another sign, as if it were chance which run made the error, and
asks how often the sum is as large: all patterns of signs are counted, so it is exact for six utterances as
for six thousand. MAPSSWE, the standard of the NIST evaluations, splits utterances into segments between
stretches that both systems got right, and compares errors per segment.

Of fewer than `MIN_UNITS` utterances or speakers no test is given: none could reach 5 %. Tests that stand in
one table are corrected for their number by Holm's method.

Sources: Gillick and Cox, "Some statistical issues in the comparison of speech recognition algorithms", ICASSP
1989; Cameron, Gelbach and Miller, "Bootstrap-based improvements for inference with clustered errors", Review
of Economics and Statistics 90, 2008 (wild bootstrap with the null imposed); Holm, Scandinavian Journal of
Statistics 6, 1979
"""

import itertools
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from math import nan, sqrt

import numpy as np
import pandas as pd
from scipy import signal, stats

from modeling_slam.analysis.results import StudyResults
from modeling_slam.analysis.utterances import operations, same_utterances
from modeling_slam.evaluation.intervals import interval_of_difference, total

ALPHA = 0.05
GOOD_WORDS = 2  # words in a row that both systems must get right to part two segments
MIN_UNITS = 6  # five that all speak for one run have p = 2 / 2^5 = 0.0625
MANY_SEGMENTS = 50  # from here on the normal distribution of MAPSSWE holds; below, signs are counted


@dataclass(frozen=True)
class Comparison:
    """`second` against `first`. `difference` = WER of second - WER of first: negative is better.

    `units` are the utterances, or the speakers; both p are NaN where there are fewer than `MIN_UNITS`.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    bootstrap_p: float
    mapsswe_p: float
    segments: int
    utterances: int
    units: int

    @property
    def p(self) -> float:
        """Of both tests together: the larger one; NaN where no test is given."""
        return float(np.maximum(self.bootstrap_p, self.mapsswe_p))

    @property
    def significant(self) -> bool | None:
        """Whether both tests, taken alone, call the difference real at the 5 % level; None without a test."""
        return None if np.isnan(self.p) else self.p < ALPHA


def compare(study: StudyResults, first: str, second: str, by_speaker: bool = False) -> Comparison:
    """Both tests on two runs of one test set; asked twice, the study remembers the answer.

    Raises:
        ValueError: the runs were decoded on different clips or references.
    """
    asked = (first, second, by_speaker)
    if asked not in study.comparisons:
        study.comparisons[asked] = run_tests(study, *asked)
    return study.comparisons[asked]


def run_tests(study: StudyResults, first: str, second: str, by_speaker: bool) -> Comparison:
    one = study.utterances(first)
    other = same_utterances(one, study.utterances(second))
    groups = list(one["speaker"]) if by_speaker else None
    difference, low, high, bootstrap_p = paired_bootstrap(one, other, groups)
    segments = error_segments(one, other)
    units = len(total(one["errors"], groups))
    tests = (bootstrap_p, mapsswe(segments)) if units >= MIN_UNITS else (nan, nan)
    return Comparison(first, second, difference, low, high, *tests, len(segments), len(one), units)


def paired_bootstrap(
    first: pd.DataFrame, second: pd.DataFrame, groups: Sequence[Hashable] | None = None
) -> tuple[float, float, float, float]:
    """(difference of WER, its 95 % interval, two-sided p of `sign_flips`).

    With `groups` (a speaker for each utterance, None for nobody) whole groups count as one observation; then
    interval and p never say more than those by utterance.
    """
    errors = (second["errors"] - first["errors"]).to_numpy()
    lengths = first["reference_words"].to_numpy()
    low, high = interval_of_difference(errors, lengths, groups)
    p = max(sign_flips(errors), sign_flips(total(errors, groups)))
    return float(errors.sum() / max(lengths.sum(), 1)), low, high, p


def sign_flips(differences: np.ndarray) -> float:
    """Two-sided p of (n,) whole numbers: how often random signs give a sum as far from 0 as the observed one.

    All 2^n patterns of signs are counted, by convolution of the distributions of equal numbers. Where all
    numbers are -1, 0 or 1 this is the exact sign test (McNemar's).
    """
    differences = np.asarray(differences, dtype=np.int64)
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    chances = np.ones(1)  # of the sum of the numbers that stay positive: 0, 1, 2, ...
    for size, count in zip(sizes, counts, strict=True):
        steps = np.zeros(size * count + 1)
        steps[::size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        chances = signal.convolve(chances, steps)
    most = max(differences.clip(min=0).sum(), -differences.clip(max=0).sum())
    return float(np.clip(2 * chances[most:].sum(), 0, 1))


def mapsswe(segments: np.ndarray) -> float:
    """Two-sided p of the matched-pair test: z = mean / (standard deviation / sqrt(n)) of the differences.

    `segments` is (n, 2): errors of the first and of the second run. The normal distribution is meant for many
    segments; below 50, or where all differ alike, the signs are counted instead. 1.0 where none differs.
    """
    differences = segments[:, 1] - segments[:, 0]
    if len(differences) < MANY_SEGMENTS or np.ptp(differences) == 0:
        return sign_flips(differences)
    z = differences.mean() / (differences.std(ddof=1) / sqrt(len(differences)))
    return float(2 * stats.norm.sf(abs(z)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number, in their order; NaN is no test and stays."""
    values = np.asarray(p_values, dtype=float)
    tests = np.flatnonzero(~np.isnan(values))
    order = tests[np.argsort(values[tests], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    values[order] = np.maximum.accumulate(np.minimum(values[order] * factors, 1))
    return values.tolist()


def error_segments(first: pd.DataFrame, second: pd.DataFrame) -> np.ndarray:
    """(n, 2) errors of each run in each segment that holds an error of either.

    A segment ends at the end of its utterance, or where both runs have two reference words in a row right and
    nothing inserted at or between them.
    """
    units = (errors_by_place(frame) for frame in (first, second))
    segments = []
    for one, other in zip(*units, strict=True):
        segments += segments_of(one, other)
    return np.array(segments, dtype=np.int64).reshape(-1, 2)


def segments_of(first: np.ndarray, second: np.ndarray) -> list[tuple[int, int]]:
    """Segments of one utterance from `errors_by_place` of both runs."""
    segments, errors, good = [], [0, 0], 0
    for place, (one, other) in enumerate(zip(first, second, strict=True)):
        if one or other:
            errors, good = [errors[0] + one, errors[1] + other], 0
            continue
        good += place % 2  # odd places are words
        if good == GOOD_WORDS and any(errors):
            segments.append((errors[0], errors[1]))
            errors = [0, 0]
    if any(errors):
        segments.append((errors[0], errors[1]))
    return segments


def errors_by_place(frame: pd.DataFrame) -> list[np.ndarray]:
    """For each utterance (2 W + 1,) errors at its W reference words and the gaps around them.

    Even places are gaps, with the number of words inserted there; odd places are words, 1 if substituted or
    deleted.
    """
    places = []
    for alignment, words in zip(frame["alignment"], frame["reference_words"], strict=True):
        errors = np.zeros(2 * words + 1, dtype=np.int64)
        word = 0  # of the reference
        for kind, size in operations(alignment):
            if kind == "i":
                errors[2 * word] += size
                continue
            if kind != "e":
                errors[2 * word + 1 : 2 * (word + size) : 2] = 1
            word += size
        places.append(errors)
    return places


def pairwise(study: StudyResults, names: list[str]) -> pd.DataFrame:
    """`compare` of every two of these runs, one row a pair."""
    return family(compare(study, *pair) for pair in itertools.combinations(names, 2))


def family(comparisons: Iterable[Comparison]) -> pd.DataFrame:
    """One row a comparison, with `holm_p`, the p of both tests corrected for the number of rows.

    `significant`: whether it is below 5 %; None where no test was given.
    """
    tests = list(comparisons)
    return pd.DataFrame(
        [
            vars(test) | {"holm_p": p, "significant": None if np.isnan(p) else p < ALPHA}
            for test, p in zip(tests, holm([test.p for test in tests]), strict=True)
        ]
    )
