"""Configs of the tiny models, for the fixtures and for tests that change them."""

from typing import Any

from transformers import AutoConfig, Qwen2Config, WhisperConfig

from modeling_slam import SlamAsrConfig


def tiny_audio_config(**changes) -> WhisperConfig:
    fields = {
        "d_model": 16,
        "encoder_layers": 3,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_layers": 1,
        "decoder_attention_heads": 2,
        "decoder_ffn_dim": 32,
        "num_mel_bins": 8,
        "max_source_positions": 1500,
    }
    return WhisperConfig(**{**fields, **changes})


def tiny_text_config(**changes) -> Qwen2Config:
    fields = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "bos_token_id": None,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    return Qwen2Config(**{**fields, **changes})


def tiny_lean_config(base_models: dict[str, str], **changes) -> SlamAsrConfig:
    """On the base models of the fixture `base_models`."""
    return SlamAsrConfig(
        audio_config=tiny_audio_config(),
        text_config=tiny_text_config(),
        projector_hidden_size=64,
        **base_models,
        **changes,
    )


def tiny_waveform_config(model_type: str, **changes) -> Any:
    """Of a wav2vec 2.0, HuBERT or WavLM with the real ones' convolutions: a frame per 20 ms."""
    fields = {
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "conv_dim": [8] * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2,
        "vocab_size": 32,
    }
    return AutoConfig.for_model(model_type, **{**fields, **changes})
