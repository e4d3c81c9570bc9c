"""What users put around the model or into it works as its documentation says, or refuses in one line."""

import copy

import pytest
import torch
from accelerate import cpu_offload
from peft import LoraConfig, get_peft_model
from tiny_configs import tiny_audio_config, tiny_text_config
from torch import nn
from transformers import (
    BitsAndBytesConfig,
    Gemma2Config,
    MambaConfig,
    MiniMaxConfig,
    OPTConfig,
    Qwen2ForCausalLM,
    Trainer,
    TrainingArguments,
    WhisperForConditionalGeneration,
)

from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration
from modeling_slam.evaluation.fast_search import transcribe

TEXTS = ["a cat", "it is"]


@pytest.fixture
def batch(tiny_processor, two_clips):
    return tiny_processor(two_clips, text=TEXTS)


@pytest.fixture
def prompts(tiny_processor, two_clips):
    return tiny_processor(two_clips)


# ------------------------------------------------------------------------ other LLMs

SMALL = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0, "eos_token_id": 1}
LLMS = {
    "mamba": MambaConfig(state_size=8, bos_token_id=0, **SMALL),
    "minimax": MiniMaxConfig(
        intermediate_size=48, num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_local_experts=2,
        num_experts_per_tok=1, layer_types=["linear_attention", "full_attention"], block_size=16, **SMALL,
    ),
    "gemma2": Gemma2Config(
        intermediate_size=48, num_attention_heads=4, num_key_value_heads=2, head_dim=8, sliding_window=8,
        **SMALL,
    ),
    "opt": OPTConfig(
        num_attention_heads=4, ffn_dim=48, word_embed_proj_dim=32, max_position_embeddings=128, **SMALL,
    ),
}  # fmt: skip


def model_on(text_config, processor) -> SlamAsrForConditionalGeneration:
    torch.manual_seed(0)
    config = SlamAsrConfig(
        audio_config=tiny_audio_config(),
        text_config=copy.deepcopy(text_config),
        projector_hidden_size=64,
        audio_token_id=processor.audio_token_id,
    )
    return SlamAsrForConditionalGeneration(config).eval()


@pytest.mark.parametrize("name", sorted(LLMS))
def test_loss_and_tokens_of_an_llm_are_those_of_its_own_class(name, tiny_processor, batch, prompts):
    model = model_on(LLMS[name], tiny_processor)
    labels = batch.pop("labels")
    with torch.no_grad():
        loss = model(**batch, labels=labels).loss
        logits = model(**batch).logits[:, :-1]
    expected = nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels[:, 1:].flatten())
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)

    settings = {"num_beams": 2, "max_new_tokens": 5, "eos_token_id": 1, "pad_token_id": 0}
    mask = prompts["attention_mask"]
    embeddings = model.prompt_embeddings(**{n: t for n, t in prompts.items() if n != "attention_mask"})
    expected = model.language_model.generate(inputs_embeds=embeddings, attention_mask=mask, **settings)
    assert torch.equal(model.generate(**prompts, **settings), expected)
    assert torch.equal(transcribe(model, **prompts, **settings), expected)


def test_an_llm_wrapped_by_peft_trains_and_transcribes(tiny_model, batch, prompts):
    expected = tiny_model(**batch).loss.item()
    settings = {"num_beams": 2, "max_new_tokens": 5, "eos_token_id": 1, "pad_token_id": 0}
    tokens = tiny_model.generate(**prompts, **settings)
    wrapped = get_peft_model(tiny_model.language_model, LoraConfig(r=2, target_modules=["q_proj"]))
    tiny_model.language_model = wrapped.eval()
    loss = tiny_model(**batch).loss
    loss.backward()
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(tiny_model.generate(**prompts, **settings), tokens)


# ------------------------------------------------------------------------ limits, sampling, empty input


