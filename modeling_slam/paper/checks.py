"""Does the paper agree with itself? Its statements computed again from its tables and from the models.

Each check states where the paper says something, what it says, what arithmetic gives, and how. `paper_notes`
makes `docs/paper-notes.md` of them. Nothing here doubts the experiments: these are slips of writing up, and
places where a sentence says more than the table.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from modeling_slam.analysis.curves import curve_shapes
from modeling_slam.analysis.frames import each_row
from modeling_slam.analysis.tables import lora_gain, mean_wer, shallowest_cuts, wer_table
from modeling_slam.paper.published import (
    LANGUAGES,
    LAYERS,
    encoder_sizes,
    model_parameters,
    paper_results,
    paper_table4,
    paper_table7,
    read_table,
)
from modeling_slam.paper.rows import check_reductions, check_table3, check_table5, check_table7
from modeling_slam.paper.table1 import table1

LEAST_SAVING = 0.07  # of "7-14 %"
NAMES = {"small": "Small", "medium": "Medium", "large-v2": "Large-v2"}


@dataclass(frozen=True)
class Check:
    """One statement of the paper, computed again."""

    where: str
    stated: str
    computed: str
    agrees: bool
    how: str


def rows_agree(where: str, what: str, rows: pd.DataFrame, how: str) -> Check:
    wrong = rows[~rows["agrees"]]
    named = "; ".join(
        f"{NAMES[row['encoder_name']]} "
        + " ".join(
            str(row[name]) for name in ("configuration", "figure", "keep_layers", "language") if name in row
        )
        + f": {row['stated']:g} printed, {row['computed']:.2f} computed"
        for row in wrong.to_dict("records")
    )
    agreeing = f"{len(rows) - len(wrong)} of {len(rows)} agree"
    return Check(where, what, f"{agreeing}. {named}" if named else agreeing, wrong.empty, how)


def table_checks() -> list[Check]:
    return [
        rows_agree(
            "Table 2", "Red.% of 34 depths", check_reductions(), "1 - kept / full parameters of the encoder"
        ),
        rows_agree(
            "Table 3",
            "parameters, change and WER of 9 rows",
            check_table3(),
            "Table 2's WER of the depth; exact encoder size + 1.5 M as stated for LoRA",
        ),
        rows_agree(
            "Table 5", "points won by LoRA", check_table5(), "Table 2: WER without LoRA - WER with LoRA"
        ),
        rows_agree(
            "Table 7, Tot",
            "change of all word errors",
            check_table7(),
            "Table 2: (WER with LoRA - WER without) / WER without, at the same depth. Equal if both are "
            "corpus figures; the published code averages the WER of batches, which can part them",
        ),
        recovery_check(),
        size_check(),
    ]


def size_check() -> Check:
    stated = {"small": 88.15, "medium": 307.24, "large-v2": 636.83}
    exact = {name: encoder_sizes(name)[layers] / 1e6 for name, layers in LAYERS.items()}
    return Check(
        "Tables 2 and 3",
        ", ".join(f"{NAMES[name]} {size:.2f} M" for name, size in stated.items()),
        ", ".join(f"{NAMES[name]} {size:.2f} M" for name, size in exact.items()),
        all(abs(stated[name] - exact[name]) < 0.005 for name in stated),
        "parameters of the encoder's modules. Medium and Large-v2 differ by one width a layer, as if the key "
        "projection had a bias; it has none",
    )


def recovery_check() -> Check:
    table = paper_table4()
    wrong = ((table["pruned_lora"] - table["pruned"] - table["recovery"]).abs() > 0.00051).sum()
    return Check(
        "Table 4",
        "recovery of 9 rows",
        f"{9 - wrong} of 9 agree",
        wrong == 0,
        "share with LoRA - share without",
    )


def lora_counts() -> list[Check]:
    stated = {8: 0.8, 16: 1.5}
    return [
        Check(
            "Section 4.2",
            f"LoRA of rank {rank} on q, k, v, o adds {said} M",
            f"{lora_parameters(rank):,}",
            abs(lora_parameters(rank) / 1e6 - said) < 0.1,
            f"36 layers x {rank} x (in + out) of 2048 to 2048 (q, o) and 2048 to 256 (k, v) in Qwen2.5-3B",
        )
        for rank, said in stated.items()
    ]


def lora_parameters(rank: int) -> int:
    """LoRA on q, k, v, o of Qwen2.5-3B, counted on the model's modules."""
    return model_parameters("small", 12, rank).lora


