"""Subtitles keep the usual rules whatever was said, and lose no word."""

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modeling_slam.transcription.subtitles import GAP_SECONDS, MAX_SECONDS, subtitles, utterances


def spoken(text: str, start: float = 0.0, seconds: float = 0.3, pause: float = 0.05) -> list[dict]:
    """Words of one length with one pause between them."""
    return [
        {"text": word, "timestamp": (start + n * (seconds + pause), start + n * (seconds + pause) + seconds)}
        for n, word in enumerate(text.split())
    ]


def lines(*args, **kwargs) -> list[tuple[str, ...]]:
    return [each.lines for each in subtitles(spoken(*args, **kwargs))]


PAUSES, SECONDS = [0.0, 0.05, 0.3, 0.8, 4.0], [0.0, 0.02, 0.2, 0.5, 9.0]
TEXTS = ["ja", "nee.", "misschien,", "a" * 41, "b" * 42, "c" * 130, " ", "x?"]
DRAWN = st.tuples(st.sampled_from(PAUSES), st.sampled_from(SECONDS), st.sampled_from(TEXTS))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(DRAWN, max_size=60))
def test_any_speech_gives_subtitles_within_the_rules_that_hold_every_word_in_order(drawn):
    words, time = [], 0.0
    for pause, seconds, text in drawn:
        words.append({"text": text, "timestamp": (time + pause, time + pause + seconds)})
        time += pause + seconds
    made = subtitles(words)
    for each in made:
        assert 1 <= len(each.lines) <= 2
        assert all(0 < len(line) <= 42 for line in each.lines)
        assert 0 < each.end - each.start <= MAX_SECONDS + 1e-9
    for one, following in itertools.pairwise(made):
        assert following.start - one.end >= GAP_SECONDS - 1e-9
    assert "".join("".join(each.lines) for each in made).replace(" ", "") == "".join(
        word["text"].strip() for word in words
    )


def test_a_short_line_stays_one_and_a_long_one_is_parted_in_the_middle_or_after_a_mark():
    assert lines("dat is een korte zin") == [("dat is een korte zin",)]
    (pair,) = lines("de hele lange zin die op geen enkele regel past", seconds=0.1)
    assert pair == ("de hele lange zin die op", "geen enkele regel past")
    (pair,) = lines("we gaan naar huis, want het regent al heel de dag", seconds=0.1)
    assert pair[0] == "we gaan naar huis,"


def test_a_pause_and_the_end_of_a_sentence_begin_a_new_one():
    words = [*spoken("kijk daar"), *spoken("een vis", start=3.0)]
    assert [each.lines for each in subtitles(words)] == [("kijk daar",), ("een vis",)]
    assert lines('ja. "nee!" dan niet') == [("ja.",), ('"nee!"',), ("dan niet",)]
    assert [len(words) for words in utterances(spoken("ja. nee dan niet"))] == [1, 3]


def test_what_does_not_fit_is_cut_at_a_pause_and_no_word_is_left_alone():
    words = spoken("een twee drie vier vijf zes zeven acht negen tien elf twaalf " * 2, seconds=0.2)
    made = subtitles(words)
    assert len(made) == 2
    assert min(len(" ".join(each.lines).split()) for each in made) >= 8
    late = [
        {**word, "timestamp": tuple(t + 0.5 * (n > 9) for t in word["timestamp"])}
        for n, word in enumerate(words)
    ]
    assert " ".join(subtitles(late)[0].lines).split()[-1] == "tien"


def test_one_stays_long_enough_to_be_read_where_the_next_leaves_room():
    alone = subtitles(spoken("onvoorstelbaar", seconds=0.2))[0]
    assert alone.end - alone.start == pytest.approx(5 / 6)
    crowded = subtitles([*spoken("ja", seconds=0.1), *spoken("nee", start=0.85)])
    assert crowded[0].end == pytest.approx(0.85 - GAP_SECONDS)
    hasty = subtitles(spoken("razendsnel gesproken woorden die niemand zo snel leest", seconds=0.05))
    assert hasty[0].end == pytest.approx(54 / 17, abs=0.1)


def test_a_subtitle_begins_with_its_first_word():
    words = [*spoken("kijk daar", start=1.5), *spoken("een vis", start=4.25)]
    assert [each.start for each in subtitles(words)] == [1.5, 4.25]


def test_silence_gives_none():
    assert subtitles([]) == []
