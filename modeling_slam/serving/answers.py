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
        values["segments"] = [verbose_segment(number, row) for number, row in enumerate(segments(words))]
    if "word" in granularities:
        rows = [timed([word]) for word in words]
        values["words"] = [{"word": row.pop("text"), **row} for row in rows]
    return JSONResponse(values)


def verbose_segment(number: int, row: dict[str, Any]) -> dict[str, Any]:
    """An utterance with all fields that OpenAI's segments have, as typed clients want them.

    `avg_logprob` is the logarithm of the confidence. `seek`, `tokens`, `temperature` and `no_speech_prob` are
    always the same here.
    """
    text, confidence = row["text"].encode(), row["confidence"]
    return {
        "id": number,
        "seek": 0,
        **row,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": 0.0 if confidence is None else round(math.log(max(confidence, 0.001)), 4),
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
