"""Adapters: the LoRA of a checkpoint is plain PEFT's, and can be switched, exchanged and merged."""

import fnmatch
import json
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from tiny_configs import tiny_audio_config, tiny_lean_config, tiny_text_config, tiny_waveform_config
from transformers import AutoModel, GPT2Config, GPT2LMHeadModel, Qwen2ForCausalLM, WhisperModel

from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration
from modeling_slam.model.lora import LLM


@pytest.fixture
def inputs(tiny_processor, two_clips):
    return tiny_processor(two_clips)


@pytest.fixture
def foreign_adapter(base_models, tmp_path) -> str:
    """A PEFT adapter trained on the plain LLM, on other layers than ours and of another rank."""
    torch.manual_seed(5)
    llm = Qwen2ForCausalLM.from_pretrained(base_models["text_model_id"])
    adapted = get_peft_model(
        llm, LoraConfig(r=2, target_modules=["up_proj", "q_proj"], init_lora_weights=False)
    )
    adapted.save_pretrained(tmp_path / "foreign")
    return str(tmp_path / "foreign")


def logits_of(model, inputs) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**inputs).logits


def learning(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_plain_peft_loads_the_lora_of_a_checkpoint_onto_the_plain_llm(lora_model, base_models, tmp_path):
    lora_model.config.text_model_revision = "abc"
    lora_model.save_pretrained(tmp_path / "model")
    llm = Qwen2ForCausalLM.from_pretrained(base_models["text_model_id"])
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        plain = llm(ids).logits
        adapted = PeftModel.from_pretrained(llm, tmp_path / "model", subfolder="adapter").eval()
        assert torch.equal(adapted(ids).logits, lora_model.language_model(ids).logits)
    assert (adapted(ids).logits - plain).abs().max() > 1e-2
    settings = json.loads((tmp_path / "model/adapter/adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == base_models["text_model_id"]
    assert settings["revision"] == "abc"


def test_no_adapter_lies_where_auto_classes_would_take_it_for_the_model(lora_model, tiny_model, tmp_path):
    lora_model.save_pretrained(tmp_path / "with")
    assert not list((tmp_path / "with").glob("adapter_*"))
    tiny_model.save_pretrained(tmp_path / "without")
    assert not (tmp_path / "without/adapter").exists()


def test_a_state_dict_given_to_save_is_what_both_copies_hold(lora_model, tmp_path):
    """As the trainer gives it, gathered from other processes."""
    weights = {name: tensor + 1 for name, tensor in lora_model.state_dict().items()}
    lora_model.save_pretrained(tmp_path, state_dict=weights)
    root, copy = (
        load_file(tmp_path / "model.safetensors"),
        load_file(tmp_path / "adapter/adapter_model.safetensors"),
    )
    of_lora = {
        "base_model.model." + name.removeprefix("language_model.").replace(".default.", "."): tensor
        for name, tensor in root.items()
        if ".lora_" in name
    }
    assert set(of_lora) == set(copy)
    assert all(torch.equal(of_lora[name], copy[name]) for name in copy)
    assert all(torch.equal(root[name], weights[name]) for name in root)


def test_disabled_adapters_leave_the_plain_llm_and_enabled_ones_learn_again(lora_model, base_models, inputs):
    before, trained = logits_of(lora_model, inputs), learning(lora_model)
    lora_model.disable_adapters()
    llm = Qwen2ForCausalLM.from_pretrained(base_models["text_model_id"])
    with torch.no_grad():
        expected = llm(torch.tensor([[5, 6, 7]])).logits
        torch.testing.assert_close(lora_model.language_model(torch.tensor([[5, 6, 7]])).logits, expected)
    assert not torch.equal(logits_of(lora_model, inputs), before)
    lora_model.enable_adapters()
    assert torch.equal(logits_of(lora_model, inputs), before)
    assert learning(lora_model) == trained
    assert any(".lora_" in name for name in trained)


def test_a_foreign_adapter_can_be_loaded_used_and_dropped(lora_model, base_models, foreign_adapter, inputs):
    ids, own, trained = torch.tensor([[5, 6, 7]]), logits_of(lora_model, inputs), learning(lora_model)
    lora_model.load_adapter(foreign_adapter, "foreign")
    assert lora_model.active_adapters() == ["foreign"]
    llm = Qwen2ForCausalLM.from_pretrained(base_models["text_model_id"])
    with torch.no_grad():
        expected = PeftModel.from_pretrained(llm, foreign_adapter).eval()(ids).logits
        torch.testing.assert_close(lora_model.language_model(ids).logits, expected, atol=1e-6, rtol=0)
    assert learning(lora_model) == trained
    lora_model.set_adapter("default")
    assert torch.equal(logits_of(lora_model, inputs), own)
    lora_model.set_adapter("foreign")
    lora_model.delete_adapter("foreign")
    assert lora_model.active_adapters() == ["default"]
    assert torch.equal(logits_of(lora_model, inputs), own)
    with pytest.raises(ValueError, match="merge_lora"):
        lora_model.delete_adapter("default")


def test_the_lora_of_another_checkpoint_can_take_the_place_of_the_own(lora_model, inputs, tmp_path):
    before = logits_of(lora_model, inputs)
    lora_model.save_pretrained(tmp_path / "first")
    with torch.no_grad():
        for name, parameter in lora_model.named_parameters():
            if ".lora_" in name:
                parameter.mul_(-2)
    subfolder = {"adapter_kwargs": {"subfolder": "adapter"}}
    lora_model.load_adapter(str(tmp_path / "first"), "first", **subfolder)
    torch.testing.assert_close(logits_of(lora_model, inputs), before, atol=1e-6, rtol=0)


def test_a_foreign_adapter_does_not_travel_with_the_checkpoint(lora_model, foreign_adapter, inputs, tmp_path):
    before = logits_of(lora_model, inputs)
    lora_model.save_pretrained(tmp_path / "before")
    lora_model.load_adapter(foreign_adapter, "foreign")
    lora_model.save_pretrained(tmp_path / "after")
    for file in ("model.safetensors", "adapter/adapter_model.safetensors"):
        assert (tmp_path / "before" / file).read_bytes() == (tmp_path / "after" / file).read_bytes()
    loaded = SlamAsrForConditionalGeneration.from_pretrained(tmp_path / "after")
    assert torch.equal(logits_of(loaded, inputs), before)
    lora_model.config.self_contained = True
    with pytest.raises(ValueError, match=r"cannot hold the adapters \['foreign'\]"):
        lora_model.save_pretrained(tmp_path / "full")


def test_merged_lora_is_the_same_model_and_saves_as_a_full_one(lora_model, inputs, tmp_path):
    before = logits_of(lora_model, inputs)
    lora_model.merge_lora()
    assert not any(".lora_" in name or "base_layer" in name for name in lora_model.state_dict())
    torch.testing.assert_close(logits_of(lora_model, inputs), before, atol=1e-5, rtol=0)
    assert learning(lora_model) == {name for name in lora_model.state_dict() if name.startswith("projector.")}
    lora_model.save_pretrained(tmp_path / "merged")
    assert not (tmp_path / "merged/adapter").exists()
    loaded = SlamAsrForConditionalGeneration.from_pretrained(tmp_path / "merged")
    assert torch.equal(logits_of(loaded, inputs), logits_of(lora_model, inputs))
    lora_model.add_lora(2, 4, 0.0, ["q_proj"])  # and may be adapted anew
    assert torch.equal(logits_of(lora_model, inputs), logits_of(loaded, inputs))


def test_what_cannot_be_merged_is_refused(lora_model, tiny_model):
    with pytest.raises(ValueError, match="no LoRA to merge"):
        tiny_model.merge_lora()
    lora_model.disable_adapters()
    with pytest.raises(ValueError, match="enable_adapters"):
        lora_model.merge_lora()


def adapter_of(base_models, directory, change=None, **settings) -> str:
    """A PEFT adapter of the plain LLM, saved; `change` may change its weights."""
    torch.manual_seed(7)
    llm = Qwen2ForCausalLM.from_pretrained(base_models["text_model_id"])
    settings = {"r": 2, "target_modules": ["q_proj"], "init_lora_weights": False, **settings}
    get_peft_model(llm, LoraConfig(**settings)).save_pretrained(directory)
    if change is not None:
        file = directory / "adapter_model.safetensors"
        save_file(change(load_file(file)), file)
    return str(directory)


def without_one(weights):
    weights.pop(next(iter(weights)))
    return weights


def with_magnitudes(weights):
    name = next(name for name in weights if "lora_A" in name).replace(
        "lora_A.weight", "lora_magnitude_vector"
    )
    return weights | {name: torch.ones(32)}


@pytest.mark.parametrize(
    ("settings", "change", "message"),
    [
        ({"bias": "lora_only"}, None, "biases"),
        ({"bias": "all"}, None, "biases"),
        ({"modules_to_save": ["lm_head"]}, None, "whole modules"),
        ({"trainable_token_indices": [3]}, None, "whole modules"),
        ({}, without_one, "do not fit"),
        ({}, with_magnitudes, "do not fit"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_an_adapter_that_would_change_more_than_lora_or_less_is_refused(
    lora_model, base_models, inputs, tmp_path, settings, change, message
):
    before, names = logits_of(lora_model, inputs), set(lora_model.state_dict())
    adapter = adapter_of(base_models, tmp_path / "adapter", change, **settings)
    with pytest.raises(ValueError, match=message):
        lora_model.load_adapter(adapter, "other")
    assert torch.equal(logits_of(lora_model, inputs), before)
    assert set(lora_model.state_dict()) == names
    assert lora_model.active_adapter == "default"


@pytest.mark.parametrize("settings", [{}, {"use_dora": True}, {"use_rslora": True}], ids=str)
def test_an_adapter_gives_what_it_gives_in_peft(lora_model, base_models, tmp_path, settings):
    adapter = adapter_of(base_models, tmp_path / "adapter", **settings)
    llm = Qwen2ForCausalLM.from_pretrained(base_models["text_model_id"])
    ids = torch.tensor([[5, 6, 7, 8]])
    lora_model.load_adapter(adapter, "other")
    with torch.no_grad():
        expected = PeftModel.from_pretrained(llm, adapter).eval()(ids).logits
        torch.testing.assert_close(lora_model.eval().language_model(ids).logits, expected)


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_lora_on_tied_embeddings_is_refused_before_anything_changed(tmp_path, tiny_processor, target):
    config = SlamAsrConfig(
        audio_config=tiny_audio_config(), text_config=tiny_text_config(tie_word_embeddings=True)
    )
    model = SlamAsrForConditionalGeneration(config)
    names = set(model.state_dict())
    with pytest.raises(ValueError, match=f"lora_target_modules.*{target}.*shares its weights"):
        model.add_lora(2, 4, 0.0, ["q_proj", target])
    assert set(model.state_dict()) == names
    assert model.config.lora_rank == 0
    config.lora_rank, config.lora_target_modules = 2, [target]
    with pytest.raises(ValueError, match="shares its weights"):
        SlamAsrForConditionalGeneration(config)


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_lora_on_embeddings_of_their_own_is_saved_and_loaded(base_models, inputs, tmp_path, target):
    config = tiny_lean_config(base_models, lora_rank=2, lora_target_modules=["q_proj", target])
    config.audio_token_id = int(inputs["input_ids"][0, -10])
    model = SlamAsrForConditionalGeneration.from_base_models(config)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(parameter)
    model.config.audio_token_id = 34
    ids = {"input_ids": torch.tensor([[5, 6, 7, 8]])}
    expected = logits_of(model, ids)
    model.save_pretrained(tmp_path / "model")
    assert torch.equal(
        logits_of(SlamAsrForConditionalGeneration.from_pretrained(tmp_path / "model"), ids), expected
    )


def test_a_name_that_is_no_layer_is_refused_by_the_flag(tiny_model):
    with pytest.raises(ValueError, match=r"`lora_target_modules` names 'query'.*no layer"):
        tiny_model.add_lora(2, 4, 0.0, ["q_proj", "query"])


def test_adapter_methods_of_transformers_work_or_name_what_does(lora_model, tiny_model, foreign_adapter):
    assert lora_model.active_adapters() == ["default"]
    assert lora_model.active_adapter == "default"
    weights = lora_model.get_adapter_state_dict()
    assert weights.keys() == get_peft_model_state_dict(lora_model.language_model).keys()
    lora_model.disable_adapters()
    assert lora_model.active_adapters() == []
    lora_model.enable_adapters()
    for name in ("default", "other"):
        if name == "other":
            lora_model.load_adapter(foreign_adapter, "other")
        with pytest.raises(ValueError, match="is taken"):
            lora_model.load_adapter(foreign_adapter, name)
    for call in (lora_model.set_adapter, lora_model.delete_adapter):
        with pytest.raises(ValueError, match="no adapter 'third'"):
            call("third")
    with pytest.raises(ValueError, match="add_lora"):
        lora_model.add_adapter(LoraConfig())
    with pytest.raises(ValueError, match="set_adapter"):
        lora_model.enable_peft_hotswap()
    for call in (tiny_model.disable_adapters, tiny_model.enable_adapters):
        with pytest.raises(ValueError, match="no adapter"):
            call()


def test_new_lora_layers_are_in_the_models_mode(lora_model, foreign_adapter, tmp_path):
    lora_model.save_pretrained(tmp_path / "model")
    loaded = SlamAsrForConditionalGeneration.from_pretrained(tmp_path / "model")
    loaded.load_adapter(foreign_adapter, "other")
    assert not any(module.training for module in loaded.modules())


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("encoder", ["whisper", "wav2vec2"])
def test_lora_on_the_encoder_is_trained_counted_saved_switched_and_merged(
    base_models, tmp_path, encoder, rank
):
    """Alone and beside the LLM's."""
    fields = {"rank": 2, "alpha": 4, "dropout": 0.5}
    fields = {f"encoder_lora_{name}": value for name, value in fields.items()}
    audio_config, features = tiny_audio_config(), torch.randn(1, 8, 98)
    if encoder == "wav2vec2":
        audio_config, features = tiny_waveform_config(encoder), torch.randn(1, 16_000)
        base_models["audio_model_id"] = str(tmp_path / encoder)
        AutoModel.from_config(audio_config).save_pretrained(tmp_path / encoder)
    config = SlamAsrConfig(
        audio_config=audio_config,
        text_config=tiny_text_config(),
        num_encoder_layers=2,
        projector_hidden_size=64,
        lora_rank=rank,
        **base_models,
        **fields,
    )
    ids = torch.tensor([[config.audio_token_id] * 10 + [5, 6, 7]])
    labels = torch.tensor([[-100] * 11 + [6, 7]])
    model = SlamAsrForConditionalGeneration.from_base_models(config).train()
    lora = {name for name in learning(model) if ".lora_" in name}
    adapted = {"encoder", "language_model"} if rank else {"encoder"}
    assert {name.split(".")[0] for name in lora} == adapted
    dropping = {name.split(".")[0] for name, m in model.named_modules() if m.training and "dropout" in name}
    assert dropping == adapted | {"projector"}
    optimizer = torch.optim.SGD([model.get_parameter(name) for name in learning(model)], 0.5)
    for _ in range(2):  # the first step moves the second matrices alone
        optimizer.zero_grad()
        model(ids, features, labels=labels).loss.backward()
        assert {n for n, p in model.named_parameters() if p.grad is not None} == learning(model)
        optimizer.step()
    inputs = {"input_ids": ids, "input_features": features}
    expected = logits_of(model, inputs)

    counts = model.parameter_counts()
    assert counts["lora"] == sum(model.get_parameter(name).numel() for name in lora)
    of_encoder = [name for name in lora if name.startswith("encoder.")]
    assert len(of_encoder) == 2 * 2 * 2, "two matrices of q and v in two layers"
    assert counts["encoder_lora"] == sum(model.get_parameter(name).numel() for name in of_encoder)
    assert counts["encoder_trained"] == counts["llm_trained"] == 0
    assert counts["total"] == sum(counts[part] for part in ("encoder_kept", "projector", "lora", "llm"))
    model.save_pretrained(tmp_path / "lean")
    assert set(load_file(tmp_path / "lean/model.safetensors")) == learning(model)
    assert (tmp_path / "lean/adapter").exists() is bool(rank)
    assert (tmp_path / "lean/encoder_adapter").exists()
    load = SlamAsrForConditionalGeneration.from_pretrained
    loaded = load(tmp_path / "lean")
    assert torch.equal(logits_of(loaded, inputs), expected)
    assert learning(loaded) == learning(model)
    assert len(load(tmp_path / "lean", num_encoder_layers=1).encoder.layers) == 1
    loaded.disable_adapters()
    assert not torch.equal(logits_of(loaded, inputs), expected)
    loaded.enable_adapters()
    assert torch.equal(logits_of(loaded, inputs), expected)

    if rank:
        loaded.merge_lora(["encoder"])
        assert loaded.config.lora_ranks() == {"lora_rank": rank, "encoder_lora_rank": 0}
        torch.testing.assert_close(logits_of(loaded, inputs), expected, atol=1e-5, rtol=0)
        assert loaded.active_adapters() == ["default"]
        loaded.merge_lora([LLM])
    else:
        loaded.merge_lora()
    loaded.save_pretrained(tmp_path / "merged")
    merged = load(tmp_path / "merged")
    assert not merged.config.adds_lora
    torch.testing.assert_close(logits_of(merged, inputs), expected, atol=1e-5, rtol=0)
    merged.add_lora(2, 4, 0.0, ["q_proj"], part="encoder")
    assert merged.config.encoder_lora_rank == 2
    with pytest.raises(ValueError, match=r"encoder_lora_alpha.*positive"):
        SlamAsrConfig(**config.to_dict() | {"encoder_lora_alpha": 0})


@pytest.mark.parametrize("kept", [[0, 1], [0, 2]])
def test_plain_peft_loads_the_encoders_lora_onto_the_whole_encoder(base_models, tmp_path, kept):
    """The unpruned encoder of transformers, cut by hand to the same layers, gives the same frames."""
    settings = {"lora_rank": 2, "encoder_lora_rank": 2, "kept_encoder_layers": kept}
    model = SlamAsrForConditionalGeneration.from_base_models(tiny_lean_config(base_models, **settings)).eval()
    for name, parameter in model.named_parameters():
        if ".lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path / "model")
    features = torch.randn(1, 8, 3000)
    encoder = WhisperModel.from_pretrained(base_models["audio_model_id"]).encoder
    with torch.no_grad():
        expected, _ = model.encoder(features)
        adapted = PeftModel.from_pretrained(encoder, tmp_path / "model", subfolder="encoder_adapter").eval()
        layers = adapted.base_model.model.layers
        adapted.base_model.model.layers = torch.nn.ModuleList(layers[layer] for layer in kept)
        frames = adapted(features).last_hidden_state
    torch.testing.assert_close(frames, expected, atol=1e-5, rtol=0)
    settings = json.loads((tmp_path / "model/encoder_adapter/adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == base_models["audio_model_id"]


def trained_a_step(model) -> dict[str, torch.Tensor]:
    """One step of SGD; returns the inputs."""
    ids = torch.tensor([[model.config.audio_token_id] * 10 + [5, 6, 7]])
    torch.manual_seed(0)
    features, labels = torch.randn(1, 8, 98), torch.tensor([[-100] * 11 + [6, 7]])
    model.train()(ids, features, labels=labels).loss.backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == learning(model)
    torch.optim.SGD([model.get_parameter(name) for name in learning(model)], 0.5).step()
    return {"input_ids": ids, "input_features": features}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("fields", "trained"),
    [
        ({"trained_encoder_layers": [2]}, ["encoder.layers.1."]),
        ({"train_llm": True}, ["language_model."]),
        ({"train_llm": True, "encoder_lora_rank": 2}, ["language_model.", "encoder.layers.*lora_*"]),
    ],
    ids=str,
)
def test_a_part_that_is_trained_itself_stands_in_a_lean_checkpoint(
    base_models, tmp_path, dtype, fields, trained
):
    """Beside frozen weights of another type too, it is trained and kept in float32."""
    settings = {"kept_encoder_layers": [0, 2], "trained_in_float32": True, "projector_dropout": 0.0}
    config = tiny_lean_config(base_models, **settings, **fields)
    model = SlamAsrForConditionalGeneration.from_base_models(config, dtype=dtype)
    patterns = [f"{name}*" for name in ("projector.", *trained)]
    names = {n for n in model.state_dict() if any(fnmatch.fnmatchcase(n, pattern) for pattern in patterns)}
    assert learning(model) == names
    assert {model.get_parameter(name).dtype for name in names} == {torch.float32}
    inputs = trained_a_step(model)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        expected = logits_of(model, inputs)
    counts = model.parameter_counts()
    assert counts["trainable"] == sum(model.get_parameter(name).numel() for name in names)
    assert counts["trainable"] == sum(
        counts[part] for part in ("projector", "lora", "encoder_trained", "llm_trained")
    )

    model.save_pretrained(tmp_path / "lean")
    assert not model.config.self_contained
    assert set(load_file(tmp_path / "lean/model.safetensors")) == names
    loaded = SlamAsrForConditionalGeneration.from_pretrained(tmp_path / "lean")
    before, after = model.state_dict(), loaded.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert {n: t.dtype for n, t in before.items()} == {n: t.dtype for n, t in after.items()}
    assert learning(loaded) == names
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        assert torch.equal(logits_of(loaded, inputs), expected)
    pruned = SlamAsrForConditionalGeneration.from_pretrained(tmp_path / "lean", num_encoder_layers=1)
    assert len(pruned.encoder.layers) == 1
    loaded.config.self_contained = True
    loaded.save_pretrained(tmp_path / "full")
    full = SlamAsrForConditionalGeneration.from_pretrained(tmp_path / "full")
    assert all(torch.equal(before[name], tensor) for name, tensor in full.state_dict().items())


def test_an_llm_that_stands_in_the_checkpoint_is_not_fetched_again(base_models, tmp_path):
    model = SlamAsrForConditionalGeneration.from_base_models(tiny_lean_config(base_models, train_llm=True))
    model.save_pretrained(tmp_path / "lean")
    shutil.rmtree(base_models["text_model_id"])
    SlamAsrForConditionalGeneration.from_pretrained(tmp_path / "lean").save_pretrained(tmp_path / "again")
    assert not json.loads((tmp_path / "again/config.json").read_text())["self_contained"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train_llm": True, "lora_rank": 2}, "`train_llm`.*`lora_rank` is 2"),
        ({"trained_encoder_layers": [1], "encoder_lora_rank": 2}, "`encoder_lora_rank` is 2.*leave one"),
        ({"trained_encoder_layers": [3]}, "between 0 and 2"),
        ({"kept_encoder_layers": [[0, 1], 2], "encoder_lora_rank": 2}, "beside merged layers"),
        ({"kept_encoder_layers": [[0, 1], 2], "trained_encoder_layers": [[0, 1], 2]}, "beside merged"),
    ],
    ids=str,
)
def test_lora_and_the_training_of_what_it_adapts_exclude_each_other(base_models, fields, message):
    with pytest.raises(ValueError, match=message):
        tiny_lean_config(base_models, **fields)


def test_lora_that_could_not_be_loaded_again_is_not_put_in(base_models):
    for fields, part, message in (
        ({"train_llm": True}, "language_model", "`train_llm`"),
        ({"kept_encoder_layers": [[0, 1], 2]}, "encoder", "beside merged layers"),
    ):
        model = SlamAsrForConditionalGeneration(tiny_lean_config(base_models, **fields))
        with pytest.raises(ValueError, match=message):
            model.add_lora(2, 4, 0.0, ["q_proj"], part=part)
        assert not model.config.adds_lora
        assert not any(".lora_" in name for name in model.state_dict())


def test_new_lora_on_a_model_that_transcribes_has_no_dropout(tiny_model):
    tiny_model.eval().add_lora(2, 4, 0.5, ["q_proj"])
    assert not any(module.training for module in tiny_model.modules())


def test_an_adapter_of_another_llm_is_refused_and_leaves_nothing(lora_model, tiny_model, inputs, tmp_path):
    llm = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=40))
    settings = LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True)
    get_peft_model(llm, settings).save_pretrained(tmp_path / "gpt2")
    for model in (lora_model, tiny_model):
        before, adapters = logits_of(model, inputs), dict(model.adapters())
        with pytest.raises(ValueError, match="does not fit this LLM"):
            model.load_adapter(str(tmp_path / "gpt2"), "other")
        assert model.adapters() == adapters
        assert torch.equal(logits_of(model, inputs), before)


def test_an_adapter_that_is_chosen_acts_on_all_its_layers(lora_model, base_models, foreign_adapter):
    """Also where adapters had been switched off before."""
    lora_model.disable_adapters()
    lora_model.load_adapter(foreign_adapter, "foreign")
    llm = Qwen2ForCausalLM.from_pretrained(base_models["text_model_id"])
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        expected = PeftModel.from_pretrained(llm, foreign_adapter).eval()(ids).logits
        torch.testing.assert_close(lora_model.language_model(ids).logits, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("trained_in_float32", [True, False])
def test_fresh_lora_has_the_dtype_of_what_is_trained(base_models, trained_in_float32):
    config = tiny_lean_config(base_models, lora_rank=2, trained_in_float32=trained_in_float32)
    model = SlamAsrForConditionalGeneration.from_base_models(config, dtype=torch.bfloat16)
    dtypes = {parameter.dtype for parameter in model.parameters() if parameter.requires_grad}
    assert dtypes == {torch.float32 if trained_in_float32 else torch.bfloat16}


@pytest.mark.parametrize("kind", ["whisper", "wav2vec2", "hubert", "wavlm"])
def test_lora_acts_wherever_it_is_put_into_an_encoder(kind):
    """WavLM's attention reads the weights of its layers and does not call them: LoRA there is refused."""
    audio_config = tiny_audio_config() if kind == "whisper" else tiny_waveform_config(kind)
    settings = {"audio_config": audio_config, "text_config": tiny_text_config(), "encoder_lora_rank": 2}
    if kind == "wavlm":
        with pytest.raises(ValueError, match=r"`encoder_lora_target_modules` names 'q_proj'.*no effect"):
            SlamAsrConfig(**settings)
        settings["encoder_lora_target_modules"] = ["intermediate_dense", "output_dense"]
    encoder = SlamAsrForConditionalGeneration(SlamAsrConfig(**settings)).encoder
    features = torch.randn(1, 8, 40) if kind == "whisper" else torch.randn(1, 4_000)
    encoder(features)[0].square().sum().backward()
    trained = {name: weight for name, weight in encoder.named_parameters() if weight.requires_grad}
    assert trained
    assert all(weight.grad is not None for weight in trained.values())
