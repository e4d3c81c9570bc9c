"""Intervals against scipy, R and roots found otherwise; and none that claims certainty from little."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from modeling_slam.evaluation.intervals import interval_of_difference, interval_of_rate, unit_codes
from modeling_slam.evaluation.metrics import count_word_errors, error_rates, rate_interval

Z2 = stats.norm.ppf(0.975) ** 2


@pytest.mark.parametrize(("wrong", "trials"), [(0, 1), (1, 1), (0, 10), (3, 10), (10, 10), (7, 200)])
def test_one_trial_a_unit_is_wilsons_interval_as_scipy_has_it(wrong, trials):
    errors = np.arange(trials) < wrong
    expected = stats.binomtest(wrong, trials).proportion_ci(method="wilson")
    assert interval_of_rate(errors, np.ones(trials)) == pytest.approx(expected)


def test_none_wrong_of_ten_is_what_r_says():
    """R 4.3: prop.test(0, 10, correct = FALSE)$conf.int is 0.0000000 0.2775328."""
    assert interval_of_rate(np.zeros(10), np.ones(10)) == pytest.approx([0, 0.2775328])
    # Words of one utterance may go wrong together: eighty words in ten utterances say no more.
    assert interval_of_rate(np.zeros(10), np.full(10, 8)) == pytest.approx([0, 0.2775328])


def test_many_utterances_of_one_length_have_the_interval_of_a_mean():
    errors = np.random.default_rng(0).integers(0, 6, size=3000)
    expected = stats.ttest_1samp(errors / 10, 0).confidence_interval()
    assert interval_of_rate(errors, np.full(3000, 10)) == pytest.approx(expected, abs=1e-4)


def test_few_speakers_have_the_t_of_their_number():
    """All p within t standard errors of p, by root finding; t has 3 degrees of freedom for 4 speakers."""
    rates = np.array([0.1, 0.2, 0.15, 0.4])
    errors, lengths = np.repeat(rates * 10, 50), np.full(200, 10)
    speakers = np.repeat(["a", "b", "c", "d"], 50)
    rate = rates.mean()
    scale = stats.sem(rates) ** 2 / (rate * (1 - rate))  # the variance over that of one trial

    def distance(p: float) -> float:
        return (rate - p) ** 2 / (scale * p * (1 - p)) - stats.t.ppf(0.975, 3) ** 2

    expected = [optimize.brentq(distance, 1e-9, rate), optimize.brentq(distance, rate, 1 - 1e-9)]
    assert interval_of_rate(errors, lengths, speakers) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("references", "predictions"),
    [
        (["a b c"], ["a b c"]),  # one utterance without an error
        (["a b c"], ["a x c"]),
        (["a b c"], [""]),
        (["a"], ["x y z"]),  # more errors than words
        (["a b", "c d"], ["a x", "c x"]),  # two that go wrong alike
        (["a b c"] * 200, ["a b c"] * 200),
        (["a b c"] * 200, [""] * 200),
        (["", "a"], ["", "a"]),
        ([""], ["a"]),
    ],
)
def test_no_interval_is_a_point(references, predictions):
    scores = error_rates(references, predictions)
    for name in ("wer", "cer", "ser"):
        low, high = scores[f"{name}_interval"]
        assert 0 <= low <= scores[name] <= high
        assert high - low > 0.01


@pytest.mark.parametrize("nobody", [None, float("nan"), pd.NA, "", " "])
def test_who_has_no_speaker_is_a_speaker_of_their_own(nobody):
    counts = count_word_errors(["a b c"] * 20, ["a b c"] * 10 + ["x y z"] * 10)
    assert rate_interval(counts, groups=[nobody] * 20) == rate_interval(counts)
    assert len(set(unit_codes(["a", nobody, "b", nobody, "a"]))) == 4


def test_one_speaker_says_little_whatever_the_number_of_utterances():
    counts = count_word_errors(["a b c"] * 500, ["a b c"] * 499 + ["a b x"])
    low, high = rate_interval(counts, groups=["she"] * 500)
    assert low < 0.001
    assert high > 0.7


UTTERANCES = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 8), st.sampled_from("abcd")), min_size=1, max_size=30
)


@settings(deadline=None)
@given(UTTERANCES)
@example([(1, 10, "a"), (1, 10, "a"), (1, 10, "b"), (1, 10, "b")])
def test_speakers_never_say_more_than_their_utterances(utterances):
    errors, lengths, speakers = (list(column) for column in zip(*utterances, strict=True))
    errors, lengths = np.array(errors), np.array(lengths)
    low, high = interval_of_rate(errors, lengths)
    assert 0 <= low <= errors.sum() / max(lengths.sum(), 1) <= high
    assert low < high
    by_speaker = interval_of_rate(errors, lengths, speakers)
    assert by_speaker[0] <= low + 1e-12
    assert by_speaker[1] >= high - 1e-12
    other = np.roll(errors, 1)
    low, high = interval_of_difference(other - errors, lengths)
    by_speaker = interval_of_difference(other - errors, lengths, speakers)
    assert by_speaker[0] <= low <= high <= by_speaker[1]


@pytest.mark.parametrize("utterances", [1, 5, 40])
def test_runs_that_do_not_differ_have_tangos_interval(utterances):
    """Tango, Statistics in Medicine 17, 1998: without discordant pairs the bounds are -+ z^2 / (n + z^2)."""
    bound = Z2 / (utterances + Z2)
    none, words = np.zeros(utterances), np.full(utterances, 7)
    assert interval_of_difference(none, words) == pytest.approx([-bound, bound])


def test_many_differences_have_the_interval_of_their_mean():
    differences = np.random.default_rng(0).integers(-3, 5, size=2000)
    expected = stats.ttest_1samp(differences / 10, 0).confidence_interval()
    assert interval_of_difference(differences, np.full(2000, 10)) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize(
    ("differences", "lengths"),
    [
        ([250] + [0] * 99, [5] * 100),  # one loop
        ([250, -1] + [0] * 98, [5] * 100),
        ([0] * 297 + [-250] * 3, [5] * 300),
        ([40] + [0] * 19, [8] * 20),
    ],
)
def test_a_loop_or_three_of_one_run_are_no_difference(differences, lengths):
    """Their signs are chance: p is 1, or 1 / 4 of three."""
    low, high = interval_of_difference(np.array(differences), np.array(lengths))
    assert low < 0 < high


@pytest.mark.parametrize(("utterances", "loops"), [(40, 0.01), (300, 0.003)])
def test_the_interval_of_two_equal_runs_that_loop_now_and_then_holds_no_difference(utterances, loops):
    draw = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        lengths = draw.integers(3, 10, utterances)
        one, other = (draw.binomial(lengths, 0.1) + 200 * (draw.random(utterances) < loops) for _ in range(2))
        low, high = interval_of_difference(other - one, lengths)
        held += low <= 0 <= high
    assert held / 300 > 0.93


@pytest.mark.parametrize("confidence", [95, 1.0, 0.0, -0.5, float("nan")])
def test_a_confidence_that_is_no_share_is_refused(confidence):
    with pytest.raises(ValueError, match=r"`confidence` must be between 0 and 1, such as 0\.95"):
        interval_of_rate(np.array([1, 0]), np.array([5, 5]), confidence=confidence)
    with pytest.raises(ValueError, match="`confidence` must be between 0 and 1"):
        interval_of_difference(np.array([1, 0]), np.array([5, 5]), confidence=confidence)
