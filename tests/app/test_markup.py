"""What the page shows: doubt told by more than colour, nothing of a recording taken for HTML."""

import base64
import re
from pathlib import Path

import pytest

from modeling_slam.app import markup
from modeling_slam.app.recogniser import AtDepth
from modeling_slam.transcription.journal import Heard

CSS = (Path(markup.__file__).with_name("page.css")).read_text(encoding="utf-8")


def word(text: str, confidence: float | None, start: float = 0.0) -> dict:
    return {"text": text, "timestamp": (start, start + 0.2), "confidence": confidence}


def heard(*words: dict) -> Heard:
    text = " ".join(each["text"] for each in words)
    return Heard("talk", "talk.wav", [], {}, seconds=3.0, text=text, words=list(words))


def plain(html: str) -> str:
    return re.sub("<[^>]*>", "", html)


def test_words_below_a_threshold_are_marked_and_those_alike_stand_together():
    words = [word("sure", 0.8), word("hm", 0.79), word("er", 0.5), word("what", 0.49), word("free", None)]
    html = markup.transcript(heard(*words))
    marks = [(kind, plain(text)) for kind, text in re.findall(r'<mark class="(\w+)">(.*?)</mark>', html)]
    assert marks[:2] == [("unsure", "hm er"), ("doubtful", "what")]
    assert marks[2:] == [("unsure", "below 80%"), ("doubtful", "below 50%")]  # the legend
    assert "mean confidence 64%" in html
    assert 'title="49% sure, at 0.0 s"' in html


def test_a_new_utterance_is_a_paragraph():
    html = markup.transcript(heard(word("one", 1.0), word("two", 1.0, start=5.0)))
    assert [plain(text) for text in re.findall("<p>(.*?)</p>", html)] == ["one", "two"]


def test_a_model_without_times_has_text_and_no_legend():
    found = Heard("talk", "talk.wav", [], {}, seconds=3.0, text="just text", words=None)
    assert "just text" in markup.transcript(found)
    assert "<mark" not in markup.transcript(found)
    assert "no CTC head" in markup.NO_HEAD
    assert "No speech" in markup.transcript(heard())


def test_nothing_of_a_recording_is_taken_for_html():
    evil = "<script>alert('1')</script>"
    shown = [
        markup.transcript(heard(word(evil, 0.3))),
        markup.problem(f"{evil}: not readable"),
        markup.comparison([AtDepth(2, evil, 1.0), AtDepth(1, "\"'>", 0.5)], [2, 1]),
        markup.player(Path(f'/tmp/{evil}".wav'), True, evil, None),
        markup.heading(evil, evil),
    ]
    assert all("<script" not in html for html in shown)
    assert shown[3].count('"') % 2 == 0


def test_depths_stand_side_by_side_with_words_marked_that_differ():
    found = [AtDepth(3, "a b c d", 2.0), AtDepth(2, "a x c", 1.0)]
    html = markup.comparison(found, [3, 2, 1])
    assert re.findall("<h3>(.*?)</h3>", html) == ["3 layers", "2 layers", "1 layer"]
    assert re.findall('class="differs"[^>]*>(.*?)</mark>', html) == ["x", "[…]", "not as with 3 layers"]
    assert "1.00 s, 50% of the deepest's" in html
    assert "waiting" in html


def test_the_player_carries_the_subtitles():
    html = markup.player(Path("/tmp/a b.wav"), False, "WEBVTT\n", "nl")
    assert 'src="gradio_api/file=/tmp/a%20b.wav"' in html
    assert base64.b64encode(b"WEBVTT\n").decode() in html
    assert html.startswith("<audio")
    assert 'class="stage"' in html
    film = markup.player(Path("/tmp/a.mp4"), True, "WEBVTT\n", None)
    assert film.startswith("<video")
    assert 'class="stage"' not in film
    assert "<track" not in markup.player(Path("/tmp/a.wav"), False, None, None)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize(
    "selector", re.findall(r"(?m)^((?:\.dark )?(?:mark\.\w+|\.problem|\.stage)) \{", CSS)
)
def test_marks_can_be_read(selector):
    """WCAG 2.2's contrast, https://www.w3.org/TR/WCAG22/#contrast-enhanced: 7 to 1."""
    (rule,) = re.findall(rf"(?m)^{re.escape(selector)} \{{(.*)\}}", CSS)
    ground, ink = (
        luminance(re.search(rf"(?<![-\w]){name}: (#\w+)", rule)[1]) for name in ("background", "color")
    )
    light, dark = max(ground, ink), min(ground, ink)
    assert (light + 0.05) / (dark + 0.05) >= 7
