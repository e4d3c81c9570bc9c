"""The CTC head in the pipeline: when words were said, how sure that is, and where nothing is said."""

import itertools

import numpy as np
import pytest
import torch
from transformers import TextIteratorStreamer

from modeling_slam import SlamAsrForConditionalGeneration, SlamAsrPipeline
from modeling_slam.model.audio_lengths import Chunk
from modeling_slam.model.ctc_head import align, doubt, head_log_probs, holds_speech, timed_words


def log_probs_of(path: list[int], classes: int = 5, sure: float = 0.9) -> np.ndarray:
    """(A, classes) of a head that is so sure of this path."""
    rows = np.full((len(path), classes), (1 - sure) / (classes - 1))
    rows[np.arange(len(path)), path] = sure
    return np.log(rows)


def collapsed(path: tuple[int, ...]) -> list[int]:
    return [one for one, _ in itertools.groupby(path) if one]


@pytest.mark.parametrize("classes", [[], [1], [1, 2], [1, 1], [2, 1, 2], [1, 1, 1], [3, 3, 2]])
def test_the_alignment_is_the_best_of_all_there_are(classes):
    generator = np.random.default_rng(len(classes))
    for positions in (5, 6):
        scores = generator.normal(size=(positions, 4))
        log_probs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        fitting = [
            path for path in itertools.product(range(4), repeat=positions) if collapsed(path) == classes
        ]
        best = max(fitting, key=lambda path: sum(log_probs[place, one] for place, one in enumerate(path)))
        runs, place = [], 0
        for one, run in itertools.groupby(best):
            length = len(list(run))
            runs += [(place, place + length)] if one else []
            place += length
        np.testing.assert_array_equal(align(log_probs, classes), np.reshape(runs, (-1, 2)))


def test_a_text_longer_than_its_audio_is_aligned_in_order_all_the_same():
    for classes in ([1, 2, 3, 4, 1, 2, 3], [1] * 9):
        spans = align(log_probs_of([1, 2, 0, 3]), classes)
        assert len(spans) == len(classes)
        assert (np.diff(spans.ravel()) >= 0).all()
        assert spans[0, 0] >= 0
        assert spans[-1, 1] <= 4


class Letters:
    """Spells a word by the classes 1 to 4 of its letters a to d."""

    def encode(self, text: str) -> list[int]:
        return ["abcd".index(letter) + 1 for letter in text if letter in "abcd"]


def said(*spans: tuple[float, float], seconds: float) -> Chunk:
    """A recording with noise in these spans, and hardly any elsewhere; it starts 10 s into its own."""
    generator = np.random.default_rng(0)
    time = np.arange(round(seconds * 16_000)) / 16_000
    loud = np.any([(time >= start) & (time < end) for start, end in spans], axis=0)
    samples = generator.standard_normal(len(time)) * np.where(loud, 0.1, 1e-4)
    return Chunk(samples.astype(np.float32), 10.0, 0.0, True)


def test_words_begin_and_end_where_their_sound_does():
    chunk = said((0.3, 0.75), (0.9, 1.2), (1.2, 1.5), seconds=2.0)
    path = [0] * 25  # positions of 80 ms
    path[5], path[7], path[12], path[17] = 1, 2, 3, 4
    words = timed_words(Letters(), "ab ?! c d", log_probs_of(path), chunk, 1_280)
    assert [word.text for word in words] == ["ab", "?!", "c", "d"]
    assert (words[0].start, words[0].end) == pytest.approx((10.3, 10.75), abs=0.011)
    assert words[1].start == words[1].end == words[0].end
    assert words[2].start == pytest.approx(10.9, abs=0.011)
    assert 11.0 <= words[2].end <= words[3].start <= 11.4
    assert words[3].end == pytest.approx(11.5, abs=0.011)
    assert [word.confidence for word in words] == pytest.approx([0.81, 0.0, 0.9, 0.9])


@pytest.mark.parametrize("text", ["", "?", "a", "a b c d a b c d a b c d", "abcd ? dcba"])
def test_times_run_forwards_and_stay_in_the_chunk_whatever_the_llm_wrote(text):
    chunk, generator = said((0.2, 0.5), seconds=0.65), np.random.default_rng(1)
    for _ in range(20):
        scores = generator.normal(scale=4, size=(9, 5))
        log_probs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        words = timed_words(Letters(), text, log_probs, chunk, 1_280)
        times = [second for word in words for second in (word.start, word.end)]
        assert times == sorted(times)
        assert all(10.0 <= second <= 10.65 for second in times)
        assert all(0 <= word.confidence <= 1 for word in words)


# ---------------------------------------------------------------- the pipeline


@pytest.fixture
def model(model_with_head) -> SlamAsrForConditionalGeneration:
    model_with_head.generation_config.update(max_new_tokens=12)
    return model_with_head


@pytest.fixture
def transcribe(model, tiny_processor) -> SlamAsrPipeline:
    return SlamAsrPipeline(model, tiny_processor, device="cpu", speech_threshold=0)


def always_blank(model: SlamAsrForConditionalGeneration) -> None:
    torch.nn.init.constant_(model.ctc_head.blank_bias, 1e4)


@pytest.fixture
def recording(two_clips) -> np.ndarray:
    """About 42 s, so that it is cut."""
    pause = np.zeros(8_000, np.float32)
    return np.concatenate([part for clip in two_clips * 9 for part in (clip, pause)])


