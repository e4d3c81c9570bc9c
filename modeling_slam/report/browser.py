"""The error browser: one HTML file with every utterance and what each run made of it.

It opens from disk without a server: texts and alignments are in the page as JSON, clips are files beside it.
A right transcript costs one character in the page, and the list shows one page of utterances at a time, so
test sets of ten thousand clips stay quick.
"""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from modeling_slam.analysis.error_types import RULES, SEVERE_WER, error_type
from modeling_slam.analysis.frames import each_row
from modeling_slam.analysis.results import StudyResults
from modeling_slam.analysis.tables import shallowest_cuts
from modeling_slam.common.files import write_text
from modeling_slam.report.view import View
from modeling_slam.report.written import language_name, mode_name, plain

# Above this many transcripts a page takes long to open; then only the runs the paper compares are shown.
MOST_TRANSCRIPTS = 400_000


def write_browser(
    study: StudyResults,
    file: Path,
    clips: Mapping[tuple[str, str], str] | None = None,
    view: View | None = None,
) -> list[str]:
    """Write the page, with the utterances that the view quotes; returns the names of the runs in it.

    `clips` maps (language, utterance id) to an audio file, as a path from the page's directory.
    """
    runs = shown_runs(study)
    text = script_json(browser_data(study, runs, clips or {}, view or View()))
    templates = Environment(
        loader=PackageLoader("modeling_slam.report", "templates"), autoescape=True, undefined=StrictUndefined
    )
    page = templates.get_template("browser.html.jinja").render(
        name=study.name,
        data=text,
        style=asset("browser.css"),
        script=asset("browser.js"),
        left_out=len(study.runs) - len(runs),
    )
    write_text(file, page)
    return list(runs["name"])


def script_json(data: Any) -> str:
    """JSON that may stand in a script element, whatever its strings hold.

    `</script` would end the element and `<!--<script` keep it from ending, so no `<` stays.
    """
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def asset(name: str) -> str:
    return (files("modeling_slam.report") / "templates" / name).read_text(encoding="utf-8")


def shown_runs(study: StudyResults) -> pd.DataFrame:
    """All runs, or for a large study the whole encoders and the shallowest cuts."""
    runs = study.runs
    if runs["utterances"].sum() <= MOST_TRANSCRIPTS:
        return runs
    cuts = runs["encoder_name"].map(shallowest_cuts(runs))
    return runs[(runs["keep_layers"] == runs["encoder_layers"]) | (runs["keep_layers"] == cuts)]


def browser_data(
    study: StudyResults, runs: pd.DataFrame, clips: Mapping[tuple[str, str], str], view: View
) -> dict[str, Any]:
    """What the page's script reads.

    `utterances` holds [id, language, reference, seconds, speaker, clip]; `runs` an entry each with
    `transcripts`: a list as long as `utterances`, of 0 (as the reference), null (not in this run's test set)
    or [text, alignment as in `StudyResults.utterances`, kind of error].
    """
    places: dict[tuple[str, str], int] = {}
    utterances: list[list[Any]] = []
    for run in each_row(runs):
        for clip in each_row(quoted(study, run.name, view)):
            key = (run.language, clip.id)
            if key not in places:
                places[key] = len(utterances)
                speaker = None if pd.isna(clip.speaker) else clip.speaker
                utterances.append(
                    [clip.id, run.language, clip.reference, round(clip.duration, 2), speaker, clips.get(key)]
                )
    entries = [
        {
            "name": run.name,
            "title": f"{run.encoder_name} {run.keep_layers}L {mode_name(run.mode)}, "
            f"{language_name(run.language)}, "
            + "".join(f"{title} {plain(getattr(run, axis))}, " for axis, title in study.axes.items())
            + f"seed {run.seed}",
            "language": run.language,
            "wer": round(run.wer, 5),
            "transcripts": transcripts_of(quoted(study, run.name, view), run.language, places, utterances),
        }
        for run in each_row(runs)
    ]
    languages = {code: language_name(code) for code in dict.fromkeys(runs["language"])}
    return {
        "languages": languages,
        "kinds": list(RULES),
        "severe": SEVERE_WER,
        "utterances": utterances,
        "runs": entries,
    }


def quoted(study: StudyResults, run: str, view: View) -> pd.DataFrame:
    """The utterances of a run that the view quotes, with their ids."""
    frame = study.utterances(run)
    return frame[view.quotes(frame)].reset_index()


def transcripts_of(
    frame: pd.DataFrame, language: str, places: Mapping[tuple[str, str], int], utterances: Sequence[list[Any]]
) -> list[Any]:
    """One run's `transcripts`, at the places of its utterances.

    Raises:
        ValueError: two runs have different references for one utterance.
    """
    found: list[Any] = [None] * len(utterances)
    for clip in each_row(frame):
        place = places[language, clip.id]
        if utterances[place][2] != clip.reference:
            raise ValueError(
                f"{clip.run} has another reference for {clip.id} than the runs before it. A study compares "
                "runs on one test set a language."
            )
        kind = error_type(clip.reference, clip.prediction, clip.raw_reference, clip.language)
        found[place] = [clip.prediction, clip.alignment, kind] if kind else 0
    return found
