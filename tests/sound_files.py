"""Files of every kind that holds sound, three seconds long, for tests that cut, join and damage them."""

import functools
import io
import struct
from fractions import Fraction

import av
import numpy as np
import soundfile

RATE = 16_000
SECONDS = 3.0


def noise(seconds: float = SECONDS, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """(n, channels), loud enough for no codec to leave out a stretch of it."""
    return (
        np.random.default_rng(0).normal(scale=0.1, size=(round(seconds * rate), channels)).astype("float32")
    )


@functools.cache
def written(container: str, subtype: str | None = None, seconds: float = SECONDS, rate: int = RATE,
            channels: int = 1, **settings) -> bytes:  # fmt: skip
    """A file as libsndfile writes it."""
    buffer = io.BytesIO()
    samples = noise(seconds, rate, channels)
    soundfile.write(buffer, samples, rate, format=container, subtype=subtype, **settings)
    return buffer.getvalue()


class Pipe(io.BytesIO):
    """Where a writer cannot go back to state a length."""

    def seekable(self) -> bool:
        return False


@functools.cache
def coded(container: str, codec: str, *, tracks: int = 1, video: bool = False, pipe: bool = False,
          rate: int = RATE, **options: str) -> bytes:  # fmt: skip
    """A file as FFmpeg writes it."""
    buffer = Pipe() if pipe else io.BytesIO()
    with av.open(buffer, "w", format=container, options=options) as file:
        if video:
            picture = file.add_stream("mpeg4", rate=5)
            picture.width, picture.height, picture.pix_fmt = 32, 32, "yuv420p"
        streams = [file.add_stream(codec, rate=rate, layout="mono") for _ in range(tracks)]
        for stream in streams:
            stream.bit_rate = 64_000
            stream.codec_context.open()
        if video:
            for number in range(round(SECONDS * 5)):
                frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), number, np.uint8), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 5)
                file.mux(picture.encode(frame))
            file.mux(picture.encode(None))
        for stream in streams:
            context = stream.codec_context
            frame = av.AudioFrame.from_ndarray(noise(rate=rate).T, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            resampler = av.AudioResampler(
                format=context.format.name, layout="mono", rate=rate, frame_size=context.frame_size or 1024
            )
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                file.mux(stream.encode(part))
            file.mux(stream.encode(None))
    return buffer.getvalue()


def wav(pcm: bytes, size: int | None = None, riff_size: int | None = None) -> bytes:
    """16-bit mono at 16 kHz whose header states these sizes instead of the true ones."""
    size = len(pcm) if size is None else size
    body = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, RATE, RATE * 2, 2, 16)
    body += b"data" + struct.pack("<I", size) + pcm
    return b"RIFF" + struct.pack("<I", len(body) if riff_size is None else riff_size) + body


def id3(size: int, version: int = 3) -> bytes:
    """A tag as mp3 files have it, filled with bytes of any kind."""
    filling = np.random.default_rng(size).integers(0, 255, size, dtype=np.uint8).tobytes()
    return b"ID3" + bytes([version, 0, 0, 0, 0, size >> 7, size & 127]) + filling


PCM = (noise()[:, 0] * 32767).astype("<i2").tobytes()
