"""The demo's two pictures: what training learned, and WER against kept encoder layers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")  # files only, so a machine without a screen will do

from matplotlib import pyplot as plt

NAMES = {"en": "English", "nl": "Dutch", "da": "Danish"}


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


def plot_depths(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """One panel a language, one line a mode, with 95 % intervals."""
    languages = list(dict.fromkeys(row["language"] for row in rows))
    figure, axes = plt.subplots(
        1, len(languages), figsize=(3.6 * len(languages), 3.4), sharey=True, layout="constrained"
    )
    for axis, language in zip(axes, languages, strict=True):
        for lora, colour in ((False, "tab:orange"), (True, "tab:blue")):
            line = [row for row in rows if (row["language"], row["lora"]) == (language, lora)]
            wer = [100 * row["wer"] for row in line]
            below = [max(0, 100 * (row["wer"] - row["low"])) for row in line]
            above = [max(0, 100 * (row["high"] - row["wer"])) for row in line]
            axis.errorbar(
                [row["keep_layers"] for row in line], wer, yerr=[below, above], color=colour, marker="o",
                capsize=3, label="projector + LoRA" if lora else "projector only",
            )  # fmt: skip
        axis.set(title=NAMES[language], xlabel="encoder layers kept")
        axis.invert_xaxis()
        axis.grid(alpha=0.3)
    axes[0].set(ylabel="WER (%), 95 % interval", ylim=(0, None))
    axes[0].legend()
    save(figure, file)


def save(figure: Any, file: Path) -> None:
    figure.savefig(file, dpi=150)
    plt.close(figure)
