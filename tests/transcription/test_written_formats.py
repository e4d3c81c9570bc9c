"""Each format as its readers expect it."""

import csv
import io
import json

import pytest

from modeling_slam.transcription.formats import FORMATS, Transcript, clock

WORDS = [
    {"text": "Kijk,", "timestamp": (0.5, 0.75), "confidence": 0.9},
    {"text": "R&D", "timestamp": (0.8, 1.25), "confidence": 0.5},
    {"text": "<nu>.", "timestamp": (3661.0, 3661.5), "confidence": None},
]
TIMED = Transcript("a/b.wav", 3700.0, "nl", "Kijk, R&D <nu>.", WORDS)
UNTIMED = Transcript("a/b.wav", 3.2, None, "kijk nu", None)
SILENT = Transcript("a/b.wav", 12.0, "nl", "", [])


def written(name: str, transcript: Transcript = TIMED) -> str:
    return FORMATS[name].write(transcript)


def test_srt_is_numbered_and_has_commas_before_the_milliseconds():
    assert written("srt") == (
        "1\n00:00:00,500 --> 00:00:01,333\nKijk, R&D\n\n2\n01:01:01,000 --> 01:01:01,833\n<nu>.\n\n"
    )


def test_vtt_begins_with_its_name_and_shows_what_would_be_markup():
    assert written("vtt") == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:01.333\nKijk, R&amp;D\n\n"
        "01:01:01.000 --> 01:01:01.833\n&lt;nu&gt;.\n\n"
    )


def test_tsv_is_a_table_of_utterances_in_seconds():
    rows = list(csv.DictReader(io.StringIO(written("tsv")), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert rows == [
        {"start": "0.500", "end": "1.250", "confidence": "0.7", "text": "Kijk, R&D"},
        {"start": "3661.000", "end": "3661.500", "confidence": "", "text": "<nu>."},
    ]


def test_json_has_times_and_confidence_of_words_and_segments():
    values = json.loads(written("json"))
    assert list(values) == ["file", "seconds", "language", "text", "confidence", "segments", "words"]
    assert values["confidence"] == 0.7
    assert values["segments"][0] == {"start": 0.5, "end": 1.25, "confidence": 0.7, "text": "Kijk, R&D"}
    assert values["words"][2] == {"start": 3661.0, "end": 3661.5, "confidence": None, "text": "<nu>."}


def test_a_model_that_tells_no_times_still_gives_text_and_json():
    assert written("txt", UNTIMED) == "kijk nu\n"
    assert json.loads(written("json", UNTIMED)) == {
        "file": "a/b.wav", "seconds": 3.2, "language": None, "text": "kijk nu",
    }  # fmt: skip
    assert {name for name, row in FORMATS.items() if row.needs_times} == {"srt", "vtt", "tsv"}


def test_text_has_a_line_for_each_utterance():
    assert written("txt") == "Kijk, R&D\n<nu>.\n"


@pytest.mark.parametrize(("name", "text"), [("txt", ""), ("srt", ""), ("vtt", "WEBVTT\n\n")])
def test_silence_is_an_empty_transcript(name, text):
    assert written(name, SILENT) == text
    assert json.loads(written("json", SILENT))["words"] == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "00:00:00.000"),
        (59.9996, "00:01:00.000"),
        (3599.9999, "01:00:00.000"),
        (360_000, "100:00:00.000"),
    ],
)
def test_a_clock_carries_over_and_counts_past_a_day(seconds, text):
    assert clock(seconds, ".") == text
