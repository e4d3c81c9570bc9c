"""Fixtures of all tests: tiny random models, two layers on each side, built in milliseconds, none shared."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_configs import tiny_audio_config, tiny_lean_config, tiny_text_config
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2ForCausalLM,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration, SlamAsrProcessor

LETTERS = "abcdefghijklmnopqrstuvwxyz' "


@pytest.fixture
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a letter; `<pad>` is 0, `<end>` is 1."""
    vocabulary = {
        token: index for index, token in enumerate(["<pad>", "<end>", "<unk>", "\n", ":", ".", *LETTERS])
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<end>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


@pytest.fixture
def tiny_processor(tiny_tokenizer) -> SlamAsrProcessor:
    return SlamAsrProcessor(WhisperFeatureExtractor(feature_size=8), tiny_tokenizer, instruction="say:\n")


@pytest.fixture
def tiny_config(tiny_processor) -> SlamAsrConfig:
    return SlamAsrConfig(
        audio_config=tiny_audio_config(),
        text_config=tiny_text_config(),
        projector_hidden_size=64,
        audio_token_id=tiny_processor.audio_token_id,
    )


@pytest.fixture
def tiny_model(tiny_config) -> SlamAsrForConditionalGeneration:
    torch.manual_seed(3)
    return SlamAsrForConditionalGeneration(tiny_config).eval()


@pytest.fixture
def model_with_head(tiny_config, tiny_tokenizer) -> SlamAsrForConditionalGeneration:
    """With a CTC head that knows the letters, and a random LLM, which writes something in any case."""
    torch.manual_seed(3)
    letters = tiny_tokenizer.convert_tokens_to_ids([*"abcdefghijklmnopqrstuvwxyz "])
    config = SlamAsrConfig.from_dict(tiny_config.to_dict() | {"ctc_vocab_size": len(letters)})
    model = SlamAsrForConditionalGeneration(config).eval()
    model.ctc_head.begin(sorted(letters), 0.1, 1.0)
    model.generation_config.update(max_new_tokens=8, eos_token_id=1, pad_token_id=0)
    return model


@pytest.fixture
def sure_model(model_with_head) -> SlamAsrForConditionalGeneration:
    """Its CTC head is sure of the letters that it hears, whatever they are."""
    model_with_head.ctc_head.log_temperature.data += 4.0
    return model_with_head


@pytest.fixture
def checkpoint(tiny_model, tiny_processor, tmp_path) -> Path:
    """Without a CTC head."""
    tiny_model.generation_config.update(max_new_tokens=8, eos_token_id=1, pad_token_id=0)
    return saved(tiny_model, tiny_processor, tmp_path / "checkpoint")


@pytest.fixture
def checkpoint_with_head(sure_model, tiny_processor, tmp_path) -> Path:
    return saved(sure_model, tiny_processor, tmp_path / "with-head")


def saved(model: SlamAsrForConditionalGeneration, processor: SlamAsrProcessor, directory: Path) -> Path:
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory


@pytest.fixture
def base_models(tmp_path) -> dict[str, str]:
    """A full Whisper and an LLM on disk, as a run names them."""
    torch.manual_seed(1)
    WhisperForConditionalGeneration(tiny_audio_config()).save_pretrained(tmp_path / "whisper")
    Qwen2ForCausalLM(tiny_text_config()).save_pretrained(tmp_path / "llm")
    return {"audio_model_id": str(tmp_path / "whisper"), "text_model_id": str(tmp_path / "llm")}


@pytest.fixture
def lora_model(base_models, tiny_processor) -> SlamAsrForConditionalGeneration:
    """On `base_models`, with two of three encoder layers and LoRA that changes something."""
    config = tiny_lean_config(base_models, num_encoder_layers=2, lora_rank=4, lora_alpha=8)
    config.audio_token_id = tiny_processor.audio_token_id
    model = SlamAsrForConditionalGeneration.from_base_models(config).eval()
    for name, parameter in model.named_parameters():
        if ".lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.generation_config.update(num_beams=2, max_new_tokens=12, eos_token_id=1, pad_token_id=0)
    return model


@pytest.fixture
def two_clips() -> list[np.ndarray]:
    """A clip of 1.23 s and one of 2.5 s, noise with a rising tone, at 16 kHz."""
    rng = np.random.default_rng(0)
    clips = []
    for seconds in (1.23, 2.5):
        time = np.arange(int(seconds * 16_000)) / 16_000
        tone = np.sin(2 * np.pi * (200 + 300 * time) * time)
        clips.append((0.3 * tone + 0.05 * rng.standard_normal(len(time))).astype(np.float32))
    return clips


@pytest.fixture
def real_models() -> Path:
    """Directory with `whisper-base` and `qwen2.5-0.5b`, named by `SLAM_REAL_MODELS`."""
    import os

    if "SLAM_REAL_MODELS" not in os.environ:
        pytest.fail(
            "`-m slow` tests need SLAM_REAL_MODELS: a directory with whisper-base/ and qwen2.5-0.5b/."
        )
    return Path(os.environ["SLAM_REAL_MODELS"])
