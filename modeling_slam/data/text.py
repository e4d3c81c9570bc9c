"""Text: what the model learns to write, and what is compared when scoring.

`normalize_text` is one function for targets, references and predictions, so a rule can never hold for one of
them only: lower case, NFC, punctuation and symbols removed, apostrophes kept inside words, every letter with
its marks and every digit kept. Dashes and slashes part words; the marks of an abbreviation (U.S.) go without
a gap. In a number only the mark that groups its thousands in this language does (`3,500` in English, `3.500`
in Dutch: `3500`); every other mark parts it (`3,5` in Dutch, `10:30`: `3 5`, `10 30`), so that no two numbers
become one. Invisible signs are left out, and forms that only look otherwise (`ﬁ`, `ĳ`, wide digits) become
what they stand for. To change a language's rules, edit its row in `LANGUAGES`.

`written_text` is the other style, `--text_style written`: case and punctuation as they stand.

Source: section 4.1 of arXiv:2603.27981 (lower case, punctuation removed, apostrophes kept, æ ø å kept).
Thousands: the decimal number formats of Unicode CLDR, https://cldr.unicode.org
"""

# ruff: noqa: RUF001 (look-alike letters and apostrophes are the subject here)

import functools
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from modeling_slam.model.configuration_slam import TextStyle


@dataclass(frozen=True)
class LanguageRules:
    """What one language does otherwise.

    `thousands` is the mark between groups of three digits, and empty where a space does that; `lakhs` says
    whether groups of two digits precede the last one (1,00,000). `upper_to_lower` holds capitals whose lower
    case is not Unicode's default; `leading_apostrophe` the words that are written with an apostrophe in
    front, which elsewhere counts as a quotation mark and is removed.
    """

    thousands: Literal[",", ".", "'", ""] = ""
    lakhs: bool = False
    upper_to_lower: dict[str, str] = field(default_factory=dict)
    leading_apostrophe: frozenset[str] = frozenset()


def _alike(codes: str, rules: LanguageRules) -> dict[str, LanguageRules]:
    return dict.fromkeys(codes.split(), rules)


COMMA, LAKHS, POINT = LanguageRules(","), LanguageRules(",", lakhs=True), LanguageRules(".")
DOTLESS_I = LanguageRules(".", upper_to_lower={"I": "ı", "İ": "i"})
# A language without a row, such as French or Swedish, groups thousands by spaces.
LANGUAGES = {
    **_alike(
        "am ar cy en es-419 es-mx es-us fa fil ga ha he ig ja ko ms mt my si sw th tl yo yue zh zu", COMMA
    ),
    **_alike("as bn gu hi kn ml mr ne or pa ta te ur", LAKHS),
    **_alike("bs ca da de el es eu fo gl hr id is it jv kl lo mk nl pt ro sl sr vi", POINT),
    "af": LanguageRules(leading_apostrophe=frozenset({"n"})),  # 'n man
    "az": DOTLESS_I,
    **_alike("de-ch de-li gsw it-ch rm", LanguageRules("'")),
    # 's morgens, 't huis
    "nl": LanguageRules(".", leading_apostrophe=frozenset({"k", "m", "n", "r", "s", "t"})),
    "tr": DOTLESS_I,
}
UNKNOWN_LANGUAGE = COMMA

# Typists and phones write the apostrophe in many ways, modifier letters and the Hebrew geresh among them.
APOSTROPHES = dict.fromkeys(map(ord, "’‘‛ʼʻ´`′＇׳՚"), "'")
BETWEEN_DIGITS = re.compile(r"(?<=\d)'(?=\d)")
CATALAN_POINT = re.compile("(?<=l)·(?=l)", re.IGNORECASE)
LETTER = re.compile(r"'?[^\W\d]'?")
ARABIC_THOUSANDS = "\u066c"
# Signs that show nothing and that Unicode counts among letters and marks: joiners and fillers of Hangul,
# Khmer and Mongolian, variation selectors. Those among the format characters are found by their category.
INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
JOINERS = "\u200c\u200d"  # they shape words of Persian and of Indian scripts
# Kinds of compatibility decomposition that change how a character looks, and nothing else; those of symbols
# that are letters (㎏ ℃ №); and Latin, Armenian, Hebrew and Lao ligatures, the micro sign, the voicing
# marks of kana. Others are letters in their own right (ำ, և) or say more than what they consist of (½, m²).
LOOKS = ("wide", "narrow", "small", "vertical", "font", "initial", "medial", "final", "isolated")
OTHER_LOOKS = frozenset(f"<{look}>" for look in LOOKS)
WRITTEN_AS_SYMBOLS = frozenset({"<compat>", "<square>"})
LETTERS_ALIKE = frozenset(map(chr, (0xB5, 0x132, 0x133, 0x13F, 0x140, 0x149, 0x17F, *range(0x1C4, 0x1CD),
                                    *range(0x1F1, 0x1F4), 0xEDC, 0xEDD, 0x309B, 0x309C,
                                    *range(0xFB00, 0xFB50))))  # fmt: skip


