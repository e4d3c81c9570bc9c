"""Every kind of sound file in the tables of docs/data.md: all of its sound is heard, or it is refused."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sound_files import PCM, RATE, SECONDS, coded, id3, noise, wav, written

from modeling_slam.model.audio_io import AudioError, load_audio
from modeling_slam.model.sound_files import TOLERANCE_SECONDS

DOCS = Path(__file__).parents[2] / "docs" / "data.md"
KINDS: dict[str, Callable[[], bytes]] = {  # of three seconds
    "wav, 16 bits": lambda: written("WAV", "PCM_16"),
    "wav, 24 bits": lambda: written("WAV", "PCM_24"),
    "wav, floats": lambda: written("WAV", "FLOAT"),
    "wav, A-law": lambda: written("WAV", "ALAW"),
    "wav, ADPCM": lambda: written("WAV", "IMA_ADPCM"),
    "wav with mp3 inside": lambda: coded("wav", "libmp3lame"),
    "RF64 (a wav for more than 4 GB)": lambda: written("RF64", "PCM_16"),
    "Wave64 (.w64)": lambda: written("W64", "PCM_16"),
    "AIFF": lambda: written("AIFF", "PCM_16"),
    "AU": lambda: written("AU", "PCM_16"),
    "NIST sphere (.sph), uncompressed": lambda: written("NIST", "PCM_16"),
    "CAF": lambda: written("CAF", "PCM_16"),
    "FLAC": lambda: written("FLAC", "PCM_16"),
    "mp3": lambda: written("MP3"),
    "mp3 of a variable bit rate": lambda: written("MP3", bitrate_mode="VARIABLE"),
    "mp3 without a header that counts its frames": lambda: coded("mp3", "libmp3lame", write_xing="0"),
    "Ogg Vorbis": lambda: written("OGG", "VORBIS"),
    "Ogg Opus": lambda: written("OGG", "OPUS"),
    "Ogg FLAC": lambda: coded("ogg", "flac"),
    "m4a with AAC": lambda: coded("ipod", "aac"),
    "m4a with ALAC": lambda: coded("ipod", "alac"),
    "mp4 in fragments": lambda: coded("mp4", "aac", movflags="frag_keyframe+empty_moov", frag_duration="5e5"),
    "mp4 with a picture": lambda: coded("mp4", "aac", video=True),
    "webm with Opus": lambda: coded("webm", "libopus", rate=48_000),
    "webm as a browser records it, without a length": lambda: coded(
        "webm", "libopus", rate=48_000, pipe=True, live="1"
    ),
    "mkv of samples through a pipe, without a length": lambda: coded("matroska", "pcm_s16le", pipe=True),
    "mkv with mp3 through a pipe, without a length": lambda: coded("matroska", "libmp3lame", pipe=True),
    "mkv with a picture": lambda: coded("matroska", "aac", video=True),
    "AAC by itself (.aac)": lambda: coded("adts", "aac"),
    "AMR (.amr)": lambda: b"#!AMR\n" + (b"\x3c" + bytes(31)) * 150,
    "wma": lambda: coded("asf", "wmav2", rate=44_100),
}


def opposite() -> bytes:
    encoded = io.BytesIO()
    soundfile.write(encoded, noise() * [1, -1], RATE, format="WAV")
    return encoded.getvalue()


OTHERS: dict[str, Callable[[], bytes]] = {
    "wav, sizes 0": lambda: wav(PCM, 0, 0),
    "wav, sizes 0xFFFFFFFF": lambda: wav(PCM, 0xFFFFFFFF, 0xFFFFFFFF),
    "wav, a size too large by the header": lambda: wav(PCM, len(PCM) + 44),
    "wav, short by a byte": lambda: wav(PCM[:-1], len(PCM)),
    "wav, a size of less than there is": lambda: wav(PCM, 3000),
    "wav, 20 bits valid of 32": lambda: extensible(20),
    "wav, big-endian (RIFX)": lambda: b"RIFX" + wav(PCM)[4:],
    "AIFF, joined": lambda: written("AIFF", "PCM_16") * 2,
    "wav, joined": lambda: wav(PCM) * 2,
    "m4a, joined": lambda: coded("ipod", "aac") * 2,
    "m4a, its index (moov) lost": lambda: coded("ipod", "aac").replace(b"moov", b"free"),
    "mp3, joined": lambda: written("MP3") * 2,
    "mp3, joined with a wav": lambda: written("MP3") + wav(PCM),
    "mp3, joined of two rates": lambda: written("MP3") + written("MP3", rate=44_100),
    "m4a, a tag of mp3 behind": lambda: coded("ipod", "aac") + b"TAG" + bytes(125),
    "mp3, joined with half of another": lambda: written("MP3") + half(written("MP3")),
    "mp3, a tag between its parts": lambda: written("MP3") + id3(3000) + written("MP3"),
    "mp3, two tags in front": lambda: id3(3000) + id3(200, version=4) + written("MP3"),
    "mp3, some junk between its parts": lambda: written("MP3") + b"junk" * 300 + written("MP3"),
    "mp3, a hole": lambda: holed(coded("mp3", "libmp3lame", write_xing="0")),
    "FLAC, joined": lambda: written("FLAC", "PCM_16") * 2,
    "FLAC, a tag of mp3 in front": lambda: id3(99) + written("FLAC", "PCM_16"),
    "Ogg Vorbis, chained": lambda: written("OGG", "VORBIS") * 2,
    "Ogg Opus, chained": lambda: written("OGG", "OPUS") * 2,
    "Ogg Opus, chained of links so short that FFmpeg leaves most out": lambda: (
        written("OGG", "OPUS", seconds=0.3) * 10
    ),
    "Ogg, chained of two codecs": lambda: written("OGG", "VORBIS") + written("OGG", "OPUS"),
    "Ogg, a page lost": lambda: without_a_page(written("OGG", "VORBIS", seconds=6.0)),
    "wma of a broadcast, without a length": lambda: coded("asf", "wmav2", rate=44_100, pipe=True),
    "wma, zeros behind": lambda: coded("asf", "wmav2", rate=44_100) + bytes(100_000),
    "wma, joined": lambda: coded("asf", "wmav2", rate=44_100) * 2,
    "two channels in opposite phase": opposite,
    "two tracks of sound": lambda: coded("mp4", "aac", tracks=2),
    "a picture without sound": lambda: coded("mp4", "aac", tracks=0, video=True),
    "avi": lambda: coded("avi", "libmp3lame"),
    "MPEG transport stream (.ts)": lambda: coded("mpegts", "aac"),
    "WavPack": lambda: coded("wv", "wavpack"),
    "a playlist (.m3u8)": lambda: b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n",
    "a web page instead of the sound": lambda: b"\n<!DOCTYPE html><html><body>404</body></html>",
    "a pointer of Git LFS": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "an empty file": lambda: b"",
}


def extensible(valid: int) -> bytes:
    """Samples of 32 bits of which so many are valid, by the header's word."""
    encoded = written("WAVEX", "PCM_32")
    place = encoded.index(b"\x16\0", 36) + 2
    return encoded[:place] + bytes([valid]) + encoded[place + 1 :]


