"""pipeline_slam: every kind of input gives the text that model and processor give by hand, at any length."""

import functools
import http.server
import io
import json
import threading

import datasets
import numpy as np
import pytest
import soundfile
import soxr
import torch
from tokenizers import decoders
from transformers import Pipeline, TextIteratorStreamer
from transformers.pipelines.pt_utils import KeyDataset

from modeling_slam import SlamAsrPipeline, SlamAsrProcessor
from modeling_slam.model.audio_io import AudioError
from modeling_slam.model.long_audio import Chunk, split
from modeling_slam.model.word_timestamps import align_words, combine_heads, place_words, words_of_tokens

RATE = 16_000


@pytest.fixture
def transcribe(tiny_model, tiny_processor) -> SlamAsrPipeline:
    tiny_model.generation_config.update(max_new_tokens=8, eos_token_id=1, pad_token_id=0)
    return SlamAsrPipeline(tiny_model, tiny_processor, device="cpu")


@pytest.fixture
def by_hand(tiny_model, tiny_processor):
    def text(clip: np.ndarray, **settings) -> str:
        ids = tiny_model.generate(**tiny_processor(clip), **settings)
        return tiny_processor.batch_decode(ids, skip_special_tokens=True)[0].strip()

    return text


@pytest.fixture
def clip(two_clips) -> np.ndarray:
    return two_clips[0]


