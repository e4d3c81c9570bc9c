"""The main tables of a study: data, WER along an axis, sweet spots, degraded utterances, what LoRA changes.

`x` is the axis that runs are compared along, `by` what keeps curves of one encoder and language apart: kept
layers and mode, unless told otherwise. A *cut* is the first step down that axis: the shallowest a study has,
whatever its size. Seeds are averaged where rates are compared, and kept apart where utterances are; no mean
is taken of runs that differ in anything else. Rates and differences are fractions: 0.02 is two points of WER.
`runs` names the runs that a row follows from.
"""

from typing import Any

import pandas as pd

from modeling_slam.analysis.frames import BY, By, X, beside_mode, columns, groups, keyed, over_seeds, tops
from modeling_slam.analysis.results import CURVE, METRICS_FILE, StudyResults, read_json, trained_on
from modeling_slam.analysis.utterances import same_utterances

MODES = {"projector": "projector", "lora": "projector + LoRA"}


def data_statistics(study: StudyResults) -> pd.DataFrame:
    """Clips, hours, words, distinct words and speakers of each language's splits.

    The test split is counted in predictions.jsonl; train and validation stand in counts.parquet, or in the
    reports that train.py left beside the model, and are missing where both are.
    """
    rows = []
    for key, runs in keyed(study.runs, ["language", *study.axes]):
        run = runs["name"].iloc[0]
        test, counts = study.utterances(run), study.counts(run)
        trained = trained_on(study.run_directory(run)) if counts is None else counts.attrs["data"]
        rows += [{**key, "split": split, **kept, "runs": [run]} for split, kept in trained.items()]
        if study.is_without_text(run) and counts is not None:
            split, distinct = counts.attrs["scored"]["split"], counts.attrs["distinct_words"]
        else:
            split = read_json(study.places[run] / METRICS_FILE)["settings"]["split"]
            distinct = pd.Series(" ".join(test["reference"]).split()).nunique()
        rows.append(
            {
                **key,
                "split": split,
                "clips": len(test),
                "hours": test["duration"].sum() / 3600,
                "words": int(test["reference_words"].sum()),
                "distinct_words": distinct,
                "speakers": test["speaker"].nunique(),
                "runs": [run],
            }
        )
    return pd.DataFrame(rows)


def wer_table(runs: pd.DataFrame, x: str = X, by: By = BY) -> pd.DataFrame:
    """WER along `x`: one row for each encoder, value of `x`, language and `by`.

    `encoder_reduction` = 1 - kept / full encoder parameters. `wer` is the mean over seeds; with one seed
    `wer_low` and `wer_high` are its 95 % interval, with several the lowest and highest WER of a seed.
    """
    rows = []
    for key, cell in keyed(runs, ["encoder_name", "encoder_layers", x, "language", *columns(by)]):
        first = over_seeds(cell).iloc[0]
        single = len(cell) == 1
        rows.append(
            {
                **key,
                "encoder_reduction": encoder_reduction(first),
                "wer": cell["wer"].mean(),
                "wer_low": first["wer_low"] if single else cell["wer"].min(),
                "wer_high": first["wer_high"] if single else cell["wer"].max(),
                "seeds": len(cell),
                "runs": list(cell["name"]),
            }
        )
    return pd.DataFrame(rows)


def encoder_reduction(run: pd.Series) -> float:
    return 1 - run["encoder_parameters"] / run["encoder_parameters_full"]


def shallowest_cuts(runs: pd.DataFrame, x: str = X) -> dict[str, Any]:
    """Encoder name -> value of `x` after the first step down. Encoders without one are left out."""
    pruned = runs[runs[x] < tops(runs, x)]
    nearest = pruned.groupby("encoder_name", sort=False)[x].max()
    return {str(name): cut for name, cut in zip(nearest.index, nearest.tolist(), strict=True)}


def find_runs(runs: pd.DataFrame, **wanted: Any) -> pd.DataFrame:
    """The runs whose columns have these values; None where they have none."""
    for column, value in wanted.items():
        runs = runs[runs[column].isna() if value is None else runs[column] == value]
    return runs


def mean_wer(runs: pd.DataFrame, **wanted: Any) -> float | None:
    """WER averaged over seeds of the runs with these values; None where there is none."""
    found = over_seeds(find_runs(runs, **wanted))
    return float(found["wer"].mean()) if len(found) else None


def sweet_spots(runs: pd.DataFrame, by: By = BY) -> pd.DataFrame:
    """For each encoder the full one, the full one with LoRA, and the best pruned one with LoRA.

    Best: the lowest WER averaged over those languages and depths that every language of the encoder has.
    `parameters` = encoder + LoRA, `net_change` against the full encoder without LoRA; where languages have
    LoRA of different ranks the largest counts. One column of WER a language, and `better`: in how many of the
    `of` languages the WER is below that of the full encoder without LoRA.
    """
    rows = []
    for key, of_encoder in keyed(runs, ["encoder_name", *beside_mode(by)]):
        full_layers = int(of_encoder["encoder_layers"].iloc[0])
        best = best_pruned_depth(find_runs(of_encoder, mode="lora"))
        choices = [(full_layers, "projector"), (full_layers, "lora")] + ([(best, "lora")] if best else [])
        for layers, mode in choices:
            found = find_runs(of_encoder, keep_layers=layers, mode=mode)
            if found.empty:
                continue
            wers = wer_by_language(found)
            full = find_runs(of_encoder, keep_layers=full_layers, mode="projector")
            baseline = wer_by_language(full).reindex(wers.index)
            parameters = found["encoder_parameters"].iloc[0] + found["lora_parameters"].fillna(0).max()
            whole = found["encoder_parameters_full"].iloc[0]
            rows.append(
                {
                    **key,
                    "keep_layers": layers,
                    "mode": mode,
                    "parameters": int(parameters),
                    "net_change": int(parameters - whole),
                    "net_change_share": (parameters - whole) / whole,
                    **{f"wer_{language}": wer for language, wer in wers.items()},
                    "better": int((wers < baseline).sum()),
                    "of": int(baseline.notna().sum()),
                    "runs": list(found["name"]),
                }
            )
    return pd.DataFrame(rows)


