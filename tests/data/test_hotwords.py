"""Hotwords: what is drawn for a clip, and what a file tells."""

from collections import Counter

import pytest
from torch.utils.data import DataLoader

from modeling_slam.data.collator import DRAW, SpeechCollator
from modeling_slam.data.hotwords import (
    DISTRACTORS_SHARE,
    MAX_SAID,
    NOTHING_SHARE,
    HotwordDraws,
    occurrences,
    plain_words,
    read_hotwords,
)

NAMES = ["azura", "bob", "joe king", "zuck", "lola", "faye"]
TEXTS = [f"we saw {name} and the queen of number {place}" for place, name in enumerate(NAMES * 4)]


def draws_of(texts=TEXTS, most=6, seed=42) -> HotwordDraws:
    return HotwordDraws(texts, ["en"] * len(texts), most, seed)


def said_in(words: list[str], text: str) -> list[str]:
    return [word for word in words if occurrences(plain_words(word), plain_words(text))]


def of_all(draws: HotwordDraws, epochs: int = 40) -> list[tuple[str, list[str]]]:
    """(text, hotwords) of every clip in each epoch."""
    found = []
    for epoch in range(epochs):
        draws.epoch.fill_(epoch)
        found += [(text, draws.for_training(row, text)) for row, text in enumerate(draws.texts)]
    return found


def test_hotwords_are_words_of_the_clip_among_distractors_sometimes_only_these_sometimes_none():
    rows = of_all(draws_of())
    nothing = sum(not words for _, words in rows) / len(rows)
    absent = sum(bool(words) and not said_in(words, text) for text, words in rows) / len(rows)
    assert nothing == pytest.approx(NOTHING_SHARE, abs=0.05)
    assert absent == pytest.approx(DISTRACTORS_SHARE, abs=0.05)
    assert max(len(words) for _, words in rows) == 6
    assert max(len(said_in(words, text)) for text, words in rows) == MAX_SAID
    places = [
        words.index(said_in(words, text)[0])
        for text, words in rows
        if len(words) == 6 and said_in(words, text)
    ]
    assert {0, 5} <= set(places), "the place in the list must not tell which words are said"


def test_rare_words_are_drawn_rather_than_frequent_ones_and_as_often_said_as_not():
    """`queen` stands in every text, each name in a sixth of them."""
    said, absent = Counter(), Counter()
    for text, words in of_all(draws_of(), 100):
        for word in words:
            (said if said_in([word], text) else absent)[word.split()[0]] += 1
    assert said["zuck"] > 0.7 * said["queen"] > 0
    assert said["zuck"] / (said["zuck"] + absent["zuck"]) == pytest.approx(
        said["lola"] / (said["lola"] + absent["lola"]), abs=0.1
    )


def test_what_is_drawn_follows_from_seed_epoch_and_row():
    first, again = of_all(draws_of(), 3), of_all(draws_of(), 3)
    assert first == again
    assert first[: len(TEXTS)] != first[len(TEXTS) : 2 * len(TEXTS)]
    assert of_all(draws_of(seed=43), 3) != first


def test_distractors_are_of_the_language_of_the_clip():
    draws = HotwordDraws(["een twee", "drie", "one two", "three"], ["nl", "nl", "en", "en"], 5)
    for row, text in enumerate(draws.texts):
        words = draws.drawn(draws.generator(row), row, text, 0, 5)
        assert (
            set(words) <= [{"drie"}, {"een", "twee", "een twee"}, {"three"}, {"one", "two", "one two"}][row]
        )


def test_a_text_without_words_gets_distractors_at_most():
    rows = [words for text, words in of_all(draws_of(["", "…", "ja", "nee"])) if not plain_words(text)]
    assert {word for words in rows for word in words} == {"ja", "nee"}


def test_hotwords_of_text_as_it_is_written_stand_without_the_marks_around_them():
    words = {word for _, found in of_all(draws_of(['"Azura!" said Bob...', "Yes, Azura."])) for word in found}
    assert {"Azura", "Bob", "Yes"} <= words
    assert not [word for word in words if word[0] in '".' or word[-1] in '"!.,']


def test_data_workers_and_the_process_itself_make_the_same_prompts(tiny_processor, two_clips):
    tiny_processor.instruction = "words {hotwords} say:\n"
    collator = SpeechCollator(tiny_processor, hotwords=draws_of())
    rows = [{"audio": two_clips[n % 2], "text": text, DRAW: n} for n, text in enumerate(TEXTS[:8])]
    loaders = [
        DataLoader(rows, 2, collate_fn=collator, num_workers=n, persistent_workers=n > 0) for n in (0, 2)
    ]
    epochs = []
    for epoch in range(2):
        collator.hotwords.epoch.fill_(epoch)
        here, there = ([batch["input_ids"].tolist() for batch in loader] for loader in loaders)
        assert here == there
        epochs.append(here)
    assert epochs[0] != epochs[1]
    (plain,) = DataLoader([{"audio": two_clips[0], "text": "a"}], 1, collate_fn=collator)
    expected = tiny_processor(two_clips[0], text="a")
    assert plain["input_ids"].tolist() == expected["input_ids"].tolist(), "validation is told nothing"


def test_no_more_is_drawn_than_a_prompt_can_tell():
    texts = ["a" * 61, "hi <|end|> there", f"{'b' * 40} {'c' * 40}"]
    draws = HotwordDraws(texts, [None] * 3, 6, reserved={"<|end|>": 9})
    words = {word for _, found in of_all(draws) for word in found}
    assert {"hi", "there", "b" * 40, "c" * 40} == words


@pytest.fixture
def told(tiny_processor):
    tiny_processor.instruction = "words {hotwords} say:\n"
    return tiny_processor


def test_a_file_has_a_word_or_phrase_a_line_and_is_read_as_the_model_writes(told, tmp_path):
    file = tmp_path / "words.txt"
    file.write_text("\ufeffSchiphol\n\n  Jan de  Vries! \nschiphol\n", encoding="utf-8")
    assert read_hotwords(str(file), told, "normalized", "nl") == ["schiphol", "jan de vries"]
    assert read_hotwords(str(file), told, "written", "nl") == ["Schiphol", "Jan de Vries!", "schiphol"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read as a UTF-8"),
        (b"Z\xfcrich\n", "cannot be read as a UTF-8"),
        (b"\n ... \n", "holds no word"),
        (b"\n".join(b"word%d" % n for n in range(101)), "100 words and phrases at most, got 101"),
        (b"x" * 61, "at most 60 characters"),
    ],
)
def test_a_file_that_cannot_be_told_is_refused(told, tmp_path, content, message):
    file = tmp_path / "words.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_hotwords(str(file), told, "normalized", None)
