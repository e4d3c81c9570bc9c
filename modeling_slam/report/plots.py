"""The study's pictures, as SVG for pages and PNG for slides.

What colours and dashes say stands in `line_styles.py`. A picture of several panels side by side comes a
second time with one below the other, for phones. SVG files are the same to the byte for the same results, so
a committed report changes only where its numbers do.
"""

import dataclasses
import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")  # files only, so a machine without a screen will do

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

from modeling_slam.analysis.breakdowns import wer_by_length
from modeling_slam.analysis.curves import pareto_front, priced_parts
from modeling_slam.analysis.frames import beside_mode, each_row, groups, keyed
from modeling_slam.analysis.results import CURVE, StudyResults
from modeling_slam.analysis.tables import MODES, error_change, lora_gain, shallowest_cuts, wer_table
from modeling_slam.common.files import write_bytes
from modeling_slam.report.depth_front import caption as front_caption
from modeling_slam.report.depth_front import plot_depth_front
from modeling_slam.report.line_styles import COLOURS, MARKERS, line_styles
from modeling_slam.report.view import Plot, View
from modeling_slam.report.written import language_name, plain, written_axis

BASELINE = "Whisper with its own decoder"
CEILING = 150  # % of WER; what loops run up beyond it is cut off, so that the rest can be read


def panels(view: View, rows: int, columns: int, width: float = 3.8) -> tuple[Any, Any]:
    """A figure and its axes, (rows, columns); on a narrow page the panels stand one below the other."""
    placed = (rows * columns, 1) if view.narrow else (rows, columns)
    size = (width * placed[1], 3.2 * placed[0])
    figure, axes = plt.subplots(*placed, figsize=size, squeeze=False, layout="constrained")
    return figure, axes.reshape(rows, columns)


def label_rows(view: View, axes: Any, text: str) -> None:
    """What the vertical axes show, said where it is read: once a row, or below each other on each."""
    for axis in axes.flat if view.narrow else axes[:, 0]:
        axis.set_ylabel(text)


def plot_curves(study: StudyResults, view: View) -> Any:
    """WER along the view's axis: a column a language, a row an encoder and what else makes panels."""
    table = wer_table(study.runs, **view.curves)
    rows = list(keyed(table, view.panels)) if view.panels else [({}, table)]
    languages = list(table["language"].unique()) if view.by_language else [None]
    styles = line_styles(table, view)
    figure, axes = panels(view, len(rows), len(languages))
    for row, (values, of_row) in enumerate(rows):
        encoder = values.get("encoder_name")
        theirs = [baselines_of(study, language, encoder) for language in languages]
        highest = max([of_row["wer_high"].max(), *(wer for _, wer in itertools.chain(*theirs))])
        for column, language in enumerate(languages):
            axis = axes[row][column]
            cell = of_row if language is None else of_row[of_row["language"] == language]
            axis.set_title(panel_title(study, view, values, language))
            draw_curves(axis, cell, study, view, styles)
            axis.set_xlabel(
                "encoder layers kept" if view.along_depth else written_axis(view.x, study.axes)[0]
            )
            axis.grid(alpha=0.3)
            if cell.empty:
                axis.set_axis_off()
            axis.set_ylim(0, min(CEILING, 108 * highest) if highest > 0 else None)
            draw_baselines(axis, theirs[column])
    label_rows(view, axes, "WER (%)")
    legend(figure, axes)
    return figure


def panel_title(study: StudyResults, view: View, values: Mapping[str, Any], language: str | None) -> str:
    """Encoder, language and what else the lines of a panel share, where runs differ in it."""
    parts = [values[name] for name in ("encoder_name",) if name in values]
    parts += [language_name(language)] if language is not None else []
    shared = [axis for axis in view.panels if axis != "encoder_name" and study.runs[axis].nunique() > 1]
    parts += [MODES[values["mode"]]] if "mode" in shared else []
    return (", ".join(parts) + view.told_apart(study, values, shared)).removeprefix(", ")


