"""Texts as leaderboards compare them: by the normalisers that Whisper was scored with.

English goes through transformers' `EnglishTextNormalizer` (numbers as digits, contractions and titles in
full, American spelling), every other language through its `BasicTextNormalizer`, with the letters apart where
a language writes no spaces. Both read the text as the corpus and the model wrote it.

The list of British and American spellings is no part of transformers: it is `normalizer.json` of OpenAI's
checkpoints, looked for in the cache of the Hub. Without it spellings stay as they are, and the name of the
rules, which stands beside the figure in metrics.json, says so.

Source: Whisper, https://huggingface.co/papers/2212.04356, appendix C; the Open ASR Leaderboard
"""

import contextlib
import functools
from collections.abc import Callable, Iterable

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

from modeling_slam.common.files import read_json

SPELLINGS = "normalizer.json"
WHISPERS = [
    f"openai/whisper-{size}"
    for size in ("base", "tiny", "small", "medium", "large-v2", "large-v3", "large-v3-turbo", "large")
]
WITHOUT_SPACES = frozenset({"ja", "lo", "my", "th", "yue", "zh"})
HOW_TO_GET_SPELLINGS = f"hf download {WHISPERS[0]} {SPELLINGS}"


def whisper_text(text: str, language: str | None) -> str:
    """The text as Whisper's rules of this language compare it; an unknown language has the basic ones."""
    return whisper_texts([(text, language)])[0]


def whisper_texts(texts: Iterable[tuple[str, str | None]]) -> list[str]:
    """Many texts, each with its language; the list of spellings is looked for once."""
    spellings = _spellings_file()
    return [_normalized(text, _code(language), spellings) for text, language in texts]


def rules_in_use(languages: Iterable[str | None]) -> str:
    """What `whisper_text` does with texts of these languages: "english", "basic", or both."""
    spellings = "" if _spellings_file() else ", without its list of spellings"
    names = {f"english{spellings}" if _code(language) == "en" else "basic" for language in languages}
    return " and ".join(sorted(names))


def fetch_spellings(model_id: str | None, languages: Iterable[str | None]) -> None:
    """Put the list of spellings into the cache, where English is among them and the model OpenAI's own."""
    if model_id in WHISPERS and _spellings_file() is None and "en" in map(_code, languages):
        with contextlib.suppress(OSError):  # no network: the name of the rules will tell
            hf_hub_download(model_id, SPELLINGS)


def _code(language: str | None) -> str:
    return (language or "").lower().partition("-")[0]


def _spellings_file() -> str | None:
    found = (try_to_load_from_cache(model_id, SPELLINGS) for model_id in WHISPERS)
    return next((path for path in found if isinstance(path, str)), None)


@functools.lru_cache(maxsize=1 << 16)  # the references of a test set come again with each run of a study
def _normalized(text: str, code: str, spellings: str | None) -> str:
    return " ".join(_normalizer(code, spellings)(text).split())


@functools.lru_cache
def _normalizer(code: str, spellings: str | None) -> Callable[[str], str]:
    if code == "en":
        return EnglishTextNormalizer({} if spellings is None else read_json(spellings))
    return BasicTextNormalizer(split_letters=code in WITHOUT_SPACES)
