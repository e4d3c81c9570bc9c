"""Counts made before any weight is there are those of the real modules."""

import pytest
import torch
from tiny_configs import tiny_audio_config, tiny_text_config
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration
from modeling_slam.analysis.parameters import parameter_counts
from modeling_slam.common.known_models import QWEN_SIZES, WHISPER_SIZES, base_config
from modeling_slam.model.projectors import PROJECTORS

# As the models' own pages give them, in millions.
STATED = {"tiny": 8.2, "base": 20.6, "small": 88.15, "medium": 307.2, "large-v2": 636.8}
QWEN_STATED = {"0.5B": 494.0, "1.5B": 1543.7, "3B": 3085.9, "7B": 7615.6}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("size", WHISPER_SIZES)
def test_the_encoders_of_whisper(size):
    audio = base_config(f"openai/whisper-{size}")
    with torch.device("meta"):
        encoder = WhisperEncoder(audio)
    config = SlamAsrConfig(audio_config=audio, text_config=tiny_text_config(), num_encoder_layers=2)
    counts = parameter_counts(config)
    layer = count(encoder.layers[0])
    assert counts.encoder_full == count(encoder)
    assert counts.encoder == count(encoder) - (audio.encoder_layers - 2) * layer
    if size in STATED:
        assert count(encoder) / 1e6 == pytest.approx(STATED[size], abs=0.05)


@pytest.mark.parametrize("size", QWEN_SIZES)
def test_the_llms(size):
    with torch.device("meta"):
        llm = AutoModelForCausalLM.from_config(base_config(f"Qwen/Qwen2.5-{size}"))
    assert count(llm) / 1e6 == pytest.approx(QWEN_STATED[size], abs=0.05)


@pytest.mark.parametrize("projector", PROJECTORS)
@pytest.mark.parametrize("rank", [0, 8])
def test_all_parts_are_those_of_the_model(projector, rank):
    config = SlamAsrConfig(
        audio_config=tiny_audio_config(encoder_layers=4),
        text_config=tiny_text_config(),
        num_encoder_layers=3,
        projector_type=projector,
        projector_hidden_size=64,
        lora_rank=rank,
        lora_alpha=16,
    )
    counts = parameter_counts(config)
    model = SlamAsrForConditionalGeneration(config)
    real = model.parameter_counts()
    parts = (counts.encoder, counts.encoder_full - counts.encoder, counts.projector, counts.lora, counts.llm)
    assert parts == tuple(
        real[name] for name in ("encoder_kept", "encoder_removed", "projector", "lora", "llm")
    )
    assert counts.total == real["total"] == count(model)
    assert (counts.lora > 0) == (rank > 0)


def test_lora_on_the_papers_llm_has_the_parameters_that_arithmetic_gives():
    """q and o are 2048 x 2048, k and v 256 x 2048, in 36 layers; not the 0.8 M and 1.5 M of the paper."""
    for rank in (8, 16):
        config = SlamAsrConfig(
            audio_config=base_config("openai/whisper-small"),
            text_config=base_config("Qwen/Qwen2.5-3B"),
            lora_rank=rank,
        )
        assert parameter_counts(config).lora == 36 * rank * (2 * (2048 + 2048) + 2 * (2048 + 256))
