"""A report along another axis than depth, and of a study that spans more than depth and mode."""

import json

import jiwer
import pandas as pd
import pytest
from made_study import predictions_of, spec_of, write_results, write_study

from modeling_slam.analysis import StudyResults
from modeling_slam.paper.view import paper_view
from modeling_slam.report.main_tables import table2
from modeling_slam.report.pages import write_report
from modeling_slam.report.plots import plot_curves
from modeling_slam.report.sections import report_tables
from modeling_slam.report.view import View
from modeling_slam.study.__main__ import main


@pytest.fixture(scope="module")
def spanned(tmp_path_factory):
    """Three amounts of training speech at two depths, with and without LoRA."""
    runs = [
        (spec_of(layers, mode, "en", hours=hours), predictions_of(layers, mode, "en", 12, seed=hours))
        for hours in (1, 5, 10)
        for layers in (6, 4)
        for mode in ("projector", "lora")
    ]
    return write_study(tmp_path_factory.mktemp("spanned"), runs)


def test_a_study_with_a_further_axis_is_reported_and_each_row_says_where_it_stands(spanned, tmp_path):
    report = write_report(spanned, tmp_path / "report", paper_view())
    text = (report / "report.md").read_text(encoding="utf-8")
    assert "hours of training speech" in text
    gains = pd.read_csv(report / "tables" / "table5_lora_gain.csv")
    ours = gains[gains["whose"] == "this study"]
    assert sorted(ours["max_train_hours"]) == [1, 5, 10]
    assert "hours of training speech 5" in (report / "errors.html").read_text(encoding="utf-8")


def test_curves_along_hours(spanned, tmp_path):
    main(["report", str(spanned), "--output", str(tmp_path / "hours"), "--x", "max_train_hours"])
    report = tmp_path / "hours"
    assert (report / "plots" / "wer_by_max_train_hours.svg").is_file()
    assert "Table 2: WER by hours of training speech" in (report / "report.md").read_text(encoding="utf-8")
    table = pd.read_csv(report / "tables" / "table2_wer.csv")
    assert sorted(table["max_train_hours"].unique()) == [1, 5, 10]
    assert not (report / "tables" / "safe_zone.csv").exists()  # nothing is pruned along hours


def test_an_axis_that_is_none_is_named(spanned, study_directory, tmp_path):
    with pytest.raises(ValueError, match=r"`x` must be an axis of the study: encoder, keep_layers, .*max_tr"):
        write_report(spanned, tmp_path / "x", View(x="wer"))
    with pytest.raises(ValueError, match="`x` must be an axis"):
        write_report(study_directory, tmp_path / "x", View(x="max_train_hours"))
    with pytest.raises(ValueError, match=r"`lines` must be an axis of the study: .* Got 'colour'"):
        write_report(spanned, tmp_path / "x", View(lines=["colour"]))
    with pytest.raises(ValueError, match="`lines` names max_train_hours, which `x` is already"):
        write_report(spanned, tmp_path / "x", View(x="max_train_hours", lines=["max_train_hours"]))
    with pytest.raises(SystemExit):
        main(["report", str(spanned), "--paper", "--x", "max_train_hours"])


CHOICES, LLMS = ("top_down", "uniform", "cka"), ("smollm", "qwen")


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> StudyResults:
    """Three layer choices, two LLMs, with and without LoRA, two seeds."""
    runs = []
    for choice in CHOICES:
        for llm in LLMS:
            for mode in ("projector", "lora"):
                for seed in (1, 2):
                    spec = spec_of(4, mode, "en", seed=seed)
                    spec |= {"name": f"base-4L-{choice}-{llm}-{mode}-s{seed}"}
                    spec |= {"axes": {"layer_choice": choice, "llm": llm}}
                    hard = {"top_down": 4, "uniform": 6, "cka": 2}[choice]
                    runs.append((spec, predictions_of(hard, mode + llm, "en", 12, seed=seed)))
    return StudyResults.load(write_study(tmp_path_factory.mktemp("many"), runs))


