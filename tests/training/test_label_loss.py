"""`--loss_positions`: the same loss and gradients with the logits of a few labels at a time."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_run import flags, logged
from tiny_world import TinyWorld
from transformers import CohereConfig, CohereForCausalLM

import train
from modeling_slam.training import label_loss
from modeling_slam.training.label_loss import check_loss_positions, check_output_layer, use_loss_positions

LARGEST = 5  # labels at once


@pytest.fixture
def clips() -> list[np.ndarray]:
    torch.manual_seed(0)
    return [torch.randn(length).numpy() for length in (4000, 2500)]


@pytest.fixture
def batch(tiny_processor, clips) -> dict[str, torch.Tensor]:
    """Their transcripts have 6 and 3 labels."""
    return dict(tiny_processor(clips, ["hello", "no"]))


def computed(model: Any, batch: dict[str, torch.Tensor], **given: Any) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    loss = model(**batch, **given).loss
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("positions", [1, 2, 4, LARGEST, 100])
@pytest.mark.parametrize("items", [None, 7], ids=["mean", "over num_items_in_batch"])
def test_loss_and_gradients_are_those_of_all_labels_together(lora_model, batch, positions, items):
    given = {"num_items_in_batch": items}
    loss, gradients = computed(lora_model, batch, **given)
    use_loss_positions(lora_model, positions)
    in_parts, of_parts = computed(lora_model, batch, **given)
    assert in_parts == pytest.approx(loss, abs=1e-6)
    torch.testing.assert_close(of_parts, gradients, atol=1e-6, rtol=1e-5)
    with torch.no_grad():
        assert lora_model(**batch, **given).loss.item() == pytest.approx(loss, abs=1e-6)


def test_under_autocast_and_with_recomputed_layers_too(lora_model, batch):
    """In bfloat16 a gradient is rounded before it is scaled, and not behind it."""
    lora_model.gradient_checkpointing_enable()
    lora_model.train()
    for module in lora_model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    found = []
    for positions in (None, 2):
        use_loss_positions(lora_model, positions)
        with torch.autocast("cpu", torch.bfloat16):
            found.append(computed(lora_model, batch))
    assert found[1][0] == pytest.approx(found[0][0], abs=1e-5)
    scale = found[0][1].abs().max().item()
    torch.testing.assert_close(found[1][1], found[0][1], atol=0.01 * scale, rtol=0)


def test_no_more_logits_than_asked_for_are_made(lora_model, batch):
    rows = []
    output_layer = lora_model.get_output_embeddings()
    use_loss_positions(lora_model, LARGEST)
    output_layer.register_forward_hook(lambda _, __, logits: rows.append(logits[..., 0].numel()))
    computed(lora_model, batch)
    assert sum(rows) == int((batch["labels"] != -100).sum()) > LARGEST
    assert max(rows) == LARGEST


def test_scores_of_transcripts_are_as_before(lora_model, tiny_processor, clips):
    prompts = tiny_processor(clips)
    audio = lora_model.get_audio_embeddings(prompts.pop("input_features"), prompts.pop("input_features_mask"))
    scored = {"labels": torch.tensor([[7, 8, 1], [9, 1, -100]]), "audio": audio, **prompts}
    scores = lora_model.get_text_scores(**scored)
    use_loss_positions(lora_model, 2)
    assert lora_model.get_text_scores(**scored).tolist() == scores.tolist()


@pytest.mark.e2e
def test_a_run_with_it_has_the_losses_of_one_without(world: TinyWorld, tmp_path):
    for name, given in (("all", {}), ("parts", {"loss_positions": LARGEST})):
        settings = {"max_steps": 2, "eval_strategy": "no", "save_strategy": "no", **given}
        train.main(flags(world, tmp_path / name, **settings))
    losses, in_parts = (logged(tmp_path / name, "loss") for name in ("all", "parts"))
    assert len(losses) == 2
    assert in_parts == pytest.approx(losses, abs=1e-5)


def test_an_llm_that_scales_its_logits_is_refused():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    llm = CohereForCausalLM(CohereConfig(vocab_size=32, logit_scale=0.25, pad_token_id=0, **sizes)).eval()
    with pytest.raises(ValueError, match="`--loss_positions` cannot be used with a CohereForCausalLM"):
        check_output_layer(llm)


def test_what_it_cannot_do_is_refused_before_weights_are_read(tiny_config, monkeypatch):
    check_loss_positions(64, tiny_config)
    for changes in ({"train_llm": True}, {"lora_target_modules": ["q_proj", "lm_head"]}):
        config: Any = SimpleNamespace(**{"train_llm": False, "lora_target_modules": [], **changes})
        with pytest.raises(ValueError, match="`--loss_positions` needs a frozen output layer"):
            check_loss_positions(64, config)
        check_loss_positions(None, config)
    monkeypatch.setattr(label_loss, "shares_weights", lambda: True)
    with pytest.raises(ValueError, match=r"recipes/accelerate/ddp\.yaml"):
        check_loss_positions(64, tiny_config)