def normalize_text(text: str, language: str | None = None) -> str:
    """Return `text` as it is trained on and scored by default; idempotent.

    `language` is an ISO code such as `nl`. Canonically equivalent texts give the same result, whatever the
    order of their marks.
    """
    rules = rules_of(language)
    if not text.isascii():
        # Composed only when what stood invisibly between a letter and its marks is gone.
        text = unicodedata.normalize("NFC", "".join(map(_visible, text)))
        text = unicodedata.normalize("NFC", "".join(map(_plain, text)))
    text = text.translate(str.maketrans(rules.upper_to_lower)).translate(APOSTROPHES)
    text = _groups(rules.thousands, rules.lakhs).sub(_joined, text)
    tokens = "".join(map(_spoken, CATALAN_POINT.sub("", text))).split()
    words = (_word(piece, rules) for token in tokens for piece in _pieces(token))
    # Last, as of two apostrophes between digits one is left by then.
    return unicodedata.normalize("NFC", BETWEEN_DIGITS.sub(" ", " ".join(filter(None, words))))


def written_text(text: str) -> str:
    """Return `text` as it is written: NFC, without invisible signs, with single spaces; idempotent.

    Quotation marks and apostrophes stay as they were typed, and so do the joiners that shape words.
    """
    return " ".join(unicodedata.normalize("NFC", "".join(map(_readable, text))).split())


def word_counts(texts: Iterable[str]) -> dict[str, int]:
    """How often each word stands in normalised texts, the most frequent first."""
    return dict(Counter(word for text in texts for word in text.split()).most_common())


def in_style(dataset: Any, style: TextStyle) -> Any:
    """The clips of `load_speech` with the `text` that a model of this style learns to write."""
    if style == "normalized":
        return dataset
    return dataset.remove_columns("text").add_column("text", [*map(written_text, dataset["raw_text"])])


def rules_of(language: str | None) -> LanguageRules:
    if not language:
        return UNKNOWN_LANGUAGE
    code = language.lower().replace("_", "-")
    return LANGUAGES.get(code) or LANGUAGES.get(code.partition("-")[0], LanguageRules())


@functools.lru_cache(maxsize=4096)
def _visible(character: str) -> str:
    """The character, or nothing if it shows nothing or only encloses the one before it (a keycap)."""
    hidden = unicodedata.category(character) in ("Cf", "Me") or INVISIBLE.match(character)
    return "" if hidden else character


@functools.lru_cache(maxsize=4096)
def _plain(character: str) -> str:
    """What a letter, digit, mark, punctuation sign or symbol stands for, if it only looks otherwise."""
    kind, category = unicodedata.decomposition(character).partition(" ")[0], unicodedata.category(character)
    is_symbol = category in ("So", "Sc")
    is_look = kind in OTHER_LOOKS and (is_symbol or category[0] in "LMNP")
    is_letters = is_symbol and kind in WRITTEN_AS_SYMBOLS and character < "\U00010000"  # beyond: emoji
    if not (is_look or is_letters or character in LETTERS_ALIKE):
        return character
    # A mark that stands by itself is a space with the mark, which belongs to what comes before it.
    letters = unicodedata.normalize("NFKC", character).strip()
    return f" {letters}" if is_letters and letters[:1].isdecimal() else letters  # ㋂: no part of a number


@functools.lru_cache(maxsize=4096)
def _readable(character: str) -> str:
    """The character as `written_text` has it; a control character or half of a pair of codes is a gap."""
    if unicodedata.category(character) in ("Cc", "Cs"):
        return " "
    return character if character in JOINERS else _visible(character)


@functools.lru_cache(maxsize=4096)
def _spoken(character: str) -> str:
    """The character if it is a letter, mark, digit, apostrophe or point; otherwise a gap."""
    return character if unicodedata.category(character)[0] in "LMN" or character in "'." else " "


@functools.lru_cache
def _groups(thousands: str, lakhs: bool) -> re.Pattern[str]:
    """Numbers with their thousands grouped throughout, which are no part of a longer row of digits."""
    further = r"(?:(?:{0}\d{{3}})+|(?:{0}\d{{2}})+{0}\d{{3}})" if lakhs else r"(?:{0}\d{{3}})+"
    numbers = [
        rf"\d{{1,3}}{further.format(re.escape(mark))}(?!\d|{re.escape(mark)}\d)"
        for mark in (thousands, ARABIC_THOUSANDS)
        if mark
    ]
    return re.compile(rf"(?<!\d)(?<!\d[.,:\u066b\u066c])(?:{'|'.join(numbers)})")


def _joined(number: re.Match[str]) -> str:
    """A number without the marks in it; one that begins with a zero has no thousands."""
    first, digits = number[0][0], filter(str.isdecimal, number[0])
    return number[0] if unicodedata.decimal(first) == 0 else "".join(digits)


def _pieces(token: str) -> list[str]:
    """A token in lower case, parted at its points, but for those between single letters: U.S. -> us."""
    # One by one, since the small sigma at the end of a Greek word is another letter.
    pieces = [piece.lower() for piece in token.split(".")]
    runs = itertools.groupby(pieces, key=lambda piece: bool(LETTER.fullmatch(piece)))
    return [word for are_letters, run in runs for word in (["".join(run)] if are_letters else run)]


def _word(token: str, rules: LanguageRules) -> str:
    """A token without apostrophes and marks that do not belong to the word: 'tis' -> tis, don't -> don't."""
    word = "'".join(filter(None, map(_from_base, token.split("'"))))
    is_written = token.startswith("'") and not token.endswith("'") and word in rules.leading_apostrophe
    return f"'{word}" if is_written else word


def _from_base(piece: str) -> str:
    """A piece from the first letter or digit on: a mark before it is one of a symbol that was removed."""
    while piece and unicodedata.category(piece[0])[0] == "M":
        piece = piece[1:]
    return piece
