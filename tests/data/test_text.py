"""text: what is trained on and scored."""
# ruff: noqa: RUF001 (look-alike characters are the subject)

import itertools
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling_slam.data.text import LANGUAGES, normalize_text, written_text

LANGUAGE_CODES = st.sampled_from([None, "da", "en", "fr", "nl-NL", *LANGUAGES])
# Letters with their marks, and digits, of each script.
SCRIPTS = {
    "da": "aåæøÅÆØé09",
    "nl": "aëïéíjÉÏ05",
    "en": "azAZ3",
    "arabic": "ابتثخهيءآ\u064b\u0650\u0651\u0654٠٣٩۵",
    "armenian": "ԱաևՖֆ",
    "bengali": "কখরড়\u09bc\u09be\u09c7\u09cb\u09cd৫",
    "cyrillic": "АйЙёЁїґ\u0306",
    "devanagari": "कषज्ञड़\u093c\u093e\u0940\u094d\u0902०९",
    "ethiopic": "ሀሁለዐ",
    "georgian": "აბგᲐᲑ",
    "greek": "ΑΣσςΐΰΆώ\u0301\u0308\u0345",
    "han": "中文字\uf900々〇",
    "hangul": "가각힣ᄀ\u1161\u11a8",
    "hebrew": "אבשׁלם\u05b8\u05bc\u05c1",
    "kana": "かがパー\u3099\u309a",
    "khmer": "កខគ\u17b6\u17d2\u17c6៣",
    "myanmar": "ကခဂ\u102f\u1031\u103a၅",
    "tamil": "கஙௌ\u0b92\u0bd7\u0bc6\u0bca௧",
    "thai": "กขำเ\u0e31\u0e48\u0e49๕",
    "tibetan": "ཀཁག\u0f71\u0f72\u0f74\u0f90",
    "vietnamese": "ắệỡđƯ\u0302\u0323\u031b\u0301",
}
INVISIBLE_NAMES = (
    "VARIATION SELECTOR", "COMBINING GRAPHEME JOINER", "HANGUL CHOSEONG FILLER", "HANGUL JUNGSEONG FILLER",
    "HANGUL FILLER", "HALFWIDTH HANGUL FILLER", "MONGOLIAN FREE VARIATION", "KHMER VOWEL INHERENT",
)  # fmt: skip
# What stands around and inside the words: marks, blanks, symbols, and signs that show nothing.
AROUND = " .,:;-–/'’\"“%€+=…\t\n\u00a0\u00ad\u034f\u200b\u200c\u200d\u200f\u2060\ufe0f\ufeff\u20e3\u061c☀❤😀"
# Plain text alone seldom has marks, odd capitals and apostrophes side by side.
TEXTS = st.one_of(
    st.text(),
    st.text(alphabet="aEİIßΣσéÅø'’‘.,:- 0155\u0301\u0307\u030a\u00ad\u200b\ufe0fǅΐĳﬁſ５"),
    st.sampled_from([*SCRIPTS.values()]).flatmap(lambda letters: st.text(alphabet=letters + AROUND)),
)


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Don’t “stop”; it's O'Neill's dog!", "en", "don't stop it's o'neill's dog"),
        ("'Tis the dogs' bowl, he said: 'No.'", "en", "tis the dogs bowl he said no"),
        ("rock 'n' roll", "en", "rock n roll"),
        ("Twenty-one — or 3,500.50 at 10:30?", "en", "twenty one or 3500 50 at 10 30"),
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
        ("0‘‘0 5'10", "en", "0 0 5 10"),
    ],
)
def test_normalised_text_by_example(text, language, expected):
    assert normalize_text(text, language) == expected


@pytest.mark.fuzz
@given(TEXTS, LANGUAGE_CODES)
def test_normalising_twice_changes_nothing(text, language):
    once = normalize_text(text, language)
    assert normalize_text(once, language) == once


@pytest.mark.fuzz
@given(TEXTS, LANGUAGE_CODES)
def test_only_lower_case_letters_marks_digits_apostrophes_and_single_blanks_remain(text, language):
    normal = normalize_text(text, language)
    assert normal == normal.lower()
    assert normal == unicodedata.normalize("NFC", normal)
    assert "  " not in normal
    assert normal == normal.strip()
    assert all(unicodedata.category(character)[0] in "LMN" or character in " '" for character in normal)


def letters_and_digits(text: str) -> str:
    decomposed = unicodedata.normalize("NFD", text)
    return "".join(character for character in decomposed if unicodedata.category(character)[0] in "LN")


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.fuzz
@given(data=st.data())
def test_no_letter_or_digit_is_lost_whatever_stands_around_it(script, data):
    text = data.draw(st.text(alphabet=SCRIPTS[script] + AROUND))
    language = data.draw(st.sampled_from([None, "da", "en", "nl"]))
    bare = "".join(c for c in text if unicodedata.category(c) != "Cf" and c not in "\u034f\ufe0f\u20e3")
    expected = unicodedata.normalize("NFC", unicodedata.normalize("NFC", bare).lower())
    seen, expected = letters_and_digits(normalize_text(text, language)), letters_and_digits(expected)
    assert seen.replace("ς", "σ") == expected.replace("ς", "σ")  # which of them, words decide