@pytest.fixture
def long_recording(two_clips) -> np.ndarray:
    """About 42 s: clips with pauses, so that all cuts fall into pauses."""
    pause = np.zeros(RATE // 2, np.float32)
    return np.concatenate([part for clip in two_clips * 9 for part in (clip, pause)])


def wav(clip: np.ndarray, rate: int = RATE) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, clip, rate, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def test_it_is_a_pipeline_that_knows_its_parts(transcribe, tiny_processor):
    assert isinstance(transcribe, Pipeline)
    assert transcribe.tokenizer is tiny_processor.tokenizer


def test_every_kind_of_recording_gives_the_same_text(transcribe, by_hand, clip, tmp_path):
    expected = {"text": by_hand(clip)}
    assert expected["text"]
    path = tmp_path / "clip.wav"
    path.write_bytes(wav(clip))
    stereo = np.stack([clip, clip])
    kinds = [clip, clip.astype(np.float64), torch.from_numpy(clip), stereo, str(path), path, wav(clip)]
    dictionaries = [
        {"array": clip, "sampling_rate": RATE},
        {"raw": clip, "sampling_rate": RATE},
        {"bytes": wav(clip)},
        {"bytes": wav(clip), "path": "elsewhere.wav"},
        {"path": str(path)},
    ]
    for recording in kinds + dictionaries:
        assert transcribe(recording) == expected
    with path.open("rb") as file:
        assert transcribe(file) == expected


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_other_sampling_rates_are_resampled(transcribe, by_hand, clip, rate):
    other = soxr.resample(clip, RATE, rate)
    expected = {"text": by_hand(soxr.resample(other, rate, RATE))}
    assert transcribe({"array": other, "sampling_rate": rate}) == expected
    assert transcribe(wav(other, rate)) == expected


def test_lists_generators_and_dataset_columns_give_results_in_order(transcribe, by_hand, two_clips, tmp_path):
    expected = [{"text": by_hand(clip)} for clip in two_clips]
    assert expected[0] != expected[1]
    paths = []
    for number, clip in enumerate(two_clips):
        paths.append(str(tmp_path / f"{number}.wav"))
        soundfile.write(paths[-1], clip, RATE, subtype="FLOAT")
    rows = datasets.Dataset.from_dict({"audio": paths})
    rows = rows.cast_column("audio", datasets.Audio(decode=False))
    for many in (list(two_clips), tuple(two_clips)):
        assert transcribe(many) == expected
    assert transcribe([]) == []
    for lazy in (KeyDataset(rows, "audio"), rows["audio"], iter(paths), (clip for clip in two_clips)):
        assert list(transcribe(lazy)) == expected
    streamed = rows.to_iterable_dataset()
    assert list(transcribe(row["audio"] for row in streamed)) == expected
    assert len(transcribe(KeyDataset(rows, "audio"))) == 2  # what tqdm shows


def test_a_generator_is_read_as_results_are_taken(transcribe, clip):
    taken = []
    results = iter(transcribe(taken.append(number) or clip for number in range(5)))
    next(results)
    assert len(taken) == 1


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_mix_recordings_and_change_nothing(
    transcribe, by_hand, two_clips, long_recording, num_workers
):
    recordings = [two_clips[0], long_recording, two_clips[1], long_recording[: 31 * RATE], two_clips[0]]
    expected = [transcribe(recording) for recording in recordings]
    assert transcribe(recordings, batch_size=3, num_workers=num_workers) == expected
    assert expected[0] == {"text": by_hand(two_clips[0])}


def test_a_long_recording_is_the_transcripts_of_its_chunks(transcribe, by_hand, long_recording):
    for arguments, longest in (({}, 15.0), ({"chunk_length_s": 6}, 6.0)):
        chunks = list(split([long_recording], longest, 30.0))
        assert len(chunks) > 2
        assert not any(chunk.overlap for chunk in chunks)
        expected = " ".join(" ".join(by_hand(chunk.samples).split()) for chunk in chunks)
        assert transcribe(long_recording, **arguments)["text"] == expected


def test_a_checkpoint_tells_how_long_its_chunks_are(
    tiny_model, tiny_processor, transcribe, long_recording, tmp_path
):
    expected = transcribe(long_recording, chunk_length_s=6)
    assert transcribe(long_recording) != expected
    tiny_processor.chunk_seconds = 6.0
    tiny_processor.save_pretrained(tmp_path)
    loaded = SlamAsrPipeline(tiny_model, SlamAsrProcessor.from_pretrained(tmp_path), device="cpu")
    assert loaded(long_recording) == expected


def test_thirty_seconds_are_heard_whole_unless_told_otherwise(transcribe, by_hand, long_recording):
    whole = long_recording[: 30 * RATE]
    assert transcribe(whole)["text"] == by_hand(whole)
    assert transcribe(whole, chunk_length_s=10)["text"] != by_hand(whole)


def test_generation_settings_reach_generate(transcribe, by_hand, tiny_model, tiny_processor, clip):
    expected = by_hand(clip, num_beams=3, max_new_tokens=5)
    assert expected != by_hand(clip)
    settings = {"num_beams": 3, "max_new_tokens": 5}
    assert transcribe(clip, generate_kwargs=settings)["text"] == expected
    assert transcribe(clip, **settings)["text"] == expected
    assert SlamAsrPipeline(tiny_model, tiny_processor, device="cpu", **settings)(clip)["text"] == expected
    preset = SlamAsrPipeline(tiny_model, tiny_processor, device="cpu", generate_kwargs=settings)
    assert preset(clip)["text"] == expected


@pytest.mark.parametrize("length", [1, 42])
def test_streamed_text_is_the_result(transcribe, tiny_processor, long_recording, length):
    """Of a recording of one chunk and of several; the stream ends once, after the last."""
    recording = long_recording[: length * RATE]
    streamer = TextIteratorStreamer(tiny_processor.tokenizer, timeout=60)
    results = []

    def run():
        results.append(transcribe(recording, generate_kwargs={"streamer": streamer, "num_beams": 1}))

    thread = threading.Thread(target=run)
    thread.start()
    streamed = "".join(streamer)
    thread.join()
    assert streamed.split() == results[0]["text"].split()


def test_a_stream_ends_also_when_reading_fails(transcribe, tiny_processor):
    streamer = TextIteratorStreamer(tiny_processor.tokenizer, timeout=60)
    with pytest.raises(AudioError):
        transcribe("nowhere.wav", generate_kwargs={"streamer": streamer})
    assert list(streamer) == [""]


@pytest.mark.parametrize(
    ("inputs", "arguments", "message"),
    [
        ("one", {"num_beams": 2}, "num_beams=1"),
        ("one", {"batch_size": 2}, "one recording"),
        ("many", {}, "one recording"),
    ],
)
def test_beams_and_batches_cannot_be_streamed(transcribe, tiny_processor, clip, inputs, arguments, message):
    streamer = TextIteratorStreamer(tiny_processor.tokenizer, timeout=60)
    with pytest.raises(ValueError, match=message):
        transcribe(clip if inputs == "one" else [clip], generate_kwargs={"streamer": streamer}, **arguments)


@pytest.mark.parametrize(
    ("recording", "error", "message"),
    [
        ("nowhere.wav", AudioError, "no such file"),
        (np.zeros(0, np.float32), AudioError, "no samples"),
        (b"", AudioError, "no bytes"),
        (b"this is text", AudioError, "not readable"),
        (np.array([0.1, np.nan], np.float32), AudioError, "NaN"),
        (np.zeros(9, np.complex64), AudioError, "complex64"),
        (np.zeros((2, 3, 4), np.float32), AudioError, "shape"),
        (None, AudioError, "NoneType"),
        ([0.1, 0.2], TypeError, "numpy array"),
        ({"array": np.zeros(9, np.float32)}, ValueError, "sampling_rate"),
        ({"array": np.zeros(9, np.float32), "sampling_rate": "16k"}, ValueError, "sampling_rate"),
        ({"audio": {}, "text": ""}, ValueError, "audio column"),
    ],
)
def test_what_cannot_be_transcribed_says_why(transcribe, recording, error, message):
    with pytest.raises(error, match=message):
        transcribe(recording)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"chunk_length_s": 0}, ValueError, "from 2 to 30"),
        ({"chunk_length_s": 31}, ValueError, "from 2 to 30"),
        ({"chunk_length_s": True}, ValueError, "from 2 to 30"),
        ({"chunk_length_s": "15"}, ValueError, "from 2 to 30"),
        ({"return_timestamps": True}, ValueError, '"word"'),
        ({"return_timestamps": "char"}, ValueError, '"word"'),
        ({"stride_length_s": 3}, TypeError, "stride_length_s"),
        ({"generate_kwargs": 2}, TypeError, "dictionary"),
        ({"generate_kwargs": {"beams": 2}}, ValueError, "beams"),
        ({"num_return_sequences": 2, "num_beams": 2}, ValueError, "num_return_sequences"),
    ],
)
def test_arguments_are_checked(transcribe, clip, arguments, error, message):
    with pytest.raises(error, match=message):
        transcribe(clip, **arguments)


