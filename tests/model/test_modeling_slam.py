"""The model: what learns, what is computed, and that a clip's result is its own."""

import pytest
import torch
from tiny_configs import tiny_audio_config, tiny_lean_config
from torch import nn
from transformers import Qwen2ForCausalLM, WhisperModel

from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration
from modeling_slam.model.projectors import PROJECTORS


def test_logits_equal_whisper_and_qwen_run_by_hand(base_models, tiny_processor, two_clips):
    """N layers of transformers' Whisper on 30 s, the projector's arithmetic, embeddings joined by hand,
    Qwen2."""
    tiny_processor.pad_to_seconds = 30
    config = tiny_lean_config(base_models, num_encoder_layers=2, audio_token_id=tiny_processor.audio_token_id)
    model = SlamAsrForConditionalGeneration.from_base_models(config).eval()
    inputs = tiny_processor(two_clips[:1])

    whisper = WhisperModel.from_pretrained(base_models["audio_model_id"]).eval()
    whisper.encoder.layers = whisper.encoder.layers[:2]
    llm = Qwen2ForCausalLM.from_pretrained(base_models["text_model_id"]).eval()
    with torch.no_grad():
        frames = whisper.encoder(inputs["input_features"]).last_hidden_state
        audio = model.projector.norm(
            model.projector.linear2(torch.relu(model.projector.linear1(frames.reshape(1, 300, 5 * 16))))
        )
        instruction = llm.get_input_embeddings()(inputs["input_ids"][:, 300:])
        expected = llm(inputs_embeds=torch.cat([audio, instruction], dim=1)).logits
        torch.testing.assert_close(model(**inputs).logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("projector", PROJECTORS)
def test_logits_and_transcripts_do_not_depend_on_the_batch(tiny_config, tiny_processor, two_clips, projector):
    torch.manual_seed(0)
    fields = tiny_config.to_dict() | {
        "projector_type": projector,
        "projector_layers": 1,
        "projector_queries": None,
    }
    model = SlamAsrForConditionalGeneration(SlamAsrConfig(**fields)).eval()
    tiny_processor.projector_queries = model.config.projector_queries
    together = tiny_processor(two_clips)
    settings = {"num_beams": 2, "max_new_tokens": 12, "eos_token_id": 1, "pad_token_id": 0}
    transcripts = model.generate(**together, **settings)
    for row, clip in enumerate(two_clips):
        alone = tiny_processor(clip)
        length = alone["input_ids"].shape[1]
        with torch.no_grad():
            difference = model(**together).logits[row, -length:] - model(**alone).logits[0]
        assert difference.abs().max() <= 1e-4
        new = model.generate(**alone, **settings)[0]
        assert transcripts[row][: len(new)].tolist() == new.tolist()
        # After the end, transformers' beam search fills with end-of-text where the padding's id is 0.
        assert set(transcripts[row][len(new) :].tolist()) <= {0, 1}


def test_beam_search_equals_the_llms_own_on_the_same_embeddings(tiny_model, tiny_processor, two_clips):
    inputs = tiny_processor(two_clips)
    settings = {"num_beams": 2, "max_new_tokens": 10, "eos_token_id": 1, "pad_token_id": 0}
    with torch.no_grad():
        embeddings = tiny_model.prompt_embeddings(
            inputs["input_ids"], inputs["input_features"], inputs["input_features_mask"]
        )
    expected = tiny_model.language_model.generate(
        inputs_embeds=embeddings, attention_mask=inputs["attention_mask"], **settings
    )
    assert torch.equal(tiny_model.generate(**inputs, **settings), expected)
    assert torch.equal(
        tiny_model.generate(**inputs, **settings | {"max_new_tokens": None, "max_length": 10}), expected
    )


def test_a_transcript_ends_where_its_clip_cannot_hold_more(tiny_model, tiny_processor, two_clips):
    """A random model never ends by itself: 1.23 s and 2.5 s at 4 tokens per second leave 5 and 10 tokens."""
    settings = {"num_beams": 2, "max_new_tokens": 20, "eos_token_id": 1, "pad_token_id": 0}
    free = tiny_model.generate(**tiny_processor(two_clips), **settings)
    assert not (free == 1).any()
    tokens = tiny_model.generate(**tiny_processor(two_clips), **settings, max_tokens_per_second=4)
    assert (tokens == 1).int().argmax(dim=1).tolist() == [5, 10]
    alone = tiny_model.generate(**tiny_processor(two_clips[0]), **settings, max_tokens_per_second=4)
    assert alone[0].tolist() == tokens[0, : alone.shape[1]].tolist()


def test_a_transcript_ends_in_time_without_a_mask(tiny_model, tiny_processor, two_clips):
    """All features are real then, and all frames that are given."""
    settings = {"max_new_tokens": 20, "eos_token_id": 1, "pad_token_id": 0, "max_tokens_per_second": 4}
    inputs = tiny_processor(two_clips[0])
    expected = tiny_model.generate(**inputs, **settings)
    assert expected.shape[1] == 6
    features, mask = inputs.pop("input_features"), inputs.pop("input_features_mask")
    assert torch.equal(tiny_model.generate(**inputs, input_features=features, **settings), expected)
    with torch.no_grad():
        frames, _ = tiny_model.encoder(features, mask)
    assert torch.equal(tiny_model.generate(**inputs, encoder_frames=frames, **settings), expected)


def test_loss_is_the_cross_entropy_of_the_transcript(tiny_model, tiny_processor, two_clips):
    """Against full logits in float64, shifted and masked by hand."""
    batch = tiny_processor(two_clips, text=["one two", "three"])
    labels = batch.pop("labels")
    with torch.no_grad():
        output = tiny_model(**batch, labels=labels)
        logits = tiny_model(**batch).logits[:, :-1].double()
    chosen = labels[:, 1:] != -100
    log_probabilities = logits.log_softmax(-1)[chosen]
    picked = log_probabilities.gather(1, labels[:, 1:][chosen][:, None])
    assert output.logits is None
    assert output.loss.item() == pytest.approx(-picked.mean().item(), abs=1e-6)
    over_twenty = tiny_model(**batch, labels=labels, num_items_in_batch=20).loss
    assert over_twenty.item() == pytest.approx(-picked.sum().item() / 20, abs=1e-6)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_clip_gives_the_same_logits_and_gradients_alone_and_in_a_batch(
    lora_model, tiny_processor, two_clips, attention
):
    """In training the rows of a batch become one, without padding."""
    for config in (lora_model.language_model.config, lora_model.config.audio_config):
        config._attn_implementation = attention
    transcripts = ["a transcript", "one"]
    loss = lora_model(**tiny_processor(two_clips, text=transcripts), num_items_in_batch=1).loss
    learns = [parameter for parameter in lora_model.parameters() if parameter.requires_grad]
    expected_loss, expected = 0.0, [torch.zeros_like(parameter) for parameter in learns]
    for clip, text in zip(two_clips, transcripts, strict=True):
        alone = tiny_processor(clip, text=text)
        labels = alone.pop("labels")[0, 1:]
        logits = lora_model(**alone).logits[0, :-1]
        loss_alone = nn.functional.cross_entropy(logits, labels, reduction="sum")
        expected_loss += loss_alone.item()
        for total, gradient in zip(expected, torch.autograd.grad(loss_alone, learns), strict=True):
            total += gradient
    assert loss.item() == pytest.approx(expected_loss, abs=1e-4)
    for gradient, total in zip(torch.autograd.grad(loss, learns), expected, strict=True):
        torch.testing.assert_close(gradient, total, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("way", ["left-padded", "logits capped", "LoRA on the output layer"])
def test_the_loss_is_the_same_by_other_ways(base_models, tiny_processor, two_clips, way, monkeypatch):
    """Against full logits: rows padded on the left, and logits that are not a frozen layer's alone."""
    config = tiny_lean_config(base_models, lora_rank=2, audio_token_id=tiny_processor.audio_token_id)
    if way == "LoRA on the output layer":
        config.lora_target_modules = ["lm_head"]
    model = SlamAsrForConditionalGeneration.from_base_models(config).eval()
    for name, parameter in model.named_parameters():
        if ".lora_B" in name:
            nn.init.normal_(parameter)
    if way == "logits capped":
        plain = type(model.language_model).forward

        def capped(self, *args, **kwargs):
            output = plain(self, *args, **kwargs)
            output.logits = output.logits.tanh() * 3
            return output

        monkeypatch.setattr(type(model.language_model), "forward", capped)
    batch = dict(tiny_processor(two_clips, text=["a transcript", "one"]))
    if way == "left-padded":
        lengths = batch["attention_mask"].sum(dim=1)
        for name in ("input_ids", "attention_mask", "labels"):
            shifts = (batch["attention_mask"].shape[1] - lengths).tolist()
            batch[name] = torch.stack([row.roll(n) for row, n in zip(batch[name], shifts, strict=True)])
    labels = batch.pop("labels")
    with torch.no_grad():
        logits = model(**batch).logits[:, :-1]
        expected = nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
        assert model(**batch, labels=labels).loss.item() == pytest.approx(expected.item(), abs=1e-5)


def test_only_projector_and_lora_learn(tiny_config, tiny_processor, two_clips):
    tiny_config.lora_rank = 4
    model = SlamAsrForConditionalGeneration(tiny_config).train()
    with torch.no_grad():  # fresh LoRA passes no gradient to its first matrix
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    model(**tiny_processor(two_clips, text=["one", "two"])).loss.backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradient == {
        n for n, _ in model.named_parameters() if n.startswith("projector.") or ".lora_" in n
    }
    assert all(
        parameter.grad.abs().sum() > 0 for n, parameter in model.named_parameters() if n in with_gradient
    )


def test_an_encoder_that_somebody_unfreezes_learns(tiny_model, tiny_processor, two_clips):
    tiny_model.encoder.layers[-1].requires_grad_(True)
    tiny_model(**tiny_processor(two_clips, text=["one", "two"])).loss.backward()
    assert tiny_model.encoder.layers[-1].fc1.weight.grad.any()
    assert tiny_model.encoder.layers[0].fc1.weight.grad is None


def test_frozen_parts_have_no_dropout_while_training(tiny_config, tiny_processor, two_clips):
    """With the trained parts' dropout off, two training passes agree although Whisper and LLM have dropout
    set."""
    tiny_config.audio_config.dropout = tiny_config.audio_config.attention_dropout = 0.5
    tiny_config.text_config.attention_dropout = 0.5
    tiny_config.projector_dropout = 0.0
    model = SlamAsrForConditionalGeneration(tiny_config).train()
    batch = tiny_processor(two_clips, text=["one", "two"])
    assert model(**batch).loss.item() == model(**batch).loss.item()
    assert model.projector.training
    assert not model.encoder.training


def test_gradient_checkpointing_changes_memory_not_gradients(tiny_config, tiny_processor, two_clips):
    tiny_config.projector_dropout = 0.0
    model = SlamAsrForConditionalGeneration(tiny_config).train()
    batch = tiny_processor(two_clips, text=["one", "two"])
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.activation_checkpointing_enable()
            model.train()
            assert model.language_model.model.layers[0].training
        model.zero_grad()
        model(**batch).loss.backward()
        gradients.append(model.projector.linear1.weight.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-7, rtol=1e-5)


def test_bf16_autocast_trains(tiny_model, tiny_processor, two_clips):
    batch = tiny_processor(two_clips, text=["one", "two"])
    exact = tiny_model(**batch).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = tiny_model.train()(**batch).loss
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=0.05)
    assert tiny_model.projector.linear1.weight.grad.isfinite().all()


@pytest.mark.e2e
def test_a_compiled_model_trains_alike(tiny_model, tiny_processor, two_clips):
    """Traced by dynamo, with the backward pass by autograd; no kernels are made, so no compiler is needed."""
    batch = tiny_processor(two_clips, text=["one", "two"])
    weight, gradients = tiny_model.projector.linear1.weight, []
    for model in (tiny_model, torch.compile(tiny_model, backend="aot_eager")):
        tiny_model.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        gradients.append((loss.detach(), weight.grad.clone()))
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("autocast", [False, True])
def test_cached_encoder_frames_stand_for_the_audio(tiny_model, tiny_processor, two_clips, autocast):
    """The projector reads them in bfloat16 under autocast, so that is how they may be stored."""
    batch = tiny_processor(two_clips, text=["one two", "three"])
    prompts, settings = tiny_processor(two_clips), {"num_beams": 2, "max_new_tokens": 12, "pad_token_id": 0}
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast), torch.no_grad():
        expected = tiny_model(**batch).loss, tiny_model.generate(**prompts, **settings, eos_token_id=1)
        frames, mask = tiny_model.encoder(batch["input_features"], batch["input_features_mask"])
        cached = {"encoder_frames": frames.bfloat16() if autocast else frames, "encoder_frames_mask": mask}
        for inputs in (batch, prompts):
            for name in ("input_features", "input_features_mask"):
                del inputs[name]
        assert torch.equal(tiny_model(**batch, **cached).loss, expected[0])
        tokens = tiny_model.generate(**prompts, **cached, **settings, eos_token_id=1)
        assert torch.equal(tokens, expected[1])


