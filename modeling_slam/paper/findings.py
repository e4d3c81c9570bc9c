"""The paper's findings as yes-or-no questions, asked of any study with the same functions.

Each is counted over the conditions (encoder and language) that it can be asked of, so that the paper's own
numbers and ours stand side by side: "9 of 9" there, "1 of 2" here. To add one, write its function and name it
in `FINDINGS`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from modeling_slam.analysis.curves import SAFE_POINTS, curve_shapes
from modeling_slam.analysis.frames import each_row, keyed
from modeling_slam.analysis.results import CURVE, StudyResults
from modeling_slam.analysis.tables import (
    degraded_utterances,
    error_change,
    lora_gain,
    mean_wer,
    shallowest_cuts,
    wer_table,
)
from modeling_slam.paper.published import paper_table4, paper_table7


@dataclass(frozen=True)
class Answer:
    """In how many of the conditions a finding holds, and the range of the figure it is about."""

    holds: int
    of: int
    figures: str


def cut_is_cheap(results: StudyResults) -> Answer:
    losses = after_cut(results, "projector")
    return Answer(sum(loss <= SAFE_POINTS for loss in losses), len(losses), points(losses))


def cut_with_lora_beats_whole(results: StudyResults) -> Answer:
    losses = after_cut(results, "lora")
    return Answer(sum(loss < 0 for loss in losses), len(losses), points(losses))


def lora_wins_more_after_cut(results: StudyResults) -> Answer:
    gains = lora_gain(results.runs, by=apart(results))
    if gains.empty:
        return Answer(0, 0, "")
    return Answer(
        int((gains["larger"] == "pruned").sum()), len(gains), points(list(gains["pruned"] - gains["full"]))
    )


def lora_helps_at_every_depth(results: StudyResults) -> Answer:
    table = wer_table(results.runs, by=apart(results)).pivot_table(
        index=[*CURVE, *results.axes, "keep_layers"], columns="mode", values="wer", sort=False
    )
    if not {"lora", "projector"} <= set(table.columns):
        return Answer(0, 0, "")
    change = (table["lora"] - table["projector"]).dropna()
    return Answer(int((change < 0).sum()), len(change), points(list(change)))


def curves_only_rise(results: StudyResults) -> Answer:
    shapes = curve_shapes(results.runs, by=apart(results))
    if shapes.empty:
        return Answer(0, 0, "")
    falls = f"largest fall {100 * shapes['largest_fall'].max():.2f} points"
    return Answer(int((shapes["falls"] == 0).sum()), len(shapes), falls)


def lora_degrades_fewer_utterances(results: StudyResults) -> Answer:
    table = paper_table4() if results.directory is None else degraded_utterances(results, by=apart(results))
    if table.empty:
        return Answer(0, 0, "")
    return Answer(int((table["recovery"] < 0).sum()), len(table), points(list(table["recovery"])))


def lora_takes_errors(results: StudyResults) -> Answer:
    return change_of(results, "total", falls=True)


def lora_adds_insertions(results: StudyResults) -> Answer:
    return change_of(results, "insertions", falls=False)


FINDINGS: dict[str, Callable[[StudyResults], Answer]] = {
    f"The shallowest cut costs at most {100 * SAFE_POINTS:g} points, without LoRA": cut_is_cheap,
    "The shallowest cut with LoRA beats the whole encoder without": cut_with_lora_beats_whole,
    "LoRA wins more after the shallowest cut than on the whole encoder": lora_wins_more_after_cut,
    "LoRA lowers the WER of a depth": lora_helps_at_every_depth,
    "WER rises with every layer removed": curves_only_rise,
    "After the cut, LoRA leaves fewer utterances degraded": lora_degrades_fewer_utterances,
    "After the cut, LoRA takes word errors away": lora_takes_errors,
    "After the cut, LoRA adds insertions": lora_adds_insertions,
}


def findings(results: StudyResults) -> pd.DataFrame:
    """One row a finding: finding, holds, of, figures. `of` is 0 where the study cannot tell."""
    return pd.DataFrame(
        [{"finding": finding, **vars(answer(results))} for finding, answer in FINDINGS.items()]
    )


def apart(results: StudyResults) -> list[str]:
    """The paper fixes what is compared, depth and mode; what else a study spans makes further conditions."""
    return ["mode", *results.axes]


def after_cut(results: StudyResults, mode: str) -> list[float]:
    """WER after the shallowest cut in `mode` - WER of the whole encoder without LoRA, for each condition."""
    cuts = shallowest_cuts(results.runs)
    losses = []
    for key, cell in keyed(results.runs, [*CURVE, *results.axes]):
        full = mean_wer(cell, keep_layers=cell["encoder_layers"].iloc[0], mode="projector")
        cut = mean_wer(cell, keep_layers=cuts.get(key["encoder_name"], -1), mode=mode)
        if full is not None and cut is not None:
            losses.append(cut - full)
    return losses


def change_of(results: StudyResults, kind: str, falls: bool) -> Answer:
    table = paper_table7() if results.directory is None else error_change(results.runs, by=apart(results))
    change = [] if table.empty else [getattr(row, kind) for row in each_row(table.dropna(subset=[kind]))]
    holds = sum(value < 0 if falls else value > 0 for value in change)
    ends = f"{100 * min(change):+.1f} to {100 * max(change):+.1f} %" if change else ""
    return Answer(holds, len(change), ends)


def points(values: list[float]) -> str:
    return f"{100 * min(values):+.2f} to {100 * max(values):+.2f} points" if values else ""
