"""The demo's picture: what training learned."""

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")  # files only, so a machine without a screen will do

from matplotlib import pyplot as plt


def plot_learning(trainer_state: Path, file: Path) -> None:
    """Training loss, and WER of validation, against steps."""
    history = json.loads(trainer_state.read_text(encoding="utf-8"))["log_history"]
    figure, loss_axis = plt.subplots(figsize=(6, 3.5), layout="constrained")
    losses = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    loss_axis.plot(*zip(*losses, strict=True), color="tab:blue")
    loss_axis.set(xlabel="step", ylim=(0, None))
    loss_axis.set_ylabel("training loss a token", color="tab:blue")
    rates = [(entry["step"], 100 * entry["eval_wer"]) for entry in history if "eval_wer" in entry]
    if rates:
        wer_axis = loss_axis.twinx()
        wer_axis.plot(*zip(*rates, strict=True), color="tab:red", marker="o")
        wer_axis.set(ylim=(0, None))
        wer_axis.set_ylabel("validation WER, greedy (%)", color="tab:red")
    save(figure, file)


def save(figure: Any, file: Path) -> None:
    figure.savefig(file, dpi=150)
    plt.close(figure)
