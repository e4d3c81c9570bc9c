"""The LLM on some of its layers is the whole one whose other layers write nothing.

The reference is transformers' own, uncut model: a layer whose output projections are zero adds nothing to the
residual stream. Numbers of layers, sliding windows and the cache stay there as they always were.
"""

import copy
import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tiny_configs import tiny_audio_config, tiny_text_config
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    Gemma3nTextConfig,
    Qwen2ForCausalLM,
    WhisperForConditionalGeneration,
)

from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration
from modeling_slam.evaluation.fast_search import transcribe
from modeling_slam.model.checkpoints import base_digests, base_tensors, opened_bases

load = SlamAsrForConditionalGeneration.from_pretrained
SHAPE = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 6,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "bos_token_id": None,
    "eos_token_id": None, "pad_token_id": 0,
}  # fmt: skip
LLMS = {
    "qwen2": {},
    "qwen2, sliding windows": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 3},
    "llama": {},
    "gemma3_text": {"sliding_window": 4, "_sliding_window_pattern": 3},
    "smollm3": {"no_rope_layer_interval": 2},
    "qwen3_moe": {
        "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16, "mlp_only_layers": [3],
    },
    "gpt2": {"n_layer": 6, "n_embd": 32, "n_head": 4, "scale_attn_by_inverse_layer_idx": True},
    "gpt_neox": {},
}  # fmt: skip
WRITERS = ("o_proj", "down_proj", "c_proj", "dense", "dense_4h_to_h")  # what a layer adds to the stream
KEPT = [0, 2, 3, 5]


def llm_config(name: str):
    return AutoConfig.for_model(name.partition(",")[0], **SHAPE | LLMS[name])


def silenced(llm, kept):
    """The whole LLM, whose layers that are not kept add nothing."""
    layers = next(m for m in llm.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 6)
    for number, layer in enumerate(layers):
        if number not in kept:
            for name, parameter in layer.named_parameters():
                if any(writer in name for writer in WRITERS):
                    torch.nn.init.zeros_(parameter)
    return llm.eval()


def pruned_and_whole(text_config, kept):
    """A model whose LLM keeps these layers, and the whole LLM with the same weights, otherwise silenced."""
    torch.manual_seed(0)
    whole = AutoModelForCausalLM.from_config(copy.deepcopy(text_config))
    with torch.no_grad():
        for name, parameter in whole.named_parameters():
            parameter.normal_(1.0 if "norm" in name and "weight" in name else 0.0, 0.2)
    config = SlamAsrConfig(
        audio_config=tiny_audio_config(),
        text_config=text_config,
        kept_llm_layers=kept,
        projector_hidden_size=8,
    )
    model = SlamAsrForConditionalGeneration(config).eval()
    of_layers = {str(layer): str(place) for place, layer in enumerate(kept)}
    own = {}
    for name, tensor in whole.state_dict().items():
        parts = name.split(".")
        number = next((index for index, part in enumerate(parts) if part.isdigit()), None)
        if number is not None and parts[number] not in of_layers:
            continue
        if number is not None:
            parts[number] = of_layers[parts[number]]
        own[".".join(parts)] = tensor
    model.language_model.load_state_dict(own)
    return model, silenced(whole, kept)