@pytest.mark.fuzz
@given(st.text(alphabet=st.characters(categories=["L", "M", "N"], exclude_characters="ʼʻĿŀ")))
def test_a_text_with_letters_is_never_emptied_and_its_marks_stay_with_them(text):
    text = "a" + text  # a mark without a letter before it belongs to nothing
    seen = "".join(map(plain, unicodedata.normalize("NFC", text)))
    assert normalize_text(text) == unicodedata.normalize("NFC", unicodedata.normalize("NFC", seen).lower())


def plain(character: str) -> str:
    """An independent word for the forms of a letter: NFKC of those that only look otherwise."""
    kind = unicodedata.decomposition(character).partition(" ")[0]
    if unicodedata.category(character) == "Me" or unicodedata.name(character, "").startswith(INVISIBLE_NAMES):
        return ""
    looks = kind in (
        "<wide>",
        "<narrow>",
        "<font>",
        "<initial>",
        "<medial>",
        "<final>",
        "<isolated>",
        "<vertical>",
    )
    ligature = kind == "<compat>" and (
        0xFB00 <= ord(character) < 0xFB50 or character in "µĳĲŉſǄǅǆǇǈǉǊǋǌǱǲǳໜໝ"
    )
    return (
        unicodedata.normalize("NFKC", character).strip().replace("ʼ", "'") if looks or ligature else character
    )


@pytest.mark.fuzz
@given(TEXTS, LANGUAGE_CODES)
def test_canonically_equivalent_texts_become_one(text, language):
    normal = normalize_text(text, language)
    for form in ("NFC", "NFD"):
        assert normalize_text(unicodedata.normalize(form, text), language) == normal


@pytest.mark.parametrize(
    ("letter", "marks"),
    [("e", "\u0302\u0323"), ("o", "\u031b\u0301"), ("ب", "\u0651\u064e"), ("ש", "\u05c1\u05b8\u05bc")],
)
def test_marks_of_one_letter_come_in_any_order(letter, marks):
    texts = {letter + "".join(order) for order in itertools.permutations(marks)}
    assert len(texts) > 1
    assert len({normalize_text(text) for text in texts}) == 1
    # An invisible sign between them is no letter of its own.
    assert normalize_text(letter + "\u034f" + marks) == normalize_text(letter + marks)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Miss you ❤️ ☀️☔︎", "miss you"),
        ("press 1️⃣ then *️⃣", "press 1 then"),
        ("👩‍👩‍👧 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f hi 👍🏽", "hi"),
        ("\u3164 \u115f\u1160 \u2800 \ufeff", ""),  # fillers and blanks that are no blanks
        ("¡\u0301 ◌\u0308 !", ""),  # marks of symbols
        ("葛\U000e0100飾 ᠠ\u180b", "葛飾 ᠠ"),
        ("za\u2060in\u200bte\u00adgel\u200d", "zaintegel"),
        ("ĲSLAND, ĳs; de ﬁets en de koﬃe", "ijsland ijs de fiets en de koffie"),
        ("ﬂuﬀy ﬅone ǆep ﬓ", "fluffy stone džep մն"),
        ("ＡＢＣ　１２３：４５", "abc 123 45"),
        ("ﾊﾟｿｺﾝ", "パソコン"),
        ("𝐁𝐨𝐥𝐝 𝟙𝟚", "bold 12"),
        ("ﻣﺮﺣﺒﺎ ﻻ", "مرحبا لا"),
        ("5㎏ bij 20℃ № 7 ㌔ ㈱ 2024㋂ 🈳", "5kg bij 20 c no 7 キロ 株 2024 3月"),
        ("⼈⼝ 70 µm ໜັງ か゛ほ゜", "人口 70 μm ຫນັງ がぽ"),
        ("it´s ¨ ￣ ™", "it's"),
        ("½ m² ① Ⅳ ำ և", "½ m² ① ⅳ ำ և"),  # letters and digits in their own right
        ("lone \ud83d surrogate\x00", "lone surrogate"),
    ],
)
def test_what_shows_nothing_or_only_looks_otherwise(text, expected):
    assert normalize_text(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I can't.I'm late, wasn't.A dog", "i can't i'm late wasn't a dog"),
        ("हिन.दि வந்தான.பின் مَن.هُو", "हिन दि வந்தான பின் مَن هُو"),
        ("'U.S.' (e.g. J.R.R.Tolkien) 5.a.b", "us eg jrr tolkien 5 ab"),
        ("..a..b.. A.", "a b a"),
    ],
)
def test_a_point_parts_words_but_not_the_letters_of_an_abbreviation(text, expected):
    assert normalize_text(text) == expected


