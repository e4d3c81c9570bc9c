"""A study's report: Markdown, HTML, CSV and LaTeX tables, plots, and the error browser, in one directory.

    python -m modeling_slam.study report runs/digits-study --clips 20

writes `report.html` and `report.md`, `tables/*.csv` and `*.tex`, `plots/*.svg` and `*.png`, `errors.html`
and, with `--clips`, `clips/*.ogg`. Everything follows from the predictions, so a report is made as often as
one likes, also of a study that is not finished. The directory is made beside its place and moved there when
it is whole.
"""

import contextlib
import dataclasses
import errno
import itertools
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from modeling_slam.analysis.convergence import not_converged
from modeling_slam.analysis.results import StudyResults
from modeling_slam.common.files import DiskFullError, write_text
from modeling_slam.report.browser import asset, write_browser
from modeling_slam.report.clips import write_clips
from modeling_slam.report.plots import save_plots
from modeling_slam.report.run_list import note_of, run_list
from modeling_slam.report.sections import report_tables
from modeling_slam.report.summary import summary, warnings
from modeling_slam.report.view import View
from modeling_slam.report.written import RUNS, ReportTable, language_name

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
        withhold: languages and datasets, by the last part of their names, whose texts and clips are not
            quoted: Table 6 counts theirs, the browser has none.

    Raises:
        ValueError: no run is finished, the study has no such language, dataset or axis, `output` is a
            directory that holds something else, or clips are asked for and only counts were kept.
    """
    study = StudyResults.load(study_dir)
    view = dataclasses.replace((view or View()).of(study), withhold=withhold)
    check_withheld(study, withhold)
    if clips:
        check_texts(study)
    directory = Path(output) if output is not None else Path(study_dir) / "report"
    check_replaceable(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as scratch:
        made = Path(scratch) / directory.name
        made.mkdir()
        try:
            write_into(made, study, view, clips)
        except DiskFullError as error:
            written = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
            shutil.rmtree(made)
            raise DiskFullError(directory, written + (error.needed or 0)) from error  # so much at least
        put_in_place(made, directory, Path(scratch))
    return directory


def check_withheld(study: StudyResults, withhold: Sequence[str]) -> None:
    """Refuse a name that the study does not have: what it stands for would be quoted."""
    if not withhold:
        return
    frames = [study.utterances(run) for run in study.runs["name"]]
    languages, datasets = (
        sorted({value for frame in frames for value in frame[column].dropna().unique()})
        for column in ("language", "dataset")
    )
    if unknown := [name for name in withhold if name not in (*languages, *datasets)]:
        raise ValueError(
            f"`withhold` names {unknown}; the study's languages are {languages}, its datasets {datasets}."
        )


def check_texts(study: StudyResults) -> None:
    """Refuse to show clips of runs of which only counts were kept."""
    if bare := [run for run in study.runs["name"] if study.is_without_text(run)]:
        raise ValueError(
            f"`clips` shows what runs heard, and of {', '.join(bare)} only the counts were kept, which hold "
            "no text. Leave `--clips` out, or run them again without `--results`."
        )


def put_in_place(made: Path, directory: Path, scratch: Path) -> None:
    """Give `made` the name `directory`; what has it goes into `scratch`. Others may do the same at once."""
    for number in itertools.count():
        with contextlib.suppress(FileNotFoundError):
            directory.rename(scratch / f"before-{number}")
        try:
            made.rename(directory)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return


def check_replaceable(directory: Path) -> None:
    """Refuse, before any work, to replace a directory that is no report."""
    if directory.exists() and any(directory.iterdir()) and not (directory / PAGES[0]).is_file():
        raise ValueError(
            f"{directory} holds something other than a report. Name another `--output`, or empty it."
        )


def write_into(directory: Path, study: StudyResults, view: View, clips: int) -> None:
    tables = report_tables(study, view)
    bare = [run for run in study.runs["name"] if study.is_without_text(run)]
    hidden = [
        run for run in study.runs["name"] if run in bare or not view.quotes(study.utterances(run)).any()
    ]
    quoted = dataclasses.replace(study, runs=study.runs[~study.runs["name"].isin(hidden)])
    (directory / "tables").mkdir()
    for table in tables:
        save_table(table, directory / "tables")
    plots = save_plots(study, directory / "plots", view)
    audio = write_clips(quoted, directory / "clips", clips, view) if clips else {}
    browsed = write_browser(quoted, directory / "errors.html", audio, view) if len(quoted.runs) else []
    runs = study.runs.map(without_directory)
    write_text(directory / "tables" / "runs.csv", runs.to_csv(index=False))
    templates = Environment(
        loader=PackageLoader("modeling_slam.report", "templates"),
        autoescape=lambda name: name is not None and name.startswith("report.html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    doubtful = not_converged(study)
    names = set(doubtful["name"])
    lines = run_list(study.runs, names, browsed)
    context = {
        "study": study,
        "summary": summary(study, view, names),
        "doubtful": warnings(doubtful),
        "tables": tables,
        "plots": plots,
        "runs": lines,
        "runs_note": note_of(lines, "; ".join(sorted(set(study.runs["whisper_rules"])))),
        "browsed": set(browsed),
        "withheld": ", ".join(map(language_name, view.withhold)),
        "bare": bare,
        "others": view.others,
        "commits": ", ".join(sorted(set(study.runs["commit"].dropna()))),
        "markdown": to_markdown,
        "style": asset("report.css"),
    }
    for page in PAGES:
        text = templates.get_template(f"{page}.jinja").render(context)
        write_text(directory / page, text.rstrip() + "\n")


def without_directory(value: Any) -> Any:
    """The last part of a directory of this machine, or of several; anything else as it is."""
    if not isinstance(value, str):
        return value
    return " + ".join(Path(one).name if Path(one).is_absolute() else one for one in value.split(" + "))


def save_table(table: ReportTable, directory: Path) -> None:
    """`NAME.csv` with plain numbers, `NAME.tex` as it is shown."""
    write_text(directory / f"{table.name}.csv", table.data.to_csv(index=False))
    caption = escape_latex(f"{table.title}. {table.note}")
    written = table.shown.drop(columns=RUNS, errors="ignore").map(escape_latex).rename(columns=escape_latex)
    latex = written.to_latex(index=False, escape=False, caption=caption, label=f"tab:{table.name}")
    write_text(directory / f"{table.name}.tex", latex)


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
