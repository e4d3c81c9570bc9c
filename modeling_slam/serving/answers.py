"""Transcripts as OpenAI's API has them: a row of `ANSWERS` for each `response_format`, and a stream's events.

Source: https://platform.openai.com/docs/api-reference/audio
"""

import json
import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fastapi import Response
from fastapi.responses import JSONResponse, PlainTextResponse

from modeling_slam.transcription.formats import FORMATS, Transcript, segments, timed
from modeling_slam.transcription.subtitles import Word, utterances

Granularities = Sequence[str]  # of `verbose_json`: "word", "segment", both


class Answer(NamedTuple):
    write: Callable[[Transcript, Granularities], Response]
    needs_times: bool


def usage(transcript: Transcript) -> dict[str, Any]:
    return {"type": "duration", "seconds": round(transcript.seconds, 3)}


def as_json(transcript: Transcript, _granularities: Granularities) -> Response:
    return JSONResponse({"text": transcript.text, "usage": usage(transcript)})


def as_text(transcript: Transcript, _granularities: Granularities) -> Response:
    return PlainTextResponse(f"{transcript.text}\n")


def as_srt(transcript: Transcript, _granularities: Granularities) -> Response:
    return PlainTextResponse(FORMATS["srt"].write(transcript))


def as_vtt(transcript: Transcript, _granularities: Granularities) -> Response:
    return PlainTextResponse(FORMATS["vtt"].write(transcript), media_type="text/vtt")


def as_verbose_json(transcript: Transcript, granularities: Granularities) -> Response:
    words = transcript.words or []
    values: dict[str, Any] = {
        "task": "transcribe",
        "language": transcript.language or "unknown",
        "duration": round(transcript.seconds, 3),
        "text": transcript.text,
        "usage": usage(transcript),
    }
    if "segment" in granularities:
        values["segments"] = [
            verbose_segment(number, row, own)
            for number, (row, own) in enumerate(zip(segments(words), utterances(words), strict=True))
        ]
    if "word" in granularities:
        rows = [timed([word]) for word in words]
        values["words"] = [{"word": row.pop("text"), **row} for row in rows]
    return JSONResponse(values)


def verbose_segment(number: int, row: dict[str, Any], words: Sequence[Word]) -> dict[str, Any]:
    """An utterance with all fields that OpenAI's segments have, as typed clients want them.

    `seek`, `tokens`, `temperature` and `no_speech_prob` are always the same here. `avg_logprob` is that of
    the CTC head, averaged over words.
    """
    logs = [math.log(max(word["confidence"], 1e-6)) for word in words if word.get("confidence") is not None]
    text = row["text"].encode()
    return {
        "id": number,
        "seek": 0,
        **row,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": round(sum(logs) / len(logs), 4) if logs else 0.0,
        "compression_ratio": round(len(text) / len(zlib.compress(text)), 4),
        "no_speech_prob": 0.0,
    }


ANSWERS = {
    "json": Answer(as_json, needs_times=False),
    "text": Answer(as_text, needs_times=False),
    "srt": Answer(as_srt, needs_times=True),
    "vtt": Answer(as_vtt, needs_times=True),
    "verbose_json": Answer(as_verbose_json, needs_times=True),
}


def event(values: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(values, ensure_ascii=False)}\n\n"


def delta_event(text: str) -> str:
    return event({"type": "transcript.text.delta", "delta": text})


def done_event(transcript: Transcript) -> str:
    return event({"type": "transcript.text.done", "text": transcript.text, "usage": usage(transcript)})
