"""How often do the intervals hold the true error rate, and how often do the tests find what is not there?

    python -m benchmarks.interval_coverage [--repetitions 1000]

Prints the tables of docs/evaluation.md, in minutes. Each repetition draws a test set from errors whose true
rate is known. Beside ours stands what we had before, the percentile bootstrap of 400 resamples.
"""

import argparse
from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np

from modeling_slam.analysis.significance import ALPHA, sign_flips
from modeling_slam.evaluation.intervals import interval_of_difference, interval_of_rate, total

Groups = Sequence[Hashable] | None
Counts = tuple[np.ndarray, np.ndarray, Groups]  # errors and words of each utterance, its speaker
RESAMPLES = 400
UTTERANCES = (2, 5, 20, 50, 200, 1000)
SPEAKERS = (2, 3, 4, 8, 20, 50)
generator = np.random.default_rng(0)


def words(utterances: int) -> np.ndarray:
    return generator.integers(3, 13, size=utterances)


def independent(utterances: int, rate: float) -> Counts:
    lengths = words(utterances)
    return generator.binomial(lengths, rate), lengths, None


def in_clumps(utterances: int, rate: float, correlation: float = 0.3) -> Counts:
    """Every utterance has a rate of its own, so that words of one go wrong together."""
    lengths, spread = words(utterances), (1 - correlation) / correlation
    rates = generator.beta(rate * spread, (1 - rate) * spread, size=utterances)
    return generator.binomial(lengths, rates), lengths, None


def all_or_nothing(utterances: int, rate: float) -> Counts:
    lengths = words(utterances)
    return lengths * (generator.random(utterances) < rate), lengths, None


def with_loops(utterances: int, rate: float, loops: float) -> Counts:
    """Some utterances have 20 to 60 inserted words besides."""
    errors, lengths, _ = independent(utterances, rate)
    loop = generator.random(utterances) < loops
    return errors + loop * generator.integers(20, 61, size=utterances), lengths, None


def by_speaker(speakers: int, deviation: float, unequal: bool = False, utterances: int = 25) -> Counts:
    """Speakers whose log-odds of an error differ by `deviation`; unequal ones have 1 to 400 utterances."""
    sizes = np.full(speakers, utterances)
    if unequal:
        sizes = np.clip(15 * generator.pareto(1.2, size=speakers), 1, 400).astype(int)
    speaker = np.repeat(np.arange(speakers), sizes)
    rates = 1 / (1 + np.exp(2.2 - deviation * generator.standard_normal(speakers)))
    lengths = words(len(speaker))
    return generator.binomial(lengths, rates[speaker]), lengths, speaker.tolist()


def speakers_rate(deviation: float) -> float:
    return float((1 / (1 + np.exp(2.2 - deviation * np.random.default_rng(1).standard_normal(10**6)))).mean())


def percentile_bootstrap(errors: np.ndarray, lengths: np.ndarray, groups: Groups) -> np.ndarray:
    errors, lengths = total(errors, groups), total(lengths, groups)
    drawn = generator.integers(len(errors), size=(RESAMPLES, len(errors)))
    rates = errors[drawn].sum(axis=1) / np.maximum(lengths[drawn].sum(axis=1), 1)
    return np.quantile(rates, [0.025, 0.975])


# Title, the true rate, how counts of n units are drawn, and n.
Case = tuple[str, float, Callable[[int], Counts], tuple[int, ...]]
RATES: list[Case] = [
    ("words by themselves, 2 %", 0.02, lambda n: independent(n, 0.02), UTTERANCES),
    ("words by themselves, 10 %", 0.10, lambda n: independent(n, 0.10), UTTERANCES),
    ("in clumps, 5 %", 0.05, lambda n: in_clumps(n, 0.05), UTTERANCES),
    ("2 % of utterances all wrong", 0.02, lambda n: all_or_nothing(n, 0.02), UTTERANCES),
    ("10 % and 1 % loops", 0.10 + 0.01 * 40 / 7.5, lambda n: with_loops(n, 0.10, 0.01), UTTERANCES),
    ("speakers much alike", speakers_rate(0.3), lambda n: by_speaker(n, 0.3), SPEAKERS),
    ("speakers far apart", speakers_rate(1.0), lambda n: by_speaker(n, 1.0), SPEAKERS),
    ("far apart, of 1 to 400 clips", speakers_rate(1.0), lambda n: by_speaker(n, 1.0, True), SPEAKERS),
]
# Two runs that are equally good: which of them makes an error is chance, and differs from speaker to speaker.
PAIRS: list[Case] = [
    ("words by themselves, 2 %", 0.0, lambda n: independent(n, 0.02), UTTERANCES),
    ("in clumps, 10 %", 0.0, lambda n: in_clumps(n, 0.10), UTTERANCES),
    ("speakers of 25 utterances", 0.0, lambda n: by_speaker(n, 0.0), SPEAKERS),
]


def share(found: Iterable[bool]) -> str:
    return f"{100 * np.mean(list(found)):.0f}"


def held(case: Case, units: int, repetitions: int) -> str:
    """Share of intervals that hold the true rate: ours, and the percentile bootstrap's."""
    ours, before = [], []
    for _ in range(repetitions):
        counts = case[2](units)
        for bounds, found in ((interval_of_rate(*counts), ours), (percentile_bootstrap(*counts), before)):
            found.append(bounds[0] <= case[1] <= bounds[1])
    return f"{share(ours)} ({share(before)})"


def found_nothing(case: Case, units: int, repetitions: int) -> str:
    """Share of intervals that hold 0, and of tests that call two equal runs different."""
    hold, alarms = [], []
    for _ in range(repetitions):
        errors, lengths, groups = case[2](units)
        chance = 0.5 if groups is None else generator.beta(4, 4, size=units)[np.asarray(groups)]
        differences = generator.binomial(errors, chance) * 2 - errors
        low, high = interval_of_difference(differences, lengths, groups)
        hold.append(low <= 0 <= high)
        p = max(sign_flips(differences), sign_flips(total(differences, groups)))
        alarms.append(p < ALPHA)
    return f"{share(hold)} / {share(alarms)}"


def table(title: str, cases: list[Case], cell: Callable[[Case, int, int], str], repetitions: int) -> None:
    for columns in dict.fromkeys(case[3] for case in cases):
        unit = "utterances" if columns == UTTERANCES else "speakers"
        print(f"\n| {title} | " + " | ".join(f"{n} {unit}" for n in columns) + " |")
        print("|---" * (len(columns) + 1) + "|")
        for case in (case for case in cases if case[3] == columns):
            print(f"| {case[0]} |", *(f"{cell(case, n, repetitions)} |" for n in columns), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=1000, help="Test sets drawn for each cell.")
    asked = parser.parse_args()
    table("interval of the rate", RATES, held, asked.repetitions)
    table("two equal runs", PAIRS, found_nothing, asked.repetitions)
