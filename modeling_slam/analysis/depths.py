"""Two-sided pruning: what encoder layers and LLM layers buy, of studies that span both depths."""

from collections.abc import Iterable

import pandas as pd

from modeling_slam.analysis.curves import pareto_front
from modeling_slam.analysis.frames import keyed, over_seeds
from modeling_slam.analysis.results import CURVE

LLM_DEPTH = "keep_llm_layers"  # the axis
MEANS = ("wer", "encoder_parameters", "llm_parameters", "lora_parameters", "real_time_factor")


def depth_front(runs: pd.DataFrame, axes: Iterable[str]) -> pd.DataFrame:
    """One row for each pair of depths, mode and value of the further axes: means over seeds, and `on_front`.

    On the front is what no other row of the language reaches in WER, parameters (encoder, LLM and LoRA) and
    real-time factor, and beats in one. Empty for studies that do not span the LLM's depth.
    """
    axes = list(axes)
    if LLM_DEPTH not in axes:
        return pd.DataFrame()
    keys = [*CURVE, "keep_layers", "mode", *axes]
    rows = []
    for key, cell in keyed(runs, keys):
        names = list(over_seeds(cell)["name"])
        means = {column: cell[column].mean() for column in MEANS if column in cell}
        rows.append(key | means | {"name": names[0], "seed": cell["seed"].iloc[0], "runs": names})
    means = pd.DataFrame(rows)
    front = pareto_front(means, by=["mode", *axes]).drop(columns=["runs", "seed"])
    front = front.merge(means[["name", "runs"]], on="name")
    return front.assign(seeds=front["runs"].map(len)).drop(columns="name")