def test_without_a_processor_it_says_what_to_pass(tiny_model):
    with pytest.raises(ValueError, match="processor="):
        SlamAsrPipeline(tiny_model)


def test_addresses_are_fetched(transcribe, by_hand, clip, tmp_path):
    """Over real HTTP; what is not there and who does not answer are named."""
    (tmp_path / "clip.wav").write_bytes(wav(clip))
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{server.server_port}"
        assert transcribe(f"{root}/clip.wav")["text"] == by_hand(clip)
        with pytest.raises(AudioError, match="404") as caught:
            transcribe(f"{root}/other.wav")
        assert caught.value.reason == "unreachable"
        server.shutdown()
    with pytest.raises(AudioError, match="cannot be fetched"):
        transcribe(f"{root}/clip.wav")


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


# ---------------------------------------------------------------- word times


def test_words_get_times_in_order_and_inside_the_recording(transcribe, long_recording, clip):
    for recording in (clip, long_recording):
        result = transcribe(recording, return_timestamps="word", batch_size=2)
        assert result["text"] == transcribe(recording)["text"]
        assert [chunk["text"] for chunk in result["chunks"]] == result["text"].split()
        times = [time for chunk in result["chunks"] for time in chunk["timestamp"]]
        assert times == sorted(times)
        assert times[0] >= 0
        assert times[-1] <= len(recording) / RATE
        json.dumps(result)


def test_each_word_of_any_transcript_has_a_place(tiny_model, tiny_processor, clip):
    """Also more words than audio tokens; and the model's attention is afterwards what it was."""
    chunk = Chunk(clip, start=100.0, overlap=0.0, is_last=True)
    usual = tiny_model.language_model.config._attn_implementation
    for text in ("a", "so it is", " two  spaces ", "a " * 40):
        ids = tiny_processor.tokenizer(text)["input_ids"]
        words = align_words(tiny_model, tiny_processor, chunk, ids)
        assert [word.text for word in words] == text.split()
        times = [time for word in words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert times[0] >= 100.0
        assert times[-1] <= 100.0 + len(clip) / RATE + 0.01
    assert align_words(tiny_model, tiny_processor, chunk, []) == []
    assert tiny_model.language_model.config._attn_implementation == usual


def test_tokens_belong_to_the_words_they_spell(tiny_tokenizer):
    tiny_tokenizer.backend_tokenizer.decoder = decoders.Fuse()
    ids = tiny_tokenizer("ab c  def")["input_ids"]
    words, rows = words_of_tokens(tiny_tokenizer, ids)
    assert words == ["ab", "c", "def"]
    assert rows == [[0, 1], [3], [6, 7, 8]]


def test_attention_that_follows_the_words_finds_their_boundaries():
    """Words of known times in pauses and without: two heads follow them, the others look elsewhere."""
    rng = np.random.default_rng(0)
    spans = [(0.30, 0.90), (0.90, 1.70), (2.30, 2.60), (3.50, 4.10)]
    samples = 1e-4 * rng.standard_normal(round(4.6 * RATE))
    tokens = 46
    attention = 0.02 * rng.random((20, len(spans), tokens))
    attention[5:, :, 0] = 0.9  # most look at the first token whatever the word
    for row, (start, end) in enumerate(spans):
        sound = slice(round(start * RATE), round(end * RATE))
        samples[sound] += 0.1 * rng.standard_normal(sound.stop - sound.start)
        attention[:2, row, round(start * 10) : round(end * 10)] = 0.3
    placed = place_words(combine_heads(attention), samples.astype(np.float32), 5)
    np.testing.assert_allclose(placed, spans, atol=0.051)
    assert np.median(np.abs(np.array(placed) - np.array(spans))) <= 0.021
