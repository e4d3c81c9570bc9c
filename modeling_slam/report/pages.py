"""A study's report: Markdown, HTML, CSV and LaTeX tables, plots, and the error browser, in one directory.

    python -m modeling_slam.study report runs/digits-study --clips 20

writes `report.html` and `report.md`, `tables/*.csv` and `*.tex`, `plots/*.svg` and `*.png`, `errors.html`
and, with `--clips`, `clips/*.ogg`. Everything follows from the predictions, so a report is made as often as
one likes, also of a study that is not finished. The directory is made beside its place and moved there when
it is whole.
"""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from modeling_slam.analysis.frames import each_row
from modeling_slam.analysis.results import StudyResults, shown_rates
from modeling_slam.evaluation.metrics import METRICS
from modeling_slam.report.browser import write_browser
from modeling_slam.report.clips import write_clips
from modeling_slam.report.main_tables import TRANSCRIPTS
from modeling_slam.report.plots import save_plots
from modeling_slam.report.sections import report_tables
from modeling_slam.report.view import View
from modeling_slam.report.written import RUNS, ReportTable, language_name, millions, mode_name, percent

PAGES = ("report.html", "report.md")


def write_report(
    study_dir: str | Path,
    output: str | Path | None = None,
    view: View | None = None,
    clips: int = 0,
    withhold: Sequence[str] = (),
) -> Path:
    """Write the report of the study in `study_dir`; returns its directory.

    Args:
        view: along which axis, and whose numbers stand beside ours; kept layers, and nobody's, if not given.
        clips: of each language, in the error browser.
        withhold: languages whose texts and clips are not quoted: Table 6 counts theirs, the browser has none.

    Raises:
        ValueError: no run is finished, the study has no such language or axis, or `output` is a directory
            that holds something else.
    """
    study = StudyResults.load(study_dir)
    languages = list(study.runs["language"].unique())
    if unknown := [language for language in withhold if language not in languages]:
        raise ValueError(f"`withhold` names {unknown}; the study's languages are {languages}.")
    view = (view or View()).of(study)
    directory = Path(output) if output is not None else Path(study_dir) / "report"
    check_replaceable(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as scratch:
        made = Path(scratch) / directory.name
        made.mkdir()
        write_into(made, study, view, clips, withhold)
        if directory.exists():
            directory.rename(Path(scratch) / "before")
        made.rename(directory)
    return directory


def check_replaceable(directory: Path) -> None:
    """Refuse, before any work, to replace a directory that is no report."""
    if directory.exists() and any(directory.iterdir()) and not (directory / PAGES[0]).is_file():
        raise ValueError(
            f"{directory} holds something other than a report. Name another `--output`, or empty it."
        )


def write_into(directory: Path, study: StudyResults, view: View, clips: int, withhold: Sequence[str]) -> None:
    tables = [without_texts(table, withhold) for table in report_tables(study, view)]
    quoted = dataclasses.replace(study, runs=study.runs[~study.runs["language"].isin(withhold)])
    (directory / "tables").mkdir()
    for table in tables:
        save_table(table, directory / "tables")
    captions = save_plots(study, directory / "plots", view)
    audio = write_clips(quoted, directory / "clips", clips) if clips else {}
    browsed = write_browser(quoted, directory / "errors.html", audio) if len(quoted.runs) else []
    study.runs.map(without_directory).to_csv(directory / "tables" / "runs.csv", index=False)
    templates = Environment(
        loader=PackageLoader("modeling_slam.report", "templates"),
        autoescape=lambda name: name is not None and name.startswith("report.html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    context = {
        "study": study,
        "tables": tables,
        "captions": captions,
        "runs": run_list(study.runs),
        "rates": [METRICS[name].title for name in shown_rates(study.runs)],
        "whisper_rules": "; ".join(sorted(set(study.runs["whisper_rules"]))),
        "browsed": set(browsed),
        "withheld": ", ".join(map(language_name, withhold)),
        "others": view.others,
        "commits": ", ".join(sorted(set(study.runs["commit"].dropna()))),
        "markdown": to_markdown,
    }
    for page in PAGES:
        text = templates.get_template(f"{page}.jinja").render(context)
        (directory / page).write_text(text.rstrip() + "\n", encoding="utf-8")


def without_directory(value: Any) -> Any:
    """The last part of a directory of this machine, or of several; anything else as it is."""
    if not isinstance(value, str):
        return value
    return " + ".join(Path(one).name if Path(one).is_absolute() else one for one in value.split(" + "))


def without_texts(table: ReportTable, languages: Sequence[str]) -> ReportTable:
    """A table that quotes transcripts, with empty cells for these languages; any other as it is."""
    if not TRANSCRIPTS.keys() <= set(table.data.columns):
        return table
    data, shown = table.data.copy(), table.shown.copy()
    data.loc[data["language"].isin(languages), list(TRANSCRIPTS)] = ""
    names = [language_name(language) for language in languages]
    shown.loc[shown["language"].isin(names), list(TRANSCRIPTS.values())] = ""
    return dataclasses.replace(table, data=data, shown=shown)


def save_table(table: ReportTable, directory: Path) -> None:
    """`NAME.csv` with plain numbers, `NAME.tex` as it is shown."""
    table.data.to_csv(directory / f"{table.name}.csv", index=False)
    caption = escape_latex(f"{table.title}. {table.note}")
    written = table.shown.drop(columns=RUNS, errors="ignore").map(escape_latex).rename(columns=escape_latex)
    latex = written.to_latex(index=False, escape=False, caption=caption, label=f"tab:{table.name}")
    (directory / f"{table.name}.tex").write_text(latex, encoding="utf-8")


def escape_latex(text: Any) -> str:
    """Characters that LaTeX reads as commands, written so that they are printed."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {character: f"\\{character}" for character in "&%$#_{}"} | {"<": "$<$", ">": "$>$"}
    return "".join(special.get(character, character) for character in str(text))


def to_markdown(table: ReportTable) -> str:
    """A Markdown table; a cell links to the lines of its runs in the list of runs."""
    cells = table.shown.map(lambda value: str(value).replace("|", "\\|")).astype(object)
    for (row, column), names in table.links.items():
        if names and cells.loc[row, column]:
            texts = [bracketed(cells.loc[row, column]), *map(str, range(2, len(names) + 1))]
            pairs = zip(texts, names, strict=True)
            cells.loc[row, column] = ", ".join(f"[{text}](#run-{name})" for text, name in pairs)
    return cells.to_markdown(index=False, disable_numparse=True)


def bracketed(text: str) -> str:
    """Text that may stand inside a Markdown link: its own brackets escaped."""
    return text.replace("[", "\\[").replace("]", "\\]")


def run_list(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """What the last section says about each run."""
    rates = shown_rates(runs)
    return [
        {
            "name": run.name,
            "encoder": run.encoder_name,
            "layers": f"{run.keep_layers} of {run.encoder_layers}",
            "language": language_name(run.language),
            "mode": mode_name(run.mode),
            "seed": run.seed,
            "wer": percent(run.wer, 2),
            "interval": f"{percent(run.wer_low)} to {percent(run.wer_high)}",
            "speaker_interval": (
                f"{percent(run.speaker_low)} to {percent(run.speaker_high)} ({run.speakers})"
                if pd.notna(run.speaker_low)
                else ""
            ),
            "rates": {METRICS[name].title: percent(getattr(run, name), 2) for name in rates},
            "errors": f"{run.substitutions} / {run.deletions} / {run.insertions}",
            "words": f"{run.reference_words:,}",
            "parameters": f"{millions(run.encoder_parameters)} + {millions(run.lora_parameters)}",
            "factor": f"{run.real_time_factor:.3f}",
            "minutes": f"{run.train_seconds / 60:.1f}",
            "commit": run.commit or "",
        }
        for run in each_row(runs)
    ]
