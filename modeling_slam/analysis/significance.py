"""Is one run really better than another? Paired tests on the same utterances.

Two tests, because they assume different things: the paired bootstrap resamples utterances (or speakers) and
asks nothing about the errors' distribution; MAPSSWE, the standard of the NIST evaluations, splits utterances
into segments between stretches that both systems got right, and compares errors per segment.

Sources: Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP
2004; Gillick and Cox, "Some statistical issues in the comparison of speech recognition algorithms", ICASSP
1989
"""

import itertools
import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd

from modeling_slam.analysis.results import StudyResults, operations, same_utterances

ALPHA = 0.05
GOOD_WORDS = 2  # words in a row that both systems must get right to part two segments


@dataclass(frozen=True)
class Comparison:
    """`second` against `first`. `difference` = WER of second - WER of first: negative is better."""

    first: str
    second: str
    difference: float
    low: float
    high: float
    bootstrap_p: float
    mapsswe_p: float
    segments: int
    utterances: int

    @property
    def significant(self) -> bool:
        """Whether both tests call the difference real at the 5 % level."""
        return max(self.bootstrap_p, self.mapsswe_p) < ALPHA


def compare(
    study: StudyResults, first: str, second: str, by_speaker: bool = False, resamples: int = 2000
) -> Comparison:
    """Both tests on two runs of one test set; asked twice, the study remembers the answer.

    Raises:
        ValueError: the runs were decoded on different clips or references.
    """
    asked = (first, second, by_speaker, resamples)
    if asked not in study.comparisons:
        study.comparisons[asked] = run_tests(study, *asked)
    return study.comparisons[asked]


def run_tests(study: StudyResults, first: str, second: str, by_speaker: bool, resamples: int) -> Comparison:
    one = study.utterances(first)
    other = same_utterances(one, study.utterances(second))
    groups = one["speaker"].fillna(one.index.to_series()) if by_speaker else None
    difference, low, high, bootstrap_p = paired_bootstrap(one, other, groups, resamples)
    segments = error_segments(one, other)
    p = mapsswe(segments)
    return Comparison(first, second, difference, low, high, bootstrap_p, p, len(segments), len(one))


def paired_bootstrap(
    first: pd.DataFrame,
    second: pd.DataFrame,
    groups: pd.Series | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float, float, float]:
    """(difference of WER, its 95 % interval, two-sided p).

    Each resample draws N utterances with replacement, the same for both runs, and takes the difference of
    the corpus rates; with `groups` (a speaker for each utterance) it draws whole groups. p = 2 min(share of
    differences <= 0, share >= 0), at least 1 / resamples.
    """
    errors = (second["errors"] - first["errors"]).to_numpy(dtype=float)
    lengths = first["reference_words"].to_numpy(dtype=float)
    if groups is not None:
        codes, _ = pd.factorize(groups)
        errors, lengths = np.bincount(codes, weights=errors), np.bincount(codes, weights=lengths)
    generator = np.random.default_rng(seed)
    differences = np.empty(resamples)
    for draw in range(resamples):
        picked = generator.integers(len(errors), size=len(errors))
        differences[draw] = errors[picked].sum() / max(lengths[picked].sum(), 1)
    low, high = np.quantile(differences, [0.025, 0.975])
    p = 2 * min((differences <= 0).mean(), (differences >= 0).mean())
    observed = errors.sum() / max(lengths.sum(), 1)
    return float(observed), float(low), float(high), float(np.clip(p, 1 / resamples, 1))


def mapsswe(segments: np.ndarray) -> float:
    """Two-sided p of the matched-pair test: z = mean / (standard deviation / sqrt(n)) of the differences.

    `segments` is (n, 2): errors of the first and of the second run. The normal distribution is meant for
    many segments; below about 50 take p as a rough figure. 1.0 where no segment differs, or there is one.
    """
    differences = segments[:, 1] - segments[:, 0]
    if len(differences) < 2 or not differences.any():
        return 1.0
    deviation = differences.std(ddof=1)
    if deviation == 0:
        return 0.0
    z = differences.mean() / (deviation / math.sqrt(len(differences)))
    return 2 * NormalDist().cdf(-abs(z))


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
    rows = [compare(study, *pair) for pair in itertools.combinations(names, 2)]
    return pd.DataFrame([vars(row) | {"significant": row.significant} for row in rows])
