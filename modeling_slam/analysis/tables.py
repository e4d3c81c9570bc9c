"""The paper's tables from a study's results: 1 data, 2 WER by depth, 3 sweet spots, 4 degraded utterances,
5 what LoRA wins, 7 change of errors. Table 6 is in `error_types`.

The paper compares each encoder with the one two layers shorter, the first cut of its grid. Here that is the
shallowest cut a study has, whatever its size. Seeds are averaged where rates are compared, and kept apart
where utterances are. Rates and differences are fractions: 0.02 is two points of WER. `runs` names the runs
that a row follows from.

Source: arXiv:2603.27981
"""

from typing import Any

import pandas as pd

from modeling_slam.analysis.frames import groups
from modeling_slam.analysis.results import CURVE, METRICS_FILE, StudyResults, read_json, same_utterances

MODES = {"projector": "projector", "lora": "projector + LoRA"}


def data_statistics(study: StudyResults) -> pd.DataFrame:
    """Table 1: clips, hours, words, distinct words and speakers of each language's splits.

    The test split is counted in predictions.jsonl; train and validation stand in the reports that train.py
    left beside the model, and are missing when the model was deleted.
    """
    rows = []
    for language, runs in groups(study.runs, "language"):
        run = runs["name"].iloc[0]
        for split in ("train", "validation"):
            report = study.directory and study.directory / "runs" / run / "model" / f"data_{split}.json"
            if report and report.is_file():
                kept = read_json(report)
                rows.append(
                    {
                        "language": language,
                        "split": split,
                        "clips": kept["kept_clips"],
                        "hours": kept["kept_hours"],
                        "runs": [run],
                    }
                )
        test = study.utterances(run)
        words = pd.Series(" ".join(test["reference"]).split())
        rows.append(
            {
                "language": language,
                "split": read_json(study.directory / "runs" / run / METRICS_FILE)["settings"]["split"]
                if study.directory
                else "test",
                "clips": len(test),
                "hours": test["duration"].sum() / 3600,
                "words": len(words),
                "distinct_words": words.nunique(),
                "speakers": test["speaker"].nunique(),
                "runs": [run],
            }
        )
    return pd.DataFrame(rows)