def test_fresh_lora_changes_nothing(base_models, tiny_processor, two_clips):
    torch.manual_seed(3)
    plain = SlamAsrForConditionalGeneration.from_base_models(tiny_lean_config(base_models)).eval()
    with_lora = SlamAsrForConditionalGeneration.from_base_models(
        tiny_lean_config(base_models, lora_rank=4)
    ).eval()
    with_lora.projector.load_state_dict(plain.projector.state_dict())
    for model in (plain, with_lora):
        model.config.audio_token_id = tiny_processor.audio_token_id
    inputs = tiny_processor(two_clips)
    with torch.no_grad():
        torch.testing.assert_close(with_lora(**inputs).logits, plain(**inputs).logits, atol=0, rtol=0)
    with pytest.raises(ValueError, match="already"):
        with_lora.add_lora(4, 8, 0.0, ["q_proj"])


def test_placeholders_and_audio_tokens_must_agree(tiny_model, tiny_processor, two_clips):
    inputs = tiny_processor(two_clips)
    with pytest.raises(ValueError, match="no `input_features`"):
        tiny_model(input_ids=inputs["input_ids"])
    inputs["input_ids"][0, -1] = tiny_processor.audio_token_id
    with pytest.raises(ValueError, match="audio placeholders but the projector made"):
        tiny_model(**inputs)


