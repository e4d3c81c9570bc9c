"""Shape of a curve, safe cuts, Pareto front and seeds, on numbers that can be checked by eye."""

import dataclasses

import pandas as pd
import pytest
from made_study import make_study, row, spec_of, write_study

from modeling_slam.analysis import StudyResults
from modeling_slam.analysis.curves import (
    curve_shapes,
    deepest_safe_cuts,
    pareto_front,
    safe_zone,
    seed_spread,
    spikes,
)


def runs_of(wers: dict[int, float], mode: str = "projector") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "name": [f"{layers}L" for layers in wers],
            "encoder_name": "base",
            "encoder_layers": max(wers),
            "keep_layers": list(wers),
            "language": "en",
            "mode": mode,
            "seed": 0,
            "wer": list(wers.values()),
            "wer_low": float("nan"),
            "wer_high": float("nan"),
            "encoder_parameters": [100 * layers for layers in wers],
            "encoder_parameters_full": 100 * max(wers),
            "lora_parameters": 0,
            "real_time_factor": 0.1,
        }
    )


def published(wers: dict[int, float]) -> StudyResults:
    return StudyResults(None, "numbers", runs_of(wers), pd.DataFrame())


def test_a_curve_that_only_rises_is_steady():
    (shape,) = curve_shapes(runs_of({6: 0.1, 4: 0.2, 2: 0.4})).to_dict("records")
    assert (shape["falls"], shape["instability"], shape["spikes"]) == (0, 0.0, [])


def test_falls_and_spikes_are_found():
    (shape,) = curve_shapes(runs_of({8: 0.1, 6: 0.5, 4: 0.2, 2: 0.4})).to_dict("records")
    assert (shape["steps"], shape["falls"], shape["spikes"]) == (3, 1, [6])
    assert shape["largest_fall"] == pytest.approx(0.3)
    assert shape["instability"] == pytest.approx(0.3 / (0.4 + 0.3 + 0.2))


def test_a_bump_of_less_than_a_point_is_no_spike():
    assert spikes(pd.Series({6: 0.1, 4: 0.209, 2: 0.2})) == []


def test_a_deep_cut_behind_an_unsafe_one_is_not_safe():
    zone = safe_zone(published({8: 0.10, 6: 0.12, 4: 0.30, 2: 0.11}))
    assert zone["safe"].tolist() == [True, False, False]
    assert zone["degradation"].tolist() == pytest.approx([0.02, 0.2, 0.01])
    deepest = deepest_safe_cuts(zone, published({8: 0.1, 6: 0.12, 4: 0.3, 2: 0.11}).runs)
    assert deepest[["keep_layers", "removed"]].values.tolist() == [[6, 2]]


def test_a_significant_cut_is_not_safe_however_small(study):
    zone = safe_zone(study, points=10.0)
    assert set(zone["significant"]) == {True, False}
    assert not zone[zone["significant"]]["safe"].any()


def test_a_cut_that_is_significantly_better_is_safe(tmp_path):
    said = [f"a{i} b{i} c{i} d{i}" for i in range(60)]
    wrong = [text.replace("b", "x") for text in said]
    runs = []
    for layers, heard in ((6, wrong), (4, said)):
        rows = [row(i, *texts) for i, texts in enumerate(zip(said, heard, strict=True))]
        runs.append((spec_of(layers, "projector", "en"), rows))
    (cut,) = safe_zone(StudyResults.load(write_study(tmp_path, runs))).to_dict("records")
    assert (cut["degradation"], cut["significant"], cut["safe"]) == (-0.25, True, True)


@pytest.mark.parametrize("seeds", [(1, 2, 3), (1, 2, 1)])
def test_a_cut_without_a_test_is_not_safe(tmp_path, seeds):
    """Tests pair runs of one seed; where there are none, nothing says that a cut is not worse."""
    rows = [row(i, "one two", "one two") for i in range(30)]
    runs = [
        (spec_of(layers, "projector", "en", seed), rows)
        for layers, seed in zip((6, 4, 2), seeds, strict=True)
    ]
    zone = safe_zone(StudyResults.load(write_study(tmp_path, runs)))
    assert zone["degradation"].tolist() == [0, 0]
    assert zone["holm_p"].notna().tolist() == [False, seeds[2] == 1]
    assert zone["safe"].tolist() == [False, False]  # nor a deeper one behind it


def test_no_safe_cut_leaves_the_whole_encoder():
    results = published({6: 0.1, 4: 0.5})
    assert deepest_safe_cuts(safe_zone(results), results.runs)["removed"].tolist() == [0]


def test_the_front_holds_what_nothing_beats():
    runs = runs_of({6: 0.1, 4: 0.3, 2: 0.2})
    front = pareto_front(runs).set_index("keep_layers")["on_front"]
    assert front.to_dict() == {6: True, 4: False, 2: True}  # 2 layers are smaller and better than 4
    slow = pareto_front(runs.assign(real_time_factor=[0.1, 0.05, 0.1])).set_index("keep_layers")["on_front"]
    assert slow[4]  # the fastest stays


def test_seeds_have_a_spread(tmp_path):
    study = StudyResults.load(make_study(tmp_path, languages=("en",), utterances=10, seeds=(1, 2, 3)))
    spread = seed_spread(study.runs)
    assert spread["seeds"].tolist() == [3] * 6
    wers = study.runs[study.runs["name"].str.startswith("base-2L-lora")]["wer"]
    row = spread[(spread["keep_layers"] == 2) & (spread["mode"] == "lora")].iloc[0]
    assert (row["mean"], row["std"]) == pytest.approx((wers.mean(), wers.std(ddof=1)))
    assert seed_spread(study.runs[study.runs["seed"] == 1]).empty
    assert len(safe_zone(dataclasses.replace(study))) == 4
