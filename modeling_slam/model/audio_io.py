"""Audio in: any clip a user may hold becomes 16 kHz mono float32 samples, or a clear `AudioError`.

Training, evaluation and the pipeline all read through `load_audio`, so a clip means the same samples
everywhere. What a file holds `sound_files.py` knows; soxr resamples.
"""

import os
import urllib.request
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .sound_files import BLOCK_FRAMES, AudioError, Blocks, decode_file

soxr: Any
try:  # Only decoding needs it: feature lengths and text work without.
    import soxr
except ImportError:
    soxr = None

FETCH_TIMEOUT_SECONDS = 30  # of silence from a server, not of the whole transfer
LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000  # A wrong one would make hours of a second.
MAX_PEAK = 32.0  # 30 dB above full scale: integers that were made floats, or no sound at all
LEAST_MIXED_POWER = 1e-3  # of that of the channels: 30 dB below it they take each other away
SILENT_POWER = 1e-6  # 60 dB below full scale there may be noise of a codec's own, of any phase


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
    name, blocks = _open(source, sampling_rate, target_rate)
    rate, resampler, read, written = None, None, 0, 0
    for block_rate, block in blocks:
        if not LOWEST_RATE <= block_rate <= HIGHEST_RATE:
            what = f"expected a rate of {LOWEST_RATE:,} to {HIGHEST_RATE:,} Hz, got {block_rate:,}"
            raise AudioError(f"{name}: {what} as `sampling_rate`.", reason="unreadable")
        if rate is None and block_rate != target_rate:
            if soxr is None:
                raise ImportError(f"Resampling {block_rate} to {target_rate} Hz needs `pip install soxr`.")
            resampler = soxr.ResampleStream(block_rate, target_rate, 1, dtype="float32")
        if block_rate != (rate := rate or block_rate):
            what = f"its sampling rate changes from {rate} to {block_rate} Hz. Export it at one rate."
            raise AudioError(f"{name}: {what}", reason="unreadable")
        if not block.size:
            continue
        _check_scale(block, name)
        mono = _mixed(block, name) if block.shape[1] > 1 else block[:, 0]
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


def _check_scale(block: np.ndarray, name: str) -> None:
    peak = max(block.max(), -block.min())
    if not np.isfinite(block.sum()) and not np.isfinite(block).all():
        raise AudioError(f"{name}: holds NaN or infinite samples.", reason="not finite")
    if peak > MAX_PEAK:
        raise AudioError(
            f"{name}: a sample is {peak:.3g}, and full scale is 1. Divide integers that were made floats by "
            "their own full scale, such as 32768.",
            reason="beyond scale",
        )


def _mixed(block: np.ndarray, name: str) -> np.ndarray:
    """The mean of all channels."""
    mono, power = block.mean(axis=1), np.square(block).mean()
    if power > SILENT_POWER and np.square(mono).mean() < LEAST_MIXED_POWER * power:
        raise AudioError(
            f"{name}: its channels are in opposite phase, and silent together. `ffmpeg -i FILE -af "
            "'pan=mono|c0=c0' FILE.flac` takes the first.",
            reason="unreadable",
        )
    return mono


def _open(source: Any, sampling_rate: int | None, target_rate: int) -> tuple[str, Blocks]:
    """Any source -> its name for messages, and its samples."""
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
                f"{sorted(key for key, value in source.items() if value is not None)}; of a dataset's rows "
                "pass the audio column.",
                reason="unreadable",
            )
        name, source = path and str(path), path if source_bytes is None else source_bytes
    if isinstance(source, (str, os.PathLike)):
        return (name := os.fspath(source)), decode_file(read_bytes(source), name)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return (name := name or "audio bytes"), decode_file(bytes(source), name)
    if callable(read := getattr(source, "read", None)):
        name = str(getattr(source, "name", "audio file object"))
        return name, decode_file(read(), name)
    rate = target_rate if sampling_rate is None else sampling_rate
    if not isinstance(rate, (int, float, np.number)) or not 0 < rate < float("inf"):
        raise AudioError(
            f"`sampling_rate` must be a positive number in Hz, got {rate!r}.", reason="unreadable"
        )
    samples = _as_samples(source)
    starts = range(0, len(samples), BLOCK_FRAMES)
    return "audio array", ((int(rate), samples[start : start + BLOCK_FRAMES]) for start in starts)


def read_bytes(source: str | os.PathLike) -> bytes:
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
    with np.errstate(over="ignore"):  # What float32 cannot hold becomes infinite, and is refused.
        return (samples if len(samples) >= samples.shape[1] else samples.T).astype(np.float32, copy=False)