def saving_checks() -> list[Check]:
    """'Reducing total parameters by 7-14 %'."""
    cuts = shallowest_cuts(paper_results().runs)
    stated, exact, total = {}, {}, {}
    for encoder, kept in cuts.items():
        sizes = encoder_sizes(encoder)
        full = sizes[LAYERS[encoder]]
        stated[encoder] = (full - sizes[kept] - 1.5e6) / full
        exact[encoder] = (full - sizes[kept] - lora_parameters(16)) / full
        whole, pruned = model_parameters(encoder, LAYERS[encoder], 0), model_parameters(encoder, kept, 16)
        total[encoder] = (whole.total - pruned.total) / whole.total
    claim = "two layers less, with LoRA, is 7-14 % fewer total parameters"
    return [
        Check(
            "Abstract, Sections 1, 5.2, 6",
            claim,
            per_encoder(stated) + " of the encoder",
            min(stated.values()) >= LEAST_SAVING,
            "encoder + 1.5 M of LoRA against the encoder; Section 5.2 itself gives 14.4, 7.6 and 5.9 %",
        ),
        Check(
            "the same",
            claim,
            per_encoder(exact) + " of the encoder",
            min(exact.values()) >= LEAST_SAVING,
            "with the true LoRA count, 7.37 M",
        ),
        Check(
            "the same",
            claim,
            per_encoder(total, 2) + " of the whole model",
            min(total.values()) >= LEAST_SAVING,
            "encoder, projector, Qwen2.5-3B and LoRA (7.37 M) against encoder, projector and Qwen2.5-3B",
        ),
    ]


def per_encoder(shares: dict[str, float], digits: int = 1) -> str:
    return ", ".join(f"{NAMES[name]} {100 * share:.{digits}f} %" for name, share in shares.items())


def pruning_checks() -> list[Check]:
    runs = paper_results().runs
    cuts = shallowest_cuts(runs)
    losses, margins = {}, {}
    for encoder, kept in cuts.items():
        for language in LANGUAGES:
            cell = {"encoder_name": encoder, "language": language}
            full = mean_wer(runs, **cell, keep_layers=LAYERS[encoder], mode="projector") or 0.0
            losses[encoder, language] = 100 * (
                (mean_wer(runs, **cell, keep_layers=kept, mode="projector") or 0) - full
            )
            margins[encoder, language] = 100 * (
                full - (mean_wer(runs, **cell, keep_layers=kept, mode="lora") or 0)
            )
    below = sum(loss < 2 for loss in losses.values())
    close = {key: margin for key, margin in margins.items() if margin < 0.5}
    return [
        Check(
            "Abstract, Sections 1, 5.1, 6",
            "two layers cost 2-4 points",
            f"{min(losses.values()):.2f} to {max(losses.values()):.2f} points; {below} of 9 cost less than 2",
            all(2 <= loss <= 4 for loss in losses.values()),
            "Table 2: WER two layers down - WER of the whole encoder, without LoRA. At most 4 holds in all",
        ),
        Check(
            "Section 5.1",
            "the top one to two layers can go",
            f"runs with one layer removed: {(runs['keep_layers'] == runs['encoder_layers'] - 1).sum()}",
            bool((runs["keep_layers"] == runs["encoder_layers"] - 1).any()),
            "Table 2 goes down in steps of two",
        ),
        Check(
            "Abstract, Sections 1, 5.2",
            "two layers less with LoRA beats the whole encoder without, always",
            f"{sum(margin > 0 for margin in margins.values())} of 9; by less than half a point in "
            + ", ".join(f"{NAMES[e]} {lang.upper()} ({margin:.2f})" for (e, lang), margin in close.items()),
            all(margin > 0 for margin in margins.values()),
            "Table 2. Without intervals or repeated seeds small margins cannot be told from chance",
        ),
    ]