@pytest.mark.parametrize("name", LLMS)
def test_logits_and_transcripts_are_those_of_the_whole_llm_whose_other_layers_are_silent(name):
    model, whole = pruned_and_whole(llm_config(name), KEPT)
    ids, mask = torch.randint(2, 64, (2, 11)), torch.ones(2, 11, dtype=torch.long)
    mask[0, :3] = 0
    real = mask.bool()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        expected = whole(ids, attention_mask=mask, position_ids=positions).logits[real]
        for attention in ("sdpa", "eager"):
            model.set_attn_implementation(attention)
            found = model(ids, attention_mask=mask).logits[real]
            assert torch.allclose(found, expected, atol=1e-5)
    settings = {"attention_mask": mask, "max_new_tokens": 8, "do_sample": False, "num_beams": 2}
    with_cache = model.generate(ids, use_cache=True, **settings)
    assert torch.equal(with_cache, model.generate(ids, use_cache=False, **settings))
    assert torch.equal(with_cache, whole.generate(ids, use_cache=True, **settings)[:, ids.shape[1] :])
    by_eval = transcribe(
        model, input_ids=ids, attention_mask=mask, max_new_tokens=8, num_beams=2, eos_token_id=[]
    )
    assert torch.equal(with_cache, by_eval)
    cache = model.language_model(ids, use_cache=True).past_key_values
    assert [cache.get_seq_length(layer) > 0 for layer in range(len(cache))] == [True] * len(KEPT)


def test_a_whole_llm_is_left_as_it_is(tiny_config):
    assert not tiny_config.prunes_llm
    model = SlamAsrForConditionalGeneration(tiny_config)
    assert model.language_model.config is tiny_config.text_config
    assert model.parameter_counts()["llm_removed"] == 0


def test_the_config_of_the_whole_llm_does_not_change():
    text_config = llm_config("qwen2, sliding windows")
    before = text_config.to_dict()
    config = SlamAsrConfig(audio_config=tiny_audio_config(), text_config=text_config, num_llm_layers=2)
    SlamAsrForConditionalGeneration(config)
    assert config.text_config.to_dict() | {"dtype": None} == before | {"dtype": None}
    assert SlamAsrConfig.from_dict(config.to_dict()).kept_llm_layers == [0, 1]


@pytest.mark.parametrize("name", ["qwen2", "qwen3_moe"])
def test_parameters_fall_by_those_of_the_layers_left_out(name):
    model, whole = pruned_and_whole(llm_config(name), KEPT)
    counts = model.parameter_counts()
    assert counts["llm"] + counts["llm_removed"] == sum(p.numel() for p in whole.parameters())
    assert counts["llm_removed"] == sum(p.numel() for i in (1, 4) for p in whole.model.layers[i].parameters())


def test_an_llm_whose_layers_share_keys_and_values_is_refused():
    text_config = Gemma3nTextConfig(
        **{name: value for name, value in SHAPE.items() if name != "bos_token_id"},
        num_kv_shared_layers=2, layer_types=["full_attention"] * 6, vocab_size_per_layer_input=64,
        hidden_size_per_layer_input=8, laurel_rank=4, activation_sparsity_pattern=[0.0] * 6,
    )  # fmt: skip
    config = SlamAsrConfig(audio_config=tiny_audio_config(), text_config=text_config, num_llm_layers=3)
    with torch.device("meta"), pytest.raises(ValueError, match=r"cannot be left out.*--keep_llm_layers"):
        SlamAsrForConditionalGeneration(config)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"num_llm_layers": 2}, [0, 1]),
        ({"kept_llm_layers": [0, 3, 5]}, [0, 3, 5]),
        ({"kept_llm_layers": [0, 3, 5], "num_llm_layers": 2}, [0, 3]),
    ],
)
def test_the_config_holds_the_list_of_kept_llm_layers(given, kept, tmp_path):
    made = SlamAsrConfig(audio_config=tiny_audio_config(), text_config=llm_config("llama"), **given)
    assert (made.kept_llm_layers, made.num_llm_layers) == (kept, len(kept))
    made.save_pretrained(tmp_path)
    assert "num_llm_layers" not in json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert SlamAsrConfig.from_pretrained(tmp_path).kept_llm_layers == kept
    assert SlamAsrConfig.from_pretrained(tmp_path, num_llm_layers=1).kept_llm_layers == kept[:1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_llm_layers": 0}, "`--keep_llm_layers`.*between 1 and 6"),
        ({"num_llm_layers": 7}, "`--keep_llm_layers`.*between 1 and 6"),
        ({"kept_llm_layers": [0, 6]}, "`kept_llm_layers` must be ascending between 0 and 5"),
        ({"kept_llm_layers": [2, 1]}, "ascending"),
    ],
)
def test_other_llm_layers_than_there_are_cannot_be_kept(given, message):
    with pytest.raises(ValueError, match=message):
        SlamAsrConfig(audio_config=tiny_audio_config(), text_config=llm_config("llama"), **given)


