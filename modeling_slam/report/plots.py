"""The study's pictures, as SVG for pages and PNG for slides.

Colour says the mode (without LoRA, with), the dash pattern what else tells curves apart. SVG files are the
same to the byte for the same results, so a committed report changes only where its numbers do.
"""

import dataclasses
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")  # files only, so a machine without a screen will do

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

from modeling_slam.analysis.breakdowns import wer_by_length
from modeling_slam.analysis.curves import pareto_front
from modeling_slam.analysis.frames import beside_mode, each_row, groups, keyed
from modeling_slam.analysis.results import CURVE, StudyResults
from modeling_slam.analysis.tables import MODES, error_change, lora_gain, shallowest_cuts, wer_table
from modeling_slam.report.view import Plot, View
from modeling_slam.report.written import language_name, plain

COLOURS = {"projector": "#0072b2", "lora": "#d55e00"}  # told apart with any colour vision
MARKERS = {"projector": "o", "lora": "s"}
DASHES = ("-", "--", ":", "-.")
CEILING = 150  # % of WER; what loops run up beyond it is cut off, so that the rest can be read


def panels(rows: int, columns: int, width: float = 3.8, **options: Any) -> tuple[Any, Any]:
    size = (width * columns, 3.2 * rows)
    return plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)


def plot_curves(study: StudyResults, view: View) -> Any:
    """WER along the view's axis: a row an encoder, a column a language."""
    table = wer_table(study.runs, **view.curves)
    encoders, languages = list(table["encoder_name"].unique()), list(table["language"].unique())
    figure, axes = panels(len(encoders), len(languages), sharey="row")
    for row, encoder in enumerate(encoders):
        for column, language in enumerate(languages):
            axis = axes[row][column]
            cell = table[(table["encoder_name"] == encoder) & (table["language"] == language)]
            axis.set_title(f"{encoder}, {language_name(language)}")
            draw_curves(axis, cell, study, view)
            draw_baseline(axis, study.baselines, encoder, language)
            if view.along_depth:
                axis.set_xlabel("encoder layers kept")
                axis.xaxis.set_major_locator(MaxNLocator(integer=True))
                axis.invert_xaxis()
            else:
                axis.set_xlabel(study.axes.get(view.x, view.x))
            axis.grid(alpha=0.3)
            if cell.empty:
                axis.set_axis_off()
        axes[row][0].set_ylabel("WER (%)")
        top = 100 * table[table["encoder_name"] == encoder]["wer_high"].max()
        axes[row][0].set_ylim(0, min(CEILING, 1.08 * top) if top > 0 else None)
    legend(figure, axes)
    return figure


def draw_curves(axis: Any, cell: pd.DataFrame, study: StudyResults, view: View) -> None:
    """Colour and marker say the mode, the dash pattern what else tells the curves apart."""
    dashes: dict[str, str] = {}
    for values, curve in keyed(cell, view.curves["by"]):
        mode, further = values.get("mode", "projector"), view.told_apart(study, values)
        dash = dashes.setdefault(further, DASHES[len(dashes) % len(DASHES)])
        along, wer = curve[view.x], 100 * curve["wer"]
        errors = [100 * (curve["wer"] - curve["wer_low"]), 100 * (curve["wer_high"] - curve["wer"])]
        axis.errorbar(
            along, wer, yerr=[error.clip(lower=0) for error in errors], color=COLOURS[mode],
            marker=MARKERS[mode], capsize=3, linestyle=dash,
            label=(MODES[mode] if "mode" in values else "") + further,
        )  # fmt: skip


def draw_baseline(axis: Any, baselines: pd.DataFrame, encoder: str, language: str) -> None:
    if baselines.empty:
        return
    found = baselines[(baselines["encoder_name"] == encoder) & (baselines["language"] == language)]
    for wer in found["wer"]:
        axis.axhline(100 * wer, color="0.35", linestyle="--", label="Whisper, own decoder")


def plot_lora_gain(study: StudyResults, view: View) -> Any | None:
    """Points of WER won by LoRA, full encoder against shallowest cut (Table 5)."""
    gains = lora_gain(study.runs, **view.curves)
    if gains.empty:
        return None
    names = [condition(study, view, row) for row in each_row(gains)]
    figure, axes = panels(1, 1, width=max(4.5, broad(names, 1.3)))
    bars(axes[0][0], names, {"whole encoder": 100 * gains["full"], "after the cut": 100 * gains["pruned"]})
    axes[0][0].set_ylabel("points of WER won by LoRA")
    legend(figure, axes)
    return figure


def plot_error_change(study: StudyResults, view: View) -> Any | None:
    """Change of each kind of error by LoRA after the shallowest cut (Table 7)."""
    change = error_change(study.runs, **view.curves)
    if change.empty:
        return None
    names = [condition(study, view, row) for row in each_row(change)]
    kinds = ("substitutions", "insertions", "deletions", "total")
    figure, axes = panels(1, 1, width=max(4.5, broad(names, 1.8)))
    bars(axes[0][0], names, {kind: 100 * change[kind].astype(float) for kind in kinds})
    axes[0][0].set_ylabel("change with LoRA (%)")
    legend(figure, axes)
    return figure


def condition(study: StudyResults, view: View, row: Any) -> str:
    """Encoder, language and what else keeps runs apart, for the foot of a group of bars."""
    further = view.told_apart(study, {column: getattr(row, column) for column in beside_mode(view.by or ())})
    return f"{row.encoder_name}\n{language_name(row.language)}" + further.replace(", ", "\n")


def broad(names: list[str], least: float) -> float:
    """Inches for groups of bars with these feet, each at least `least`."""
    longest = max(len(line) for name in names for line in name.splitlines())
    return len(names) * max(least, 0.085 * longest)


