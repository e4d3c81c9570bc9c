"""The demo's sentences: in three languages, disjoint, written in one way."""

import pytest

from modeling_slam.data.text import normalize_text
from modeling_slam.demo.sentences import GRAMMARS, SLOT, split_sentences
from modeling_slam.demo.speech import CLIPS, PRETRAINING_CLIPS, sentences_of


@pytest.mark.parametrize("language", GRAMMARS)
def test_no_sentence_is_in_two_splits_or_twice_in_one(language):
    splits = sentences_of(language, seed=0)
    assert {name: len(sentences) for name, sentences in splits.items()} == {
        **CLIPS,
        "pretraining": PRETRAINING_CLIPS,
    }
    normalised = [normalize_text(text, language) for sentences in splits.values() for text in sentences]
    assert len(set(normalised)) == len(normalised)


@pytest.mark.parametrize("language", GRAMMARS)
def test_the_words_of_the_test_set_are_known_from_training(language):
    splits = sentences_of(language, seed=0)
    words = {
        name: set(normalize_text(" ".join(sentences), language).split()) for name, sentences in splits.items()
    }
    assert words["test"] <= words["train"]


@pytest.mark.parametrize("language", GRAMMARS)
def test_every_slot_has_words_and_every_word_is_said(language):
    grammar = GRAMMARS[language]
    used = {slot for pattern in grammar.patterns for slot in SLOT.findall(pattern)}
    assert used == grammar.words.keys()
    said = " ".join(split_sentences(language, {"all": 3000}, seed=0)["all"]).lower()
    assert [word for words in grammar.words.values() for word in words if word.lower() not in said] == []


def test_a_larger_training_set_leaves_the_test_set_as_it_is():
    small = split_sentences("nl", {"train": 50, "test": 10}, seed=3)
    large = split_sentences("nl", {"train": 500, "test": 10}, seed=3)
    assert small["test"] == large["test"]