def draw_curves(
    axis: Any, cell: pd.DataFrame, study: StudyResults, view: View, styles: Mapping[tuple[Any, ...], Any]
) -> None:
    """The lines of one panel; values of `x` that are no numbers stand side by side and are not joined."""
    values = list(dict.fromkeys(cell[view.x]))
    for key, curve in keyed(cell, view.lines):
        style = styles[tuple(key.values())]
        along = curve[view.x]
        if not view.ordered:
            aside = 0.6 * (list(styles).index(tuple(key.values())) - (len(styles) - 1) / 2) / len(styles)
            along = [values.index(value) + aside for value in along]
        wer = 100 * curve["wer"]
        errors = [100 * (curve["wer"] - curve["wer_low"]), 100 * (curve["wer_high"] - curve["wer"])]
        label = MODES.get(key.get("mode", ""), "") + view.told_apart(study, key, view.lines)
        axis.errorbar(
            along, wer, yerr=[error.clip(lower=0) for error in errors], capsize=3, **style,
            label=label.removeprefix(", "),
        )  # fmt: skip
    if not view.ordered:
        write = written_axis(view.x, study.axes)[1]
        turned = {"rotation": 30, "ha": "right"} if len(values) > 4 else {}
        axis.set_xticks(range(len(values)), [write(value) for value in values], **turned)
        axis.set_xlim(-0.6, len(values) - 0.4)
    elif view.along_depth:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.invert_xaxis()


def baselines_of(
    study: StudyResults, language: str | None, encoder: str | None = None
) -> list[tuple[str, float]]:
    """(encoder, WER) of each Whisper with its own decoder that a language has, or one encoder of it."""
    found = study.baselines
    if found.empty or language is None:
        return []
    found = found[found["language"] == language]
    rows = found if encoder is None else found[found["encoder_name"] == encoder]
    return list(zip(rows["encoder_name"], rows["wer"], strict=True))


def draw_baselines(axis: Any, baselines: Sequence[tuple[str, float]]) -> None:
    """A line across the panel, named on it; at the panel's edge where the WER is beyond."""
    top = axis.get_ylim()[1]
    for encoder, wer in baselines:
        height, beyond = min(100 * wer, top), 100 * wer > top
        axis.axhline(height, color="black", linewidth=1.8, linestyle=(0, (5, 2)), label=BASELINE, zorder=3)
        said = f"Whisper {encoder}: {100 * wer:.1f}" + (" (above)" if beyond else "")
        below = height > 0.9 * top
        axis.annotate(
            said, (0.98, height), xycoords=("axes fraction", "data"), xytext=(0, -3 if below else 3),
            textcoords="offset points", ha="right", va="top" if below else "bottom", fontsize=7.5,
            bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.8}, zorder=4,
        )  # fmt: skip


def plot_lora_gain(study: StudyResults, view: View) -> Any | None:
    """Points of WER won by LoRA, full encoder against shallowest cut (Table 5)."""
    gains = lora_gain(study.runs, **view.curves)
    if gains.empty:
        return None
    names = [condition(study, view, row) for row in each_row(gains)]
    figure, axes = panels(view, 1, 1, width=max(4.5, broad(names, 1.3)))
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
    figure, axes = panels(view, 1, 1, width=max(4.5, broad(names, 1.8)))
    bars(axes[0][0], names, {kind: 100 * change[kind].astype(float) for kind in kinds})
    axes[0][0].set_ylabel("change with LoRA (%)")
    legend(figure, axes)
    return figure


