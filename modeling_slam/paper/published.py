"""The paper's published numbers as the frames that our own results come in.

    from modeling_slam.paper.published import paper_results
    from modeling_slam.analysis.tables import lora_gain

    lora_gain(paper_results().runs)  # the paper's Table 5, from its Table 2

Source: arXiv:2603.27981v1 (CC BY-SA 4.0); the files are in `tables/`
"""

import functools
from importlib.resources import files

import pandas as pd

from modeling_slam import SlamAsrConfig
from modeling_slam.analysis.frames import each_row
from modeling_slam.analysis.parameters import ParameterCounts, parameter_counts
from modeling_slam.analysis.results import StudyResults, sort_runs
from modeling_slam.common.known_models import qwen_config, whisper_config

SOURCE = "arXiv:2603.27981"
LAYERS = {"small": 12, "medium": 24, "large-v2": 32}
# As the paper states them; `paper_checks` has the true ones.
STATED_LORA_PARAMETERS = {"da": 800_000, "nl": 1_500_000, "en": 1_500_000}
LORA_RANKS = {"da": 8, "nl": 16, "en": 16}
LANGUAGES = ("da", "nl", "en")


def read_table(name: str) -> pd.DataFrame:
    """A table as printed, such as `table2_wer`: WER in points, shares and changes in per cent."""
    with (files("modeling_slam.paper") / "tables" / f"{name}.csv").open(encoding="utf-8") as file:
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


@functools.cache
def encoder_sizes(name: str) -> dict[int, int]:
    """Kept layers -> parameters, for every depth that the paper has of one of its encoders."""
    depths = read_table("table2_wer").query("encoder == @name")["kept_layers"].unique()
    return {int(layers): model_parameters(name, int(layers)).encoder for layers in depths}


def model_parameters(encoder: str, layers: int, lora_rank: int = 0) -> ParameterCounts:
    """The counts of one of the paper's models, with Qwen2.5-3B."""
    config = SlamAsrConfig(
        audio_config=whisper_config(encoder),
        text_config=qwen_config("3B"),
        num_encoder_layers=layers,  # ty: ignore[unknown-argument] (a property)
        lora_rank=lora_rank,
    )
    return parameter_counts(config)


def paper_table1() -> pd.DataFrame:
    """Table 1 in the columns of `tables.data_statistics`."""
    return read_table("table1_data")


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
