"""Audio in: any clip a user may hold becomes 16 kHz mono float32 samples, or a clear `AudioError`.

Training, evaluation and the pipeline all read through `load_audio`, so a clip means the same samples
everywhere. wav, flac, mp3, ogg and opus decode with the libsndfile that `soundfile` carries (no ffmpeg), and
soxr resamples. A file cut short decodes without complaint in most formats, so `_cut_short` looks for its end
as each format marks it; a new format gets a check there.
"""

import io
import os
import struct
import urllib.request
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

try:  # Only decoding needs these: feature lengths and text work without them.
    import soundfile
    import soxr
except (ImportError, OSError):  # OSError: soundfile is there, its libsndfile is not.
    soundfile = soxr = None

FETCH_TIMEOUT_SECONDS = 30  # of silence from a server, not of the whole transfer
BLOCK_FRAMES = 1 << 20  # Decode in blocks: a damaged header may promise more samples than memory holds.
# Encoders count their own delay differently; a file that lost less than this lost no speech.
MP3_SLACK_FRAMES = 2 * 1152
WAV_UNKNOWN_SIZE = 0x7FFFF000  # Streaming writers put this or more where the size is not known yet.
MP3_HERTZ = (44_100, 48_000, 32_000)
MP3_KBITS_MPEG1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
MP3_KBITS_MPEG2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
UNKNOWN_FRAMES = 1 << 60  # libsndfile's count for a stream that does not state its length.


class AudioError(ValueError):
    """Audio that cannot be used; `reason` is one of few.

    missing file, unreachable, unreadable, truncated, empty or not finite.
    """

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


def load_audio(
    source: str | os.PathLike | bytes | BinaryIO | dict | np.ndarray | list,
    sampling_rate: int | None = None,
    target_rate: int = 16_000,
) -> np.ndarray:
    """Return mono float32 samples (n,) at `target_rate`.

    Args:
        source: A path, an http(s) address, the bytes of a file, an open binary file, samples, or a
            `datasets`-style dictionary: `{"array", "sampling_rate"}`, `{"bytes", "path"}` or `{"path"}`.
            Samples with two axes are averaged over the shorter one; integer samples are scaled to [-1, 1].
        sampling_rate: Rate of samples given as an array; `target_rate` if None. Files know theirs.
        target_rate: Rate wanted, in Hz.
    """
    blocks = list(stream_audio(source, sampling_rate, target_rate))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def stream_audio(
    source: Any, sampling_rate: int | None = None, target_rate: int = 16_000
) -> Iterator[np.ndarray]:
    """The samples of `load_audio`, equal to the bit, in blocks: an hour never lies in memory decoded.

    What is wrong with the end of a file shows when the blocks before it have been read.
    """
    name, rate, blocks = _open(source, sampling_rate, target_rate)
    resampler = None
    if rate != target_rate:
        if soxr is None:
            raise ImportError(f"Resampling from {rate} to {target_rate} Hz needs soxr: `pip install soxr`.")
        resampler = soxr.ResampleStream(rate, target_rate, 1, dtype="float32")
    read = written = 0
    for block in blocks:
        if not block.size:
            continue
        if not np.isfinite(block).all():
            raise AudioError(f"{name}: holds NaN or infinite samples.", reason="not finite")
        mono = block.mean(axis=1) if block.shape[1] > 1 else block[:, 0]
        read += len(mono)
        if resampler:
            mono = resampler.resample_chunk(mono)
        if mono.size:
            written += len(mono)
            yield np.ascontiguousarray(mono, dtype=np.float32)
    if not read:
        raise AudioError(f"{name}: holds no samples.", reason="empty")
    rest = resampler.resample_chunk(np.zeros(0, np.float32), last=True) if resampler else np.zeros(0)
    if rest.size:
        yield rest
    elif not written:  # A handful of samples can round to none.
        raise AudioError(f"{name}: too short to resample to {target_rate} Hz.", reason="empty")


