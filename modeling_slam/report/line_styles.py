"""How the lines of a plot look: one colour, marker and dash pattern for what a line stands for."""

from typing import Any

import pandas as pd

from modeling_slam.analysis.frames import keyed
from modeling_slam.report.view import View

COLOURS = {"projector": "#0072b2", "lora": "#d55e00"}  # told apart with any colour vision
MARKERS = {"projector": "o", "lora": "s"}
DASHES = ("-", "--", ":", "-.")
MANY_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444")
MANY_MARKERS = "osD^vPX<"


def line_styles(table: pd.DataFrame, view: View) -> dict[tuple[Any, ...], dict[str, Any]]:
    """How each line is drawn, by its values of `view.lines`.

    Colour and marker say the mode, and dashes what else tells lines apart. Where that is more than there are
    dashes, or the mode is no line, it is the other way round; points that are not joined differ in colour.
    """
    names = list(view.lines)
    lines = [tuple(values.values()) for values, _ in keyed(table, names)]
    modes = [dict(zip(names, line, strict=True)).get("mode", "projector") for line in lines]
    kinds = [tuple(v for name, v in zip(names, line, strict=True) if name != "mode") for line in lines]
    told = list(dict.fromkeys(kinds)) if view.ordered else lines
    styles: dict[tuple[Any, ...], dict[str, Any]] = {}
    for line, mode, kind in zip(lines, modes, kinds, strict=True):
        number = told.index(kind if view.ordered else line)
        style = {
            "color": MANY_COLOURS[number % len(MANY_COLOURS)],
            "marker": MANY_MARKERS[number % len(MANY_MARKERS)],
        }
        if view.ordered and "mode" in names and len(told) <= len(DASHES):
            style = {"color": COLOURS[mode], "marker": MARKERS[mode], "linestyle": DASHES[number]}
        elif view.ordered:
            style["linestyle"] = "--" if mode == "lora" and len(set(modes)) > 1 else "-"
        else:
            style["linestyle"] = "none"
        styles[line] = style
    return styles
