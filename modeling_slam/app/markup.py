"""What the page shows of a recording, as HTML: its words by confidence, its player, depths side by side.

Nothing is told by colour alone: doubtful words are underlined as well, each kind in its own way.
"""

import base64
import difflib
import itertools
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from modeling_slam.app.recogniser import AtDepth
from modeling_slam.transcription.formats import confidence
from modeling_slam.transcription.journal import Heard
from modeling_slam.transcription.subtitles import Word, utterances

UNSURE, DOUBTFUL = 0.8, 0.5  # confidences below which a word is marked
LEGEND = (
    f'<p class="legend">Confidence <mark class="unsure">below {UNSURE:.0%}</mark> '
    f'<mark class="doubtful">below {DOUBTFUL:.0%}</mark></p>'
)
NO_HEAD = (
    "<p class='note'>This model has no CTC head, so it tells neither when words were said nor how sure "
    "it is: there are no confidence colours and no subtitles. <code>--align_epochs</code> trains a head.</p>"
)
CANNOT_PLAY = '<p class="note" hidden>This browser cannot play the recording. Its transcript is complete.</p>'
SHOW_NOTE = "this.hidden = true; this.nextElementSibling.hidden = false"
SHOW_CUE = (
    "this.parentElement.parentElement.querySelector('.stage')"
    ".replaceChildren(...[...this.track.activeCues].map(cue => cue.getCueAsHTML()))"
)
EMPTY = '<p class="note">The transcript will stand here.</p>'
NOTHING = '<p class="note">No speech was heard.</p>'


def heading(title: str, language: str | None) -> str:
    spoken = f", {escape(language)}" if language else ""
    return f'<h1>Speech to text</h1><p class="model">{escape(title)}{spoken}</p>'


def problem(message: str) -> str:
    return f'<p class="problem" role="alert">{escape(message)}</p>'


def transcript(heard: Heard) -> str:
    """The text, a paragraph for each utterance; of a model that tells times with each word's confidence."""
    if not heard.text:
        return NOTHING
    if heard.words is None:
        return f'<div class="transcript"><p>{escape(heard.text)}</p></div>'
    paragraphs = "".join(f"<p>{marked(words)}</p>" for words in utterances(heard.words))
    mean = confidence(heard.words)
    facts = f"{heard.seconds:.1f} s of sound" + ("" if mean is None else f", mean confidence {mean:.0%}")
    return f'<div class="transcript">{paragraphs}</div>{LEGEND}<p class="facts">{facts}</p>'


def marked(words: Sequence[Word]) -> str:
    """Words, of which those of like doubt that follow each other stand in one mark."""
    parts = []
    for kind, alike in itertools.groupby(words, key=doubt):
        text = " ".join(map(titled, alike))
        parts.append(f'<mark class="{kind}">{text}</mark>' if kind else text)
    return " ".join(parts)


def doubt(word: Word) -> str | None:
    sure = word.get("confidence")
    return None if sure is None or sure >= UNSURE else "unsure" if sure >= DOUBTFUL else "doubtful"


def titled(word: Word) -> str:
    """A word that tells its confidence and its time under the mouse."""
    text, sure, start = escape(word["text"].strip()), word.get("confidence"), word["timestamp"][0]
    told = "" if sure is None else f"{sure:.0%} sure, "
    return f'<span title="{told}at {start:.1f} s">{text}</span>'


def player(path: Path, has_picture: bool, vtt: str | None, language: str | None) -> str:
    """The recording, with its subtitles on the film, or below sound, where browsers show none themselves."""
    kind = "video" if has_picture else "audio"
    source = escape(f"gradio_api/file={quote(str(path))}", quote=True)
    track = stage = ""
    if vtt is not None:
        data = base64.b64encode(vtt.encode()).decode()
        spoken = f' srclang="{escape(language, quote=True)}"' if language else ""
        shows = "" if has_picture else f' oncuechange="{SHOW_CUE}"'
        track = (
            f'<track kind="subtitles" label="Subtitles"{spoken} default{shows} '
            f'src="data:text/vtt;base64,{data}">'
        )
        stage = "" if has_picture else '<p class="stage"></p>'
    start = f'<{kind} controls playsinline preload="metadata" src="{source}" onerror="{SHOW_NOTE}">'
    return f"{start}{track}</{kind}>{CANNOT_PLAY}{stage}"


def comparison(found: Sequence[AtDepth], depths: Sequence[int]) -> str:
    """A card for each depth, words that the deepest did not write marked; those to come are named."""
    cards = [card(each.depth, timing(each, found[0]), differing(found[0].text, each.text)) for each in found]
    cards += [card(depth, "waiting", "") for depth in depths[len(found) :]]
    legend = f'<p class="legend"><mark class="differs">not as with {layers(depths[0])}</mark></p>'
    return f'<h2>By encoder depth</h2><div class="depths">{"".join(cards)}</div>{legend}'


def card(depth: int, facts: str, text: str) -> str:
    return f'<article><h3>{layers(depth)}</h3><p class="facts">{facts}</p><p>{text}</p></article>'


def layers(depth: int) -> str:
    return "1 layer" if depth == 1 else f"{depth} layers"


def timing(each: AtDepth, deepest: AtDepth) -> str:
    seconds = f"{each.seconds:.2f} s" if each.seconds < 10 else f"{each.seconds:.0f} s"
    return seconds if each is deepest else f"{seconds}, {each.seconds / deepest.seconds:.0%} of the deepest's"


def differing(reference: str, text: str) -> str:
    """A text whose words are marked where they are not the reference's; where some are missing, a sign."""
    if not text:
        return "<em>No speech was heard.</em>"
    said, words, parts = reference.split(), text.split(), []
    matcher = difflib.SequenceMatcher(None, said, words, autojunk=False)
    for kind, left_from, left_to, start, end in matcher.get_opcodes():
        part = escape(" ".join(words[start:end]))
        if kind == "delete":
            missing = escape(" ".join(said[left_from:left_to]), quote=True)
            part = f'<mark class="differs" title="missing: {missing}">[…]</mark>'
        elif kind != "equal":
            part = f'<mark class="differs">{part}</mark>'
        parts.append(part)
    return " ".join(parts)