@pytest.mark.parametrize(
    ("x", "lines", "panels", "drawn"),
    [
        ("layer_choice", ["llm"], ["base, English, projector", "base, English, projector + LoRA"], 2),
        ("llm", ["mode"], [f"base, English, choice of layers {choice}" for choice in sorted(CHOICES)], 2),
        ("mode", ["layer_choice", "llm"], ["base, English"], 6),
        ("encoder", ["layer_choice"], None, 3),
        ("seed", [], ["base, English"], 12),
    ],
)
def test_any_axis_is_x_any_are_lines_and_the_rest_are_panels(many, x, lines, panels, drawn):
    view = View(x=x, lines=lines).of(many)
    figure = plot_curves(many, view)
    titles = [axis.get_title() for axis in figure.axes]
    if panels is not None:
        assert sorted(titles) == sorted(panels)
    for axis in figure.axes:
        assert len(axis.containers) == drawn
        labels = [line.get_label() for line in axis.containers]
        assert len(set(labels)) == drawn
        looks = [(c[0].get_color(), c[0].get_marker(), c[0].get_linestyle()) for c in axis.containers]
        assert len(set(looks)) == drawn or x == "seed"
        if x == "layer_choice":
            assert [text.get_text() for text in axis.get_xticklabels()] == sorted(CHOICES)
    assert report_tables(many, view)


def test_a_point_is_the_mean_over_seeds_and_its_bar_their_range(many):
    view = View(x="layer_choice", lines=["llm", "mode"]).of(many)
    (axis,) = plot_curves(many, view).axes
    for line in axis.containers:
        llm = next(name for name in LLMS if name in line.get_label())
        mode = "lora" if "LoRA" in line.get_label() else "projector"
        bars = [segment[:, 1] for segment in line[2][0].get_segments()]
        for choice, mean, bar in zip(sorted(CHOICES), line[0].get_ydata(), bars, strict=True):
            runs = many.runs
            cell = runs[(runs["layer_choice"] == choice) & (runs["llm"] == llm) & (runs["mode"] == mode)]
            assert len(cell) == 2
            assert mean == pytest.approx(100 * cell["wer"].mean())
            assert list(bar) == pytest.approx([100 * cell["wer"].min(), 100 * cell["wer"].max()])


def test_table_2_has_lines_as_columns_and_the_rest_as_rows(many):
    shown = table2(many, View(x="layer_choice", lines=["llm"]).of(many)).shown
    assert list(shown)[:3] == ["encoder", "trained", "choice of layers"]
    assert list(shown)[3:] == ["English, LLM qwen", "English, LLM smollm"]
    assert len(shown) == 6
    assert (shown != "").all(axis=None)


def test_what_the_llm_adds_to_its_head_is_tested_in_each_cell(tmp_path):
    """Two evaluations of each run, of which that of the head errs as a deep cut does."""
    runs, heads = [], {}
    for mode in ("projector", "lora"):
        spec = spec_of(6, mode, "en") | {"eval_flags": {"decoder": ["llm", "ctc"]}}
        runs.append((spec, predictions_of(6, mode, "en", 30, seed=1)))
        heads[mode] = predictions_of(2, mode, "en", 30, seed=2)
        parameters = {"encoder_kept": 1, "llm": 0, "total": 2}
        write_results(tmp_path / "runs" / spec["name"] / "ctc", heads[mode], parameters)
    study = write_study(tmp_path, runs)
    content = json.loads((study / "study.json").read_text())
    (study / "study.json").write_text(json.dumps(content | {"axes": {"decoder": "decoder"}}))
    results = StudyResults.load(study)
    assert len(results.runs) == 4
    table = {table.name: table for table in report_tables(results)}["control_tests"]
    for line in table.data.itertuples():
        rows = heads[line.mode]
        head = jiwer.wer([r.reference for r in rows], [r.prediction for r in rows])
        assert line.wer_ctc == pytest.approx(head)
        assert line.difference == pytest.approx(line.wer_llm - head)
        assert line.runs == f"base-6L-{line.mode}-en-s42-ctc base-6L-{line.mode}-en-s42"
    assert set(table.data["mode"]) == {"projector", "lora"}
    assert table.data["significant"].all()
    assert plot_curves(results, View(lines=["decoder"]).of(results))