# ---------------------------------------------------------------- checkpoints


@pytest.fixture
def bases(tmp_path):
    """A Whisper and a six-layer Qwen2 on disk."""
    torch.manual_seed(1)
    WhisperForConditionalGeneration(tiny_audio_config()).save_pretrained(tmp_path / "whisper")
    Qwen2ForCausalLM(tiny_text_config(num_hidden_layers=6)).save_pretrained(tmp_path / "llm")
    return {"audio_model_id": str(tmp_path / "whisper"), "text_model_id": str(tmp_path / "llm")}


def config_on(bases, **changes):
    return SlamAsrConfig(
        audio_config=tiny_audio_config(), text_config=tiny_text_config(num_hidden_layers=6),
        projector_hidden_size=64, **bases, **changes,
    )  # fmt: skip


def with_lora(bases, **changes):
    """A model with LoRA that changes something."""
    torch.manual_seed(2)
    changes = {"kept_llm_layers": KEPT, "lora_rank": 2} | changes
    model = SlamAsrForConditionalGeneration.from_base_models(config_on(bases, **changes)).eval()
    for name, parameter in model.named_parameters():
        if ".lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def logits(model, ids=None):
    ids = torch.arange(2, 20)[None] if ids is None else ids
    with torch.no_grad():
        return getattr(model, "language_model", model)(input_ids=ids).logits


def test_a_lean_checkpoint_with_an_llm_cut_short_loads_the_same(bases, tmp_path):
    model = with_lora(bases)
    model.save_pretrained(tmp_path / "lean")
    loaded = load(tmp_path / "lean")
    assert loaded.config.kept_llm_layers == KEPT
    assert loaded.config.is_lean
    assert torch.equal(logits(loaded), logits(model))
    assert loaded.parameter_counts() == model.parameter_counts()


def test_of_the_base_llm_the_kept_layers_alone_are_handed_to_the_loader(bases):
    names = base_tensors(config_on(bases, kept_llm_layers=[1, 4]))
    layers = {name.split(".")[3] for name in names if name.startswith("language_model.model.layers.")}
    assert layers == {"0", "1"}
    whole = Qwen2ForCausalLM.from_pretrained(bases["text_model_id"]).state_dict()
    for place, layer in enumerate((1, 4)):
        for part in ("self_attn.q_proj.bias", "mlp.up_proj.weight"):
            found = names[f"language_model.model.layers.{place}.{part}"][...]
            assert torch.equal(found, whole[f"model.layers.{layer}.{part}"])


def test_the_digest_of_the_llm_does_not_depend_on_its_depth(bases):
    def digests(**changes):
        config = config_on(bases, **changes)
        return base_digests(config, opened_bases(config))

    assert digests() == digests(num_llm_layers=1) == digests(kept_llm_layers=[4, 5])
    model = with_lora(bases)
    assert model.config.text_model_digest == digests()[1]


def test_fewer_of_the_llm_layers_load_from_either_format_and_more_are_refused(bases, tmp_path):
    model = with_lora(bases)
    model.save_pretrained(tmp_path / "lean")
    model.config.self_contained = True
    model.save_pretrained(tmp_path / "full")
    for name in ("lean", "full"):
        shallow = load(tmp_path / name, num_llm_layers=2)
        assert shallow.config.kept_llm_layers == KEPT[:2]
        del model.language_model.model.layers[2:]
        model.language_model.config.num_hidden_layers = 2
        assert torch.equal(logits(shallow), logits(model))
        with pytest.raises(ValueError, match=r"`num_llm_layers` \(`--keep_llm_layers`\).* between 1 and 4"):
            load(tmp_path / name, num_llm_layers=5)
        with pytest.raises(ValueError, match="was trained with 4 llm layers"):
            load(tmp_path / name, kept_llm_layers=[0, 1])


