"""Counts made before any weight is there are those of the real modules."""

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration
from modeling_slam.model.projectors import PROJECTORS
from modeling_slam.study.parameters import (
    QWEN_SIZES,
    WHISPER_SIZES,
    base_config,
    count,
    encoder_parameters,
    parameter_counts,
)

# As the models' own pages give them, in millions.
STATED = {"tiny": 8.2, "base": 20.6, "small": 88.15, "medium": 307.2, "large-v2": 636.8}
QWEN_STATED = {"0.5B": 494.0, "1.5B": 1543.7, "3B": 3085.9, "7B": 7615.6}


@pytest.mark.parametrize("size", WHISPER_SIZES)
def test_the_encoders_of_whisper(size):
    config = base_config(f"openai/whisper-{size}")
    with torch.device("meta"):
        encoder = WhisperEncoder(config)
    assert encoder_parameters(config, config.encoder_layers) == count(encoder)
    layer = count(encoder.layers[0])
    assert encoder_parameters(config, 2) == count(encoder) - (config.encoder_layers - 2) * layer
    if size in STATED:
        assert count(encoder) / 1e6 == pytest.approx(STATED[size], abs=0.05)


@pytest.mark.parametrize("size", QWEN_SIZES)
def test_the_llms(size):
    with torch.device("meta"):
        llm = AutoModelForCausalLM.from_config(base_config(f"Qwen/Qwen2.5-{size}"))
    assert count(llm) / 1e6 == pytest.approx(QWEN_STATED[size], abs=0.05)


@pytest.mark.parametrize("projector", PROJECTORS)
@pytest.mark.parametrize("rank", [0, 8])
def test_all_parts_are_those_of_the_model(world, projector, rank):
    config = SlamAsrConfig(
        audio_config=base_config(str(world.encoder)),
        text_config=base_config(str(world.llm)),
        num_encoder_layers=3,
        projector_type=projector,
        projector_hidden_size=64,
        lora_rank=rank,
        lora_alpha=16,
    )
    counts = parameter_counts(config)
    real = SlamAsrForConditionalGeneration(config).parameter_counts()
    assert (counts.encoder, counts.encoder_full - counts.encoder) == (
        real["encoder_kept"],
        real["encoder_removed"],
    )
    assert (counts.projector, counts.lora, counts.llm) == (real["projector"], real["lora"], real["llm"])
    assert counts.total == real["total"]


def test_lora_on_the_papers_llm_has_the_parameters_that_arithmetic_gives():
    """q and o are 2048 x 2048, k and v 256 x 2048, in 36 layers; not the 0.8 M and 1.5 M of the paper."""
    for rank in (8, 16):
        config = SlamAsrConfig(
            audio_config=base_config("openai/whisper-small"),
            text_config=base_config("Qwen/Qwen2.5-3B"),
            lora_rank=rank,
        )
        assert parameter_counts(config).lora == 36 * rank * (2 * (2048 + 2048) + 2 * (2048 + 256))
