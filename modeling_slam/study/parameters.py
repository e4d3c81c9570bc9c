"""How large a model will be, before any weight is there: its parts are built on the meta device and counted.

The configurations of Whisper and Qwen2.5 are known here, so that a study can be planned without network;
those of other models are read from their directory or the Hub.

Source: Whisper, https://huggingface.co/papers/2212.04356, table 1; Qwen2.5,
https://huggingface.co/papers/2412.15115, and the models' config.json
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, Qwen2Config, WhisperConfig

from modeling_slam import SlamAsrConfig
from modeling_slam.model.audio_encoders import ENCODERS
from modeling_slam.model.projectors import PROJECTORS

# Size -> layers, width, heads, mel bins of the encoder.
WHISPER_SIZES = {
    "tiny": (4, 384, 6, 80),
    "base": (6, 512, 8, 80),
    "small": (12, 768, 12, 80),
    "medium": (24, 1024, 16, 80),
    "large": (32, 1280, 20, 80),
    "large-v2": (32, 1280, 20, 80),
    "large-v3": (32, 1280, 20, 128),
    "large-v3-turbo": (32, 1280, 20, 128),
}
# Size -> layers, width, heads, key and value heads, feed-forward width, vocabulary, tied embeddings.
QWEN_SIZES = {
    "0.5B": (24, 896, 14, 2, 4864, 151_936, True),
    "1.5B": (28, 1536, 12, 2, 8960, 151_936, True),
    "3B": (36, 2048, 16, 2, 11_008, 151_936, True),
    "7B": (28, 3584, 28, 4, 18_944, 152_064, False),
}


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of a model by part."""

    encoder: int  # kept
    encoder_full: int
    projector: int
    lora: int
    llm: int
    llm_embeddings: int  # of the LLM's input embeddings, which a token looks up and does not multiply

    @property
    def total(self) -> int:
        return self.encoder + self.projector + self.lora + self.llm

    @property
    def reduction(self) -> float:
        """Share of the encoder's parameters that pruning removes: the paper's Red.%, as a fraction."""
        return 1 - self.encoder / self.encoder_full


def encoder_parameters(config: WhisperConfig, layers: int) -> int:
    """Parameters of a Whisper encoder with its first `layers` layers, position embeddings included."""
    with torch.device("meta"):
        return count(ENCODERS[config.model_type](config, layers))


def parameter_counts(config: SlamAsrConfig) -> ParameterCounts:
    """The counts of the model that `config` describes."""
    audio, text = config.audio_config, config.text_config
    with torch.device("meta"):
        projector = PROJECTORS[config.projector_type](config)
    llm = language_model(text.to_json_string())
    adapted = [
        module
        for name, module in llm.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in config.lora_target_modules
    ]
    return ParameterCounts(
        encoder=encoder_parameters(audio, config.num_encoder_layers),
        encoder_full=encoder_parameters(audio, audio.num_hidden_layers),
        projector=count(projector),
        lora=config.lora_rank * sum(linear.in_features + linear.out_features for linear in adapted),
        llm=count(llm),
        llm_embeddings=count(llm.get_input_embeddings()),
    )


@functools.lru_cache(maxsize=4)
def language_model(config_json: str) -> PreTrainedModel:
    """The LLM of a configuration (as JSON, which can be compared) without memory for its weights."""
    config = AutoConfig.for_model(**json.loads(config_json))
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def base_config(model: str) -> Any:
    """The configuration of a base model: a directory's, a known one, or the Hub's.

    Raises:
        OSError: it is none of these.
    """
    owner, _, name = model.rpartition("/")
    if not Path(model).is_dir():
        if owner == "openai" and (size := name.removeprefix("whisper-")) in WHISPER_SIZES:
            return whisper_config(size)
        if (
            owner == "Qwen"
            and (size := name.removeprefix("Qwen2.5-").removesuffix("-Instruct")) in QWEN_SIZES
        ):
            return qwen_config(size)
    return AutoConfig.from_pretrained(model)


def whisper_config(size: str) -> WhisperConfig:
    layers, width, heads, mel_bins = WHISPER_SIZES[size]
    return WhisperConfig(
        encoder_layers=layers, d_model=width, encoder_attention_heads=heads, encoder_ffn_dim=4 * width,
        num_mel_bins=mel_bins, max_source_positions=1500,
    )  # fmt: skip


def qwen_config(size: str) -> Qwen2Config:
    layers, width, heads, key_value_heads, feed_forward, vocabulary, tied = QWEN_SIZES[size]
    return Qwen2Config(
        num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads,
        num_key_value_heads=key_value_heads, intermediate_size=feed_forward, vocab_size=vocabulary,
        tie_word_embeddings=tied,
    )  # fmt: skip