def bars(axis: Any, names: list[str], series: dict[str, pd.Series]) -> None:
    width = 0.8 / len(series)
    colours = ["#56b4e9", "#e69f00", "#009e73", "#444444"]
    for number, (label, values) in enumerate(series.items()):
        places = [place - 0.4 + (number + 0.5) * width for place in range(len(names))]
        axis.bar(places, values, width, label=label, color=colours[number])
    axis.axhline(0, color="0.2", linewidth=0.8)
    axis.set_xticks(range(len(names)), names)
    axis.grid(axis="y", alpha=0.3)


def plot_pareto(study: StudyResults, view: View) -> Any:
    """WER against encoder and LoRA parameters; runs that none beats in WER, size and speed are filled."""
    front = pareto_front(study.runs, by=[*view.curves["by"], *study.axes])
    languages = list(front["language"].unique())
    figure, axes = panels(1, len(languages), width=4.6)
    for axis, language in zip(axes[0], languages, strict=True):
        for run in each_row(front[front["language"] == language]):
            place, colour = (run.parameters / 1e6, 100 * run.wer), COLOURS[run.mode]
            axis.plot(*place, MARKERS[run.mode], color=colour, mfc=colour if run.on_front else "none")
            further = "".join(f" {plain(getattr(run, axis))}" for axis in study.axes)
            label = f"{run.encoder_name} {run.keep_layers}L{further}"
            axis.annotate(label, place, fontsize=7, xytext=(4, 4), textcoords="offset points")
        for mode, title in MODES.items():
            axis.plot([], [], MARKERS[mode], color=COLOURS[mode], label=title)
        axis.plot([], [], "o", color="0.3", mfc="none", label="hollow: beaten by another run")
        axis.set(
            title=language_name(language), xlabel="encoder and LoRA (million parameters)", ylabel="WER (%)"
        )
        axis.margins(0.18, 0.1)
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    return figure


def plot_lengths(study: StudyResults, view: View) -> Any:
    """WER by length of the clip: the whole encoder and the shallowest cut, with and without LoRA."""
    cuts = shallowest_cuts(study.runs)
    shown = study.runs[
        (study.runs["keep_layers"] == study.runs["encoder_layers"])
        | (study.runs["keep_layers"] == study.runs["encoder_name"].map(cuts))
    ]
    table = wer_by_length(dataclasses.replace(study, runs=shown))
    conditions = list(keyed(table, [*CURVE, *beside_mode(view.by or ())]))
    figure, axes = panels(1, len(conditions), width=4.4)
    for axis, (key, cell) in zip(axes[0], conditions, strict=True):
        encoder, language = key["encoder_name"], key["language"]
        for (layers, mode), line in groups(cell, ["keep_layers", "mode"]):
            line = line.groupby(["longest", "seconds"])["wer"].mean().reset_index()
            axis.plot(
                line["seconds"], 100 * line["wer"], color=COLOURS[mode], marker=MARKERS[mode],
                linestyle="--" if layers == cuts.get(encoder) else "-", label=f"{layers}L, {MODES[mode]}",
            )  # fmt: skip
        axis.set(
            title=f"{encoder}, {language_name(language)}" + view.told_apart(study, key),
            xlabel="length of the clip (s)", ylabel="WER (%)",
        )  # fmt: skip
        axis.set_ylim(0, None)
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    return figure


def legend(figure: Any, axes: Any) -> None:
    """One legend for all panels, below them."""
    entries = {}
    for axis in axes.flat:
        entries.update(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    inches = max(1.8, 0.09 * max(map(len, entries), default=0))  # of an entry
    fitting = max(1, int(figure.get_figwidth() // inches))
    figure.legend(
        entries.values(), entries.keys(), loc="outside lower center", ncols=min(fitting, len(entries))
    )


# File name -> (caption, what draws it; None if the study has nothing to draw).
PLOTS: dict[str, Plot] = {
    "wer_by_depth": (
        "WER against kept encoder layers, with 95 % intervals over utterances (of several seeds: the range).",
        plot_curves,
    ),
    "lora_gain": (
        "Points of WER that LoRA wins, on the whole encoder and after the shallowest cut.",
        plot_lora_gain,
    ),
    "error_change": (
        "What LoRA does to each kind of word error after the shallowest cut.",
        plot_error_change,
    ),
    "pareto": ("WER against the parameters of encoder and LoRA.", plot_pareto),
    "wer_by_length": ("WER by length of the clip, whole encoder and shallowest cut.", plot_lengths),
}


def plots_of(study: StudyResults, view: View) -> dict[str, Plot]:
    """The report's own plots and the view's; along another axis than depth those that can be drawn there."""
    if view.along_depth:
        return PLOTS | dict(view.plots)
    caption = PLOTS["wer_by_depth"][0].replace("kept encoder layers", study.axes.get(view.x, view.x))
    return {f"wer_by_{view.x}": (caption, plot_curves), "pareto": PLOTS["pareto"]} | dict(view.plots)


def save_plots(study: StudyResults, directory: Path, view: View) -> dict[str, str]:
    """Draw everything into `directory` as SVG and PNG; returns name -> caption of what was drawn."""
    directory.mkdir(parents=True, exist_ok=True)
    captions = {}
    with plt.rc_context({"svg.hashsalt": "slam-asr", "font.size": 9}):
        for name, (caption, draw) in plots_of(study, view).items():
            figure = draw(study, view)
            if figure is None:
                continue
            figure.savefig(directory / f"{name}.svg", metadata={"Date": None})
            figure.savefig(directory / f"{name}.png", dpi=150)
            plt.close(figure)
            captions[name] = caption
    return captions
