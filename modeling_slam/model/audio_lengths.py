"""Lengths along the audio path: samples -> features -> encoder frames -> audio tokens.

Features are what the processor prepares for an encoder: log-mel frames for Whisper, the samples themselves
for wav2vec2 and its kin. The processor writes one placeholder per audio token and the model fills each of
them, so both must count alike. All the arithmetic stands here, once; it works on integers and on integer
tensors, and needs no torch. To add an encoder, write the row of `GEOMETRIES` that counts its frames.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

Count = TypeVar("Count", bound=Any)  # an integer or an integer tensor

SAMPLING_RATE = 16_000  # Hz
MAX_CLIP_SECONDS = 30.0  # of training and test clips by default; Whisper's position table ends here
MIN_CHUNK_SECONDS = 2.0  # shorter pieces of a long recording hold too few words to be understood
MAX_TOKENS_PER_SECOND = 20  # no one speaks as fast, in tokens of any common LLM; what goes on is a loop

TailRule = Literal["pad", "drop"]


@dataclass(frozen=True)
class AudioGeometry:
    """How an encoder counts.

    Args:
        hop: samples at 16 kHz per feature: 160 for log-mel frames of 10 ms, 1 for a waveform.
        stride: features per encoder frame; `hop * stride` samples, 20 ms, for all encoders so far.
        max_seconds: longest clip that the encoder takes; `None` if it takes any.
        convolutions: (kernel, stride) of each convolution where they have no padding: a frame then needs all
            of its samples. Without any, every started frame counts.
    """

    hop: int
    stride: int
    max_seconds: float | None = None
    convolutions: tuple[tuple[int, int], ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "convolutions", tuple(map(tuple, self.convolutions)))  # JSON has lists

    @property
    def frame_samples(self) -> int:
        return self.hop * self.stride

    def features_of_samples(self, samples: Count) -> Count:
        """Features of a clip; where frames may be partly silence they fill the last one."""
        return samples if self.convolutions else self.frames_of_samples(samples) * self.stride

    def frames_of_features(self, features: Count) -> Count:
        """Encoder frames of a clip of so many features."""
        if not self.convolutions:
            return -(-features // self.stride)
        for kernel, stride in self.convolutions:
            features = (features - kernel) // stride + 1
        return features * (features > 0)

    def frames_of_samples(self, samples: Count) -> Count:
        """Encoder frames of a clip of `samples` at 16 kHz."""
        return self.frames_of_features(-(-samples // self.hop))

    def transcript_budget(self, frames: Count, tokens_per_second: int) -> Count:
        """Most tokens that the transcript of a clip of these encoder frames may have."""
        return -(-frames * tokens_per_second * self.frame_samples // SAMPLING_RATE)


WHISPER_GEOMETRY = AudioGeometry(hop=160, stride=2, max_seconds=MAX_CLIP_SECONDS)  # of OpenAI's models


def whisper_geometry(audio_config: Any) -> AudioGeometry:
    samples = audio_config.max_source_positions * WHISPER_GEOMETRY.frame_samples
    return replace(WHISPER_GEOMETRY, max_seconds=samples / SAMPLING_RATE)


def waveform_geometry(audio_config: Any) -> AudioGeometry:
    if getattr(audio_config, "add_adapter", False):  # HuBERT's config does not know the word
        raise ValueError("`audio_config.add_adapter` is not supported; name an `--encoder` without it.")
    pairs = tuple(zip(audio_config.conv_kernel, audio_config.conv_stride, strict=True))
    return AudioGeometry(1, math.prod(audio_config.conv_stride), convolutions=pairs)


GEOMETRIES: dict[str, Callable[[Any], AudioGeometry]] = {
    "whisper": whisper_geometry,
    "wav2vec2": waveform_geometry,
    "hubert": waveform_geometry,
    "wavlm": waveform_geometry,
}


def audio_geometry(audio_config: Any) -> AudioGeometry:
    """That of the encoder which `audio_config` describes; a ValueError if there is none of its type."""
    if audio_config.model_type not in GEOMETRIES:
        raise ValueError(
            f"`audio_config` (`--encoder`) must be a speech encoder of the type {', '.join(GEOMETRIES)}; "
            f"this one is a {audio_config.model_type!r}. Name a model of one of these types."
        )
    return GEOMETRIES[audio_config.model_type](audio_config)


def audio_token_count(encoder_frames: Count, stack: int, tail: TailRule, queries: int | None) -> Count:
    """LLM positions that a clip takes.

    Args:
        encoder_frames: frames of 20 ms that the encoder gave for the clip.
        stack: encoder frames per audio token.
        tail: "pad" fills the last token with silence; "drop" leaves out the frames that do not fill one.
        queries: audio tokens of any clip, where the output does not grow with the clip; else `None`.
    """
    if queries is not None:
        return encoder_frames * 0 + queries
    return encoder_frames // stack if tail == "drop" else -(-encoder_frames // stack)