def wer_by_language(runs: pd.DataFrame) -> pd.Series:
    """WER averaged over seeds, by language in order of the alphabet."""
    found = {language: mean_wer(cell) for language, cell in groups(runs, "language")}
    return pd.Series(found, dtype=float).sort_index()


def best_pruned_depth(runs: pd.DataFrame) -> int | None:
    pruned = runs[runs["keep_layers"] < runs["encoder_layers"]]
    table = pruned.pivot_table(index="keep_layers", columns="language", values="wer", aggfunc="mean").dropna()
    return int(table.mean(axis=1).idxmin()) if len(table) else None


def degraded_utterances(study: StudyResults, x: str = X, by: By = BY) -> pd.DataFrame:
    """Share of utterances with a higher WER than under the full encoder without LoRA.

    `pruned`: after the shallowest cut; `pruned_lora`: after the cut and LoRA; `recovery` = pruned_lora -
    pruned. Both sides of each utterance have one reference, so a higher WER is a larger count of errors.
    One row for each seed that has the three runs.
    """
    rows = []
    for key, names in compared_runs(study.runs, x, by):
        full = study.utterances(names["full"])
        shares = {}
        for column in ("pruned", "pruned_lora"):
            other = same_utterances(full, study.utterances(names[column]))
            shares[column] = float((other["errors"] > full["errors"]).mean())
        recovery = shares["pruned_lora"] - shares["pruned"]
        rows.append(
            {**key, **shares, "recovery": recovery, "utterances": len(full), "runs": list(names.values())}
        )
    return pd.DataFrame(rows)


def compared_runs(runs: pd.DataFrame, x: str = X, by: By = BY) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """(what is compared, names of its runs `full`, `pruned`, `pruned_lora`), where all three are there."""
    triples = []
    cuts = shallowest_cuts(runs, x)
    for key, cell in keyed(runs, [*CURVE, *beside_mode(by), "seed"]):
        if key["encoder_name"] not in cuts:
            continue
        cut = cuts[key["encoder_name"]]
        wanted = {
            "full": {x: tops(cell, x).iloc[0], "mode": "projector"},
            "pruned": {x: cut, "mode": "projector"},
            "pruned_lora": {x: cut, "mode": "lora"},
        }
        found = {
            part: over_seeds(find_runs(cell, **values))["name"].tolist() for part, values in wanted.items()
        }
        if all(found.values()):
            seed = key.pop("seed")
            triples.append(({**key, x: cut, "seed": seed}, {part: names[0] for part, names in found.items()}))
    return triples


def lora_gain(runs: pd.DataFrame, x: str = X, by: By = BY) -> pd.DataFrame:
    """WER without LoRA minus WER with it, for the full encoder and after the shallowest cut.

    `larger` says where LoRA wins more; None where the two are equal to the hundredth of a point.
    """
    rows = []
    cuts = shallowest_cuts(runs, x)
    for key, cell in keyed(runs, [*CURVE, *beside_mode(by)]):
        if key["encoder_name"] not in cuts:
            continue
        cut = cuts[key["encoder_name"]]
        gains, names = {}, []
        for column, value in (("full", tops(cell, x).iloc[0]), ("pruned", cut)):
            without = mean_wer(cell, **{x: value, "mode": "projector"})
            with_lora = mean_wer(cell, **{x: value, "mode": "lora"})
            gains[column] = None if without is None or with_lora is None else without - with_lora
            names += find_runs(cell, **{x: value})["name"].tolist()
        if None in gains.values():
            continue
        difference = round((gains["pruned"] or 0) - (gains["full"] or 0), 4)
        larger = None if difference == 0 else "pruned" if difference > 0 else "full"
        rows.append({**key, x: cut, **gains, "larger": larger, "runs": names})
    return pd.DataFrame(rows)


def error_change(runs: pd.DataFrame, x: str = X, by: By = BY) -> pd.DataFrame:
    """(with LoRA - without) / without, of substitutions, insertions, deletions and all errors.

    After the shallowest cut, summed over seeds; None where there was no such error to begin with.
    """
    rows = []
    cuts = shallowest_cuts(runs, x)
    for key, cell in keyed(runs, [*CURVE, *beside_mode(by)]):
        pruned = find_runs(cell, **{x: cuts.get(key["encoder_name"], -1)})
        totals = {mode: over_seeds(find_runs(pruned, mode=mode)) for mode in MODES}
        if any(found.empty for found in totals.values()):
            continue
        kinds = ["substitutions", "insertions", "deletions"]
        before, after = (totals[mode][kinds].mean() for mode in ("projector", "lora"))
        before["total"], after["total"] = before.sum(), after.sum()
        change = {
            kind: (after[kind] - before[kind]) / before[kind] if before[kind] else None
            for kind in [*kinds, "total"]
        }
        names = [name for found in totals.values() for name in found["name"]]
        rows.append({**key, x: cuts[key["encoder_name"]], **change, "runs": names})
    return pd.DataFrame(rows)
