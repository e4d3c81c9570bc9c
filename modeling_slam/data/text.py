"""Text normalisation: what the model learns to write, and what is compared when scoring.

One function for targets, references and predictions, so a rule can never hold for one of them only: lower
case, NFC, punctuation and symbols removed, apostrophes kept inside words, every letter with its marks and
every digit kept. Dashes and slashes part words; marks inside a number (3,500) or an abbreviation (U.S.) go
without a gap. To change a language's rules, edit its row in `LANGUAGES`.

Source: section 4.1 of arXiv:2603.27981 (lower case, punctuation removed, apostrophes kept, æ ø å kept).
"""

# ruff: noqa: RUF001 (look-alike letters and apostrophes are the subject here)

import functools
import re
import unicodedata
from dataclasses import dataclass, field


@dataclass(frozen=True)
class LanguageRules:
    """What one language does otherwise.

    `upper_to_lower` holds capitals whose lower case is not Unicode's default; `leading_apostrophe` the words
    that are written with an apostrophe in front, which elsewhere counts as a quotation mark and is removed.
    """

    upper_to_lower: dict[str, str] = field(default_factory=dict)
    leading_apostrophe: frozenset[str] = frozenset()


DEFAULT_RULES = LanguageRules()
DOTLESS_I = LanguageRules(upper_to_lower={"I": "ı", "İ": "i"})
LANGUAGES = {
    "af": LanguageRules(leading_apostrophe=frozenset({"n"})),  # 'n man
    "az": DOTLESS_I,
    "nl": LanguageRules(leading_apostrophe=frozenset({"k", "m", "n", "r", "s", "t"})),  # 's morgens, 't huis
    "tr": DOTLESS_I,
}

# Typists and phones write the apostrophe in many ways, the modifier letter among them.
APOSTROPHES = dict.fromkeys(map(ord, "’‘‛ʼ´`′＇"), "'")
INSIDE_NUMBER_OR_ABBREVIATION = re.compile(r"(?<=\d)[.,:](?=\d)|(?<=\b[^\W\d])\.(?=[^\W\d]\b)")


def normalize_text(text: str, language: str | None = None) -> str:
    """Return `text` as it is trained on and scored; idempotent. `language` is an ISO code such as `nl`."""
    rules = LANGUAGES.get(language.lower().partition("-")[0], DEFAULT_RULES) if language else DEFAULT_RULES
    text = unicodedata.normalize("NFC", text)
    text = text.translate(str.maketrans(rules.upper_to_lower)).lower()
    text = INSIDE_NUMBER_OR_ABBREVIATION.sub("", text.translate(APOSTROPHES))
    words = (_word(token, rules) for token in "".join(map(_spoken, text)).split())
    # Removing a character may bring a mark next to its letter, so compose again.
    return unicodedata.normalize("NFC", " ".join(filter(None, words)))


@functools.lru_cache(maxsize=4096)
def _spoken(character: str) -> str:
    """The character if it is a letter, mark, digit or apostrophe; nothing if invisible; otherwise a gap."""
    category = unicodedata.category(character)
    if category[0] in "LMN" or character == "'":
        return character
    return "" if category == "Cf" else " "  # Cf: soft hyphen, byte order mark, zero-width characters.


def _word(token: str, rules: LanguageRules) -> str:
    """A token without the apostrophes that do not belong to the word: 'tis' -> tis, don't -> don't."""
    word = "'".join(filter(None, token.split("'")))
    quoted = token.endswith("'")
    return "'" + word if word in rules.leading_apostrophe and token != word and not quoted else word
