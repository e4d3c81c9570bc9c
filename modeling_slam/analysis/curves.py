"""The shape of WER along an axis: how far one may go down it, how steady the curve is, and what seeds add.

The axis is the number of kept layers, unless `x` names another; its values run from the largest down. `by`
tells the curves of one encoder and language apart. All figures follow from the mean over seeds of each value;
rates are fractions, so 0.04 is four points of WER.
"""

import itertools
from collections.abc import Sequence
from math import isnan

import pandas as pd

from modeling_slam.analysis.frames import BY, By, X, columns, groups, keyed, over_seeds, tops
from modeling_slam.analysis.results import CURVE, StudyResults
from modeling_slam.analysis.significance import ALPHA, Comparison, compare, holm
from modeling_slam.analysis.tables import wer_table
from modeling_slam.evaluation.metrics import METRICS

SAFE_POINTS = 0.04  # up to 2-4 points have been called marginal
SPIKE_POINTS = 0.01  # smaller bumps are no spike


def curve_shapes(runs: pd.DataFrame, x: str = X, by: By = BY) -> pd.DataFrame:
    """Monotonicity and instability of each curve of at least three values of `x`.

    A step goes from one value to the next smaller one. `falls` of the `steps` lower the WER although layers
    are removed; `largest_fall` is the biggest of them. `instability` = sum of falls / sum of all changes,
    without sign: 0 for a curve that only rises, 0.5 for one that ends where it began. `spikes` are the values
    whose WER lies more than a point above both neighbours.
    """
    rows = []
    for key, curve in keyed(wer_table(runs, x, by), [*CURVE, *columns(by)]):
        wer = curve.set_index(x)["wer"].sort_index(ascending=False)
        if len(wer) < 3:
            continue
        steps = wer.diff().dropna()
        falls = -steps[steps < 0]
        moved = steps.abs().sum()
        rows.append(
            {
                **key,
                "steps": len(steps),
                "falls": len(falls),
                "largest_fall": falls.max() if len(falls) else 0.0,
                "instability": falls.sum() / moved if moved else 0.0,
                "spikes": spikes(wer),
                "runs": [name for names in curve["runs"] for name in names],
            }
        )
    return pd.DataFrame(rows)


def spikes(wer: pd.Series, points: float = SPIKE_POINTS) -> list[float]:
    """The inner values whose WER is more than `points` above that of both neighbours."""
    above_deeper = wer - wer.shift(1)
    above_shallower = wer - wer.shift(-1)
    found = wer[(above_deeper > points) & (above_shallower > points)]
    return found.index.tolist()


def safe_zone(
    results: StudyResults,
    points: float = SAFE_POINTS,
    by_speaker: bool = False,
    x: str = X,
    by: By = BY,
) -> pd.DataFrame:
    """Which cuts are safe: degradation below `points`, not significantly worse, and so for all lighter cuts.

    A row for each cut, against the full encoder trained in the same mode. `significant`: both tests of
    `significance.compare` say so in at least one seed, corrected for all tests of the table (`holm_p`); None
    without a test. `safe` asks each test by itself, since a correction would make it easier to be safe, and
    is never said of too few clips to test, nor of runs without a seed in common. A test that finds nothing on
    a few clips is no proof of safety: `high` is the largest degradation that the data do not rule out.
    """
    rows, tests_of_rows = [], []
    for key, curve in keyed(results.runs, [*CURVE, *columns(by)]):
        full = over_seeds(curve[curve[x] == tops(curve, x)])
        if full.empty:
            continue
        still_safe = True
        below = curve[curve[x] < tops(curve, x)].sort_values(x, ascending=False, kind="stable")
        for value, cut in groups(below, x):
            degradation = over_seeds(cut)["wer"].mean() - full["wer"].mean()
            tests = compare_seeds(results, full, cut, by_speaker)
            refuted = any(
                test.significant is None or (test.significant and test.difference > 0) for test in tests
            )
            tested = bool(tests) or results.directory is None  # of published rates the threshold decides
            still_safe = still_safe and bool(degradation < points) and tested and not refuted
            tests_of_rows.append(tests)
            rows.append(
                {
                    **key,
                    x: value,
                    "degradation": degradation,
                    "low": min((test.low for test in tests), default=None),
                    "high": max((test.high for test in tests), default=None),
                    "bootstrap_p": min((test.bootstrap_p for test in tests), default=None),
                    "mapsswe_p": min((test.mapsswe_p for test in tests), default=None),
                    "holm_p": None,
                    "significant": None,
                    "safe": still_safe,
                    "runs": [*full["name"], *cut["name"]],
                }
            )
    corrected = iter(holm([test.p for tests in tests_of_rows for test in tests]))
    for row, tests in zip(rows, tests_of_rows, strict=True):
        found = [p for p in itertools.islice(corrected, len(tests)) if not isnan(p)]
        if found:
            row |= {"holm_p": min(found), "significant": min(found) < ALPHA}
    return pd.DataFrame(rows)


