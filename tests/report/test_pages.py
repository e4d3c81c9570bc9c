"""The report on disk: everything is there, every number leads to its run, and nothing half-made is left."""

import html
import json
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from full_disk import full_disk
from made_study import predictions_of, row, spec_of, write_results, write_study

from modeling_slam.analysis import StudyResults
from modeling_slam.common.files import DiskFullError
from modeling_slam.paper.view import paper_view
from modeling_slam.report.browser import browser_data, write_browser
from modeling_slam.report.pages import escape_latex, put_in_place, write_report
from modeling_slam.report.plots import BASELINE, curve_caption, length_caption, plot_curves
from modeling_slam.report.run_list import note_of, run_list
from modeling_slam.report.sections import report_tables
from modeling_slam.report.summary import summary
from modeling_slam.report.view import View
from modeling_slam.report.written import RUNS, whole
from modeling_slam.study.__main__ import main


@pytest.fixture(scope="module")
def report(study_directory) -> Path:
    return write_report(study_directory, view=paper_view())


class Page(HTMLParser):
    """The ids of a page, and what it links to."""

    def __init__(self, file: Path):
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values[name] for name in ("href", "src") if name in values]


def test_links_of_the_page_lead_somewhere(report):
    page = Page(report / "report.html")
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        target, _, anchor = link.partition("#")
        if link.startswith("https:"):
            continue
        assert (report / target).exists(), link
        if not target:
            assert anchor in page.ids, link


def test_every_wer_of_table_2_leads_to_its_run(report, study):
    page, markdown = Page(report / "report.html"), (report / "report.md").read_text(encoding="utf-8")
    for name in study.runs["name"]:
        assert f"#run-{name}" in page.links
        assert f"](#run-{name})" in markdown
        assert f'<a id="run-{name}"></a>' in markdown
        assert f"errors.html#run={name}" in page.links


def test_every_row_of_ours_leads_to_runs_and_none_of_the_papers_does(study):
    own = "findings", "table2_wer", "baselines"  # questions; a run a cell; no runs
    tables = [table for table in report_tables(study, paper_view()) if table.name not in own]
    assert len(tables) >= 12
    for table in tables:
        for place, line in enumerate(table.shown.to_dict("records")):
            named = table.links.get((place, RUNS), [])
            assert set(named) <= set(study.runs["name"]), table.name
            # A curve without a safe cut follows from no cut.
            if line.get("whose") == "the paper" or line.get("layers removed") == "0":
                assert not named
            else:
                assert named, (table.name, line)


def test_a_comparison_leads_to_the_runs_compared(report, study):
    tables = {table.name: table for table in report_tables(study)}
    four = [f"base-{layers}L-{mode}-en-s42" for layers in (6, 4) for mode in ("projector", "lora")]
    assert sorted(tables["table5_lora_gain"].links[0, RUNS]) == sorted(four)
    assert ", [2](#run-" in (report / "report.md").read_text(encoding="utf-8")


def test_csv_has_plain_numbers_that_pandas_reads_back(report, study):
    table = pd.read_csv(report / "tables" / "table2_wer.csv")
    runs = study.runs.set_index("name")["wer"]
    assert len(table) == len(study.runs)
    for cell in table.itertuples():
        assert cell.wer == pytest.approx(runs[cell.runs])


def test_directories_of_this_machine_stand_nowhere(tmp_path):
    spec = spec_of(6, "projector", "en") | {
        "encoder": "/models/whisper-base",
        "dataset": ["/corpora/digits", "/corpora/more"],
    }
    report = write_report(write_study(tmp_path / "study", [(spec, [row(0, "one two", "one two")])]))
    runs = pd.read_csv(report / "tables" / "runs.csv")
    assert runs[["encoder", "dataset"]].values.tolist() == [["whisper-base", "digits + more"]]
    for file in report.rglob("*.*"):
        assert b"/models/" not in file.read_bytes(), file


def test_each_table_comes_in_every_format(report):
    page = Page(report / "report.html")
    names = {file.stem for file in (report / "tables").glob("*.tex")}
    assert len(names) >= 14
    for name in names:
        latex = (report / "tables" / f"{name}.tex").read_text(encoding="utf-8")
        assert latex.count("{") == latex.count("}")
        assert (report / "tables" / f"{name}.csv").is_file()
        assert name in page.ids


def test_plots_are_the_same_to_the_byte(report, study_directory, tmp_path):
    again = write_report(study_directory, tmp_path / "again", paper_view())
    for file in report.glob("plots/*.svg"):
        assert file.read_bytes() == (again / "plots" / file.name).read_bytes(), file.name


