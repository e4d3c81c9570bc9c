"""Length arithmetic: one clip, one count, on integers and on tensors."""

import pytest
import torch

from modeling_slam.model.audio_lengths import (
    audio_token_count,
    encoder_frames_of_mel_frames,
    encoder_frames_of_samples,
    mel_frames_of_samples,
)


@pytest.mark.parametrize(
    ("samples", "frames"), [(1, 1), (320, 1), (321, 2), (16_000, 50), (32_000, 100), (480_000, 1500)]
)
def test_every_started_20_ms_is_a_frame(samples, frames):
    assert encoder_frames_of_samples(samples) == frames
    assert encoder_frames_of_mel_frames(mel_frames_of_samples(samples)) == frames


@pytest.mark.parametrize(
    ("frames", "tail", "queries", "tokens"),
    [
        (27, "pad", None, 6),
        (27, "drop", None, 5),
        (25, "pad", None, 5),
        (25, "drop", None, 5),
        (27, "pad", 64, 64),
    ],
)
def test_tokens_follow_the_tail_rule_or_the_fixed_number(frames, tail, queries, tokens):
    assert audio_token_count(frames, 5, tail, queries) == tokens
    assert audio_token_count(torch.tensor([frames]), 5, tail, queries).tolist() == [tokens]
