"""audio_io: every format a user may hold gives the same samples, and nothing broken passes for sound."""

import io
import struct
import types

import numpy as np
import pytest
import soundfile
import torch

from modeling_slam.model.audio_io import AudioError, load_audio

FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
}


def tone(seconds: float = 2.0, rate: int = 16_000, hertz: float = 440.0) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def encode(samples: np.ndarray, name: str, rate: int = 16_000) -> bytes:
    buffer = io.BytesIO()
    container, subtype = FORMATS[name]
    soundfile.write(buffer, samples, rate, format=container, subtype=subtype)
    return buffer.getvalue()


def noise(seconds: float = 4.0) -> np.ndarray:
    return np.random.default_rng(0).normal(scale=0.1, size=round(seconds * 16_000)).astype(np.float32)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_decodes_to_the_samples_that_were_written(name):
    samples = load_audio(encode(tone(), name))
    assert samples.dtype == np.float32
    assert abs(len(samples) - 32_000) <= (
        256 if name == "ogg" else 0
    )  # FFmpeg's end of an Ogg page of Vorbis
    middle = slice(4_000, 28_000)
    error = np.sqrt(np.mean((samples[middle] - tone()[middle]) ** 2))
    assert error < 0.02, error


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("part", [0.05, 0.3, 0.5, 0.9])
def test_a_file_cut_anywhere_is_truncated_and_never_just_shorter(name, part):
    encoded = encode(noise(), name)
    with pytest.raises(AudioError, match="truncated") as caught:
        load_audio(encoded[: int(len(encoded) * part)])
    assert caught.value.reason == "truncated"


def test_path_bytes_file_object_and_dictionaries_give_the_same_samples(tmp_path):
    path = tmp_path / "clip.flac"
    path.write_bytes(encode(tone(), "flac"))
    expected, _ = soundfile.read(path, dtype="float32")
    with path.open("rb") as file:
        given = [path, str(path), path.read_bytes(), file, {"path": str(path)}, {"array": expected}]
        given += [{"bytes": path.read_bytes(), "path": "elsewhere.flac"}, {"bytes": None, "path": str(path)}]
        for source in given:
            np.testing.assert_array_equal(load_audio(source), expected)


def test_what_datasets_gives_is_read_whichever_way_it_decodes():
    class Decoder:  # with torchcodec installed, `datasets` gives one for each clip
        def get_all_samples(self):
            return types.SimpleNamespace(data=torch.from_numpy(tone(rate=8_000))[None], sample_rate=8_000)

    expected = load_audio(tone(rate=8_000), sampling_rate=8_000)
    for source in (Decoder(), {"raw": tone(rate=8_000), "sampling_rate": 8_000}):
        np.testing.assert_array_equal(load_audio(source), expected)


@pytest.mark.parametrize("rate", [-8_000, 0.0, "16k", float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(AudioError, match="sampling_rate"):
        load_audio(tone(), sampling_rate=rate)


def test_other_rates_are_resampled_with_pitch_and_length_kept():
    for rate in (8_000, 22_050, 44_100, 48_000):
        samples = load_audio(encode(tone(rate=rate), "wav", rate))
        assert abs(len(samples) - 32_000) <= 1
        peak = np.argmax(np.abs(np.fft.rfft(samples[:32_000]))) / 2.0
        assert peak == pytest.approx(440, abs=1), rate
    from_array = load_audio(tone(rate=8_000), sampling_rate=8_000)
    from_dict = load_audio({"array": tone(rate=8_000), "sampling_rate": 8_000})
    assert len(from_array) == 32_000
    np.testing.assert_array_equal(from_array, from_dict)


def test_channels_are_averaged_whichever_axis_they_are_on():
    stereo = np.stack([tone(), np.zeros(32_000, np.float32)], axis=1)
    for source in (stereo, stereo.T, encode(stereo, "wav")):
        np.testing.assert_allclose(load_audio(source), tone() / 2, atol=1e-4)


def test_integer_samples_are_scaled_and_lists_are_taken():
    as_int16 = (tone() * 32_768).astype(np.int16)
    np.testing.assert_allclose(load_audio(as_int16), tone(), atol=1e-4)
    np.testing.assert_allclose(load_audio(tone().tolist()), tone())


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("no/such/clip.wav", "missing file"),
        (b"", "empty"),
        (b"these are not audio bytes" * 10, "unreadable"),
        ({"sampling_rate": 16_000}, "unreadable"),
        (np.zeros(0, np.float32), "empty"),
        (np.array([0.0, np.nan]), "not finite"),
        (np.array([0.0, np.inf]), "not finite"),
        (np.zeros((2, 2, 2)), "unreadable"),
        (["a", "b"], "unreadable"),
    ],
)
def test_what_is_not_audio_raises_with_its_reason(source, reason):
    with pytest.raises(AudioError) as caught:
        load_audio(source)
    assert caught.value.reason == reason


