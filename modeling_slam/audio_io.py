"""Audio in: any clip a user may hold becomes 16 kHz mono float32 samples, or a clear `AudioError`.

Training, evaluation and the pipeline all read through `load_audio`, so a clip means the same samples
everywhere. wav, flac, mp3, ogg and opus decode with the libsndfile that `soundfile` carries (no ffmpeg), and
soxr resamples. A file cut short decodes without complaint in most formats, so each format whose header or
last page tells gets a check in `_cut_short`; a new format needs one line there.
"""

import io
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

try:  # Only decoding needs these: feature lengths and text work without them.
    import soundfile
    import soxr
except (ImportError, OSError):  # OSError: soundfile is there, its libsndfile is not.
    soundfile = soxr = None

BLOCK_FRAMES = 1 << 20  # Decode in blocks: a damaged header may promise more samples than memory holds.
# Encoders count their own delay differently; a file that lost less than this lost no speech.
MP3_SLACK_FRAMES = 2 * 1152
WAV_UNKNOWN_SIZE = 0x7FFFF000  # Streaming writers put this or more where the size is not known yet.


class AudioError(ValueError):
    """Audio that cannot be used; `reason` is missing file, unreadable, truncated, empty or not finite."""

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
        source: A path, the bytes of a file, an open binary file, samples, or a `datasets`-style dictionary:
            `{"array", "sampling_rate"}`, `{"bytes", "path"}` or `{"path"}`. Samples with two axes are
            averaged over the shorter one; integer samples are scaled to [-1, 1].
        sampling_rate: Rate of samples given as an array; `target_rate` if None. Files know theirs.
        target_rate: Rate wanted, in Hz.
    """
    if isinstance(source, dict):
        if source.get("array") is not None:
            return load_audio(source["array"], source.get("sampling_rate") or sampling_rate, target_rate)
        name = str(source.get("path") or "audio bytes")
        encoded = source.get("bytes")
        if encoded is None:
            if source.get("path") is None:
                raise AudioError(
                    f"An audio dictionary needs `array`, `bytes` or `path`; this one has {sorted(source)}.",
                    reason="unreadable",
                )
            encoded = _read_file(source["path"])
        samples, rate = _decode(encoded, name)
    elif isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        samples, rate = _decode(_read_file(source), name)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        name = "audio bytes"
        samples, rate = _decode(bytes(source), name)
    elif isinstance(source, io.IOBase) or callable(getattr(source, "read", None)):
        name = str(getattr(source, "name", "audio file object"))
        samples, rate = _decode(source.read(), name)
    else:
        name = "audio array"
        samples, rate = _as_samples(source), sampling_rate or target_rate
    return _to_mono_at(samples, rate, target_rate, name)


def _read_file(path: str | os.PathLike) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except FileNotFoundError as error:
        raise AudioError(f"{path}: there is no such file.", reason="missing file") from error
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror}).", reason="unreadable") from error


def _decode(encoded: bytes, name: str) -> tuple[np.ndarray, int]:
    """File bytes -> samples (n, channels) and their rate."""
    if soundfile is None:
        raise ImportError("Decoding audio needs soundfile and soxr: `pip install soundfile soxr`.")
    if not encoded:
        raise AudioError(f"{name}: the file has no bytes.", reason="empty")
    cut = _cut_short(encoded)
    if cut:
        raise AudioError(f"{name}: truncated, {cut}. Fetch or export the clip again.", reason="truncated")
    try:
        file = soundfile.SoundFile(io.BytesIO(encoded))
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"{name}: not readable as audio ({error.error_string.strip()}). "
            "Expected wav, flac, mp3, ogg or opus.",
            reason="unreadable",
        ) from error
    with file:
        stated = file.frames
        blocks = [np.zeros((0, file.channels), np.float32)]
        try:
            while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
                blocks.append(block)
        except soundfile.LibsndfileError as error:
            raise AudioError(
                f"{name}: truncated or damaged, its header is sound but decoding stopped "
                f"({error.error_string.strip()}). Fetch or export the clip again.",
                reason="truncated",
            ) from error
        samples = np.concatenate(blocks)
        # An mp3 without a Xing/Info header only has an estimate of its length, which proves nothing.
        is_mp3 = file.format == "MP3"
        counted = _mp3_states(encoded)[0] if is_mp3 else stated < np.iinfo(np.int64).max
        if counted and len(samples) < stated - (MP3_SLACK_FRAMES if is_mp3 else 0):
            raise AudioError(
                f"{name}: truncated, {len(samples)} of the {stated} samples its header states could be "
                "decoded. Fetch or export the clip again.",
                reason="truncated",
            )
        return samples, file.samplerate


def _cut_short(encoded: bytes) -> str | None:
    """What shows that the end of a file is missing, where decoding alone would not tell; else None."""
    if encoded[:4] == b"RIFF" and encoded[8:12] == b"WAVE":
        position = 12
        while position + 8 <= len(encoded):
            size = int.from_bytes(encoded[position + 4 : position + 8], "little")
            if encoded[position : position + 4] == b"data":
                there = len(encoded) - position - 8
                if there < size < WAV_UNKNOWN_SIZE:
                    return f"{there} of the {size} bytes its header states are there"
                return None
            position += 8 + size + size % 2  # Chunks start at even positions.
        return None  # No data chunk at all: libsndfile says so better.
    if encoded[:4] == b"OggS":
        last_page = encoded.rfind(b"OggS")
        header = encoded[last_page : last_page + 27]
        lacing = encoded[last_page + 27 : last_page + 27 + (header[26] if len(header) == 27 else 0)]
        complete = len(header) == 27 and len(encoded) >= last_page + 27 + header[26] + sum(lacing)
        if not complete or not header[5] & 4:  # Bit 2 marks the last page of the stream (RFC 3533).
            return "the page that ends the stream is missing"
    _, stated_bytes = _mp3_states(encoded)
    if stated_bytes and len(encoded) < 0.98 * stated_bytes:  # The decoded length tells smaller losses.
        return f"{len(encoded)} of the {stated_bytes} bytes its header states are there"
    return None


def _mp3_states(encoded: bytes) -> tuple[int | None, int | None]:
    """(frames, bytes) that the Xing/Info header in the first mp3 frame counts; None where it does not say.

    The tag follows the frame's header and side information, its flags say which counts follow it.
    """
    start = 0
    if encoded[:3] == b"ID3":  # An ID3 tag comes first; its size has 7 bits a byte.
        start = 10 + sum(byte << shift for byte, shift in zip(encoded[6:10], (21, 14, 7, 0), strict=False))
    for tag in (b"Xing", b"Info"):
        position = encoded.find(tag, start, start + 200)
        if position >= 0 and len(encoded) >= position + 16:
            flags, first, second = struct.unpack_from(">3I", encoded, position + 4)
            frames = first if flags & 1 else None
            size = (second if flags & 1 else first) if flags & 2 else None
            return frames, size
    return None, None


def _as_samples(source: Any) -> np.ndarray:
    """Array-like -> float32 (n, channels); the longer axis is time, integers are scaled to [-1, 1]."""
    samples = np.asarray(source)
    if samples.dtype.kind == "i":
        samples = samples / -float(np.iinfo(samples.dtype).min)
    elif samples.dtype.kind != "f":
        raise AudioError(
            f"Expected audio samples as floats or signed integers, got {samples.dtype} "
            f"({type(source).__name__}).",
            reason="unreadable",
        )
    if samples.ndim == 1:
        samples = samples[:, None]
    if samples.ndim != 2:
        raise AudioError(
            f"Expected audio of shape (n,), (n, channels) or (channels, n), got {samples.shape}.",
            reason="unreadable",
        )
    if samples.shape[0] < samples.shape[1]:
        samples = samples.T
    return samples.astype(np.float32)


def _to_mono_at(samples: np.ndarray, rate: int, target_rate: int, name: str) -> np.ndarray:
    """(n, channels) at `rate` -> (m,) at `target_rate`."""
    if not samples.size:
        raise AudioError(f"{name}: holds no samples.", reason="empty")
    if not np.isfinite(samples).all():
        raise AudioError(f"{name}: holds NaN or infinite samples.", reason="not finite")
    mono = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
    if rate != target_rate:
        if soxr is None:
            raise ImportError(f"Resampling from {rate} to {target_rate} Hz needs soxr: `pip install soxr`.")
        mono = soxr.resample(mono, rate, target_rate)
        if not mono.size:  # A handful of samples can round to none.
            raise AudioError(f"{name}: too short to resample to {target_rate} Hz.", reason="empty")
    return np.ascontiguousarray(mono, dtype=np.float32)