def _open(source: Any, sampling_rate: int | None, target_rate: int) -> tuple[str, int, Iterator[np.ndarray]]:
    """Any source -> its name for messages, its rate, and its samples in blocks (n, channels)."""
    if callable(decode := getattr(source, "get_all_samples", None)):  # torchcodec's, as `datasets` gives it
        decoded = decode()
        source = {"array": decoded.data, "sampling_rate": decoded.sample_rate}
    name = None
    if isinstance(source, Mapping):
        samples = source.get("raw") if source.get("array") is None else source["array"]
        if samples is not None:
            return _open(samples, source.get("sampling_rate") or sampling_rate, target_rate)
        path, source_bytes = source.get("path"), source.get("bytes")
        if path is None and source_bytes is None:
            raise AudioError(
                "A recording as a dictionary needs `array` or `raw`, `bytes`, or `path`. This one has "
                f"{sorted(source)}; of a dataset's rows pass the audio column.",
                reason="unreadable",
            )
        name, source = path and str(path), path if source_bytes is None else source_bytes
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source), *_decode(_read(source), os.fspath(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return (name := name or "audio bytes"), *_decode(bytes(source), name)
    if callable(read := getattr(source, "read", None)):
        name = str(getattr(source, "name", "audio file object"))
        return name, *_decode(read(), name)
    rate = target_rate if sampling_rate is None else sampling_rate
    if not isinstance(rate, (int, float, np.number)) or not 0 < rate < float("inf"):
        raise AudioError(
            f"`sampling_rate` must be a positive number in Hz, got {rate!r}.", reason="unreadable"
        )
    samples = _as_samples(source)
    blocks = (samples[start : start + BLOCK_FRAMES] for start in range(0, len(samples), BLOCK_FRAMES))
    return "audio array", int(rate), blocks


def _read(source: str | os.PathLike) -> bytes:
    """The bytes behind a path or an http(s) address."""
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        request = urllib.request.Request(source, headers={"User-Agent": "slam-asr"})  # some refuse Python's
        try:
            with urllib.request.urlopen(request, timeout=FETCH_TIMEOUT_SECONDS) as response:
                return response.read()
        except (OSError, HTTPException, ValueError) as error:
            raise AudioError(
                f"{source}: cannot be fetched ({error}). Check the address and the network, or pass a file.",
                reason="unreachable",
            ) from error
    try:
        return Path(source).expanduser().read_bytes()
    except FileNotFoundError as error:
        raise AudioError(f"{source}: there is no such file.", reason="missing file") from error
    except OSError as error:
        raise AudioError(f"{source}: cannot be read ({error.strerror}).", reason="unreadable") from error


def _decode(encoded: bytes, name: str) -> tuple[int, Iterator[np.ndarray]]:
    """File bytes -> the rate, and the samples in blocks (n, channels)."""
    if soundfile is None:
        raise ImportError("Decoding audio needs soundfile and soxr: `pip install soundfile soxr`.")
    if not encoded:
        raise AudioError(f"{name}: the file has no bytes.", reason="empty")
    if cut := _cut_short(encoded):
        raise _truncated(name, cut)
    try:
        file = _ForwardFile(io.BytesIO(_with_mp3_length(encoded)))
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"{name}: not readable as audio ({error.error_string.strip()}). "
            "Expected wav, flac, mp3, ogg or opus.",
            reason="unreadable",
        ) from error
    return file.samplerate, _decoded_blocks(file, name, soundfile.LibsndfileError)


def _decoded_blocks(file: "_ForwardFile", name: str, failure: type[Exception]) -> Iterator[np.ndarray]:
    frames = 0
    with file:
        try:
            while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
                frames += len(block)
                yield block
        except failure as error:
            raise _truncated(name, f"its header is sound but decoding stopped ({error})") from error
        missing = file.frames - frames if file.frames < UNKNOWN_FRAMES else 0
        if missing > (MP3_SLACK_FRAMES if file.format == "MP3" else 0):
            raise _truncated(name, f"{frames} of the {file.frames} samples its header states are there")


def _truncated(name: str, evidence: str) -> AudioError:
    return AudioError(f"{name}: truncated, {evidence}. Fetch or export the clip again.", reason="truncated")


class _ForwardFile(soundfile.SoundFile if soundfile else object):  # ty: ignore[unsupported-base]
    """Read from start to end: soundfile seeks after each read, which fails where the length is not stated."""

    def seekable(self) -> bool:
        return False


def _as_samples(source: Any) -> np.ndarray:
    """Array-like -> float32 (n, channels); the longer axis is time, integers are scaled to [-1, 1]."""
    samples = np.asarray(source)
    if samples.dtype in (np.int16, np.int32):  # wider ones, as of a Python list, do not tell their full scale
        samples = samples / -float(np.iinfo(samples.dtype).min)
    elif samples.dtype.kind != "f":
        raise AudioError(
            f"Expected audio samples as floats, int16 or int32, got {samples.dtype} "
            f"({type(source).__name__}).",
            reason="unreadable",
        )
    if samples.ndim not in (1, 2):
        raise AudioError(
            f"Expected audio of shape (n,), (n, channels) or (channels, n), got {samples.shape}.",
            reason="unreadable",
        )
    if samples.ndim == 1:
        samples = samples[:, None]
    return (samples if len(samples) >= samples.shape[1] else samples.T).astype(np.float32, copy=False)


def _cut_short(encoded: bytes) -> str | None:
    """What shows that the end of a file is missing, where decoding alone would not tell; else None."""
    if encoded[:4] == b"RIFF" and encoded[8:12] == b"WAVE":
        return _wav_cut_short(encoded)
    if encoded[:4] == b"OggS":
        return _ogg_cut_short(encoded)
    if first := next(_mp3_frames(encoded), None):
        return _mp3_cut_short(encoded, first)
    return None  # libsndfile itself refuses a FLAC file that stops early.


def _wav_cut_short(encoded: bytes) -> str | None:
    position = 12
    while position + 8 <= len(encoded):
        size = int.from_bytes(encoded[position + 4 : position + 8], "little")
        if encoded[position : position + 4] == b"data":
            there = len(encoded) - position - 8
            is_cut = there < size < WAV_UNKNOWN_SIZE
            return f"{there} of the {size} bytes its header states are there" if is_cut else None
        position += 8 + size + size % 2  # Chunks start at even positions.
    return None  # No samples at all: libsndfile says so better.


def _ogg_cut_short(encoded: bytes) -> str | None:
    last_page = encoded.rfind(b"OggS")
    header = encoded[last_page : last_page + 27]
    if len(header) == 27:
        segments = encoded[last_page + 27 : last_page + 27 + header[26]]
        is_whole = len(encoded) >= last_page + 27 + header[26] + sum(segments)
        if is_whole and header[5] & 4:  # Bit 2 marks the last page of the stream (RFC 3533).
            return None
    return "the page that ends the stream is missing"


class _Mp3Frame(NamedTuple):
    start: int
    size: int
    tag: int  # Where the Xing/Info tag begins, if this frame holds one instead of sound.


def _mp3_cut_short(encoded: bytes, first: _Mp3Frame) -> str | None:
    _, stated_bytes = _xing_counts(encoded, first)
    if stated_bytes:  # Writers differ by a few bytes of tags; the decoded length tells smaller losses.
        is_cut = len(encoded) < 0.98 * stated_bytes
        return f"{len(encoded)} of the {stated_bytes} bytes its header states are there" if is_cut else None
    *_, last = _mp3_frames(encoded)
    return "its last frame is not whole" if last.start + last.size > len(encoded) else None


def _with_mp3_length(encoded: bytes) -> bytes:
    """The file, with a Xing header before the first frame if it is an mp3 that does not state its length.

    libsndfile guesses the length of such files from their first frame and reads no further: at a variable
    bit rate most of the sound can be lost without a word.
    """
    first = next(_mp3_frames(encoded), None)
    if first is None or _xing_counts(encoded, first)[0]:
        return encoded
    head = bytearray(encoded[first.start : first.start + 4])
    head[1] |= 1  # No checksum.
    head[2] = head[2] & 0x0F | 0xE0  # The highest bit rate makes a frame that has room for the tag.
    header = next(_mp3_frames(bytes(head)))
    frame = bytes(head).ljust(header.tag, b"\0") + struct.pack(
        ">4sII", b"Xing", 1, sum(1 for _ in _mp3_frames(encoded))
    )
    return encoded[: first.start] + frame.ljust(header.size, b"\0") + encoded[first.start :]


def _xing_counts(encoded: bytes, first: _Mp3Frame) -> tuple[int, int]:
    """(frames, bytes) as the Xing/Info tag in the first frame counts them; 0 where it does not."""
    tag = encoded[first.start + first.tag :][:16]
    if tag[:4] not in (b"Xing", b"Info") or len(tag) < 16:
        return 0, 0
    flags, *counts = struct.unpack(">3I", tag[4:])
    frames = counts.pop(0) if flags & 1 else 0
    return frames, counts.pop(0) if flags & 2 else 0


def _mp3_frames(encoded: bytes) -> Iterator[_Mp3Frame]:
    """The chain of MPEG layer III frames from the start of a file; none if it is not an mp3.

    Source: ISO/IEC 11172-3 section 2.4.1.3 and ISO/IEC 13818-3 section 2.4.2.3
    """
    position = 0
    if encoded[:3] == b"ID3" and len(encoded) > 10:  # A tag comes first; its size has 7 bits a byte.
        position = 10 + sum(byte << shift for byte, shift in zip(encoded[6:10], (21, 14, 7, 0), strict=True))
    while len(head := encoded[position : position + 4]) == 4:
        version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3  # Version 3 is MPEG-1, 2 MPEG-2, 0 MPEG-2.5.
        bit_rate, rate = head[2] >> 4, head[2] >> 2 & 3
        is_frame = head[0] == 0xFF and head[1] >> 5 == 7 and version != 1 and layer == 1
        if not is_frame or bit_rate in (0, 15) or rate == 3:
            return
        is_mono = head[3] >> 6 == 3
        if version == 3:
            kbits, hertz = MP3_KBITS_MPEG1[bit_rate], MP3_HERTZ[rate]
            bytes_per_kbit, tag = 144_000, 4 + (17 if is_mono else 32)
        else:
            kbits, hertz = MP3_KBITS_MPEG2[bit_rate], MP3_HERTZ[rate] // (2 if version == 2 else 4)
            bytes_per_kbit, tag = 72_000, 4 + (9 if is_mono else 17)
        size = bytes_per_kbit * kbits // hertz + (head[2] >> 1 & 1)
        yield _Mp3Frame(position, size, tag)
        position += size
