"""A study over both depths: its front in WER, parameters and time, in a table and in a picture."""

import pytest
from made_study import predictions_of, spec_of, write_study
from matplotlib import pyplot as plt

from modeling_slam.analysis import StudyResults
from modeling_slam.analysis.curves import pareto_front
from modeling_slam.report.depth_front import depth_front_table, plot_depth_front
from modeling_slam.report.plots import pareto_caption, plots_of
from modeling_slam.report.sections import SECTIONS, pareto_table
from modeling_slam.report.view import View

COSTS = ["wer", "parameters", "real_time_factor"]


@pytest.fixture(scope="module")
def both_depths(tmp_path_factory) -> StudyResults:
    """Two depths of the encoder times three of the LLM, with and without LoRA, two seeds each."""
    runs = [
        (
            spec_of(layers, mode, "en", seed, llm_layers=llm),
            predictions_of(layers, mode, "en", 12, seed + llm),
        )
        for llm in (24, 12, 6)
        for layers in (6, 4)
        for mode in ("projector", "lora")
        for seed in (1, 2)
    ]
    return StudyResults.load(write_study(tmp_path_factory.mktemp("both"), runs))


def test_the_front_holds_the_means_over_seeds_that_nothing_beats(both_depths):
    view = View().of(both_depths)
    front = depth_front_table(both_depths, view).data
    assert len(front) == 12
    assert set(front["seeds"]) == {2}
    runs = both_depths.runs
    for row in front.itertuples():
        own = runs[
            (runs["keep_layers"] == row.keep_layers)
            & (runs["mode"] == row.mode)
            & (runs["keep_llm_layers"] == row.keep_llm_layers)
        ]
        assert (row.wer, row.runs) == (pytest.approx(own["wer"].mean()), " ".join(own["name"]))
        kept = row.keep_layers * 1000 + 500 + 200 * row.keep_llm_layers
        assert row.parameters == kept + (100 if row.mode == "lora" else 0)
        here = front.loc[row.Index, COSTS]
        beaten = [(other <= here).all() and (other < here).any() for _, other in front[COSTS].iterrows()]
        assert row.on_front == (not any(beaten))
    assert {True, False} == set(front["on_front"])


@pytest.mark.parametrize("narrow", [False, True])
def test_the_picture_has_a_line_for_each_llm_depth_against_size_and_time(both_depths, narrow):
    figure = plot_depth_front(both_depths, View(narrow=narrow).of(both_depths))
    assert [axis.get_xlabel() for axis in figure.axes] == [
        "encoder, LLM and LoRA (million parameters)",
        "real-time factor",
    ]
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert sorted({int(label.split()[0]) for label in labels}) == [6, 12, 24]
    assert len(labels) == 6
    plt.close(figure)


def test_reports_along_either_depth_have_both(both_depths):
    assert depth_front_table in SECTIONS
    for x in ("keep_layers", "keep_llm_layers"):
        assert "depth_front" in plots_of(View(x=x).of(both_depths))


def test_the_llm_counts_in_the_pareto_front_where_runs_differ_in_it(both_depths, study):
    view = View().of(both_depths)
    assert pareto_front(both_depths.runs)["parameters"].nunique() == 12
    assert "encoder + LLM + LoRA (M)" in pareto_table(both_depths, view).shown
    assert pareto_caption(both_depths, view) == "WER against the parameters of encoder, LLM and LoRA."
    assert pareto_caption(study, view) == "WER against the parameters of encoder and LoRA."


def test_a_study_of_one_llm_depth_has_no_front_over_both(study):
    view = View().of(study)
    assert depth_front_table(study, view).shown.empty
    assert plot_depth_front(study, view) is None
