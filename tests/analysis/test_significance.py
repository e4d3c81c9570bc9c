"""Paired tests against closed forms, hand-made segments, and data without a difference."""

from math import erfc, sqrt

import numpy as np
import pytest
from made_study import row

from modeling_slam.analysis.results import utterance_frame
from modeling_slam.analysis.significance import compare, error_segments, mapsswe, paired_bootstrap, pairwise


def frame(*pairs: tuple[str, str], speakers=None):
    return utterance_frame(
        "run",
        [row(i, said, heard, speaker=speakers and speakers[i]) for i, (said, heard) in enumerate(pairs)],
    )


def test_two_good_words_part_segments():
    said = "a b c d e f g h"
    first = frame((said, "x b c d e f g y"))  # errors at a and h
    second = frame((said, "a b c d e x g h"))  # error at f
    # a | b c good | f then g alone good | h: the last two are one segment.
    assert error_segments(first, second).tolist() == [[1, 0], [1, 1]]


def test_an_insertion_between_good_words_keeps_a_segment_open():
    first = frame(("a b c d", "x b y c d"))
    second = frame(("a b c d", "a b c d"))
    assert error_segments(first, second).tolist() == [[2, 0]]


def test_segments_end_with_their_utterance():
    first = frame(("a", "x"), ("b", "y"))
    second = frame(("a", "a"), ("b", ""))
    assert error_segments(first, second).tolist() == [[1, 0], [1, 1]]


def test_every_error_is_in_one_segment(study):
    first, second = (study.utterances(name) for name in study.runs["name"].iloc[[0, 4]])
    segments = error_segments(first, second)
    assert segments.sum(axis=0).tolist() == [first["errors"].sum(), second["errors"].sum()]


def test_mapsswe_is_the_z_test_of_the_mean_difference():
    generator = np.random.default_rng(0)
    segments = generator.integers(0, 4, size=(400, 2))
    segments[:, 1] += generator.integers(0, 2, size=400)
    difference = segments[:, 1] - segments[:, 0]
    z = difference.mean() / (difference.std(ddof=1) / np.sqrt(400))
    # The two-sided p of the normal distribution, by its complementary error function.
    assert mapsswe(segments) == pytest.approx(erfc(abs(z) / sqrt(2)))


def test_mapsswe_without_a_difference_says_so():
    assert mapsswe(np.array([[1, 1], [2, 2]])) == 1.0
    assert mapsswe(np.empty((0, 2), dtype=int)) == 1.0
    assert mapsswe(np.array([[0, 1]] * 60)) == 0.0


def test_bootstrap_of_a_run_with_itself_is_nothing(study):
    utterances = study.utterances(study.runs["name"].iloc[4])
    assert paired_bootstrap(utterances, utterances) == (0.0, 0.0, 0.0, 1.0)


def test_bootstrap_interval_has_the_width_of_theory():
    """For equal lengths the difference of WERs is a mean, whose standard error is known."""
    generator = np.random.default_rng(1)
    first = frame(*[("a", "a" if draw else "x") for draw in generator.random(800) < 0.9])
    second = frame(*[("a", "a" if draw else "x") for draw in generator.random(800) < 0.8])
    difference, low, high, p = paired_bootstrap(first, second)
    observed = (second["errors"] - first["errors"]).to_numpy()
    assert difference == pytest.approx(observed.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * observed.std(ddof=1) / np.sqrt(800), rel=0.08)
    assert p < 0.01


def test_whole_speakers_are_drawn():
    """One speaker has all errors: drawing utterances hides how little that says, not so speakers."""
    pairs = [("a", "x")] * 50 + [("a", "a")] * 50
    speakers = ["one"] * 50 + ["two"] * 50
    first, second = frame(*[("a", "a")] * 100, speakers=speakers), frame(*pairs, speakers=speakers)
    _, low, high, _ = paired_bootstrap(first, second)
    assert 0.35 < low < high < 0.65
    _, low, high, _ = paired_bootstrap(first, second, groups=first["speaker"])
    assert (low, high) == (0.0, 1.0)


def test_compare_finds_a_large_difference_and_not_a_small_one(study):
    runs = study.runs[study.runs["language"] == "en"].set_index(["keep_layers", "mode"])["name"]
    cut = compare(study, runs[6, "projector"], runs[2, "projector"])
    assert cut.significant
    assert cut.low < cut.difference < cut.high
    wer = study.runs.set_index("name")["wer"]
    assert cut.difference == pytest.approx(wer[cut.second] - wer[cut.first])
    assert compare(study, cut.first, cut.second) is cut  # remembered
    assert not compare(study, runs[6, "lora"], runs[6, "lora"]).significant
    assert len(pairwise(study, list(runs.iloc[:3]))) == 3
