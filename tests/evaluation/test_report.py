"""The figures beside the error rate: empty, cut and looping predictions, and time."""

import dataclasses

import pytest

from modeling_slam.data import normalize_text
from modeling_slam.evaluation.loops import has_repeats
from modeling_slam.evaluation.metrics import METRICS, Scored, interval_of, measure
from modeling_slam.evaluation.predictions import Prediction
from modeling_slam.evaluation.report import score, summary


def row(index: int, reference: str, prediction: str, tokens: int = 5) -> Prediction:
    return Prediction(
        id=f"clip-{index}", index=index, reference=reference, prediction=prediction, raw_reference=reference,
        raw_prediction=prediction, duration=4.0, seconds=1.0, tokens=tokens, speaker=None, language="en",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("no no no no", True),
        ("no no no", False),
        ("well the end the end the end the end", True),
        ("the end the end the end the", False),
        ("a b c d a b c d a b c d a b c d", True),
        ("a b a b c a b a b", False),
        ("", False),
    ],
)
def test_a_loop_is_a_phrase_four_times_in_a_row(text, loops):
    assert has_repeats(text.split()) is loops


def test_empty_cut_and_looping_predictions_are_counted_once_each():
    rows = [
        row(0, "five five five five", "five five five five"),  # spoken so: no loop
        row(1, "one two", "two two two two two", tokens=20),
        row(2, "three", "", tokens=0),
        row(3, "three four", "three four"),
    ]
    metrics = score(rows, token_limit=lambda seconds: 20, batch_mean_size=4)
    assert metrics["repetition_loops"] == 1
    assert metrics["truncated_predictions"] == 1
    assert metrics["empty_predictions"] == 1
    assert metrics["wer"] == pytest.approx(5 / 9)
    assert (metrics["audio_seconds"], metrics["decode_seconds"], metrics["real_time_factor"]) == (16, 4, 0.25)


def test_the_summary_shows_rate_interval_counts_parameters_and_examples():
    rows = [row(index, "one two", "one too") for index in range(7)]
    metrics = score(rows, token_limit=lambda seconds: 20, batch_mean_size=4) | {"parameters": {"total": 1234}}
    text = summary(metrics, rows)
    assert "WER  50.00 %   95 % interval 22.63 % to 77.37 %" in text
    assert "SER  100.00 %   95 % interval 64.57 % to 100.00 %" in text
    assert "words: 7 substituted, 0 deleted, 0 inserted, 7 right, 14 of the reference" in text
    assert "utterances: 7 in all, 0 empty, 0 cut at the token limit, 0 with a loop" in text
    assert "28 s of audio, 7 s of decoding" in text
    assert "real-time factor 0.250" in text
    assert "total 1,234" in text
    assert text.count("prediction: one too") == 5


def test_metrics_json_and_summary_follow_the_table():
    rows = [row(0, "one two", "one too"), row(1, "three", "three")]
    metrics = score(rows, token_limit=lambda seconds: 20, batch_mean_size=4, text_style="written")
    rates = {interval_of(name) for name, metric in METRICS.items() if metric.counts}
    kept = {"batch_mean_size", "interval_method", "whisper_rules"}
    assert metrics.keys() == {*METRICS, *rates, *kept}
    text = summary(metrics | {"parameters": {}}, rows)
    assert all(metric.title in text for metric in METRICS.values())


def test_texts_alone_give_what_needs_no_decoding():
    known = measure(Scored(["one two"], ["one too"])).keys()
    assert {name for name in METRICS if name not in known} == {
        name for name, metric in METRICS.items() if metric.needs_rows or metric.needs_written
    }


def test_written_text_is_scored_with_its_case_and_punctuation_and_without():
    pairs = [("Hello,  you!\n", "Hello you!"), ("Yes.", "yes."), ("“Café”", "“Cafe\u0301”")]
    rows = [
        dataclasses.replace(row(index, normalize_text(reference), normalize_text(prediction)),
                            raw_reference=reference, raw_prediction=prediction)
        for index, (reference, prediction) in enumerate(pairs)
    ]  # fmt: skip
    metrics = score(rows, token_limit=lambda seconds: 20, batch_mean_size=4, text_style="written")
    assert (metrics["wer"], metrics["written_wer"]) == (0, 0.5)
    text = summary(metrics | {"parameters": {}}, rows)
    assert "WER as written  50.00 %" in text
    assert "prediction: Hello you!" in text
    normalized = score(rows, token_limit=lambda seconds: 20, batch_mean_size=4)
    assert "written_wer" not in normalized
    assert "as written" not in summary(normalized | {"parameters": {}}, rows)


def test_datasets_and_languages_have_rows_of_their_own_where_there_are_several():
    rows = [
        dataclasses.replace(row(0, "one two", "one too"), dataset="queen"),
        dataclasses.replace(row(1, "three four", "three four"), dataset="sky"),
        dataclasses.replace(row(2, "vijf", ""), dataset="talk", language="nl"),
    ]
    metrics = score(rows, token_limit=lambda seconds: 20, batch_mean_size=4)
    assert {name: part["wer"] for name, part in metrics["by_dataset"].items()} == {
        "queen": 0.5, "sky": 0.0, "talk": 1.0,
    }  # fmt: skip
    for name, part in metrics["by_language"].items():
        alone = [one for one in rows if one.language == name]
        expected = measure(Scored([one.reference for one in alone], [one.prediction for one in alone]))
        assert {key: part[key] for key in part.keys() & expected.keys()} == {
            key: expected[key] for key in part.keys() & expected.keys()
        }
        assert {"wer", "wer_interval", "cer", "ser", "whisper_wer", "utterances"} <= part.keys()
    lines = summary(metrics | {"parameters": {}}, rows).splitlines()
    named = [line.split("  ")[0] for line in lines]
    first = named.index("queen")
    assert named[first : first + 5] == ["queen", "sky", "talk", "language en", "language nl"]
    of_one = score(rows[:1], token_limit=lambda seconds: 20, batch_mean_size=4)
    assert not {"by_dataset", "by_language"} & of_one.keys()