def test_the_message_names_the_file(tmp_path):
    path = tmp_path / "broken.wav"
    path.write_bytes(b"RIFFxxxx")
    with pytest.raises(AudioError, match=r"broken\.wav"):
        load_audio(path)
    with pytest.raises(AudioError, match=r"inside\.mp3"):
        load_audio({"bytes": b"nonsense", "path": "inside.mp3"})


def test_files_of_writers_that_did_not_know_the_length_are_whole():
    streamed_wav = bytearray(encode(tone(), "wav"))
    data = streamed_wav.index(b"data")
    streamed_wav[data + 4 : data + 8] = b"\xff\xff\xff\xff"  # As written to a pipe.
    assert len(load_audio(bytes(streamed_wav))) == 32_000

    streamed_flac = bytearray(encode(tone(), "flac"))
    # Total samples: the low 36 bits that end at byte 26 of a FLAC file; 0 means unknown.
    streamed_flac[21] &= 0xF0
    streamed_flac[22:26] = bytes(4)
    assert len(load_audio(bytes(streamed_flac))) == 32_000


@pytest.mark.parametrize("bitrate_mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_an_mp3_that_does_not_state_its_length_is_read_to_its_end(bitrate_mode, rate):
    # Loud first, then silence: a variable rate guessed from the first frame ends far too early.
    samples = np.concatenate([noise()[:16_000], np.zeros(3 * rate, np.float32)])
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="MP3", bitrate_mode=bitrate_mode)
    encoded = buffer.getvalue()
    tag = max(encoded.find(b"Xing", 0, 200), encoded.find(b"Info", 0, 200))
    assert tag > 0, "the writer no longer makes a Xing/Info header; this test needs another file"
    headless = encoded[encoded.index(encoded[:2], tag) :]
    expected = len(samples) * 16_000 / rate
    assert expected - 100 <= len(load_audio(headless)) <= expected + 3000  # Encoders pad both ends.
    with pytest.raises(AudioError, match="truncated"):
        load_audio(headless[: len(headless) // 2 + 1])


def test_id3_tags_before_and_after_an_mp3_do_not_matter():
    size = 300
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, size >> 7, size & 127]) + bytes(size)
    trailer = b"TAG" + bytes(125)
    assert len(load_audio(tag + encode(tone(), "mp3") + trailer)) == 32_000


def test_a_wav_with_chunks_around_its_samples_is_read():
    wav = encode(tone(), "wav")
    extra = b"LIST" + struct.pack("<I", 5) + b"hello\x00"  # Odd size, padded to even.
    whole = wav[:12] + extra + wav[12:] + extra
    assert len(load_audio(whole)) == 32_000


def test_integers_of_unknown_full_scale_are_refused():
    assert np.abs(load_audio(np.array([0, 16384], dtype=np.int16))).max() == 0.5
    with pytest.raises(AudioError, match="int16 or int32, got int64"):
        load_audio([0, 1000, -32000])


def test_faint_noise_in_opposite_phase_is_silence_and_no_fault():
    """Codecs leave it where nothing is said."""
    noise = 1e-4 * np.random.default_rng(0).standard_normal((16_000, 1))
    encoded = io.BytesIO()
    soundfile.write(encoded, noise * [1, -1], 16_000, format="WAV", subtype="FLOAT")
    assert np.abs(load_audio(encoded.getvalue())).max() < 1e-6
