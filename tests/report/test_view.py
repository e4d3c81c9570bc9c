"""A report along another axis than depth, and of a study that spans more than depth and mode."""

import pandas as pd
import pytest
from made_study import predictions_of, spec_of, write_study

from modeling_slam.paper.view import paper_view
from modeling_slam.report.pages import write_report
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
    with pytest.raises(
        ValueError, match="`x` must be an axis of the study with numbers: keep_layers, max_tr"
    ):
        write_report(spanned, tmp_path / "x", View(x="language"))
    with pytest.raises(ValueError, match="`x` must be an axis"):
        write_report(study_directory, tmp_path / "x", View(x="max_train_hours"))
    with pytest.raises(ValueError, match="`by` must name what the study's runs differ in, got colour"):
        write_report(spanned, tmp_path / "x", View(by=["colour"]))
    with pytest.raises(SystemExit):
        main(["report", str(spanned), "--paper", "--x", "max_train_hours"])