def test_without_the_paper_it_is_not_named(study_directory, tmp_path):
    main(["report", str(study_directory), "--output", str(tmp_path / "own")])
    text = (tmp_path / "own" / "report.md").read_text(encoding="utf-8")
    assert "2603.27981" not in text
    assert "the paper |" not in text


def test_only_a_report_is_replaced(study_directory, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="something other than a report"):
        write_report(study_directory, tmp_path / "mine")
    assert [file.name for file in tmp_path.rglob("*")] == ["mine", "thesis.tex"]


def test_latex_prints_what_it_would_read_as_a_command():
    assert escape_latex("50 % of a_b & {c} < \\") == r"50 \% of a\_b \& \{c\} $<$ \textbackslash{}"


def test_the_browser_holds_each_transcript_once(study):
    data = browser_data(study, study.runs, {("en", "en/clip-0003"): "clips/3.ogg"}, View())
    places = {(language, clip): place for place, (clip, language, *_) in enumerate(data["utterances"])}
    assert data["utterances"][places["en", "en/clip-0003"]][5] == "clips/3.ogg"
    for entry in data["runs"]:
        frame = study.utterances(entry["name"])
        right = sum(transcript == 0 for transcript in entry["transcripts"])
        assert right == (frame["errors"] == 0).sum()
        for clip in frame[frame["errors"] > 0].itertuples():
            text, alignment, kind = entry["transcripts"][places[entry["language"], clip.Index]]
            assert (text, alignment) == (clip.prediction, clip.alignment)
            assert kind


def test_text_cannot_end_the_pages_data(study, tmp_path, monkeypatch):
    name = study.runs["name"].iloc[0]
    frame = study.utterances(name).copy()
    frame.loc[frame.index[0], "prediction"] = "</script><script>alert(1)</script>"
    monkeypatch.setitem(study._utterances, name, frame)
    write_browser(study, tmp_path / "errors.html")
    page = (tmp_path / "errors.html").read_text(encoding="utf-8")
    assert page.count("</script>") == 2
    (data,) = re.findall(r'id="data">(.*?)</script>', page, re.DOTALL)
    assert "alert(1)" in json.dumps(json.loads(data))


def test_texts_that_are_withheld_stand_nowhere(tmp_path):
    texts = {"en": ["alpha bravo", "charlie delta"], "nl": ["echo foxtrot", "golf hotel"]}
    runs = []
    for language, said in texts.items():
        wrong = [f"{text.split()[0]} {' '.join(['lima'] * 9)}" for text in said]
        for layers, mode, heard in ((6, "projector", said), (4, "projector", wrong), (4, "lora", said)):
            rows = [row(i, a, b, language) for i, (a, b) in enumerate(zip(said, heard, strict=True))]
            runs.append((spec_of(layers, mode, language), rows))
    study = write_study(tmp_path / "study", runs)
    report = write_report(study, withhold=["nl"])
    readable = [file for file in report.rglob("*.*") if file.suffix != ".png"]
    files = {file.name: file.read_text(encoding="utf-8") for file in readable}
    assert "alpha bravo" in files["errors.html"]
    assert "alpha bravo" in files["table6_recovered.csv"]
    assert not [name for name, text in files.items() if "echo" in text or "hotel" in text]
    assert len(pd.read_csv(report / "tables" / "table6_recovered.csv")) == 4  # counted all the same
    none = write_report(study, tmp_path / "none", withhold=["en", "nl"])
    assert not (none / "errors.html").exists()
    assert "errors.html" not in "".join(Page(none / "report.html").links)
    with pytest.raises(
        ValueError,
        match=r"`withhold` names \['da'\]; the study's languages are \['en', 'nl'\], its datasets \['digits",
    ):
        write_report(study, withhold=["da"])


def test_a_dataset_can_be_withheld_by_its_name(tmp_path):
    """Of a run on several the predictions say whose a clip is; of a run on one its specification does."""
    several = spec_of(6, "projector", "en") | {"dataset": ["/corpora/digits", "/corpora/talk"]}
    rows = [row(0, "alpha", "bravo", dataset="digits"), row(1, "echo", "hotel", dataset="talk")]
    one = spec_of(6, "projector", "nl") | {"dataset": "/corpora/stories"}
    study = write_study(tmp_path / "study", [(several, rows), (one, [row(0, "golf", "lima", "nl")])])
    report = write_report(study, withhold=["talk", "stories"])
    page = (report / "errors.html").read_text(encoding="utf-8")
    assert "alpha" in page
    assert not [word for word in ("echo", "hotel", "golf", "lima") if word in page]
    assert "Not quoted here: the texts of talk, stories." in (report / "report.md").read_text(
        encoding="utf-8"
    )
    with pytest.raises(ValueError, match=r"its datasets \['digits', 'stories', 'talk'\]"):
        write_report(study, withhold=["corpora"])


