"""Paired tests against closed forms, hand-made segments, and data without a difference."""

from math import erfc, sqrt

import numpy as np
import pytest
from made_study import row, spec_of, write_study
from scipy import stats

from modeling_slam.analysis import StudyResults
from modeling_slam.analysis.curves import safe_zone
from modeling_slam.analysis.significance import (
    ALPHA,
    compare,
    error_segments,
    holm,
    mapsswe,
    paired_bootstrap,
    pairwise,
    sign_flips,
)
from modeling_slam.analysis.utterances import utterance_frame


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
    assert mapsswe(np.array([[0, 1]] * 60)) == pytest.approx(2 * 0.5**60)


def test_a_run_with_itself_has_no_difference_and_no_significance(study):
    utterances = study.utterances(study.runs["name"].iloc[4])
    difference, low, high, p = paired_bootstrap(utterances, utterances)
    assert (difference, p) == (0.0, 1.0)
    assert low == -high < 0


@pytest.mark.parametrize("utterances", [2, 3, 5])
def test_few_utterances_are_never_significant_however_alike_they_differ(utterances, tmp_path):
    """Both p are those of the sign test: scipy's binomtest(n, n), R's binom.test(5, 5) with 0.0625."""
    said = [("the cat sat", "the cat sat")] * utterances
    heard = [("the cat sat", "the dog sat")] * utterances
    expected = stats.binomtest(utterances, utterances).pvalue
    assert paired_bootstrap(frame(*said), frame(*heard))[3] == pytest.approx(expected)
    assert mapsswe(error_segments(frame(*said), frame(*heard))) == pytest.approx(expected)
    runs = [(spec_of(layers, "projector", "en"), [row(i, *pair) for i, pair in enumerate(pairs)])
            for layers, pairs in ((6, said), (4, heard))]  # fmt: skip
    study = StudyResults.load(write_study(tmp_path, runs))
    test = compare(study, *study.runs["name"])
    assert test.significant is None
    assert np.isnan([test.bootstrap_p, test.mapsswe_p, test.p]).all()
    assert test.low < test.difference < test.high
    assert safe_zone(study, points=1.0)["safe"].tolist() == [False]  # nothing shows that it is


def test_signs_are_counted_as_scipy_counts_them():
    mixed = np.array([3, -1, 2, 0, 5, -2, 4, 1, 1, -1])

    def sums(values, axis):
        return values.sum(axis=axis)

    expected = stats.permutation_test((mixed,), sums, permutation_type="samples", n_resamples=2000).pvalue
    assert sign_flips(mixed) == pytest.approx(expected)  # exact there too: 2^10 patterns
    for better, worse in ((3, 9), (10, 10), (0, 6), (40, 75)):
        signs = np.repeat([-1, 1, 0], [better, worse, 500])
        expected = stats.binomtest(better, better + worse).pvalue
        assert sign_flips(signs) == pytest.approx(expected)


def test_a_test_of_many_utterances_agrees_with_the_t_test():
    differences = np.random.default_rng(3).integers(-3, 4, size=4000)
    differences[:100] += 1
    assert sign_flips(differences) == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, rel=0.02)


def test_holms_correction_is_that_of_r():
    """R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") is 0.03 0.06 0.06 0.02. No test stays no test."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.01, np.nan, 0.8]) == pytest.approx([1, 0.03, np.nan, 1], nan_ok=True)
    assert holm([]) == []


def test_of_many_comparisons_fewer_are_significant_than_of_each_alone(study):
    tests = pairwise(study, list(study.runs[study.runs["language"] == "en"]["name"]))
    alone = np.maximum(tests["bootstrap_p"], tests["mapsswe_p"])
    assert len(tests) == 15
    assert (tests["holm_p"] >= alone).all()
    assert 0 < tests["significant"].sum() < (alone < ALPHA).sum()


def test_the_interval_of_a_difference_has_the_width_of_theory():
    """For equal lengths the difference of WERs is a mean, whose standard error is known."""
    generator = np.random.default_rng(1)
    first = frame(*[("a", "a" if draw else "x") for draw in generator.random(800) < 0.9])
    second = frame(*[("a", "a" if draw else "x") for draw in generator.random(800) < 0.8])
    difference, low, high, p = paired_bootstrap(first, second)
    observed = (second["errors"] - first["errors"]).to_numpy()
    assert difference == pytest.approx(observed.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * observed.std(ddof=1) / np.sqrt(800), rel=0.08)
    assert p < 0.01


def test_whole_speakers_count_as_one_observation():
    """One speaker has all errors: counting utterances hides how little that says, not so speakers."""
    pairs = [("a", "x")] * 50 + [("a", "a")] * 50
    speakers = ["one"] * 50 + ["two"] * 50
    first, second = frame(*[("a", "a")] * 100, speakers=speakers), frame(*pairs, speakers=speakers)
    _, low, high, p = paired_bootstrap(first, second)
    assert 0.35 < low < high < 0.65
    assert p < 1e-9
    _, low, high, p = paired_bootstrap(first, second, groups=list(first["speaker"]))
    assert low < 0.1
    assert high > 0.9
    assert p == 1.0


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


def test_few_speakers_have_a_wider_interval_and_no_test(study):
    """Five speakers, whose thirty utterances had a test."""
    names = study.runs[study.runs["language"] == "en"].set_index(["keep_layers", "mode"])["name"]
    pair = names[6, "projector"], names[2, "projector"]
    alone, grouped = compare(study, *pair), compare(study, *pair, by_speaker=True)
    assert (alone.units, grouped.units) == (30, 5)
    assert alone.significant
    assert grouped.significant is None
    assert grouped.low <= alone.low < alone.high <= grouped.high