@pytest.mark.parametrize("point", [".", ":", "·", "-", ".'", "’.", "…"])
def test_a_greek_word_ends_in_one_sigma_whatever_follows_and_whatever_its_case(point):
    text = f"οδός{point} τους{point}αβ"
    assert normalize_text(text.upper(), "el") == normalize_text(text, "el") == "οδός τους αβ"
    assert normalize_text("Μ.Σ.", "el") == normalize_text("μ.σ.", "el") == "μσ"


@pytest.mark.parametrize("apostrophe", "'’‘ʼʻ׳՚′`´＇")
def test_every_apostrophe_inside_a_word_is_one(apostrophe):
    words = [f"צ{apostrophe}ק", f"o{apostrophe}zbek", f"d{apostrophe}accord"]
    assert normalize_text(" ".join(words)) == "צ'ק o'zbek d'accord"
    assert normalize_text(f"{apostrophe}quoted{apostrophe}") == "quoted"
    # Between digits it groups or parts a number, as every other mark does.
    number = f"1{apostrophe}234{apostrophe}567 5{apostrophe}10"
    assert normalize_text(number, "de") == "1 234 567 5 10"
    assert normalize_text(number, "de-CH") == normalize_text(number, "de_CH") == "1234567 5 10"


def test_the_point_of_catalan_is_no_gap():
    collection = normalize_text("Col·lecció COL·LECCIÓ coŀlecció; a · b", "ca")
    assert collection == "collecció collecció collecció a b"


@pytest.mark.parametrize(
    ("number", "parted", "joined_in"),
    [
        ("3,500", "3 500", {"en", "hi", "ja", None}),
        ("3.500", "3 500", {"da", "nl", "de", "tr"}),
        ("1,234,567", "1 234 567", {"en", "hi", "ja", None}),
        ("1.234.567", "1 234 567", {"da", "nl", "de", "tr"}),
        ("12,34,567", "12 34 567", {"hi"}),
        ("٣٬٥٠٠", "٣ ٥٠٠", {"da", "nl", "de", "tr", "en", "hi", "ja", "fr", "af", None}),
    ],
)
@pytest.mark.parametrize("language", ["da", "nl", "de", "tr", "en", "hi", "ja", "fr", "af", None])
def test_thousands_are_grouped_as_the_language_does(number, parted, joined_in, language):
    expected = parted.replace(" ", "") if language in joined_in else parted
    assert normalize_text(f"({number})", language) == expected


def test_a_region_may_have_rules_of_its_own():
    assert normalize_text("1,500 y 1.500", "es-MX") == "1500 y 1 500"
    assert normalize_text("1,500 y 1.500", "es-ES") == "1 500 y 1500"


@pytest.mark.parametrize("language", ["da", "nl", "en", "hi", "fr", None])
@pytest.mark.parametrize(
    "number",
    [
        "3,5",
        "3.5",
        "10:30",
        "10.30",
        "24.12.2024",
        "192.168.0.1",
        "0,500",
        "0.500",
        "1999,2000",
        "1.5:2,5",
        "1,2,3",
    ],
)
def test_every_other_mark_inside_a_number_parts_it(number, language):
    assert normalize_text(number, language) == re.sub(r"\D", " ", number)


@pytest.mark.fuzz
@given(st.integers(0, 10**9), st.integers(0, 10**9), st.sampled_from(",.:"), LANGUAGE_CODES)
def test_two_numbers_become_one_only_as_thousands(left, right, mark, language):
    together = normalize_text(f"{left}{mark}{right}", language)
    is_grouped = 0 < left < 1000 and len(str(right)) == 3
    assert together == f"{left} {right}" or (is_grouped and together == f"{left}{right}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  „Dr. Müller’s 3,5 %“,\n\tsaid—she…", "„Dr. Müller’s 3,5 %“, said—she…"),
        ("Cafe\u0301 \ufeffnoir\u00ad ❤\ufe0f", "Café noir ❤"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("a\x00b \ud83d c", "a b c"),
    ],
)
def test_written_text_stays_as_it_stands(text, expected):
    assert written_text(text) == expected


@pytest.mark.fuzz
@given(TEXTS)
def test_written_text_is_what_it_normalises_to_in_its_own_case(text):
    written = written_text(text)
    assert written_text(written) == written
    written.encode()  # a tokenizer can read it
    assert normalize_text(written, "nl") == normalize_text(text, "nl")


@pytest.mark.fuzz
@given(st.text(alphabet="abæøå", min_size=1), st.text(alphabet="cdéü", min_size=1), LANGUAGE_CODES)
def test_an_apostrophe_inside_a_word_stays(left, right, language):
    assert normalize_text(f"{left}’{right}", language) == f"{left}'{right}"


def test_every_single_character_normalises_once_and_for_all():
    # Every alphabet with two cases, all marks and punctuation; not the syllables and ideographs.
    for code in (*range(0x3400), *range(0xA640, 0xAC00), *range(0xF900, 0x12000)):
        once = normalize_text(chr(code))
        assert normalize_text(once) == once, hex(code)
        assert once == once.lower(), hex(code)