def test_sampling_gives_as_many_transcripts_as_asked_for_each_within_its_clip(tiny_model, prompts):
    torch.manual_seed(0)
    settings = {"max_new_tokens": 40, "eos_token_id": 1, "pad_token_id": 0}
    tokens = tiny_model.generate(
        **prompts, do_sample=True, num_return_sequences=3, max_tokens_per_second=4, **settings
    )
    assert len(tokens) == 6
    # 4 tokens a second and end-of-text: 5 + 1 of the clip of 1.23 s, 10 + 1 of the one of 2.5 s.
    lengths = (tokens != 0).sum(dim=1).view(2, 3)
    assert (lengths[0] <= 6).all()
    assert (lengths[1] <= 11).all()
    assert lengths.max() > 6


@pytest.mark.parametrize(
    ("limits", "tokens"),
    [
        ({"max_new_tokens": 3}, 3),
        ({"max_length": 4}, 4),
        ({"max_new_tokens": 3, "max_length": 4}, 3),  # transformers: the limit of new tokens comes first
        ({"max_new_tokens": 4, "max_length": 3}, 4),
    ],
)
def test_limits_mean_what_transformers_says(tiny_model, prompts, limits, tokens):
    tiny_model.generation_config.update(eos_token_id=None, pad_token_id=0, max_new_tokens=7)
    assert tiny_model.generate(**prompts, **limits).shape == (2, tokens)


@pytest.mark.parametrize("method", ["forward", "generate"])
def test_missing_or_empty_input_is_said_in_one_line(tiny_model, prompts, method):
    call = getattr(tiny_model, method)
    with pytest.raises(ValueError, match=r"input_ids.*processor"):
        call(input_features=prompts["input_features"])
    with pytest.raises(ValueError, match=r"input_ids.*empty"):
        call(**{name: tensor[:0] for name, tensor in prompts.items()})


# ------------------------------------------------------------------------ transformers' plain Trainer


def plain_trainer(model, batch, directory, **settings) -> Trainer:
    rows = [{name: tensor[row] for name, tensor in batch.items()} for row in range(2)]
    arguments = TrainingArguments(
        output_dir=str(directory), max_steps=2, logging_steps=1, report_to=[], save_strategy="no", seed=1,
        remove_unused_columns=False, label_names=["labels"], use_cpu=True, disable_tqdm=True, **settings,
    )  # fmt: skip
    return Trainer(model=copy.deepcopy(model), args=arguments, train_dataset=rows, eval_dataset=rows)


def test_label_smoothing_of_the_plain_trainer_shifts_the_labels(tiny_model, batch, tmp_path):
    batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
    losses = [
        plain_trainer(tiny_model, batch, tmp_path, label_smoothing_factor=factor).evaluate()["eval_loss"]
        for factor in (0.0, 1e-6)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)


def test_neftune_noise_of_the_plain_trainer_acts(lora_model, batch, tmp_path):
    losses = []
    for settings in ({}, {"neftune_noise_alpha": 50.0}):
        trainer = plain_trainer(lora_model, batch, tmp_path, **settings)
        trainer.train()
        losses.append(trainer.state.log_history[0]["loss"])
    assert losses[0] != losses[1]


# ------------------------------------------------------------------------ weights elsewhere, or in fewer bits


def test_offloaded_parts_transcribe_the_same(lora_model, prompts, tmp_path):
    expected = lora_model.generate(**prompts)
    lora_model.save_pretrained(tmp_path / "model")
    assert torch.equal(cpu_offload(copy.deepcopy(lora_model)).generate(**prompts), expected)
    for part in ("encoder", "projector", "language_model"):
        places = {"encoder": "cpu", "projector": "cpu", "language_model": "cpu", part: "disk"}
        model = SlamAsrForConditionalGeneration.from_pretrained(
            tmp_path / "model", device_map=places, offload_folder=str(tmp_path / f"offload-{part}")
        )
        assert torch.equal(model.generate(**prompts), expected), part


