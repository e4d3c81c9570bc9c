"""text: what is trained on and scored."""
# ruff: noqa: RUF001 (look-alike characters are the subject)

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling_slam.data.text import LANGUAGES, normalize_text

LANGUAGE_CODES = st.sampled_from([None, "da", "en", "nl-NL", *LANGUAGES])
# Plain text alone seldom has marks, odd capitals and apostrophes side by side.
TEXTS = st.one_of(st.text(), st.text(alphabet="aEİIßΣσéÅø'’‘.,- 15\u0301\u0307\u030a\u00ad\u200bǅΐ"))


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Don’t “stop”; it's O'Neill's dog!", "en", "don't stop it's o'neill's dog"),
        ("'Tis the dogs' bowl, he said: 'No.'", "en", "tis the dogs bowl he said no"),
        ("rock 'n' roll", "en", "rock n roll"),
        ("Twenty-one — or 3,500.50 at 10:30?", "en", "twenty one or 350050 at 1030"),
        ("The U.S.A., e.g. one,two...three", "en", "the usa eg one two three"),
        ("100 % of €5 & $6/kg", "en", "100 of 5 6 kg"),
        ("'s Morgens is ’t in ‘t huis zo'n 'kopje'", "nl", "'s morgens is 't in 't huis zo'n kopje"),
        ("'s-Gravenhage, foto's, de letter 't'", "nl", "'s gravenhage foto's de letter t"),
        ("'n Man", "af", "'n man"),
        ("Blåbærgrød på ØEN, Århus", "da", "blåbærgrød på øen århus"),
        ("Bla\u030abærgrød", "da", "blåbærgrød"),
        ("Crème brûlée, coördinatie, één", "nl", "crème brûlée coördinatie één"),
        ("ISPARTA İzmir", "tr", "ısparta izmir"),
        ("  tabs\tand\nlines  ", None, "tabs and lines"),
        ("soft\u00adhyphen and zero\u200bwidth", None, "softhyphen and zerowidth"),
        ("हिन्दी में।", "hi", "हिन्दी में"),
        ("…!?", "da", ""),
        ("", None, ""),
    ],
)
def test_normalised_text_by_example(text, language, expected):
    assert normalize_text(text, language) == expected


@given(TEXTS, LANGUAGE_CODES)
def test_normalising_twice_changes_nothing(text, language):
    once = normalize_text(text, language)
    assert normalize_text(once, language) == once


@given(TEXTS, LANGUAGE_CODES)
def test_only_lower_case_letters_marks_digits_apostrophes_and_single_blanks_remain(text, language):
    normal = normalize_text(text, language)
    assert normal == normal.lower()
    assert normal == unicodedata.normalize("NFC", normal)
    assert "  " not in normal
    assert normal == normal.strip()
    assert all(unicodedata.category(character)[0] in "LMN" or character in " '" for character in normal)


@given(st.text(alphabet=st.characters(categories=["L", "M", "N"], exclude_characters="ʼ")))
def test_no_letter_mark_or_digit_is_lost(text):
    kept = normalize_text(text)
    assert kept == unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())


@given(st.text(alphabet="abæøå", min_size=1), st.text(alphabet="cdéü", min_size=1), LANGUAGE_CODES)
def test_an_apostrophe_inside_a_word_stays(left, right, language):
    assert normalize_text(f"{left}’{right}", language) == f"{left}'{right}"


def test_every_single_character_normalises_once_and_for_all():
    # Every alphabet with two cases, all marks and punctuation; not the syllables and ideographs.
    for code in (*range(0x3400), *range(0xA640, 0xAC00), *range(0xF900, 0x12000)):
        once = normalize_text(chr(code))
        assert normalize_text(once) == once, hex(code)
        assert once == once.lower(), hex(code)
