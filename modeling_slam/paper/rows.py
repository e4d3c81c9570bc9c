"""The paper's tables against each other, one row a printed figure: stated, computed, agrees.

Tables 3 and 5 follow from Table 2 and the encoders' sizes; Table 7's totals from Table 2's rates. The
functions that compute them are those that make our own tables.
"""

import pandas as pd

from modeling_slam.analysis.frames import each_row
from modeling_slam.analysis.tables import lora_gain, mean_wer, shallowest_cuts, sweet_spots, wer_table
from modeling_slam.paper.published import LANGUAGES, paper_results, paper_table7, read_table


def check_reductions() -> pd.DataFrame:
    """Table 2's Red.% against parameter counts; agrees within 0.05 points, as it is printed to 0.1."""
    table = wer_table(paper_results().runs)
    printed = read_table("table2_wer").rename(
        columns={"encoder": "encoder_name", "kept_layers": "keep_layers"}
    )
    printed = printed.drop_duplicates(["encoder_name", "keep_layers"])
    computed = table.drop_duplicates(["encoder_name", "keep_layers"])
    rows = printed.merge(computed[["encoder_name", "keep_layers", "encoder_reduction"]])
    rows["computed"] = 100 * rows["encoder_reduction"]
    rows["stated"] = rows["encoder_reduction_pct"]
    return rows[["encoder_name", "keep_layers", "stated", "computed"]].assign(
        agrees=(rows["stated"] - rows["computed"]).abs() < 0.1
    )


def check_table3() -> pd.DataFrame:
    """Table 3 against `sweet_spots` of Table 2: every WER, parameter count and change, one row a figure.

    Counts are in millions, with LoRA of the size that the paper states. They agree within 0.1, as the paper
    rounds them before it subtracts; WERs agree as printed.
    """
    stated = read_table("table3_sweet_spot")
    computed = sweet_spots(paper_results().runs)
    rows = []
    for printed, ours in zip(stated.to_dict("records"), computed.to_dict("records"), strict=True):
        figures = {
            "parameters (M)": (printed["encoder_plus_lora_params_m"], ours["parameters"] / 1e6, 0.1),
            "net change (M)": (printed["net_delta_m"], ours["net_change"] / 1e6, 0.1),
            **{
                f"WER {language}": (printed[language], 100 * ours[f"wer_{language}"], 0.005)
                for language in LANGUAGES
            },
        }
        for figure, (said, found, within) in figures.items():
            rows.append(
                {
                    "encoder_name": printed["encoder"],
                    "configuration": printed["configuration"],
                    "figure": figure,
                    "stated": said,
                    "computed": found,
                    "agrees": agree(said, found, within),
                }
            )
    return pd.DataFrame(rows)


def check_table5() -> pd.DataFrame:
    """Table 5 against `lora_gain` of Table 2, in points."""
    stated = read_table("table5_lora_reduction").set_index(["encoder", "language"])
    rows = []
    for gain in each_row(lora_gain(paper_results().runs)):
        printed = stated.loc[(gain.encoder_name, gain.language)]
        for figure in ("full", "pruned"):
            said, found = printed[f"{figure}_plus_lora_points"], 100 * getattr(gain, figure)
            rows.append(
                {
                    "encoder_name": gain.encoder_name,
                    "language": gain.language,
                    "figure": figure,
                    "stated": said,
                    "computed": found,
                    "agrees": agree(said, found, 0.005),
                }
            )
    return pd.DataFrame(rows)


def check_table7() -> pd.DataFrame:
    """Table 7's total change of word errors against the relative change of Table 2's WER, in per cent.

    Both models are scored on the same reference words, so the two are the same ratio if both come from
    corpus counts. Table 2's rounding to 0.01 moves the ratio by less than 0.1.
    """
    runs = paper_results().runs
    cuts = shallowest_cuts(runs)
    rows = []
    for row in each_row(paper_table7()):
        cell = {
            "encoder_name": row.encoder_name,
            "language": row.language,
            "keep_layers": cuts[row.encoder_name],
        }
        before, after = (mean_wer(runs, **cell, mode=mode) or 0.0 for mode in ("projector", "lora"))
        found = 100 * (after - before) / before
        rows.append(
            {
                "encoder_name": row.encoder_name,
                "language": row.language,
                "stated": 100 * row.total,
                "computed": found,
                "agrees": abs(100 * row.total - found) < 0.15,
            }
        )
    return pd.DataFrame(rows)


def agree(stated: float, computed: float, within: float) -> bool:
    """Whether the two differ by `within` or less; the millionth is for binary fractions."""
    return abs(stated - computed) <= within + 1e-6
