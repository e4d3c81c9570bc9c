"""The shape of WER against depth: how far pruning is safe, how steady the curve is, and what seeds add.

Depths run from the whole encoder down. All figures follow from the mean over seeds of each depth; rates are
fractions, so 0.04 is four points of WER.
"""

from collections.abc import Sequence

import pandas as pd

from modeling_slam.analysis.frames import groups
from modeling_slam.analysis.results import CURVE, StudyResults
from modeling_slam.analysis.significance import compare
from modeling_slam.analysis.tables import find_runs, wer_by_depth

SAFE_POINTS = 0.04  # the paper calls up to 2-4 points marginal
SPIKE_POINTS = 0.01  # smaller bumps are no spike


def curves(runs: pd.DataFrame) -> dict[tuple[str, str, str], pd.Series]:
    """(encoder, language, mode) -> WER indexed by kept layers, deepest first."""
    table = wer_by_depth(runs)
    return {
        (str(encoder), str(language), str(mode)): curve.set_index("keep_layers")["wer"].sort_index(
            ascending=False
        )
        for (encoder, language, mode), curve in groups(table, [*CURVE, "mode"])
    }


def curve_shapes(runs: pd.DataFrame) -> pd.DataFrame:
    """Monotonicity and instability of each curve of at least three depths.

    A step goes from one depth to the next smaller one. `falls` of the `steps` lower the WER although layers
    are removed; `largest_fall` is the biggest of them. `instability` = sum of falls / sum of all changes,
    without sign: 0 for a curve that only rises, 0.5 for one that ends where it began. `spikes` are the depths
    whose WER lies more than a point above both neighbours.
    """
    rows = []
    for (encoder, language, mode), wer in curves(runs).items():
        if len(wer) < 3:
            continue
        steps = wer.diff().dropna()
        falls = -steps[steps < 0]
        moved = steps.abs().sum()
        names = find_runs(runs, encoder_name=encoder, language=language, mode=mode)["name"]
        rows.append(
            {
                "encoder_name": encoder,
                "language": language,
                "mode": mode,
                "steps": len(steps),
                "falls": len(falls),
                "largest_fall": falls.max() if len(falls) else 0.0,
                "instability": falls.sum() / moved if moved else 0.0,
                "spikes": spikes(wer),
                "runs": list(names),
            }
        )
    return pd.DataFrame(rows)


def spikes(wer: pd.Series, points: float = SPIKE_POINTS) -> list[int]:
    """Kept layers of the inner depths whose WER is more than `points` above that of both neighbours."""
    above_deeper = wer - wer.shift(1)
    above_shallower = wer - wer.shift(-1)
    found = wer[(above_deeper > points) & (above_shallower > points)]
    return [int(layers) for layers in found.index]


def safe_zone(results: StudyResults, points: float = SAFE_POINTS, by_speaker: bool = False) -> pd.DataFrame:
    """Which cuts are safe: degradation below `points` and not significant, and so for all lighter cuts. A cut
    that is significantly better is safe.

    A row for each cut, against the whole encoder trained in the same mode. `significant` takes both tests of
    `significance.compare` to say so in at least one seed; None without predictions. A test that finds nothing
    on a few clips is no proof of safety: `high` is the largest degradation that the data do not rule out.
    """
    rows = []
    for (encoder, language, mode), curve in groups(results.runs, [*CURVE, "mode"]):
        full = find_runs(curve, keep_layers=curve["encoder_layers"].iloc[0])
        if full.empty:
            continue
        still_safe = True
        for layers, cut in groups(curve[curve["keep_layers"] < curve["encoder_layers"]], "keep_layers"):
            degradation = cut["wer"].mean() - full["wer"].mean()
            tests = compare_seeds(results, full, cut, by_speaker)
            significant = any(test.significant for test in tests) if tests else None
            worse = any(test.significant and test.difference > 0 for test in tests)
            still_safe = still_safe and bool(degradation < points) and not worse
            rows.append(
                {
                    "encoder_name": encoder,
                    "language": language,
                    "mode": mode,
                    "keep_layers": layers,
                    "degradation": degradation,
                    "low": min((test.low for test in tests), default=None),
                    "high": max((test.high for test in tests), default=None),
                    "bootstrap_p": min((test.bootstrap_p for test in tests), default=None),
                    "mapsswe_p": min((test.mapsswe_p for test in tests), default=None),
                    "significant": significant,
                    "safe": still_safe,
                    "runs": [*full["name"], *cut["name"]],
                }
            )
    return pd.DataFrame(rows)


def compare_seeds(results: StudyResults, first: pd.DataFrame, second: pd.DataFrame, by_speaker: bool) -> list:
    """Tests of the runs of `second` against those of `first` with the same seed."""
    if results.directory is None:
        return []
    pairs = first.merge(second, on="seed", suffixes=("_first", "_second"))
    return [
        compare(results, one, other, by_speaker)
        for one, other in zip(pairs["name_first"], pairs["name_second"], strict=True)
    ]


def deepest_safe_cuts(zone: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The deepest safe cut of each curve; the whole encoder where no cut is safe."""
    layers = runs.groupby("encoder_name")["encoder_layers"].first()
    rows = []
    for (encoder, language, mode), cuts in groups(zone, [*CURVE, "mode"]):
        safe = cuts[cuts["safe"]]
        kept = int(safe["keep_layers"].min()) if len(safe) else int(layers[encoder])
        rows.append(
            {
                "encoder_name": encoder,
                "language": language,
                "mode": mode,
                "keep_layers": kept,
                "removed": int(layers[encoder]) - kept,
                "degradation": float(safe["degradation"].iloc[-1]) if len(safe) else 0.0,
                "runs": safe["runs"].iloc[-1] if len(safe) else [],
            }
        )
    return pd.DataFrame(rows)


def seed_spread(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation (n - 1), lowest and highest WER over seeds; only where there are several."""
    keys = [*CURVE, "keep_layers", "mode"]
    seeds = runs.groupby(keys, sort=False)
    spread = seeds["wer"].agg(["mean", "std", "min", "max", "count"]).assign(runs=seeds["name"].agg(list))
    spread = spread.reset_index().rename(columns={"count": "seeds"})
    return spread[spread["seeds"] > 1].reset_index(drop=True)


def pareto_front(
    runs: pd.DataFrame, costs: Sequence[str] = ("wer", "parameters", "real_time_factor")
) -> pd.DataFrame:
    """All runs with `on_front`: no other run of the language is as good in every cost and better in one.

    `parameters` = kept encoder + LoRA: the projector and the LLM are the same for all. Costs that are not
    known are left out. The real-time factor is this machine's, and noisy if it did other work.
    """
    runs = runs.assign(parameters=runs["encoder_parameters"] + runs["lora_parameters"].fillna(0))
    columns = [cost for cost in costs if runs[cost].notna().all()]
    fronts = []
    for _, group in groups(runs, "language"):
        values = group[columns].to_numpy(dtype=float)
        dominated = [
            bool(((values <= value).all(axis=1) & (values < value).any(axis=1)).any()) for value in values
        ]
        named = [[name] for name in group["name"]]
        fronts.append(group.assign(on_front=[not beaten for beaten in dominated], runs=named))
    kept = ["name", *CURVE, "keep_layers", "mode", "seed", *columns, "on_front", "runs"]
    return pd.concat(fronts, ignore_index=True)[kept]