@pytest.fixture
def wide_model(tmp_path, tiny_processor) -> SlamAsrForConditionalGeneration:
    """With LoRA; all widths are such that bitsandbytes can pack the layers."""
    torch.manual_seed(1)
    audio = tiny_audio_config(d_model=64, encoder_ffn_dim=64, decoder_ffn_dim=64)
    text = tiny_text_config(
        hidden_size=64, intermediate_size=64, num_attention_heads=1, num_key_value_heads=1, head_dim=64
    )
    WhisperForConditionalGeneration(audio).save_pretrained(tmp_path / "wide-whisper")
    Qwen2ForCausalLM(text).save_pretrained(tmp_path / "wide-llm")
    config = SlamAsrConfig(
        audio_config=audio,
        text_config=text,
        lora_rank=4,
        projector_hidden_size=64,
        audio_model_id=str(tmp_path / "wide-whisper"),
        text_model_id=str(tmp_path / "wide-llm"),
        audio_token_id=tiny_processor.audio_token_id,
    )
    model = SlamAsrForConditionalGeneration.from_base_models(config).eval()
    for name, parameter in model.named_parameters():
        if ".lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    model.generation_config.update(num_beams=2, max_new_tokens=6, eos_token_id=1, pad_token_id=0)
    return model


@pytest.mark.parametrize("bits", [4, 8])
def test_quantisation_takes_the_frozen_layers_and_leaves_the_trained(
    wide_model, prompts, batch, tmp_path, bits
):
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="the extra `quantised` is not installed")
    wide_model.save_pretrained(tmp_path / "model")
    quantisation = BitsAndBytesConfig(
        load_in_4bit=bits == 4, load_in_8bit=bits == 8, bnb_4bit_compute_dtype=torch.float32
    )
    load = SlamAsrForConditionalGeneration.from_pretrained
    model = load(tmp_path / "model", quantization_config=quantisation, device_map="cpu")
    kind = bitsandbytes.nn.Linear4bit if bits == 4 else bitsandbytes.nn.Linear8bitLt
    quantised = {name for name, module in model.named_modules() if isinstance(module, kind)}
    assert not any(name.startswith("projector") or "lora_" in name for name in quantised)
    assert {name.split(".")[0] for name in quantised} == {"encoder", "language_model"}
    assert "language_model.lm_head" not in quantised
    model.train()  # before anything else: bitsandbytes packs weights on a CPU when they first serve inference
    loss = model(**batch).loss
    loss.backward()
    assert loss.item() == pytest.approx(wide_model(**batch).loss.item(), rel=0.3)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert trained
    assert all(parameter.grad is not None for parameter in trained)
    assert model.eval().generate(**prompts).shape[0] == 2

    model.save_pretrained(tmp_path / "again")
    again = load(tmp_path / "again")
    assert torch.equal(again.generate(**prompts), wide_model.generate(**prompts))
    with pytest.raises(ValueError, match="quantised"):
        model.merge_lora()
    model.config.self_contained = True
    with pytest.raises(ValueError, match="quantised"):
        model.save_pretrained(tmp_path / "full")


def test_dynamic_quantisation_finds_the_frozen_layers(tiny_model, prompts):
    quantised = torch.ao.quantization.quantize_dynamic(tiny_model, {nn.Linear}, dtype=torch.qint8)
    kept = [name for name, module in quantised.named_modules() if type(module) is nn.Linear]
    assert not kept
    assert quantised.generate(**prompts, max_new_tokens=3, eos_token_id=1, pad_token_id=0).shape[0] == 2


def test_resized_embeddings_stay_tied(tiny_processor, prompts):
    model = model_on(tiny_text_config(tie_word_embeddings=True), tiny_processor)
    settings = {
        "max_new_tokens": 4,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "suppress_tokens": list(range(64, 72)),
    }
    expected = model.generate(**prompts, **settings | {"suppress_tokens": None})
    model.resize_token_embeddings(72, mean_resizing=False)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert model.config.text_config.vocab_size == 72
    assert torch.equal(model.generate(**prompts, **settings), expected)