def compare_seeds(
    results: StudyResults, first: pd.DataFrame, second: pd.DataFrame, by_speaker: bool
) -> list[Comparison]:
    """Tests of the runs of `second` against those of `first` with the same seed."""
    if results.directory is None:
        return []
    pairs = first.merge(second, on="seed", suffixes=("_first", "_second"))
    return [
        compare(results, one, other, by_speaker)
        for one, other in zip(pairs["name_first"], pairs["name_second"], strict=True)
    ]


def deepest_safe_cuts(zone: pd.DataFrame, runs: pd.DataFrame, x: str = X, by: By = BY) -> pd.DataFrame:
    """The deepest safe cut of each curve; the full encoder where no cut is safe."""
    largest = tops(runs, x).groupby(runs["encoder_name"]).max()
    rows = []
    for key, cuts in keyed(zone, [*CURVE, *columns(by)]):
        safe = cuts[cuts["safe"]]
        full = largest.loc[key["encoder_name"]].item()
        kept = safe[x].min().item() if len(safe) else full
        rows.append(
            {
                **key,
                x: kept,
                "removed": full - kept,
                "degradation": float(safe["degradation"].iloc[-1]) if len(safe) else 0.0,
                "runs": safe["runs"].iloc[-1] if len(safe) else [],
            }
        )
    return pd.DataFrame(rows)


def seed_spread(runs: pd.DataFrame, x: str = X, by: By = BY) -> pd.DataFrame:
    """Mean, standard deviation (n - 1), lowest and highest WER over seeds; only where there are several."""
    rows = []
    for key, seeds in keyed(runs, [*CURVE, x, *columns(by)]):
        wer = over_seeds(seeds)["wer"]
        if len(wer) > 1:
            figures = {name: getattr(wer, name)() for name in ("mean", "std", "min", "max")}
            rows.append({**key, **figures, "seeds": len(wer), "runs": list(seeds["name"])})
    return pd.DataFrame(rows)


def llm_differs(runs: pd.DataFrame) -> bool:
    """Whether the LLMs of these runs are not all of one size."""
    return "llm_parameters" in runs and runs["llm_parameters"].nunique() > 1


def priced_parts(runs: pd.DataFrame) -> list[str]:
    """What the parameters of `pareto_front` are of."""
    return ["encoder", *(["LLM"] if llm_differs(runs) else []), "LoRA"]


def pareto_front(
    runs: pd.DataFrame, costs: Sequence[str] = ("wer", "parameters", "real_time_factor"), by: By = BY
) -> pd.DataFrame:
    """All runs with `on_front`: no other run of the language is as good in every cost and better in one.

    `parameters` = kept encoder + LoRA, and the LLM where runs differ in it: the projector is the same for
    all. Costs that are not known are left out. The real-time factor is this machine's, and noisy if it did
    other work.
    """
    parameters = runs["encoder_parameters"] + runs["lora_parameters"].fillna(0)
    if llm_differs(runs):
        parameters += runs["llm_parameters"]
    runs = runs.assign(parameters=parameters)
    known = [cost for cost in costs if runs[cost].notna().all()]
    signs = [-1 if cost in METRICS and METRICS[cost].lower_is_better is False else 1 for cost in known]
    fronts = []
    for _, group in groups(runs, "language"):
        values = group[known].to_numpy(dtype=float) * signs
        dominated = [
            bool(((values <= value).all(axis=1) & (values < value).any(axis=1)).any()) for value in values
        ]
        named = [[name] for name in group["name"]]
        fronts.append(group.assign(on_front=[not beaten for beaten in dominated], runs=named))
    told = dict.fromkeys(["name", *CURVE, "keep_layers", "mode", *columns(by), "seed"])
    return pd.concat(fronts, ignore_index=True)[[*told, *known, "on_front", "runs"]]