def half(encoded: bytes) -> bytes:
    return encoded[: len(encoded) // 2]


def holed(encoded: bytes) -> bytes:
    middle = len(encoded) // 2
    return encoded[:middle] + bytes(5000) + encoded[middle + 5000 :]


def without_a_page(encoded: bytes) -> bytes:
    third, fourth = [page.start() for page in re.finditer(b"OggS", encoded)][3:5]
    return encoded[:third] + encoded[fourth:]


def outcome(encoded: bytes) -> str:
    try:
        seconds = len(load_audio(encoded)) / RATE
    except AudioError as error:
        return error.reason
    assert abs(seconds - round(seconds)) < 0.25, seconds  # encoders fill up their first and last frames
    return f"heard, {round(seconds)} s"


def stated(table: str) -> dict[str, str]:
    """The first column of a table of the docs -> the rest of its row."""
    lines = DOCS.read_text(encoding="utf-8").partition(f"<!-- {table} -->")[2].partition("<!-- end -->")[0]
    return dict(re.findall(r"^\| (.+?) \| (.+) \|$", lines, flags=re.MULTILINE)[1:])


def test_the_docs_list_exactly_what_is_tried_here():
    assert list(stated("sounds")) == list(KINDS)
    assert list(stated("damages")) == list(OTHERS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_file_is_heard_and_half_of_it_is_refused_as_the_docs_state(kind):
    encoded = KINDS[kind]()
    outcomes = [outcome(part) for part in (encoded, half(encoded), encoded[: len(encoded) * 9 // 10])]
    assert outcomes == ["heard, 3 s", "truncated", "truncated"]
    assert stated("sounds")[kind] == "heard | truncated"


@pytest.mark.parametrize("kind", OTHERS)
def test_each_damaged_or_foreign_file_has_the_outcome_that_the_docs_state(kind):
    assert outcome(OTHERS[kind]()) == stated("damages")[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_no_cut_gives_a_shorter_clip(kind):
    encoded = KINDS[kind]()
    heard = len(load_audio(encoded)) / RATE
    cuts = np.random.default_rng(1).uniform(0.1, 0.95, size=8) * len(encoded)
    for cut in cuts.astype(int):
        with pytest.raises(AudioError):
            raise AudioError(f"{len(load_audio(encoded[:cut])) / RATE} of {heard} s", "heard")


@pytest.mark.parametrize(
    ("container", "subtype"),
    [("WAV", "PCM_U8"), ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "PCM_32"), ("WAV", "FLOAT"),
     ("WAV", "DOUBLE"), ("WAV", "ALAW"), ("FLAC", "PCM_S8"), ("FLAC", "PCM_24"), ("AIFF", "PCM_24"),
     ("CAF", "PCM_16"), ("AU", "PCM_16"), ("W64", "PCM_16"), ("RF64", "PCM_24"), ("NIST", "PCM_16")],
)  # fmt: skip
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_lossless_files_give_the_samples_that_libsndfile_gives(container, subtype, channels):
    encoded = written(container, subtype, seconds=0.5, channels=channels)
    samples, _ = soundfile.read(io.BytesIO(encoded), dtype="float32", always_2d=True)
    np.testing.assert_array_equal(load_audio(encoded), samples.mean(axis=1))


@pytest.mark.parametrize("container", ["MP3", "OGG"])
@pytest.mark.parametrize("channels", [1, 2])
def test_lossy_files_give_the_samples_that_libsndfile_gives_at_the_same_times(container, channels):
    encoded = written(container, channels=channels)
    samples, _ = soundfile.read(io.BytesIO(encoded), dtype="float32", always_2d=True)
    np.testing.assert_allclose(load_audio(encoded), samples.mean(axis=1), atol=1e-5)


def test_an_mp3_without_a_tag_loses_the_delay_of_its_decoder_and_nothing_else():
    tagged, bare = (
        load_audio(coded("mp3", "libmp3lame")),
        load_audio(coded("mp3", "libmp3lame", write_xing="0")),
    )
    encoder_delay = 576  # LAME's; a tag would state it
    np.testing.assert_allclose(
        bare[encoder_delay:][: len(tagged)], tagged[: len(bare) - encoder_delay], atol=1e-6
    )


@pytest.mark.parametrize("valid", [12, 20, 24])
def test_a_wav_of_fewer_valid_bits_than_it_has_gives_the_samples_that_libsndfile_gives(valid):
    samples, _ = soundfile.read(io.BytesIO(extensible(valid)), dtype="float32")
    np.testing.assert_array_equal(load_audio(extensible(valid)), samples)


@pytest.mark.parametrize("channels", [3, 8, 9, 32])
@pytest.mark.parametrize(("container", "subtype"), [("WAV", "PCM_16"), ("OGG", "VORBIS")])
def test_many_channels_are_averaged(container, subtype, channels):
    encoded = written(container, subtype, seconds=1.0, channels=channels)
    samples, _ = soundfile.read(io.BytesIO(encoded), dtype="float32")
    np.testing.assert_allclose(load_audio(encoded)[:8000], samples.mean(axis=1)[:8000], atol=1e-6)


def test_the_tolerance_is_less_than_what_a_cut_of_a_syllable_takes():
    bytes_per_second = RATE * 2
    lost = round(TOLERANCE_SECONDS * bytes_per_second)
    assert len(load_audio(wav(PCM[: 2 - lost], len(PCM)))) == round((SECONDS - TOLERANCE_SECONDS) * RATE) + 1
    with pytest.raises(AudioError, match=r"2\.90 of the 3\.00 s"):
        load_audio(wav(PCM[: -2 - lost], len(PCM)))


def test_a_tagged_wav_and_one_with_zeros_behind_are_whole():
    chunk = b"LIST" + (30_000).to_bytes(4, "little") + bytes(range(1, 251)) * 120
    for behind in (chunk, bytes(30_000)):
        assert len(load_audio(wav(PCM + behind, len(PCM)))) == len(PCM) // 2


@pytest.mark.parametrize(
    ("name", "advice"),
    [("avi", "`ffmpeg -i FILE FILE.flac`"), ("a web page instead of the sound", "fetch it again"),
     ("a pointer of Git LFS", "git lfs pull"), ("two tracks of sound", "-map 0:a:0")],
)  # fmt: skip
def test_a_kind_that_is_not_read_is_named_with_what_would_read_it(name, advice):
    with pytest.raises(AudioError, match=re.escape(advice)):
        load_audio(OTHERS[name]())


@pytest.mark.parametrize(("value", "reason"), [
    (np.nan, "not finite"), (-np.inf, "not finite"), (1e300, "not finite"), (12_000.0, "beyond scale"),
    (-40.0, "beyond scale"),
])  # fmt: skip
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE", None])
def test_one_sample_that_is_no_sound_refuses_the_clip(value, reason, subtype):
    samples = noise()[:, 0].astype(np.float64)
    samples[len(samples) // 2] = value
    buffer = io.BytesIO()
    if subtype is not None:
        with np.errstate(over="ignore"):
            soundfile.write(buffer, samples, RATE, format="WAV", subtype=subtype)
    with pytest.raises(AudioError) as caught:
        load_audio(samples if subtype is None else buffer.getvalue())
    assert caught.value.reason == reason


def test_a_clip_somewhat_above_full_scale_is_sound():
    assert np.abs(load_audio(noise()[:, 0] * 20)).max() > 5


def test_nothing_is_written_to_the_terminal(capfd):
    for make in (*KINDS.values(), *OTHERS.values()):
        outcome_of_any(make())
    assert capfd.readouterr() == ("", "")


def outcome_of_any(encoded: bytes) -> None:
    for part in (encoded, half(encoded)):
        try:
            load_audio(part)
        except AudioError:
            continue