def condition(study: StudyResults, view: View, row: Any) -> str:
    """Encoder, language and what else keeps runs apart, for the foot of a group of bars."""
    further = view.told_apart(study, {column: getattr(row, column) for column in beside_mode(view.by)})
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
    figure, axes = panels(view, 1, len(languages), width=4.6)
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
            title=language_name(language), xlabel=f"{priced(study)} (million parameters)", ylabel="WER (%)"
        )
        axis.margins(0.18, 0.1)
        baselines = baselines_of(study, language)
        own = 115 * front[front["language"] == language]["wer"].max()
        theirs = min(CEILING, 108 * max([wer for _, wer in baselines], default=0.0))
        axis.set_ylim(0, max(own, theirs, 1.0))
        draw_baselines(axis, baselines)
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
    conditions = list(keyed(table, [*CURVE, *beside_mode(view.by)]))
    figure, axes = panels(view, 1, len(conditions), width=4.4)
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
        axis.set_ylim(0, max(1.0, 110 * cell["wer"].max()))
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


def curve_caption(study: StudyResults, view: View) -> str:
    along = "kept encoder layers" if view.along_depth else written_axis(view.x, study.axes)[0]
    caption = f"WER against {along}, with 95 % intervals over utterances."
    if wer_table(study.runs, **view.curves)["seeds"].max() > 1:
        caption = f"{caption[:-1]} (of several seeds: mean and range)."
    return caption + (
        "" if study.baselines.empty else " Dashed line: the whole Whisper with its own decoder."
    )


def priced(study: StudyResults) -> str:
    """What the parameters of `pareto_front` are of."""
    *others, last = priced_parts(study.runs)
    return f"{', '.join(others)} and {last}"


def pareto_caption(study: StudyResults, view: View) -> str:
    return f"WER against the parameters of {priced(study)}."


def length_caption(study: StudyResults, view: View) -> str:
    cut = " and shallowest cut" if shallowest_cuts(study.runs) else ""
    return f"WER by length of the clip, whole encoder{cut}."


# File name -> (caption, what draws it; None if the study has nothing to draw).
PLOTS: dict[str, Plot] = {
    "wer_by_depth": (curve_caption, plot_curves),
    "lora_gain": (
        "Points of WER that LoRA wins, on the whole encoder and after the shallowest cut.",
        plot_lora_gain,
    ),
    "error_change": (
        "What LoRA does to each kind of word error after the shallowest cut.",
        plot_error_change,
    ),
    "pareto": (pareto_caption, plot_pareto),
    "depth_front": (front_caption, plot_depth_front),
    "wer_by_length": (length_caption, plot_lengths),
}


def plots_of(view: View) -> dict[str, Plot]:
    """The report's own plots and the view's; along another axis than depth those that can be drawn there."""
    if view.along_depth:
        return PLOTS | dict(view.plots)
    kept = {name: PLOTS[name] for name in ("pareto", "depth_front")}
    return {f"wer_by_{view.x}": PLOTS["wer_by_depth"]} | kept | dict(view.plots)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A plot that was drawn.

    Attributes:
        caption: below it.
        narrow: whether there is one of its panels below each other, `NAME-narrow.svg`.
    """

    caption: str
    narrow: bool


def save_plots(study: StudyResults, directory: Path, view: View) -> dict[str, Drawn]:
    """Draw everything into `directory` as SVG and PNG; returns what was drawn, by name."""
    directory.mkdir(parents=True, exist_ok=True)
    drawn = {}
    with plt.rc_context({"svg.hashsalt": "slam-asr", "font.size": 9}):
        for name, (said, draw) in plots_of(view).items():
            figure = draw(study, view)
            if figure is None:
                continue
            caption = said if isinstance(said, str) else said(study, view)
            columns = {round(axis.get_position().x0, 2) for axis in figure.axes}
            drawn[name] = Drawn(caption, narrow=len(columns) > 1)
            save_figure(figure, directory / f"{name}.svg", metadata={"Date": None})
            save_figure(figure, directory / f"{name}.png", dpi=150)
            if drawn[name].narrow:
                below_each_other = draw(study, dataclasses.replace(view, narrow=True))
                save_figure(below_each_other, directory / f"{name}-narrow.svg", metadata={"Date": None})
    return drawn


def save_figure(figure: Any, file: Path, **options: Any) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format=file.suffix[1:], **options)
    write_bytes(file, picture.getvalue())
    plt.close(figure)
