"""Scores against jiwer itself and against cases small enough to count by hand."""

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_slam.evaluation.metrics import (
    ErrorCounts,
    SpeechErrorRate,
    batch_mean_rate,
    count_character_errors,
    count_word_errors,
    error_rates,
    rate_interval,
)

SENTENCES = st.lists(
    st.tuples(*[st.lists(st.sampled_from(["en", "to", "blå", "ål", "is"]), max_size=6).map(" ".join)] * 2),
    min_size=1,
    max_size=8,
)


@settings(deadline=None)
@given(SENTENCES)
def test_sums_of_utterance_counts_equal_jiwers_corpus_figures(pairs):
    references, predictions = (list(side) for side in zip(*pairs, strict=True))
    for counts, output, rate in (
        (count_word_errors(references, predictions), jiwer.process_words(references, predictions), "wer"),
        (
            count_character_errors(references, predictions),
            jiwer.process_characters(references, predictions),
            "cer",
        ),
    ):
        assert counts.substitutions.sum() == output.substitutions
        assert counts.deletions.sum() == output.deletions
        assert counts.insertions.sum() == output.insertions
        assert counts.hits.sum() == output.hits
        assert counts.rate == pytest.approx(getattr(output, rate))


def test_counts_belong_to_their_own_utterance():
    counts = count_word_errors(["a b c", "d e", "f"], ["a x c", "d e", "f g h"])
    assert counts.substitutions.tolist() == [1, 0, 0]
    assert counts.insertions.tolist() == [0, 0, 2]
    assert counts.deletions.tolist() == [0, 0, 0]
    assert counts.reference_lengths.tolist() == [3, 2, 1]


def test_one_short_wrong_clip_weighs_half_in_the_batch_mean_and_little_in_the_corpus():
    references = ["one two three four five"] * 8 + ["six seven eight"]
    predictions = ["one two three four five"] * 8 + ["nine nine nine"]
    scores = error_rates(references, predictions, batch_mean_size=8)
    assert scores["batch_mean_wer"] == 0.5
    assert scores["wer"] == pytest.approx(3 / 43)
    assert scores["batch_mean_size"] == 8


def test_batch_mean_equals_the_mean_of_jiwer_per_batch():
    references = ["a b c", "d", "e f", "g h i j", "k"]
    predictions = ["a c", "x y", "e f", "g h", "k k"]
    batches = [slice(0, 2), slice(2, 4), slice(4, 6)]
    expected = np.mean([jiwer.wer(references[batch], predictions[batch]) for batch in batches])
    assert batch_mean_rate(count_word_errors(references, predictions), 2) == pytest.approx(expected)


def test_words_predicted_for_an_empty_reference_are_insertions():
    scores = error_rates(["", "a b"], ["noise here", "a b"])
    assert (scores["insertions"], scores["reference_words"], scores["wer"]) == (2, 2, 1.0)
    assert error_rates([""], [""])["wer"] == 0.0


def test_an_interval_is_the_same_twice_and_near_the_normal_one_of_many_utterances():
    generator = np.random.default_rng(1)
    wrong = generator.integers(0, 4, size=200)
    none = np.zeros(200, dtype=int)
    counts = ErrorCounts(wrong, none, none, 10 - wrong)
    low, high = rate_interval(counts)
    assert low < counts.rate < high
    assert [low, high] == rate_interval(counts)
    half_width = 1.96 * (wrong / 10).std() / np.sqrt(200)
    assert (high - low) / 2 == pytest.approx(
        half_width, rel=0.06
    )  # errors vary a little less than independent words


def test_counting_whole_speakers_widens_the_interval_where_a_speaker_fails_throughout():
    wrong = np.repeat([0, 10, 0, 0, 10, 0], 50)
    none = np.zeros(300, dtype=int)
    counts = ErrorCounts(wrong, none, none, 10 - wrong)
    speakers = np.repeat(list("abcdef"), 50)
    alone, grouped = rate_interval(counts), rate_interval(counts, groups=speakers)
    assert np.ptp(grouped) > 3 * np.ptp(alone)


def test_the_evaluate_metric_gives_the_same_scores_offline_in_one_go_and_by_batches():
    references, predictions = ["een twee", "drie"], ["een twee", "vier"]
    expected = error_rates(references, predictions)
    metric = SpeechErrorRate(keep_in_memory=True)
    assert metric.compute(predictions=predictions, references=references) == expected
    for reference, prediction in zip(references, predictions, strict=True):
        metric.add_batch(predictions=[prediction], references=[reference])
    assert metric.compute() == expected
    assert metric.compute(predictions=["a"], references=["a"], batch_mean_size=8)["batch_mean_size"] == 8


def test_the_sentence_error_rate_counts_each_utterance_once():
    """Of four utterances two have errors, one of them three; an empty one that stayed empty is right."""
    scores = error_rates(["a b c", "d e", "f", ""], ["x y z", "d e", "f g", ""])
    assert scores["ser"] == 2 / 4
    assert scores["wer"] == pytest.approx(4 / 6)
    low, high = scores["ser_interval"]
    assert low < scores["ser"] < high


def test_unequal_or_empty_lists_are_refused():
    with pytest.raises(ValueError, match="2 references and 1 predictions"):
        error_rates(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="at least one pair"):
        error_rates([], [])