@pytest.mark.parametrize(("layers", "mode"), [(6, "projector"), (6, "lora"), (4, "projector"), (4, "lora")])
def test_a_study_of_one_finished_run_is_reported(tmp_path, layers, mode):
    run = (spec_of(layers, mode, "en"), [row(0, "one two", "one too")])
    report = write_report(write_study(tmp_path / "study", [run]), view=paper_view())
    assert pd.read_csv(report / "tables" / "runs.csv")["wer"].tolist() == [0.5]


@pytest.mark.parametrize(
    ("axis", "value", "x"),
    [("hours", 2.5, "keep_layers"), ("hours", 2.5, "max_train_hours"), ("llm_layers", 12, "keep_layers")],
)
def test_runs_that_are_older_than_an_axis_of_their_study_are_reported(tmp_path, axis, value, x):
    """A study may grow: what was finished before has no value on the new axis."""
    runs = [
        (spec_of(layers, mode, "en", **{axis: given}), predictions_of(layers, mode, "en", 6, 42))
        for layers in (6, 4)
        for mode in ("projector", "lora")
        for given in (None, value)
    ]
    report = write_report(write_study(tmp_path, runs), view=View(x=x))
    table = pd.read_csv(report / "tables" / "table2_wer.csv")
    column = {"hours": "max_train_hours", "llm_layers": "keep_llm_layers"}[axis]
    assert table[column].isna().sum() == table[column].notna().sum() == 4
    if x == "keep_layers":
        spots = pd.read_csv(report / "tables" / "table3_sweet_spots.csv")
        assert spots[column].isna().sum() == spots[column].notna().sum() == 3
    pages = "".join(texts_of(report).values()) + "".join(
        path.read_text(encoding="utf-8") for path in (report / "plots").glob("*.svg")
    )
    assert not re.search(r"\bnan\b|\b12\.0\b", pages)


@pytest.mark.parametrize(
    ("planned", "said"),
    [
        (["6L-projector", "4L-projector"], "2 of 2 runs finished"),
        (["6L-projector", "2L-projector"], "1 of 2 runs finished, and 1 more that the study no longer plans"),
        (["4L-projector"], "1 of 1 runs finished, and 1 more that the study no longer plans"),
    ],
)
def test_runs_that_the_study_no_longer_plans_are_counted_apart(tmp_path, planned, said):
    runs = [(spec_of(n, "projector", "en"), predictions_of(n, "projector", "en", 6, 42)) for n in (6, 4)]
    study = json.loads((write_study(tmp_path, runs) / "study.json").read_text())
    specs = [spec_of(int(name[0]), "projector", "en") for name in planned]
    (tmp_path / "study.json").write_text(json.dumps(study | {"specs": specs}))
    for text in texts_of(write_report(tmp_path)).values():
        assert f"{said}{': base-' if 'more' in said else '.'}" in text