def test_the_peft_copy_fits_the_whole_llm_at_the_kept_layers(bases, tmp_path):
    model = with_lora(bases)
    model.save_pretrained(tmp_path / "lean")
    whole = AutoModelForCausalLM.from_pretrained(bases["text_model_id"])
    whole = PeftModel.from_pretrained(whole, tmp_path / "lean", subfolder="adapter")
    silenced(whole, KEPT)
    assert torch.allclose(logits(whole), logits(model), atol=1e-5)
    model.disable_adapters()
    assert not torch.allclose(logits(whole), logits(model), atol=1e-3)


def test_an_adapter_of_the_whole_llm_is_taken_at_the_kept_layers(bases, tmp_path):
    whole = with_lora(bases, kept_llm_layers=None)
    whole.save_pretrained(tmp_path / "whole")
    other = with_lora(bases)
    other.save_pretrained(tmp_path / "other")
    model = SlamAsrForConditionalGeneration.from_base_models(config_on(bases, kept_llm_layers=KEPT)).eval()
    for name, expected in (("whole", silenced(whole.language_model, KEPT)), ("other", other)):
        model.load_adapter(str(tmp_path / name), name, adapter_kwargs={"subfolder": "adapter"})
        assert torch.allclose(logits(model), logits(expected), atol=1e-5)


def test_lora_of_single_layers_fits_the_same_layers_of_both_base_models(bases, tmp_path):
    """Layer 2 of the kept ones is layer 3 of the whole LLM, and layer 1 of the encoder's its layer 2."""
    changes = {"lora_target_modules": ["layers.2.self_attn.q_proj"], "kept_encoder_layers": [0, 2]}
    changes |= {"encoder_lora_rank": 2, "encoder_lora_target_modules": ["layers.1.fc1"]}
    model = with_lora(bases, **changes)
    model.save_pretrained(tmp_path / "lean")
    targets = {
        place: json.loads((tmp_path / "lean" / place / "adapter_config.json").read_text())["target_modules"]
        for place in ("adapter", "encoder_adapter")
    }
    expected = {"adapter": ["model.layers.3.self_attn.q_proj"], "encoder_adapter": ["layers.2.fc1"]}
    assert targets == expected
    whole = AutoModelForCausalLM.from_pretrained(bases["text_model_id"])
    whole = silenced(PeftModel.from_pretrained(whole, tmp_path / "lean", subfolder="adapter"), KEPT)
    assert torch.allclose(logits(whole), logits(model), atol=1e-5)

    def load_into(*kept):
        other = SlamAsrForConditionalGeneration.from_base_models(config_on(bases, kept_llm_layers=[*kept]))
        settings = {"adapter_kwargs": {"subfolder": "adapter"}}
        other.load_adapter(str(tmp_path / "lean"), "single", **settings)
        return {name for name in other.state_dict() if ".lora_A" in name}

    assert load_into(1, 3) == {"language_model.model.layers.1.self_attn.q_proj.lora_A.single.weight"}
    with pytest.raises(ValueError, match=r"layers of the LLM that this model does not keep.*\[0, 1\]"):
        load_into(0, 1)
    assert torch.equal(logits(load(tmp_path / "lean")), logits(model))


