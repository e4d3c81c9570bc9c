"""Lengths along the audio path: samples -> mel frames -> encoder frames -> audio tokens.

The processor writes one placeholder per audio token and the model fills each of them, so both must count
alike. All the arithmetic stands here, once; it works on plain integers and on integer tensors.
"""

from typing import Literal, TypeVar

import torch

Count = TypeVar("Count", int, torch.Tensor)

SAMPLING_RATE = 16_000  # Hz
HOP_LENGTH = 160  # samples between mel frames: 10 ms
ENCODER_STRIDE = 2  # mel frames per encoder frame, Whisper's second convolution: 20 ms
SAMPLES_PER_ENCODER_FRAME = HOP_LENGTH * ENCODER_STRIDE
MAX_CLIP_SECONDS = 30.0  # Whisper's position table ends here
MIN_CHUNK_SECONDS = 2.0  # shorter pieces of a long recording hold too few words to be understood

MAX_TOKENS_PER_SECOND = 20  # no one speaks as fast, in tokens of any common LLM; what goes on is a loop

TailRule = Literal["pad", "drop"]


def encoder_frames_of_samples(samples: Count) -> Count:
    """Encoder frames of a clip of `samples` at 16 kHz; the last one may be partly silence."""
    return -(-samples // SAMPLES_PER_ENCODER_FRAME)


def mel_frames_of_samples(samples: Count) -> Count:
    """Mel frames of a clip: always a whole number of encoder frames, so no rounding follows."""
    return encoder_frames_of_samples(samples) * ENCODER_STRIDE


def encoder_frames_of_mel_frames(mel_frames: Count) -> Count:
    return -(-mel_frames // ENCODER_STRIDE)


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


def transcript_budget(mel_frames: Count, tokens_per_second: int) -> Count:
    """Most tokens that a transcript of the clip may have."""
    return -(-mel_frames * tokens_per_second * HOP_LENGTH // SAMPLING_RATE)
