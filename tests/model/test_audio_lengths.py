"""Length arithmetic: one clip, one count, on integers and on tensors, as the encoder itself counts."""

import pytest
import torch
from tiny_configs import tiny_audio_config, tiny_text_config, tiny_waveform_config
from torch import nn

from modeling_slam.model.audio_lengths import (
    GEOMETRIES,
    WHISPER_GEOMETRY,
    AudioGeometry,
    audio_geometry,
    audio_token_count,
)


@pytest.mark.parametrize(
    ("samples", "frames"), [(1, 1), (320, 1), (321, 2), (16_000, 50), (32_000, 100), (480_000, 1500)]
)
def test_every_started_20_ms_is_a_frame_of_whisper(samples, frames):
    geometry = audio_geometry(tiny_audio_config())
    assert geometry == WHISPER_GEOMETRY
    assert geometry.frames_of_samples(samples) == frames
    assert geometry.features_of_samples(samples) == 2 * frames
    assert geometry.frames_of_features(2 * frames) == frames
    assert geometry.frames_of_features(2 * frames - 1) == frames


def test_whispers_longest_clip_is_what_it_has_positions_for():
    assert audio_geometry(tiny_audio_config(max_source_positions=750)).max_seconds == 15


@pytest.mark.parametrize("model_type", ["wav2vec2", "hubert", "wavlm"])
def test_frames_of_a_waveform_are_those_that_its_convolutions_give(model_type):
    config = tiny_waveform_config(model_type)
    geometry = audio_geometry(config)
    pairs = zip(config.conv_kernel, config.conv_stride, strict=True)
    convolutions = nn.Sequential(*(nn.Conv1d(1, 1, kernel, stride) for kernel, stride in pairs))
    lengths = [400, 401, 719, 720, 721, 16_000, 19_683]
    expected = [convolutions(torch.zeros(1, 1, length)).shape[2] for length in lengths]
    assert [geometry.frames_of_samples(length) for length in lengths] == expected
    assert geometry.frames_of_features(torch.tensor(lengths)).tolist() == expected
    assert [geometry.frames_of_samples(length) for length in (0, 1, 9, 399)] == [0, 0, 0, 0]
    assert geometry.frames_of_features(torch.tensor([0, 1, 9, 399])).tolist() == [0, 0, 0, 0]
    assert geometry.features_of_samples(19_683) == 19_683
    assert geometry.frame_samples == 320
    assert geometry.max_seconds is None


@pytest.mark.parametrize("model_type", GEOMETRIES)
def test_the_budget_of_tokens_follows_the_clips_seconds(model_type):
    config = tiny_audio_config() if model_type == "whisper" else tiny_waveform_config(model_type)
    geometry = audio_geometry(config)
    assert [geometry.transcript_budget(frames, 20) for frames in (0, 1, 5, 50, 51)] == [0, 1, 2, 20, 21]
    assert geometry.transcript_budget(torch.tensor([50, 51]), 20).tolist() == [20, 21]


def test_a_geometry_comes_back_from_json_as_it_was():
    convolutions = ((10, 5), (3, 2))
    geometry = AudioGeometry(1, 10, convolutions=convolutions)
    assert AudioGeometry(1, 10, convolutions=[[10, 5], [3, 2]]) == geometry  # ty: ignore[invalid-argument-type]


def test_what_is_no_encoder_is_refused_by_the_name_of_its_flag():
    with pytest.raises(ValueError, match=r"`--encoder`.*'qwen2'"):
        audio_geometry(tiny_text_config())
    with pytest.raises(ValueError, match="add_adapter"):
        audio_geometry(tiny_waveform_config("wav2vec2", add_adapter=True))


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