def test_parameter_counts_are_those_of_the_parts(tiny_config):
    tiny_config.num_encoder_layers, tiny_config.lora_rank = 1, 4
    model = SlamAsrForConditionalGeneration(tiny_config)
    counts = model.parameter_counts()
    whole = WhisperModel(tiny_audio_config()).encoder
    assert counts["encoder_kept"] + counts["encoder_removed"] == sum(p.numel() for p in whole.parameters())
    # rank x (inputs + outputs) of q, k, v, o in each of the two layers
    assert counts["lora"] == 2 * 4 * ((32 + 32) + (32 + 16) + (32 + 16) + (32 + 32))
    assert counts["trainable"] == counts["projector"] + counts["lora"]
    assert counts["total"] == sum(p.numel() for p in model.parameters())


@pytest.mark.slow
def test_a_clip_keeps_its_logits_and_transcript_beside_others_on_real_models(real_models):
    """Batch of four noises of 1 to 9 s against each alone: at most 1e-4 apart, in float32 where transcripts
    begin and in float64 everywhere. Rounding in float32 reaches 2e-4 at audio tokens, of logits of 20.
    """
    import numpy as np
    from transformers import WhisperConfig

    from modeling_slam.training.arguments import LoraArguments, ModelArguments
    from modeling_slam.training.assembly import build_config, build_model, build_processor

    arguments = ModelArguments(
        encoder=str(real_models / "whisper-base"), llm=str(real_models / "qwen2.5-0.5b")
    )
    config = build_config(arguments, LoraArguments(lora_rank=0))
    assert isinstance(config.audio_config, WhisperConfig)
    processor = build_processor(arguments, config)
    torch.manual_seed(0)
    model = build_model(config, processor, arguments, bf16=False).eval()
    rng = np.random.default_rng(0)
    clips = [0.1 * rng.standard_normal(int(s * 16_000)).astype(np.float32) for s in (1, 9, 3.3, 2.02)]
    together = processor(clips)
    for dtype, places in ((torch.float32, slice(-1, None)), (torch.float64, slice(None))):
        model.to(dtype)
        with torch.no_grad():
            logits = model(**together).logits
            for row, clip in enumerate(clips):
                alone = processor(clip)
                difference = logits[row, -alone["input_ids"].shape[1] :] - model(**alone).logits[0]
                assert difference[places].abs().max() <= 1e-4
