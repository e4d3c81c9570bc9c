"""Any axis can be what curves run along, or what tells them apart; no mean is taken over two axes at once."""

import pandas as pd
import pytest
from made_study import row, spec_of, write_study

from modeling_slam.analysis import StudyResults
from modeling_slam.analysis.curves import (
    curve_shapes,
    deepest_safe_cuts,
    pareto_front,
    safe_zone,
    seed_spread,
)
from modeling_slam.analysis.tables import (
    compared_runs,
    degraded_utterances,
    error_change,
    lora_gain,
    shallowest_cuts,
    sweet_spots,
    wer_table,
)

SAID = "abcdefghij"  # ten clips of one word each, so that each wrong one is ten points
# (hours, layers, mode) -> wrong words
WRONG = {
    (10, 6, "projector"): 1, (10, 6, "lora"): 0, (10, 4, "projector"): 3, (10, 4, "lora"): 1,
    (5, 6, "projector"): 2, (5, 6, "lora"): 1, (5, 4, "projector"): 6, (5, 4, "lora"): 3,
    (1, 6, "projector"): 5, (1, 6, "lora"): 5, (1, 4, "projector"): 9, (1, 4, "lora"): 8,
}  # fmt: skip
EACH = ("mode", "keep_layers")
HOURS = {"x": "max_train_hours", "by": EACH}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> StudyResults:
    runs = []
    for (hours, layers, mode), wrong in WRONG.items():
        heard = "x" * wrong + SAID[wrong:]
        rows = [row(index, *words) for index, words in enumerate(zip(SAID, heard, strict=True))]
        runs.append((spec_of(layers, mode, "en", hours=hours), rows))
    return StudyResults.load(write_study(tmp_path_factory.mktemp("hours"), runs))


def test_wer_along_hours_of_training(study):
    table = wer_table(study.runs, **HOURS).set_index(["max_train_hours", "keep_layers", "mode"])
    assert table["wer"].to_dict() == pytest.approx({key: wrong / 10 for key, wrong in WRONG.items()})
    assert table.loc[(5, 4, "lora"), "runs"] == ["base-4L-lora-en-5h-s42"]


def test_curves_of_depth_are_told_apart_by_hours(study):
    shapes = curve_shapes(study.runs, **HOURS)
    assert len(shapes) == 4  # a curve along hours for each depth and mode
    assert shapes["steps"].tolist() == [2] * 4
    by_depth = wer_table(study.runs, by=("mode", "max_train_hours"))
    assert len(by_depth) == 12


def test_a_mean_over_an_axis_that_nobody_named_is_refused(study):
    for function in (wer_table, lora_gain, error_change, sweet_spots, seed_spread, compared_runs):
        with pytest.raises(ValueError, match=r"differ in more than their seed.*in `by`"):
            function(study.runs)
    for function in (safe_zone, degraded_utterances):
        with pytest.raises(ValueError, match="differ in more than their seed"):
            function(study)


def test_what_lora_wins_with_less_training_speech(study):
    """Along hours the full value is the largest, and the cut the next one: 10 and 5."""
    assert shallowest_cuts(study.runs, "max_train_hours") == {"base": 5}
    gains = lora_gain(study.runs, **HOURS).set_index("keep_layers")
    assert gains[["full", "pruned"]].to_dict("index") == {
        6: pytest.approx({"full": 0.1, "pruned": 0.1}),
        4: pytest.approx({"full": 0.2, "pruned": 0.3}),
    }
    assert gains["max_train_hours"].tolist() == [5, 5]


def test_comparisons_at_one_depth_are_kept_apart_by_hours(study):
    gains = lora_gain(study.runs, by=("mode", "max_train_hours")).set_index("max_train_hours")
    assert gains["pruned"].to_dict() == pytest.approx({10: 0.2, 5: 0.3, 1: 0.1})
    spots = sweet_spots(study.runs, by=("mode", "max_train_hours"))
    assert spots.groupby("max_train_hours").size().to_dict() == {1: 3, 5: 3, 10: 3}


def test_how_few_hours_are_safe(study):
    zone = safe_zone(study, points=0.15, **HOURS)
    found = deepest_safe_cuts(zone, study.runs, **HOURS).set_index(["keep_layers", "mode"])
    assert found["max_train_hours"].to_dict() == {
        (6, "projector"): 5, (6, "lora"): 5, (4, "projector"): 10, (4, "lora"): 10,
    }  # fmt: skip
    assert found["removed"].to_dict()[6, "lora"] == 5


def test_a_run_without_the_axis_is_no_run_that_is_lost(study):
    """As those that were finished before the study spanned it."""
    fives = study.runs[study.runs["max_train_hours"] == 5].assign(max_train_hours=None)
    assert len(wer_table(fives, by=("mode", "max_train_hours"))) == 4


def test_the_front_says_where_a_run_stands(study):
    front = pareto_front(study.runs, by=("mode", "max_train_hours"))
    assert set(front["max_train_hours"]) == {1, 5, 10}
    assert isinstance(front, pd.DataFrame)