def test_several_reports_at_once_leave_one_whole(tmp_path):
    for number in range(4):
        (tmp_path / f"made-{number}").mkdir()
        (tmp_path / f"made-{number}" / "report.html").write_text(str(number))
        (tmp_path / f"scratch-{number}").mkdir()
    start = threading.Barrier(4)

    def put(number: int) -> None:
        start.wait()
        put_in_place(tmp_path / f"made-{number}", tmp_path / "report", tmp_path / f"scratch-{number}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, range(4)))
    assert (tmp_path / "report" / "report.html").read_text() in "0123"
    before = {path.read_text() for path in tmp_path.glob("scratch-*/before-*/report.html")}
    assert len(before) == 3


def test_a_report_that_has_no_room_leaves_the_one_before(study_directory, tmp_path):
    report = write_report(study_directory, tmp_path / "report")
    before = {path: path.read_bytes() for path in report.rglob("*") if path.is_file()}
    with full_disk(20_000), pytest.raises(DiskFullError, match=f"no room for {report}: it takes "):
        write_report(study_directory, report)
    assert {path: path.read_bytes() for path in report.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def run_of(layers: int, mode: str, rate: float, language: str = "en") -> tuple[dict, list]:
    """Twenty utterances of which this share is wrong, in one word of two."""
    wrong = round(20 * rate)
    rows = [row(n, "one two", "six nine" if n < wrong else "one two", language) for n in range(20)]
    return spec_of(layers, mode, language), rows


def texts_of(report: Path) -> dict[str, str]:
    return {name: (report / name).read_text(encoding="utf-8") for name in ("report.html", "report.md")}


def test_the_summary_says_in_words_what_the_study_found(tmp_path):
    study = write_study(tmp_path / "study", [
        run_of(6, "projector", 0.1), run_of(6, "lora", 0.05), run_of(4, "projector", 0.4),
        run_of(4, "lora", 0.1), run_of(2, "projector", 0.9), run_of(6, "projector", 0.95, "nl"),
    ])  # fmt: skip
    write_results(
        study / "baselines" / "base-en", run_of(6, "projector", 0.2)[1], {"encoder": 6500, "total": 9}
    )
    for text in texts_of(write_report(study)).values():
        text = html.unescape(text)
        assert "English: the lowest WER is 5.0 %, by base with 6 of 6 layers, projector + LoRA." in text
        assert "Whisper base with its own decoder has 20.0 %." in text
        assert "Dutch: no run had converged, and the lowest WER is 95.0 %" in text
        assert "LoRA: it lowers the WER in 2 of 2 comparisons, by 30.0 points at most." in text
        assert "2 of 6 runs had not converged" in text
        assert "as of a model that writes without listening" in text
        assert re.search(r"90\.0 \[[\d., ]+\] †", text.replace("\\", ""))


@pytest.mark.parametrize(
    ("runs", "absent"),
    [
        ([run_of(6, "projector", 0.1)],
         ["over speakers", "LoRA", "†", "of seeds", "shallowest cut", "Dashed line", "P:", "converged"]),
        ([run_of(6, "lora", 0.1)], ["projector: trained alone", "over speakers"]),
        ([run_of(6, "projector", 0.1), run_of(4, "projector", 0.2)], ["+ LoRA: with", "of several seeds"]),
    ],
)  # fmt: skip
def test_no_note_speaks_of_what_is_not_there(tmp_path, runs, absent):
    study = StudyResults.load(write_study(tmp_path / "study", runs))
    view = View().of(study)
    lines = run_list(study.runs, [], [])
    said = [curve_caption(study, view), length_caption(study, view), note_of(lines, "basic")]
    for table in report_tables(study, view):
        said += [table.note, *table.shown.columns]
    text = " ".join(said + summary(study, view, [])).replace("encoder + LoRA", "")
    assert not [words for words in absent if words in text]


def test_the_list_of_runs_names_whispers_rules_where_it_has_their_column(tmp_path):
    study = StudyResults.load(write_study(tmp_path / "study", [run_of(6, "projector", 0.1)]))
    with_column = run_list(study.runs, [], [])
    assert with_column[0]["WER by Whisper's rules"] == "10.00"
    assert "Whisper's rules: basic." in note_of(with_column, "basic")
    without = run_list(study.runs.assign(whisper_wer=float("nan")), [], [])
    assert "Whisper" not in " ".join([*without[0], note_of(without, "basic")])
    pages = {name: html.unescape(text) for name, text in texts_of(write_report(study.directory)).items()}
    assert all("Whisper's rules: english" in text for text in pages.values())
    table = [line for line in pages["report.md"].split("## Runs")[1].splitlines() if line.startswith("| ")]
    titles, cells = [line.strip("| ").split(" | ") for line in table]
    assert dict(zip(titles, cells, strict=True))["WER by Whisper's rules"] == "10.00"


def test_counts_are_whole_numbers_beside_rows_that_have_none(study):
    for table in report_tables(study, paper_view()):
        for title in (
            "layers",
            "steps",
            "falls",
            "layers removed",
            "languages below the whole encoder",
            "clips",
        ):
            values = table.shown.get(title, [])
            assert all(re.fullmatch(r"[\d,]*", value) for value in values), (table.name, title)
    assert whole(5.0) == "5"
    assert whole(float("nan")) == ""


def test_the_baseline_is_a_line_within_the_plot(study_directory, tmp_path):
    study = Path(shutil.copytree(study_directory, tmp_path / "study"))
    for language, rate in (("en", 0.9), ("nl", 5)):  # above all runs, and above the plot's ceiling
        rows = [row(n, "one two", " ".join(["six"] * round(2 * rate + 2)), language) for n in range(20)]
        write_results(study / "baselines" / f"base-{language}", rows, {"encoder": 6500, "total": 9})
    results = StudyResults.load(study)
    figure = plot_curves(results, View().of(results))
    for axis, wer in zip(figure.axes, results.baselines["wer"], strict=True):
        (line,) = [line for line in axis.get_lines() if line.get_label() == BASELINE]
        bottom, top = axis.get_ylim()
        assert bottom < line.get_ydata()[0] <= top
        (said,) = [text.get_text() for text in axis.texts]
        assert said.startswith(f"Whisper base: {100 * wer:.1f}")
        assert said.endswith("(above)") == (100 * wer > top)
