"""The paper's published numbers as the frames that our own results come in.

    from modeling_slam.study.published import paper_results
    from modeling_slam.study.tables import lora_gain

    lora_gain(paper_results().runs)  # the paper's Table 5, from its Table 2

Source: arXiv:2603.27981v1 (CC BY-SA 4.0); the files are in `modeling_slam/study/paper/`
"""

from importlib.resources import files

import pandas as pd

from modeling_slam.data.paper_table import TABLE_1
from modeling_slam.study.frames import each_row
from modeling_slam.study.parameters import encoder_parameters, whisper_config
from modeling_slam.study.results import StudyResults, sort_runs

SOURCE = "arXiv:2603.27981"
LAYERS = {"small": 12, "medium": 24, "large-v2": 32}
# As the paper states them; `paper_checks` has the true ones.
STATED_LORA_PARAMETERS = {"da": 800_000, "nl": 1_500_000, "en": 1_500_000}
LORA_RANKS = {"da": 8, "nl": 16, "en": 16}
LANGUAGES = ("da", "nl", "en")


def read_table(name: str) -> pd.DataFrame:
    """A table as printed, such as `table2_wer`: WER in points, shares and changes in per cent."""
    with (files("modeling_slam.study") / "paper" / f"{name}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


def paper_results() -> StudyResults:
    """Table 2 as a study's results: WER as fractions, one run a row; there are no predictions."""
    table = read_table("table2_wer")
    lora = table["mode"] == "lora"
    sizes = {name: encoder_sizes(name) for name in LAYERS}
    runs = pd.DataFrame(
        {
            "name": [
                f"paper-{row.encoder}-{row.kept_layers}L-{row.mode}-{row.language}" for row in each_row(table)
            ],
            "encoder_name": table["encoder"],
            "encoder_layers": table["encoder"].map(LAYERS),
            "keep_layers": table["kept_layers"],
            "language": table["language"],
            "mode": table["mode"],
            "seed": 0,  # the paper names none
            "lora_rank": table["language"].map(LORA_RANKS).where(lora, 0),
            "wer": table["wer_pct"] / 100,
            "wer_low": float("nan"),
            "wer_high": float("nan"),
            "encoder_parameters": [sizes[row.encoder][row.kept_layers] for row in each_row(table)],
            "encoder_parameters_full": [sizes[name][LAYERS[name]] for name in table["encoder"]],
            "lora_parameters": table["language"].map(STATED_LORA_PARAMETERS).where(lora, 0),
        }
    )
    return StudyResults(None, SOURCE, sort_runs(runs), pd.DataFrame(), list(runs["name"]))


def encoder_sizes(name: str) -> dict[int, int]:
    """Kept layers -> parameters, for every depth of one of the paper's encoders."""
    config = whisper_config(name)
    return {layers: encoder_parameters(config, layers) for layers in range(1, LAYERS[name] + 1)}


def paper_table1() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"language": language, "split": split, "clips": clips, "hours": hours}
            for (language, split), (clips, hours) in TABLE_1.items()
        ]
    )


def paper_table4() -> pd.DataFrame:
    """Table 4 in the columns of `tables.degraded_utterances`; its cut is two layers."""
    table = read_table("table4_degraded_utterances")
    return pd.DataFrame(
        {
            "encoder_name": table["encoder"],
            "language": table["language"],
            "keep_layers": table["encoder"].map(LAYERS) - 2,
            "pruned": table["base_minus2_pct"] / 100,
            "pruned_lora": table["lora_minus2_pct"] / 100,
            "recovery": table["recovery_points"] / 100,
        }
    )


def paper_table7() -> pd.DataFrame:
    """Table 7 in the columns of `tables.error_change`; its cut is two layers."""
    table = read_table("table7_error_change")
    kinds = ("substitutions", "insertions", "deletions", "total")
    changes = {kind: table[f"{kind}_pct"] / 100 for kind in kinds}
    keys = {"encoder_name": table["encoder"], "language": table["language"]}
    return pd.DataFrame({**keys, "keep_layers": table["encoder"].map(LAYERS) - 2, **changes})
