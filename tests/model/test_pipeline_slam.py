"""pipeline_slam: every kind of input gives the text that model and processor give by hand, at any length."""

import functools
import http.server
import io
import threading
import types

import datasets
import numpy as np
import pytest
import soundfile
import soxr
import torch
from transformers import GenerationConfig, Pipeline, TextIteratorStreamer
from transformers.pipelines.pt_utils import KeyDataset

from modeling_slam import SlamAsrForConditionalGeneration, SlamAsrPipeline, SlamAsrProcessor
from modeling_slam.model.audio_io import AudioError
from modeling_slam.model.audio_lengths import split

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
        types.MappingProxyType({"array": clip, "sampling_rate": RATE}),
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


def test_batches_mix_recordings_and_change_nothing(transcribe, by_hand, two_clips, long_recording):
    recordings = [two_clips[0], long_recording, two_clips[1], long_recording[: 31 * RATE], two_clips[0]]
    expected = [transcribe(recording) for recording in recordings]
    assert transcribe(recordings, batch_size=3, num_workers=2) == expected
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


def test_settings_of_a_call_come_before_those_of_the_pipeline(
    tiny_model, tiny_processor, by_hand, clip, long_recording
):
    settings = {"num_beams": 3, "max_new_tokens": 5, "chunk_length_s": 6, "batch_size": 2, "num_workers": 1}
    transcribe = SlamAsrPipeline(tiny_model, tiny_processor, device="cpu", local_files_only=True, **settings)
    plain = SlamAsrPipeline(tiny_model, tiny_processor, device="cpu")
    assert transcribe(clip, num_beams=1)["text"] == by_hand(clip, num_beams=1, max_new_tokens=5)
    assert transcribe(long_recording) == plain(long_recording, **settings)
    own = {"num_beams": 1, "max_new_tokens": 4, "chunk_length_s": 9, "batch_size": 1}
    assert transcribe(long_recording, **own) == plain(long_recording, **own)
    config = GenerationConfig(max_new_tokens=6, eos_token_id=1, pad_token_id=0)  # takes the place of all
    assert transcribe(clip, generation_config=config)["text"] == by_hand(clip, generation_config=config)


def test_a_saved_pipeline_transcribes_the_same(transcribe, clip, tmp_path):
    transcribe.save_pretrained(tmp_path, max_shard_size="1MB")  # as `push_to_hub` calls it
    model = SlamAsrForConditionalGeneration.from_pretrained(tmp_path)
    loaded = SlamAsrPipeline(model, SlamAsrProcessor.from_pretrained(tmp_path), device="cpu")
    assert loaded(clip) == transcribe(clip)


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
        ("one", {"num_beams": 2}, "num_beams"),
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


def test_the_language_is_given_to_the_call_or_the_pipeline(tiny_model, transcribe, tiny_processor, clip):
    tiny_processor.instruction = "{language}\n"
    inputs = tiny_processor(clip, language="nl")
    expected = tiny_processor.batch_decode(tiny_model.generate(**inputs), skip_special_tokens=True)[0].strip()
    built = SlamAsrPipeline(tiny_model, tiny_processor, device="cpu", language="nl")
    for text in (
        transcribe(clip, language="nl"),
        transcribe(clip, generate_kwargs={"language": "Dutch"}),
        built(clip),
        built(clip, generation_config=tiny_model.generation_config),
    ):
        assert text == {"text": expected}
    with pytest.raises(ValueError, match="give `language`"):
        transcribe(clip)


def test_hotwords_are_given_to_the_call_or_the_pipeline(tiny_model, transcribe, tiny_processor, clip):
    with pytest.raises(ValueError, match=r"`--instruction .*\{hotwords\}"):
        transcribe(clip, hotwords=["ab"])
    tiny_processor.instruction = "{hotwords}\n"
    inputs = tiny_processor(clip, hotwords=["ab", "c d"])
    expected = tiny_processor.batch_decode(tiny_model.generate(**inputs), skip_special_tokens=True)[0].strip()
    assert transcribe(clip, hotwords=["ab", "c d"]) == {"text": expected} != transcribe(clip)
    built = SlamAsrPipeline(tiny_model, tiny_processor, device="cpu", hotwords=["ab", "c d"])
    assert built(clip, generation_config=tiny_model.generation_config) == {"text": expected}
    with pytest.raises(ValueError, match="must be a list"):
        transcribe(clip, hotwords="ab")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"chunk_length_s": 0}, ValueError, "from 2 to 30"),
        ({"chunk_length_s": 31}, ValueError, "from 2 to 30"),
        ({"chunk_length_s": True}, ValueError, "from 2 to 30"),
        ({"chunk_length_s": "15"}, ValueError, "from 2 to 30"),
        ({"return_timestamps": True}, ValueError, "`return_timestamps` needs a model with a CTC head"),
        ({"return_timestamps": "word"}, ValueError, "train.py --align_epochs"),
        ({"return_timestamps": "char"}, ValueError, 'must be "word", or True'),
        ({"speech_threshold": 0.5}, ValueError, "`speech_threshold` needs a model with a CTC head"),
        ({"speech_threshold": 1.5}, ValueError, "from 0 to 1"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"stride_length_s": 3}, TypeError, "stride_length_s"),
        ({"generate_kwargs": 2}, TypeError, "dictionary"),
        ({"generate_kwargs": {"beams": 2}}, ValueError, "beams"),
        ({"num_return_sequences": 2, "num_beams": 2}, ValueError, "num_return_sequences"),
    ],
)
def test_arguments_are_checked(transcribe, clip, arguments, error, message):
    with pytest.raises(error, match=message):
        transcribe(clip, **arguments)


def test_an_encoder_on_disk_transcribes_the_same(lora_model, tiny_processor, clip, tmp_path):
    """Its weights are nowhere until it computes, so the model's device is none to send a clip to."""
    lora_model.save_pretrained(tmp_path / "model")
    offloaded = SlamAsrForConditionalGeneration.from_pretrained(
        tmp_path / "model",
        device_map={"projector": "cpu", "encoder": "disk", "language_model": "cpu"},
        offload_folder=str(tmp_path / "offload"),
    )
    expected = SlamAsrPipeline(lora_model, tiny_processor, device="cpu")(clip)
    assert SlamAsrPipeline(offloaded, tiny_processor)(clip) == expected


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
