"""flops: what the formulae count is what torch counts, on batches that have nothing to leave out."""

import numpy as np
import pytest
import torch
from tiny_configs import tiny_audio_config, tiny_text_config
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.flops import batch_needs
from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration
from modeling_slam.data.collator import SpeechCollator


@pytest.fixture
def model(tiny_processor, lora_rank, kept, llm) -> SlamAsrForConditionalGeneration:
    """Attention as plain products, which torch counts whole: half of it is above the diagonal."""
    config = SlamAsrConfig(
        audio_config=tiny_audio_config(),
        text_config=tiny_text_config(),
        projector_hidden_size=64,
        num_encoder_layers=kept,
        lora_rank=lora_rank,
        **llm,
        audio_token_id=tiny_processor.audio_token_id,
    )
    torch.manual_seed(0)
    model = SlamAsrForConditionalGeneration(config)
    model.set_attn_implementation("eager")
    return model.train()


def clip(seconds: float) -> dict:
    samples = np.random.default_rng(0).standard_normal(round(seconds * 16_000)).astype(np.float32)
    return {"audio": {"array": samples, "sampling_rate": 16_000}, "text": "abc"}


@pytest.mark.parametrize(
    ("lora_rank", "llm"),
    [(0, {}), (4, {}), (4, {"kept_llm_layers": [1]}), (0, {"kept_llm_layers": [1], "train_llm": True})],
)
@pytest.mark.parametrize("kept", [3, 2])
def test_a_training_step_is_counted_as_torch_counts_it(model, tiny_processor):
    batch = SpeechCollator(tiny_processor)([clip(2.04), clip(2.04)])
    with FlopCounterMode(display=False) as counter:
        model(**batch).loss.backward()
    text, lengths = model.language_model.config, batch["attention_mask"].sum(dim=1).tolist()
    pairs = sum(length * (length - 1) / 2 for length in lengths)
    above_the_diagonal = text.num_hidden_layers * (2 + 4) * 2 * pairs * text.hidden_size
    assert counter.get_total_flops() == batch_needs(model.config, batch) + above_the_diagonal


@pytest.mark.parametrize(("lora_rank", "kept", "llm"), [(4, 2, {})])
def test_padding_is_not_needed(model, tiny_processor):
    collate = SpeechCollator(tiny_processor)
    alone = sum(batch_needs(model.config, collate([clip(seconds)])) for seconds in (2.04, 4.0))
    assert batch_needs(model.config, collate([clip(2.04), clip(4.0)])) == alone


def test_a_trained_encoder_is_not_counted():
    config = SlamAsrConfig(
        audio_config=tiny_audio_config(), text_config=tiny_text_config(), encoder_lora_rank=2
    )
    with pytest.raises(ValueError, match=r"frozen encoder only.*--encoder_lora_rank"):
        batch_needs(config, {})