def wer_by_depth(runs: pd.DataFrame) -> pd.DataFrame:
    """Table 2: one row for each encoder, depth, language and mode.

    `encoder_reduction` = 1 - kept / full encoder parameters. `wer` is the mean over seeds; with one seed
    `wer_low` and `wer_high` are its bootstrap interval, with several the lowest and highest WER of a seed.
    """
    rows = []
    keys = ["encoder_name", "encoder_layers", "keep_layers", "language", "mode"]
    for key, cell in groups(runs, keys):
        first = cell.iloc[0]
        single = len(cell) == 1
        rows.append(
            {
                **dict(zip(keys, key, strict=True)),
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


def shallowest_cuts(runs: pd.DataFrame) -> dict[str, int]:
    """Encoder name -> kept layers of the cut that removes least. Encoders without a cut are left out."""
    pruned = runs[runs["keep_layers"] < runs["encoder_layers"]]
    deepest = pruned.groupby("encoder_name", sort=False)["keep_layers"].max()
    return {str(name): int(cut) for name, cut in deepest.items()}


def find_runs(runs: pd.DataFrame, **wanted: Any) -> pd.DataFrame:
    """The runs whose columns have these values."""
    for column, value in wanted.items():
        runs = runs[runs[column] == value]
    return runs


def mean_wer(runs: pd.DataFrame, **wanted: Any) -> float | None:
    """WER averaged over seeds of the runs with these values; None where there is none."""
    found = find_runs(runs, **wanted)
    return float(found["wer"].mean()) if len(found) else None


def sweet_spots(runs: pd.DataFrame) -> pd.DataFrame:
    """Table 3: for each encoder the whole one, the whole one with LoRA, and the best pruned one with LoRA.

    Best: the lowest WER averaged over those languages and depths that every language of the encoder has.
    `parameters` = encoder + LoRA, `net_change` against the whole encoder without LoRA; where languages have
    LoRA of different ranks the largest counts, as in the paper. One column of WER a language, and `better`:
    in how many of the `of` languages the WER is below that of the whole encoder without LoRA.
    """
    rows = []
    for encoder, of_encoder in groups(runs, "encoder_name"):
        full_layers = int(of_encoder["encoder_layers"].iloc[0])
        best = best_pruned_depth(find_runs(of_encoder, mode="lora"))
        choices = [(full_layers, "projector"), (full_layers, "lora")] + ([(best, "lora")] if best else [])
        for layers, mode in choices:
            found = find_runs(of_encoder, keep_layers=layers, mode=mode)
            if found.empty:
                continue
            wers = found.groupby("language")["wer"].mean()
            full = find_runs(of_encoder, keep_layers=full_layers, mode="projector")
            baseline = full.groupby("language")["wer"].mean().reindex(wers.index)
            parameters = found["encoder_parameters"].iloc[0] + found["lora_parameters"].fillna(0).max()
            whole = found["encoder_parameters_full"].iloc[0]
            rows.append(
                {
                    "encoder_name": encoder,
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


def best_pruned_depth(runs: pd.DataFrame) -> int | None:
    pruned = runs[runs["keep_layers"] < runs["encoder_layers"]]
    table = pruned.pivot_table(index="keep_layers", columns="language", values="wer", aggfunc="mean").dropna()
    return int(table.mean(axis=1).idxmin()) if len(table) else None


def degraded_utterances(study: StudyResults) -> pd.DataFrame:
    """Table 4: share of utterances with a higher WER than under the whole encoder without LoRA.

    `pruned`: after the shallowest cut; `pruned_lora`: after the cut and LoRA; `recovery` = pruned_lora -
    pruned. Both sides of each utterance have one reference, so a higher WER is a larger count of errors.
    One row for each seed that has the three runs.
    """
    rows = []
    for key, names in compared_runs(study.runs):
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


def compared_runs(runs: pd.DataFrame) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """(what is compared, names of its runs `full`, `pruned`, `pruned_lora`), where all three are there."""
    triples = []
    cuts = shallowest_cuts(runs)
    for (encoder, language, seed), cell in groups(runs, [*CURVE, "seed"]):
        if encoder not in cuts:
            continue
        wanted = {
            "full": {"keep_layers": cell["encoder_layers"].iloc[0], "mode": "projector"},
            "pruned": {"keep_layers": cuts[encoder], "mode": "projector"},
            "pruned_lora": {"keep_layers": cuts[encoder], "mode": "lora"},
        }
        found = {part: find_runs(cell, **values)["name"].tolist() for part, values in wanted.items()}
        if all(found.values()):
            key = {"encoder_name": encoder, "language": language, "keep_layers": cuts[encoder], "seed": seed}
            triples.append((key, {part: names[0] for part, names in found.items()}))
    return triples


def lora_gain(runs: pd.DataFrame) -> pd.DataFrame:
    """Table 5: WER without LoRA minus WER with it, for the whole encoder and after the shallowest cut.

    `larger` says where LoRA wins more; None where the two are equal to the hundredth of a point.
    """
    rows = []
    cuts = shallowest_cuts(runs)
    for (encoder, language), cell in groups(runs, CURVE):
        if encoder not in cuts:
            continue
        gains, names = {}, []
        for column, layers in (("full", cell["encoder_layers"].iloc[0]), ("pruned", cuts[encoder])):
            without = mean_wer(cell, keep_layers=layers, mode="projector")
            with_lora = mean_wer(cell, keep_layers=layers, mode="lora")
            gains[column] = None if without is None or with_lora is None else without - with_lora
            names += find_runs(cell, keep_layers=layers)["name"].tolist()
        if None in gains.values():
            continue
        difference = round((gains["pruned"] or 0) - (gains["full"] or 0), 4)
        larger = None if difference == 0 else "pruned" if difference > 0 else "full"
        key = {"encoder_name": encoder, "language": language, "keep_layers": cuts[encoder]}
        rows.append({**key, **gains, "larger": larger, "runs": names})
    return pd.DataFrame(rows)


def error_change(runs: pd.DataFrame) -> pd.DataFrame:
    """Table 7: (with LoRA - without) / without, of substitutions, insertions, deletions and all errors.

    After the shallowest cut, summed over seeds; None where there was no such error to begin with.
    """
    rows = []
    cuts = shallowest_cuts(runs)
    for (encoder, language), cell in groups(runs, CURVE):
        pruned = find_runs(cell, keep_layers=cuts.get(str(encoder), -1))
        totals = {mode: find_runs(pruned, mode=mode) for mode in MODES}
        if any(found.empty for found in totals.values()):
            continue
        kinds = ["substitutions", "insertions", "deletions"]
        before, after = (totals[mode][kinds].mean() for mode in ("projector", "lora"))
        before["total"], after["total"] = before.sum(), after.sum()
        change = {
            kind: (after[kind] - before[kind]) / before[kind] if before[kind] else None
            for kind in [*kinds, "total"]
        }
        key = {"encoder_name": encoder, "language": language, "keep_layers": cuts[str(encoder)]}
        rows.append({**key, **change, "runs": [name for found in totals.values() for name in found["name"]]})
    return pd.DataFrame(rows)
