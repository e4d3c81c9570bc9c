"""Subtitles of timed words: which words stand together, on which lines, and for how long.

At most two lines of 42 characters; no longer than 7 s; where the next one leaves room, no shorter than 5/6 s
and long enough to read 17 characters a second; two frames of film between one and the next. A subtitle begins
with its first word and never before it. Rates that cannot be kept, because people speak faster, are not: the
words stay with their sound.

Words are as the pipeline gives them: `{"text": "ja", "timestamp": (0.3, 0.52), "confidence": 0.98}`.

Source: the rules are those of broadcasters and streaming services, such as Netflix's Timed Text Style Guide.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

LINE_CHARACTERS, LINES = 42, 2
MIN_SECONDS, MAX_SECONDS = 5 / 6, 7.0
CHARACTERS_PER_SECOND = 17
GAP_SECONDS = 2 / 24
PAUSE_SECONDS = 0.7  # A silence of this length ends what is said.
SENTENCE_ENDS, CLAUSE_ENDS = (".", "!", "?", "…"), (",", ";", ":")
QUOTES = "\"'\u201d\u2019\u00bb)"  # may follow the end of a sentence

Word = dict[str, Any]


@dataclass(frozen=True)
class Subtitle:
    start: float  # seconds
    end: float
    lines: tuple[str, ...]


def subtitles(words: Sequence[Word]) -> list[Subtitle]:
    """Timed words -> subtitles, in order, which neither overlap nor touch."""
    words = [piece for word in words for piece in pieces(word)]
    groups = [group for utterance in utterances(words) for group in fitting(utterance)]
    starts: list[float] = []
    for group in groups:
        # Two that begin at once would have no time between them.
        earliest = starts[-1] + 2 * GAP_SECONDS if starts else 0.0
        starts.append(max(group[0]["timestamp"][0], earliest))
    made = []
    for group, start, following in zip(groups, starts, [*starts[1:], math.inf], strict=False):
        lines = lines_of(group) or (text_of(group),)
        needed = max(MIN_SECONDS, sum(map(len, lines)) / CHARACTERS_PER_SECOND)
        end = max(group[-1]["timestamp"][1], start + needed)
        made.append(Subtitle(start, min(end, start + MAX_SECONDS, following - GAP_SECONDS), lines))
    return made


def utterances(words: Sequence[Word]) -> list[list[Word]]:
    """Words that belong together: up to the end of a sentence, or a pause."""
    found: list[list[Word]] = []
    for word in words:
        if found and not ends_here(found[-1][-1], word):
            found[-1].append(word)
        else:
            found.append([word])
    return found


def ends_here(word: Word, following: Word) -> bool:
    return pause(word, following) >= PAUSE_SECONDS or word["text"].rstrip(QUOTES).endswith(SENTENCE_ENDS)


def pause(word: Word, following: Word) -> float:
    return following["timestamp"][0] - word["timestamp"][1]


def text_of(words: Sequence[Word]) -> str:
    return " ".join(word["text"] for word in words)


def pieces(word: Word) -> Iterator[Word]:
    """The word without spaces around it; one that no line holds in parts that each share its time."""
    text = word["text"].strip()
    parts = [text[place : place + LINE_CHARACTERS] for place in range(0, len(text), LINE_CHARACTERS)]
    start, end = word["timestamp"]
    for place, part in enumerate(parts):
        times = [start + (end - start) * at / len(parts) for at in (place, place + 1)]
        yield {**word, "text": part, "timestamp": tuple(times)}


def fitting(words: list[Word]) -> Iterator[list[Word]]:
    """Parts of an utterance that each fit a subtitle; the cuts are where speech, or the sentence, halts."""
    while words:
        most = sum(1 for _ in itertools.takewhile(fits, itertools.accumulate([word] for word in words)))
        most = max(most, 1)
        if most < len(words):
            ends_after = fits(words[most:])  # two subtitles are enough: of like length, if nothing else says
            wanted = len(words) / 2 if ends_after else most
            most = max(range(max(most // 2, 1), most + 1), key=lambda n: cut_score(words, n, wanted))
        yield words[:most]
        words = words[most:]


def fits(words: Sequence[Word]) -> bool:
    seconds = words[-1]["timestamp"][1] - words[0]["timestamp"][0]
    return seconds <= MAX_SECONDS and lines_of(words) is not None


def cut_score(words: Sequence[Word], n: int, wanted: float) -> float:
    """How good a cut is after `n` words: a mark counts as a second of silence."""
    marked = words[n - 1]["text"].endswith(CLAUSE_ENDS)
    return marked + min(pause(words[n - 1], words[n]), 1.0) - 0.5 * abs(n - wanted) / len(words)


def lines_of(words: Sequence[Word]) -> tuple[str, ...] | None:
    """One line, or two of like length, the first rather ending with a mark; `None` if two do not hold it."""
    if len(text := text_of(words)) <= LINE_CHARACTERS:
        return (text,)
    halves = [(text_of(words[:n]), text_of(words[n:])) for n in range(1, len(words))]
    halves = [pair for pair in halves if max(map(len, pair)) <= LINE_CHARACTERS]
    return min(halves, key=unlikeness, default=None)


def unlikeness(pair: tuple[str, str]) -> int:
    return abs(len(pair[0]) - len(pair[1])) - 12 * pair[0].endswith(CLAUSE_ENDS + SENTENCE_ENDS)
