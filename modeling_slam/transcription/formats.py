"""What a transcript is written as: a row of `FORMATS` for each format, each a function of the transcript.

To add one: a function `Transcript -> str`, and its row.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from modeling_slam.transcription.subtitles import Word, subtitles, text_of, utterances


@dataclass(frozen=True)
class Transcript:
    """What was heard in one recording."""

    file: str
    seconds: float  # of sound
    language: str | None
    text: str
    words: list[Word] | None  # with their times; None of a model that cannot tell them


class Format(NamedTuple):
    write: Callable[[Transcript], str]
    needs_times: bool


def as_txt(transcript: Transcript) -> str:
    """A line for each utterance, where times tell them apart."""
    lines = [text_of(words) for words in utterances(transcript.words or [])] or [transcript.text]
    return "".join(f"{line}\n" for line in lines if line)


def as_srt(transcript: Transcript) -> str:
    """SubRip: numbered, with commas before the milliseconds."""
    return "".join(
        f"{number}\n{clock(each.start, ',')} --> {clock(each.end, ',')}\n" + "\n".join(each.lines) + "\n\n"
        for number, each in enumerate(subtitles(transcript.words or []), 1)
    )


def as_vtt(transcript: Transcript) -> str:
    """WebVTT, https://www.w3.org/TR/webvtt1: `&` and `<` begin markup there."""
    return "WEBVTT\n\n" + "".join(
        f"{clock(each.start, '.')} --> {clock(each.end, '.')}\n{escaped(each.lines)}\n\n"
        for each in subtitles(transcript.words or [])
    )


def escaped(lines: Sequence[str]) -> str:
    text = "\n".join(lines)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def clock(seconds: float, mark: str) -> str:
    """75.5 -> 00:01:15.500"""
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{milliseconds // 1000:02d}{mark}{milliseconds % 1000:03d}"


def as_tsv(transcript: Transcript) -> str:
    """A table of the utterances; times are in seconds."""
    rows = [
        f"{row['start']:.3f}\t{row['end']:.3f}\t{'' if row['confidence'] is None else row['confidence']}"
        f"\t{' '.join(row['text'].split())}"
        for row in segments(transcript.words or [])
    ]
    return "\n".join(["start\tend\tconfidence\ttext", *rows]) + "\n"


def as_json(transcript: Transcript) -> str:
    """Everything; seconds, and confidences from 0 to 1. Without times there are no segments and words."""
    values: dict[str, Any] = {
        "file": transcript.file,
        "seconds": round(transcript.seconds, 3),
        "language": transcript.language,
        "text": transcript.text,
    }
    if transcript.words is not None:
        values |= {
            "confidence": confidence(transcript.words),
            "segments": segments(transcript.words),
            "words": [timed([word]) for word in transcript.words],
        }
    return json_text(values, indent=2) + "\n"


def json_text(values: Any, indent: int | None = None) -> str:
    """JSON; bytes of a file's name that are no UTF-8, which Python keeps as lone surrogates, are escaped."""
    text = json.dumps(values, indent=indent, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def segments(words: Sequence[Word]) -> list[dict[str, Any]]:
    return [timed(utterance) for utterance in utterances(words)]


def timed(words: Sequence[Word]) -> dict[str, Any]:
    start, end = words[0]["timestamp"][0], words[-1]["timestamp"][1]
    return {
        "start": round(start, 3),
        "end": round(end, 3),
        "confidence": confidence(words),
        "text": text_of(words),
    }


def confidence(words: Sequence[Word]) -> float | None:
    """The mean of the words': the share of them that are expected to be right. None where none is known."""
    known = [word["confidence"] for word in words if word.get("confidence") is not None]
    return round(sum(known) / len(known), 3) if known else None


FORMATS = {
    "txt": Format(as_txt, needs_times=False),
    "srt": Format(as_srt, needs_times=True),
    "vtt": Format(as_vtt, needs_times=True),
    "json": Format(as_json, needs_times=False),
    "tsv": Format(as_tsv, needs_times=True),
}