def test_a_trained_llm_stands_in_a_lean_checkpoint_with_its_kept_layers_alone(bases, tmp_path):
    model = with_lora(bases, lora_rank=0, train_llm=True)
    with torch.no_grad():
        for parameter in model.language_model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    counts = model.parameter_counts()
    assert counts["llm_trained"] == counts["llm"]
    assert counts["llm_removed"] > 0
    model.save_pretrained(tmp_path / "lean")
    assert model.config.is_lean
    assert not (tmp_path / "lean" / "adapter").exists()
    numbers = {
        name.split(".")[3]
        for name in load_file(tmp_path / "lean" / "model.safetensors")
        if name.startswith("language_model.model.layers.")
    }
    assert numbers == {"0", "1", "2", "3"}

    shutil.rmtree(bases["text_model_id"])  # it is not asked for any more
    loaded = load(tmp_path / "lean")
    assert torch.equal(logits(loaded), logits(model))
    assert loaded.parameter_counts() == counts
    loaded.save_pretrained(tmp_path / "again")
    shallow = load(tmp_path / "again", num_llm_layers=2)
    assert shallow.config.is_lean
    assert shallow.config.kept_llm_layers == KEPT[:2]
    del model.language_model.model.layers[2:]
    model.language_model.config.num_hidden_layers = 2
    assert torch.equal(logits(shallow), logits(model))


def test_merged_lora_makes_a_full_checkpoint_of_the_kept_layers(bases, tmp_path):
    model = with_lora(bases)
    before = logits(model)
    model.merge_lora()
    model.save_pretrained(tmp_path / "merged")
    loaded = load(tmp_path / "merged")
    assert not loaded.config.is_lean
    assert len(loaded.language_model.model.layers) == len(KEPT)
    assert torch.allclose(logits(loaded), before, atol=1e-5)


def test_a_trained_frozen_weight_of_a_kept_layer_makes_the_checkpoint_full(bases, tmp_path):
    model = with_lora(bases)
    with torch.no_grad():
        model.language_model.model.layers[1].mlp.up_proj.weight.add_(1.0)
    model.save_pretrained(tmp_path / "changed")
    assert model.config.self_contained
    assert torch.equal(logits(load(tmp_path / "changed")), logits(model))


def test_an_llm_cut_short_is_quantised_like_any_other(bases, tmp_path):
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="the extra `quantised` is not installed")
    model = with_lora(bases)
    model.save_pretrained(tmp_path / "lean")
    settings = BitsAndBytesConfig(load_in_8bit=True)
    packed = load(tmp_path / "lean", quantization_config=settings, device_map="cpu")
    layers = packed.language_model.model.layers
    assert len(layers) == len(KEPT)
    assert all(isinstance(layer.mlp.up_proj, bitsandbytes.nn.Linear8bitLt) for layer in layers)
    assert torch.allclose(logits(packed), logits(model), atol=0.05)
    packed.save_pretrained(tmp_path / "again")
    assert torch.equal(logits(load(tmp_path / "again")), logits(model))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen2.5-0.5b", "smollm2-135m"])
def test_a_real_llm_without_some_layers_is_the_whole_one_with_them_deleted(real_models, name, tmp_path):
    directory = str(real_models / name)
    whole = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    kept = [layer for layer in range(whole.config.num_hidden_layers) if layer not in (7, 8, 15)]
    config = SlamAsrConfig(
        audio_config=AutoConfig.from_pretrained(real_models / "whisper-base"),
        text_config=whole.config.to_dict(), kept_llm_layers=kept,
        audio_model_id=str(real_models / "whisper-base"), text_model_id=directory,
    )  # fmt: skip
    model = SlamAsrForConditionalGeneration.from_base_models(config).eval()
    for layer in (15, 8, 7):
        del whole.model.layers[layer]
    for place, layer in enumerate(whole.model.layers):
        layer.self_attn.layer_idx = place
    whole.config.num_hidden_layers = len(kept)
    ids = AutoTokenizer.from_pretrained(directory)("the cat sat on the mat", return_tensors="pt").input_ids
    assert torch.equal(logits(model, ids), logits(whole, ids))
    settings = {"max_new_tokens": 8, "do_sample": False, "num_beams": 2, "eos_token_id": None}
    found = model.generate(ids, **settings)
    assert torch.equal(found, whole.generate(ids, **settings)[:, ids.shape[1] :])
    assert torch.equal(found, model.generate(ids, use_cache=False, **settings))
