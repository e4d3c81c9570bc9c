"""Hotwords: words and phrases that the prompt tells the model to expect; read from a file, or drawn.

What is drawn for a clip follows from the seed, the epoch and its row alone. Words of its own text are drawn
with a weight of one over how often they stand in all texts, and distractors in the same way from other clips.
So each word, rare or frequent, is told about equally often, and the list alone does not say which of its
words are said. Some clips get distractors only, and some get nothing: a model learns to do without as well.

Source: keywords in the prompt of SLAM-ASR, MaLa-ASR, https://huggingface.co/papers/2406.05839; parts of the
transcript as hotwords in training, https://huggingface.co/papers/2411.06437; rare words among distractors,
https://huggingface.co/papers/2104.02194
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from modeling_slam.data.text import normalize_text, written_text
from modeling_slam.model.configuration_slam import TextStyle
from modeling_slam.model.processing_slam import MAX_HOTWORD_CHARACTERS, SlamAsrProcessor

NOTHING_SHARE, DISTRACTORS_SHARE = 0.3, 0.2  # of the training clips: no hotwords, none that is said
MAX_SAID = 3  # hotwords of a clip's own text
LONGER_SHARE, PHRASE_WORDS = 0.25, 3  # a hotword goes on for a further word, up to so many
TRIES = 4  # for each distractor; texts of few words have no others
MARKS = '.,;:!?…"“”„«»()[]¿¡–—-'  # noqa: RUF001 (around words, in text as it is written)
GROUP = 100  # tells these draws from those of the groups of augmentation.py, which are numbered from 0


@dataclass
class HotwordDraws:
    """Draws hotwords for the clips of a data set; `texts` and `languages` are those of its rows.

    No hotword holds one of `reserved`, the tokenizer's own marks, or is longer than the processor takes.
    """

    texts: Sequence[str]
    languages: Sequence[str | None]
    most: int
    seed: int = 0
    reserved: Collection[str] = ()
    # In shared memory: data workers that live on from epoch to epoch read it too.
    epoch: torch.Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.long).share_memory_())

    def __post_init__(self):
        self.counts = Counter(word for text in self.texts for word in plain_words(text))
        rows = range(len(self.texts))
        self.rows_of = {
            language: [row for row in rows if self.languages[row] == language]
            for language in set(self.languages)
        }

    def for_training(self, row: int, text: str) -> list[str]:
        """Hotwords for a training clip in which `text` is said, in this epoch."""
        generator = self.generator(row)
        kind, total = generator.random(), int(generator.integers(1, self.most, endpoint=True))
        said = min(int(generator.integers(1, MAX_SAID, endpoint=True)), total)
        if kind < NOTHING_SHARE:
            return []
        if kind < NOTHING_SHARE + DISTRACTORS_SHARE:
            said = 0
        return self.drawn(generator, row, text, said, total)

    def drawn(self, generator: np.random.Generator, row: int, text: str, said: int, total: int) -> list[str]:
        """At most `said` phrases of the text among others of its language, `total` in all, in any order."""
        found = list(dict.fromkeys(filter(None, (self.phrase(generator, text) for _ in range(said)))))
        own = plain_words(text)
        others = self.rows_of[self.languages[row]]
        for _ in range(TRIES * (total - len(found)) if said < total else 0):
            if len(found) == total:
                break
            other = self.phrase(generator, self.texts[others[generator.integers(len(others))]])
            if other and other not in found and not occurrences(plain_words(other), own):
                found.append(other)
        return [found[place] for place in generator.permutation(len(found))]

    def phrase(self, generator: np.random.Generator, text: str) -> str:
        """A word of a text, a rare one rather than a frequent one, and for some what follows it."""
        words = text.split()
        rarity = np.array([1 / max(self.counts[plain(word)], 1) if plain(word) else 0 for word in words])
        if not rarity.any():
            return ""
        first = int(generator.choice(len(words), p=rarity / rarity.sum()))
        length = min(int(generator.geometric(1 - LONGER_SHARE)), PHRASE_WORDS)
        phrase = " ".join(words[first : first + length]).strip(MARKS)
        can_be_told = len(phrase) <= MAX_HOTWORD_CHARACTERS and not any(
            mark in phrase for mark in self.reserved
        )
        return phrase if can_be_told else ""

    def generator(self, row: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, int(self.epoch), row, GROUP))


def plain(word: str) -> str:
    return word.strip(MARKS).casefold()


def plain_words(text: str) -> list[str]:
    """The words of a text, of either style, as they are compared."""
    return [word for word in map(plain, text.split()) if word]


def occurrences(phrase: Sequence[str], words: Sequence[str]) -> int:
    """How often a phrase of words stands in others."""
    size = len(phrase)
    return sum(words[place : place + size] == phrase for place in range(len(words) - size + 1))


def as_model_writes(word: str, style: TextStyle, language: str | None) -> str:
    return written_text(word) if style == "written" else normalize_text(word, language)


def read_hotwords(
    path: str, processor: SlamAsrProcessor, style: TextStyle, language: str | None
) -> list[str]:
    """The words and phrases of a UTF-8 file, one a line, as a model of this style writes them, each once.

    Raises:
        ValueError: the model cannot be told any, the file cannot be read or holds none, or too many.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"`hotwords` {path} cannot be read as a UTF-8 text file: {error}.") from error
    words = list(dict.fromkeys(filter(None, (as_model_writes(line, style, language) for line in lines))))
    if not words:
        raise ValueError(f"`hotwords` {path} holds no word; write one word or phrase a line.")
    processor.checked_hotwords(words)
    return words
