"""Whisper's own text rules, the second column of every table of error rates."""
# ruff: noqa: RUF001 (Chinese punctuation)

import json
from pathlib import Path

import jiwer
import pytest
from huggingface_hub import constants
from transformers import WhisperTokenizer
from transformers.models.whisper.english_normalizer import BasicTextNormalizer

from modeling_slam.evaluation.predictions import Prediction
from modeling_slam.evaluation.report import score, summary
from modeling_slam.evaluation.whisper_rules import (
    SPELLINGS,
    fetch_spellings,
    rules_in_use,
    whisper_text,
)

WRITTEN = [  # reference, prediction, language
    ("Mr. Smith's twenty-one colours won't fit.", "mister smith's 21 colours will not fit", "en"),
    ("Er (kucht) is één café, om 10:30 uur!", "er is één café om 10 30 uur", "nl"),
    ("今日は、いい天気。", "今日はいい天氣", "ja"),
]


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of the Hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put_spellings(cache: Path, model: str, spellings: dict[str, str]) -> None:
    folder = cache / f"models--openai--{model}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0123")
    (folder / "snapshots" / "0123").mkdir(parents=True)
    (folder / "snapshots" / "0123" / SPELLINGS).write_text(json.dumps(spellings))


def rows(texts) -> list[Prediction]:
    return [
        Prediction(
            id=f"clip-{index}", index=index, reference="a", prediction="a", raw_reference=reference,
            raw_prediction=prediction, duration=4.0, seconds=1.0, tokens=5, speaker=None, language=language,
        )
        for index, (reference, prediction, language) in enumerate(texts)
    ]  # fmt: skip


def scores(texts) -> dict:
    return score(rows(texts), token_limit=lambda seconds: 20, batch_mean_size=4)


def test_texts_are_those_of_whispers_own_tokenizer(cache, tmp_path):
    spellings = {"colours": "colors"}
    (tmp_path / SPELLINGS).write_text(json.dumps(spellings))
    vocabulary = {"<|endoftext|>": 0, "a": 1}
    tokenizer = WhisperTokenizer(vocab=vocabulary, merges=[], normalizer_file=str(tmp_path / SPELLINGS))
    put_spellings(cache, "whisper-small", spellings)
    for text in (WRITTEN[0][0], "$3.50 — you're the 2nd!", "", "(laughs) uh, grey"):
        assert whisper_text(text, "en-GB") == " ".join(tokenizer.normalize(text).split())
    for text, language in ((WRITTEN[1][0], "nl"), ("Blåbærgrød, 3,5", "da"), ("हिन्दी में।", None)):
        assert whisper_text(text, language) == " ".join(WhisperTokenizer.basic_normalize(text).split())


@pytest.mark.parametrize(
    ("text", "language"), [(WRITTEN[2][0], "ja"), ("今天，好。", "zh-CN"), ("สวัสดี", "th")]
)
def test_letters_stand_apart_where_no_spaces_are_written(text, language):
    expected = BasicTextNormalizer(split_letters=True)(text).split()
    assert whisper_text(text, language).split() == expected
    assert len(expected) > 2


def test_the_figure_is_jiwers_on_the_texts_as_they_were_written_each_by_its_language(cache):
    metrics = scores(WRITTEN)
    references = [whisper_text(reference, language) for reference, _, language in WRITTEN]
    predictions = [whisper_text(prediction, language) for _, prediction, language in WRITTEN]
    assert references[:2] == ["mister smith is 21 colours will not fit", "er is één café om 10 30 uur"]
    assert metrics["whisper_wer"] == pytest.approx(jiwer.wer(references, predictions)) == 1 / 23
    low, high = metrics["whisper_wer_interval"]
    assert low <= metrics["whisper_wer"] <= high
    assert metrics["wer"] == 0  # of other texts


def test_the_list_of_spellings_counts_where_it_is_and_is_said_to_be_missing_elsewhere(cache):
    british = [("grey colours", "gray colors", "en")]
    without = scores(british)
    assert (without["whisper_wer"], without["whisper_rules"]) == (
        1.0, "english, without its list of spellings",
    )  # fmt: skip
    assert "hf download openai/whisper-base normalizer.json" in summary(without | {"parameters": {}}, [])
    put_spellings(cache, "whisper-large-v3", {"grey": "gray", "colours": "colors"})
    found = scores(british)
    assert (found["whisper_wer"], found["whisper_rules"]) == (0.0, "english")
    assert "hf download" not in summary(found | {"parameters": {}}, [])


def test_the_rules_are_named_for_all_languages_of_a_set(cache):
    assert rules_in_use(["nl", "da-DK", None]) == "basic"
    put_spellings(cache, "whisper-base", {})
    assert rules_in_use(["nl", "en-US"]) == "basic and english"


def test_a_machine_without_network_goes_on_without_the_list(cache, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    fetch_spellings("openai/whisper-base", ["en"])
    assert rules_in_use(["en"]) == "english, without its list of spellings"