def lora_checks() -> list[Check]:
    runs = paper_results().runs
    gains = lora_gain(runs)
    table = wer_table(runs).pivot(
        index=["encoder_name", "language", "keep_layers"], columns="mode", values="wer"
    )
    worse = table[table["lora"] >= table["projector"]].reset_index()
    named = ", ".join(
        f"{NAMES[r.encoder_name]} {r.language.upper()} {r.keep_layers}L" for r in each_row(worse)
    )
    exceptions = gains[gains["larger"] == "full"]
    return [
        Check(
            "Section 5.2",
            "in 7 of 9 conditions LoRA wins more after pruning; not in Small DA and Medium EN",
            f"{(gains['larger'] == 'pruned').sum()} of 9; not in "
            + ", ".join(f"{NAMES[r.encoder_name]} {r.language.upper()}" for r in each_row(exceptions)),
            set(zip(exceptions["encoder_name"], exceptions["language"], strict=True))
            == {("small", "da"), ("medium", "en")},
            "Table 5 computed from Table 2",
        ),
        Check(
            "Section 5.2",
            "for Dutch and English LoRA helps at every depth; for Danish not always",
            f"LoRA is worse in {len(worse)} of {len(table)} pairs: {named}",
            set(worse["language"]) == {"da"},
            "Table 2, each depth with LoRA against without",
        ),
    ]


def shape_checks() -> list[Check]:
    shapes = curve_shapes(paper_results().runs)
    without = shapes[shapes["mode"] == "projector"].set_index(["encoder_name", "language"])["spikes"]
    danish = {encoder: without[encoder, "da"] for encoder in LAYERS}
    others = {
        (encoder, language): found
        for (encoder, language), found in without.items()
        if language != "da" and found
    }
    how = "Table 2 without LoRA; a spike is a depth more than 1 point above both neighbours"
    return [
        Check(
            "Section 5.1",
            "Large-v2 has the same number of spikes for Danish as Small",
            "; ".join(
                f"{NAMES[name]} {len(at)} ({listed(at)})" if at else f"{NAMES[name]} none"
                for name, at in danish.items()
            ),
            len(danish["small"]) == len(danish["large-v2"]),
            how,
        ),
        Check(
            "Section 5.1",
            "Danish is the only language that does not degrade smoothly",
            "; ".join(
                f"{NAMES[e]} {lang.upper()} has a spike at {listed(at)}" for (e, lang), at in others.items()
            ),
            not others,
            how + ". Large-v2 Dutch: 63.61 at 8 layers, 90.60 at 6, 72.41 at 4",
        ),
    ]


def listed(depths: list[int]) -> str:
    return ", ".join(f"{layers}L" for layers in depths)


def text_checks() -> list[Check]:
    table = read_table("table2_wer")
    change = paper_table7()
    totals = {
        name: -100 * change[change["language"].isin(languages)]["total"]
        for name, languages in {"other": ["nl", "en"], "da": ["da"]}.items()
    }
    after = 100 * paper_table4()["pruned_lora"]
    _clips, hours = table1()["nl", "train"]
    return [
        Check("Section 1", "over 200 training runs", f"{len(table)}", len(table) > 200, "rows of Table 2"),
        Check(
            "Section 1",
            "depths down to a single layer",
            f"the least is {table['kept_layers'].min()} layers",
            table["kept_layers"].min() == 1,
            "Table 2; Section 4.2 says down to 2 layers",
        ),
        Check(
            "Section 1",
            "Dutch has 50 hours",
            f"{hours} hours in Table 1, 54 in Section 4.1",
            round(hours) == 50,
            "training split",
        ),
        Check(
            "Abstract, Section 1",
            "LoRA takes 11-21 % of word errors in Dutch and English, 4-7 % in Danish",
            f"{totals['other'].min():.1f} to {totals['other'].max():.1f} %; "
            f"{totals['da'].min():.1f} to {totals['da'].max():.1f} %",
            [round(bound) for found in totals.values() for bound in (found.min(), found.max())]
            == [12, 21, 4, 7],
            "Table 7, Tot",
        ),
        Check(
            "Section 5.3.1",
            "with LoRA 15-38 % of utterances stay worse",
            f"{after.min():.1f} to {after.max():.1f} %",
            (round(after.min()), round(after.max())) == (15, 38),
            "Table 4",
        ),
    ]


GROUPS: dict[str, Callable[[], list[Check]]] = {
    "Tables against each other": table_checks,
    "LoRA's parameters": lora_counts,
    "What is saved": saving_checks,
    "What pruning costs": pruning_checks,
    "What LoRA wins": lora_checks,
    "The shape of the curves": shape_checks,
    "Text against tables": text_checks,
}


def paper_checks() -> pd.DataFrame:
    """All checks, one row each: topic, where, stated, computed, agrees, how."""
    return pd.DataFrame(
        [{"topic": topic, **vars(check)} for topic, checks in GROUPS.items() for check in checks()]
    )
