"""flops: what the formulae count is what torch counts, on batches that have nothing to leave out."""

import numpy as np
import pytest
import torch
from tiny_configs import tiny_audio_config, tiny_text_config
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.flops import batch_needs, padding_shares, training_needs, transcribing_needs
from benchmarks.training import SETTINGS, linear_layers, loss_of
from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration
from modeling_slam.data.collator import SpeechCollator
from modeling_slam.evaluation.fast_search import CACHE_NAMES

SECONDS = 2.04


def build(**changes) -> SlamAsrForConditionalGeneration:
    """Attention as plain products, which torch counts whole: half of it is above the diagonal."""
    config = SlamAsrConfig(
        audio_config=tiny_audio_config(), text_config=tiny_text_config(), projector_hidden_size=64, **changes
    )
    torch.manual_seed(0)
    model = SlamAsrForConditionalGeneration(config)
    model.set_attn_implementation("eager")
    return model.train()


def clips_of(count: int, seconds: float = SECONDS) -> list[dict]:
    rng = np.random.default_rng(0)
    samples = [rng.standard_normal(round(seconds * 16_000)).astype(np.float32) for _ in range(count)]
    return [{"audio": {"array": s, "sampling_rate": 16_000}, "text": "abc"} for s in samples]


def counted(work) -> float:
    counter = FlopCounterMode(display=False)
    with counter, linear_layers(torchs_own=True):  # oneDNN's products are not counted
        work()
    return counter.get_total_flops()


def above_the_diagonal(config: SlamAsrConfig, lengths: list[int], products: int) -> float:
    """Operations on query-key pairs that causal attention does not need and plain products compute."""
    text = config.text_config
    pairs = sum(length * (length - 1) / 2 for length in lengths)
    return text.num_hidden_layers * products * 2 * pairs * text.hidden_size


@pytest.mark.parametrize("projector_type", ["stack_mlp", "conv"])
@pytest.mark.parametrize("lora_rank", [0, 4])
@pytest.mark.parametrize("kept", [3, 2])
def test_a_training_step_is_counted_as_torch_counts_it(tiny_processor, projector_type, lora_rank, kept):
    model = build(projector_type=projector_type, lora_rank=lora_rank, num_encoder_layers=kept)
    model.config.audio_token_id = tiny_processor.audio_token_id
    batch = SpeechCollator(tiny_processor)(clips_of(2))
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    labels = int((batch["labels"] != -100).sum())
    assert padding_shares([batch]) == {"mel_frames": 0.0, "tokens": 0.0}

    needed = batch_needs(model.config, batch)
    expected = needed.total + above_the_diagonal(model.config, lengths, products=2 + 4)
    assert counted(lambda: loss_of(model, batch, SETTINGS["padded rows"]).backward()) == expected

    everywhere = training_needs(
        model.config, batch["input_features_mask"].sum(dim=1).tolist(), lengths, sum(lengths)
    )
    full = everywhere.total + above_the_diagonal(model.config, lengths, products=2 + 4)
    assert counted(lambda: loss_of(model, batch, SETTINGS["full logits"]).backward()) == full
    assert full - expected == 2 * 2 * (sum(lengths) - labels) * 32 * 64


def test_padding_is_not_needed(tiny_processor):
    config = build().config
    batches = [SpeechCollator(tiny_processor)(rows) for rows in (clips_of(1), clips_of(1, 4.0))]
    together = SpeechCollator(tiny_processor)([*clips_of(1), *clips_of(1, 4.0)])
    alone = sum(batch_needs(config, batch).total for batch in batches)
    assert batch_needs(config, together).total == alone
    assert padding_shares([together])["mel_frames"] == pytest.approx(196 / 800)


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_transcribing_is_counted_as_torch_counts_it(tiny_processor, lora_rank):
    """One clip, one beam, four tokens and end-of-text, through the plain LLM token by token."""
    model = build(lora_rank=lora_rank).eval()
    model.config.audio_token_id = tiny_processor.audio_token_id
    inputs = tiny_processor(audio=[row["audio"] for row in clips_of(1)])
    frames, prompt = inputs["input_features"].shape[2], inputs["input_ids"].shape[1]

    @torch.no_grad()
    def transcribe() -> None:
        outputs = model(**inputs, use_cache=True, logits_to_keep=1)
        for token in (5, 6, 7, 8):
            outputs = model.language_model(
                inputs_embeds=model.get_input_embeddings()(torch.tensor([[token]])),
                use_cache=True,
                **{name: outputs[name] for name in CACHE_NAMES if name in outputs},
            )

    needed = transcribing_needs(model.config, [frames], [prompt], [4], num_beams=1)
    assert counted(transcribe) == needed.total + above_the_diagonal(model.config, [prompt], products=2)
    two_beams = transcribing_needs(model.config, [frames], [prompt], [4], num_beams=2)
    assert two_beams.total - needed.total == needed.decode


def test_what_is_not_counted_is_an_error():
    config = build(projector_type="stack_mlp").config
    config.projector_type = "qformer"
    with pytest.raises(ValueError, match="'qformer' projector are not counted"):
        training_needs(config, [100], [20], 3)
    config = build(lora_rank=2).config
    config.lora_target_modules = ["lm_head"]
    with pytest.raises(ValueError, match="LoRA on"):
        training_needs(config, [100], [20], 3)