@pytest.mark.parametrize("kind", [True, "word"])
def test_chunks_hold_the_text_in_order_of_time(transcribe, two_clips, recording, kind):
    plain = transcribe([*two_clips, recording])
    for clip, expected, result in zip(
        [*two_clips, recording],
        plain,
        transcribe([*two_clips, recording], return_timestamps=kind, batch_size=3),
        strict=True,
    ):
        assert result["text"] == expected["text"] != ""
        assert " ".join(chunk["text"] for chunk in result["chunks"]).split() == result["text"].split()
        times = [second for chunk in result["chunks"] for second in chunk["timestamp"]]
        assert times == sorted(times)
        assert times[0] >= 0
        assert times[-1] <= len(clip) / 16_000 + 0.01
        assert {type(second) for second in times} == {float}
        assert all(type(chunk["confidence"]) is float for chunk in result["chunks"])
        assert all(0 <= chunk["confidence"] <= 1 for chunk in result["chunks"])
        assert kind == "word" or len(result["chunks"]) <= len(result["text"].split())


def test_times_are_those_of_the_recording_and_not_of_its_chunks(transcribe, recording):
    chunks = transcribe(recording, return_timestamps="word")["chunks"]
    assert chunks[-1]["timestamp"][1] > 30
    assert transcribe(recording, return_timestamps=False).keys() == {"text"}


def test_what_the_head_holds_for_blank_has_no_text_whatever_the_llm_would_write(model, transcribe, two_clips):
    assert transcribe(two_clips[0])["text"]
    always_blank(model)
    assert transcribe(two_clips[0])["text"]
    silent = {"text": "", "chunks": []}
    assert transcribe([*two_clips], speech_threshold=0.5, return_timestamps="word") == [silent, silent]
    streamer = TextIteratorStreamer(transcribe.tokenizer, timeout=60)
    assert transcribe(two_clips[0], speech_threshold=0.5, streamer=streamer) == {"text": ""}
    assert "".join(streamer) == ""


def test_the_head_is_asked_by_default(model, tiny_processor, two_clips):
    always_blank(model)
    assert SlamAsrPipeline(model, tiny_processor, device="cpu")(two_clips[0]) == {"text": ""}


def test_a_silent_chunk_leaves_its_neighbours_as_they_are(model, transcribe, two_clips):
    """Alone and in a batch."""
    model.ctc_head.log_temperature.data += 2.0  # sure of what it says
    torch.nn.init.constant_(model.ctc_head.blank_bias, 30.0)
    heard = [
        1 - np.exp(rows[:, 0].min())
        for rows in head_log_probs(transcribe.model, transcribe.processor([*two_clips]))
    ]
    texts = [
        result["text"] if own == max(heard) else ""
        for own, result in zip(heard, transcribe([*two_clips]), strict=True)
    ]
    assert sorted(map(bool, texts)) == [False, True]
    for batch_size in (1, 4):
        results = transcribe([*two_clips] * 2, batch_size=batch_size, speech_threshold=float(sum(heard) / 2))
        assert [result["text"] for result in results] == texts * 2


@pytest.mark.parametrize(
    ("positions", "speech"),
    [
        ([(0, 0.99), (1, 0.99), (0, 0.99)], True),
        ([(0, 0.99), (0, 0.30), (0, 0.99)], False),  # hardly a token
        ([(0, 0.99), (0, 0.99), (0, 0.99)], False),
        ([(1, 0.99), (2, 0.99), (0, 0.99), (3, 0.99)] * 9, True),
        ([(1, 0.99), (2, 0.3), (1, 0.3), (3, 0.3)] * 9, False),  # something is said, but what
    ],
)
def test_speech_is_where_the_head_recognises_something_for_certain(positions, speech):
    log_probs = np.concatenate([log_probs_of([one], 50, sure) for one, sure in positions])
    assert holds_speech(log_probs, 0.95, max_doubt=1.9) is speech
    assert holds_speech(log_probs, 0, max_doubt=1.9)


def test_doubt_is_the_entropy_over_positions_that_are_not_blank_and_two_more():
    log_probs = np.log([[0.5, 0.25, 0.25], [0.125, 0.5, 0.375]])
    entropies = [1.5 * np.log(2), -(0.125 * np.log(0.125) + 0.5 * np.log(0.5) + 0.375 * np.log(0.375))]
    assert doubt(log_probs) == pytest.approx(sum(entropies) / (0.5 + 0.875 + 2))
    assert holds_speech(log_probs, 0.5, max_doubt=doubt(log_probs))
    assert not holds_speech(log_probs, 0.5, max_doubt=doubt(log_probs) - 1e-6)
    assert holds_speech(log_probs, 0.5)  # of a checkpoint that does not say


def test_a_pipeline_heeds_the_doubt_that_its_processor_allows(model, tiny_processor, two_clips):
    transcribe = SlamAsrPipeline(model, tiny_processor, device="cpu", speech_threshold=0.01)
    texts = [result["text"] for result in transcribe([*two_clips])]
    assert all(texts)
    doubts = [doubt(rows) for rows in head_log_probs(model, tiny_processor([*two_clips]))]
    tiny_processor.max_doubt = float(np.mean(doubts))
    heard = [result["text"] for result in transcribe([*two_clips])]
    assert heard == [text if one < max(doubts) else "" for text, one in zip(texts, doubts, strict=True)]


def test_a_long_recording_is_cut_where_the_head_recognises_nothing(transcribe, recording, monkeypatch):
    cuts = []
    find = transcribe.find_blank
    monkeypatch.setattr(transcribe, "find_blank", lambda *args: cuts.append(find(*args)) or (20_000, 60_000))
    chunks = list(transcribe.preprocess(recording))
    assert len(cuts) > 1
    assert chunks[0].samples.shape == (20_000,)
    assert chunks[1].start == 60_000 / 16_000
