"""The paper's tables from hand-made predictions whose answers can be counted on fingers."""

import pandas as pd
import pytest
from made_study import row, spec_of, write_study

from modeling_slam.analysis import StudyResults
from modeling_slam.analysis.tables import (
    data_statistics,
    degraded_utterances,
    error_change,
    lora_gain,
    shallowest_cuts,
    sweet_spots,
    wer_table,
)

# Ten reference words in three utterances; what each run writes.
REFERENCES = ["a b c d", "e f g", "h i j"]
HEARD = {
    (6, "projector"): ["a b c d", "e f x", "h i j"],  # 1 substitution: 10 %
    (6, "lora"): ["a b c d", "e f g", "h i j"],  # 0 %
    (4, "projector"): ["a b", "e f g", "h i x y"],  # 2 deletions, 1 substitution, 1 insertion: 40 %
    (4, "lora"): ["a b c d", "e f g", "h i j y"],  # 1 insertion: 10 %
}


@pytest.fixture
def counted(tmp_path) -> StudyResults:
    runs = [
        (
            spec_of(layers, mode, "en"),
            [row(i, *texts) for i, texts in enumerate(zip(REFERENCES, heard, strict=True))],
        )
        for (layers, mode), heard in HEARD.items()
    ]
    return StudyResults.load(write_study(tmp_path, runs))


def test_table_2_has_wer_and_reduction_of_each_depth(counted):
    table = wer_table(counted.runs).set_index(["keep_layers", "mode"])
    assert table["wer"].to_dict() == pytest.approx(
        {(6, "projector"): 0.1, (6, "lora"): 0.0, (4, "projector"): 0.4, (4, "lora"): 0.1}
    )
    assert table.loc[(4, "lora"), "encoder_reduction"] == pytest.approx(1 - 4500 / 6500)
    assert table.loc[(4, "lora"), "runs"] == ["base-4L-lora-en-s42"]


def test_table_3_names_the_best_pruned_depth_and_what_it_saves(counted):
    table = sweet_spots(counted.runs)
    assert list(zip(table["keep_layers"], table["mode"], strict=True)) == [
        (6, "projector"), (6, "lora"), (4, "lora"),
    ]  # fmt: skip
    assert table["net_change"].tolist() == [0, 100, 4500 + 100 - 6500]
    assert table["wer_en"].tolist() == pytest.approx([0.1, 0.0, 0.1])
    assert table["better"].tolist() == [0, 1, 0]  # equal is not better


def test_table_4_counts_utterances_that_got_worse(counted):
    (shares,) = degraded_utterances(counted).to_dict("records")
    assert shares["pruned"] == pytest.approx(2 / 3)
    assert shares["pruned_lora"] == pytest.approx(1 / 3)
    assert shares["recovery"] == pytest.approx(-1 / 3)


def test_table_5_is_the_difference_that_lora_makes(counted):
    (gain,) = lora_gain(counted.runs).to_dict("records")
    assert (gain["full"], gain["pruned"]) == pytest.approx((0.1, 0.3))
    assert gain["larger"] == "pruned"


def test_table_7_is_the_change_of_each_kind_of_error(counted):
    (change,) = error_change(counted.runs).to_dict("records")
    assert change["substitutions"] == -1
    assert change["insertions"] == 0
    assert change["deletions"] == -1
    assert change["total"] == pytest.approx(-3 / 4)


def test_a_kind_of_error_that_was_not_there_has_no_change(tmp_path):
    runs = [
        (spec_of(layers, mode, "en"), [row(0, "a b", heard)])
        for layers, mode, heard in [
            (6, "projector", "a b"), (4, "projector", "a x"), (4, "lora", "a b c"),
        ]
    ]  # fmt: skip
    (change,) = error_change(StudyResults.load(write_study(tmp_path, runs)).runs).to_dict("records")
    assert pd.isna(change["insertions"])
    assert change["total"] == 0


def test_table_1_counts_the_test_set(counted):
    (test,) = data_statistics(counted).to_dict("records")
    assert (test["split"], test["clips"], test["words"], test["distinct_words"]) == ("test", 3, 10, 10)
    assert test["hours"] == pytest.approx((2.5 + 2.0 + 2.0) / 3600)


def test_seeds_are_averaged(tmp_path):
    runs = [
        (spec_of(6, "projector", "en", seed), [row(0, "a b c d", heard)])
        for seed, heard in [(1, "a b c d"), (2, "a b")]
    ]
    (cell,) = wer_table(StudyResults.load(write_study(tmp_path, runs)).runs).to_dict("records")
    assert (cell["wer"], cell["wer_low"], cell["wer_high"], cell["seeds"]) == (0.25, 0.0, 0.5, 2)


def test_the_cut_is_the_one_that_removes_least(study):
    assert shallowest_cuts(study.runs) == {"base": 4}
