"""Checkpoints: lean and full hold what they should, load by one line, and refuse what does not fit."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_configs import tiny_audio_config, tiny_lean_config, tiny_text_config
from transformers import (
    AutoModel,
    AutoModelForMultimodalLM,
    AutoModelForSpeechSeq2Seq,
    BatchFeature,
    GenerationConfig,
    Qwen2ForCausalLM,
    WhisperForConditionalGeneration,
)

from modeling_slam import SlamAsrForConditionalGeneration
from modeling_slam.model.checkpoints import base_tensors, encoder_tensors, lazy_tensors

load = SlamAsrForConditionalGeneration.from_pretrained


def logits_of(model, inputs) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**inputs.to(dtype=model.dtype)).logits


@pytest.fixture
def inputs(tiny_processor, two_clips):
    return tiny_processor(two_clips)


@pytest.fixture(params=["lean", "full"])
def checkpoint(request, lora_model, base_models, tmp_path) -> Path:
    """Of `lora_model`; the base models are gone where they are not needed."""
    lora_model.config.self_contained = request.param == "full"
    lora_model.save_pretrained(tmp_path / request.param)
    if request.param == "full":
        for directory in base_models.values():
            shutil.rmtree(directory)
    return tmp_path / request.param


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"num_encoder_layers": 1},
        {"kept_encoder_layers": [0, 2], "lora_rank": 4},
        {"kept_encoder_layers": [0, [1, 2]]},
        {"final_layer_norm": "trained"},
        {"lora_rank": 2, "lora_target_modules": ["self_attn.q_proj"]},
    ],
)
def test_lean_checkpoints_hold_what_was_trained_and_load_whole(
    base_models, tmp_path, tiny_processor, two_clips, fields
):
    model = SlamAsrForConditionalGeneration.from_base_models(tiny_lean_config(base_models, **fields)).eval()
    model.config.audio_token_id = tiny_processor.audio_token_id
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B" in name:
                parameter.normal_()
    model.save_pretrained(tmp_path / "lean")
    saved = load_file(tmp_path / "lean" / "model.safetensors")
    assert set(saved) == {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    loaded = SlamAsrForConditionalGeneration.from_pretrained(tmp_path / "lean")
    inputs = tiny_processor(two_clips)
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    assert {n for n, p in loaded.named_parameters() if p.requires_grad} == set(saved)


def test_weights_that_do_not_fit_are_an_error(base_models, tmp_path):
    model = SlamAsrForConditionalGeneration.from_base_models(tiny_lean_config(base_models, lora_rank=4))
    model.save_pretrained(tmp_path / "lean")
    with pytest.raises(RuntimeError, match=r"unexpected: .*lora_"):
        SlamAsrForConditionalGeneration.from_pretrained(tmp_path / "lean", lora_rank=0)
    with pytest.raises(RuntimeError, match=r"size|shape|mismatch"):
        SlamAsrForConditionalGeneration.from_pretrained(tmp_path / "lean", lora_rank=8)


# ---------------------------------------------------------------- both formats


@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForSpeechSeq2Seq, AutoModelForMultimodalLM])
def test_both_formats_give_back_the_same_model(auto_class, checkpoint, lora_model, inputs):
    loaded = auto_class.from_pretrained(checkpoint)
    assert torch.equal(logits_of(loaded, inputs), logits_of(lora_model, inputs))
    assert torch.equal(loaded.generate(**inputs), lora_model.generate(**inputs))
    trained = {name for name, parameter in lora_model.named_parameters() if parameter.requires_grad}
    assert {name for name, parameter in loaded.named_parameters() if parameter.requires_grad} == trained


def test_a_loaded_checkpoint_is_saved_in_its_own_format(checkpoint, tmp_path):
    load(checkpoint).save_pretrained(tmp_path / "again")
    before, after = (load_file(path / "model.safetensors") for path in (checkpoint, tmp_path / "again"))
    assert set(before) == set(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert json.loads((tmp_path / "again/config.json").read_text())["text_model_id"].endswith("llm")


def test_fewer_encoder_layers_can_be_loaded(checkpoint, lora_model, inputs, tmp_path):
    """Against the trained model with its top layer taken off by hand."""
    del lora_model.encoder.layers[1]
    for auto_class in (SlamAsrForConditionalGeneration, AutoModel):
        pruned = auto_class.from_pretrained(checkpoint, num_encoder_layers=1)
        assert len(pruned.encoder.layers) == 1
        assert torch.equal(logits_of(pruned, inputs), logits_of(lora_model, inputs))
    pruned.save_pretrained(tmp_path / "pruned")
    assert len(load(tmp_path / "pruned").encoder.layers) == 1


@pytest.mark.parametrize("layers", [0, 3])
def test_layers_that_were_not_trained_with_are_refused(checkpoint, layers):
    """The base encoder has three layers, the checkpoint was trained with two."""
    for auto_class in (SlamAsrForConditionalGeneration, AutoModel):
        with pytest.raises(ValueError, match=r"`num_encoder_layers` .* between 1 and 2, .*\[0, 1\]"):
            auto_class.from_pretrained(checkpoint, num_encoder_layers=layers)
    with pytest.raises(ValueError, match="was trained with"):
        load(checkpoint, kept_encoder_layers=[0, 2])


def test_loading_options_of_transformers_hold(checkpoint, inputs):
    in_bf16 = load(checkpoint, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in in_bf16.parameters()} == {torch.bfloat16}
    placed = load(checkpoint, device_map="auto", attn_implementation="eager")
    assert {parameter.device for parameter in placed.parameters()} == {torch.device("cpu")}
    assert placed.encoder.config._attn_implementation == "eager"
    assert placed.language_model.config._attn_implementation == "eager"
    real = inputs["attention_mask"].bool()  # what stands at padding means nothing
    found, expected = (logits_of(model, inputs)[real] for model in (placed, load(checkpoint)))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    on_cpu = AutoModel.from_pretrained(checkpoint, device_map="cpu", dtype="bfloat16")
    assert {parameter.dtype for parameter in on_cpu.parameters()} == {torch.bfloat16}


def test_a_hub_id_loads_at_the_revision_asked_for(checkpoint, inputs, tmp_path, monkeypatch):
    """Two commits in a local cache of the Hub: the second one's projector is zero."""
    # Some of transformers' look-ups ask the Hub all the same, and try for a long time.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "hub/models--me--slam"
    commits = {"v1": "1" * 40, "main": "2" * 40}
    for name, commit in commits.items():
        shutil.copytree(checkpoint, repository / "snapshots" / commit)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / name).write_text(commit)
    newest = repository / "snapshots" / commits["main"] / "model.safetensors"
    silenced = {n: 0 * t if n.startswith("projector.") else t for n, t in load_file(newest).items()}
    save_file(silenced, newest, {"format": "pt"})
    hub = {"cache_dir": str(tmp_path / "hub"), "local_files_only": True}
    for auto_class in (SlamAsrForConditionalGeneration, AutoModel):
        main, first = (auto_class.from_pretrained("me/slam", revision=name, **hub) for name in ("main", "v1"))
        assert not main.projector.linear1.weight.any()
        assert torch.equal(logits_of(first, inputs), logits_of(load(checkpoint), inputs))


def test_a_checkpoint_in_a_subfolder_loads(checkpoint, inputs):
    assert torch.equal(
        logits_of(load(checkpoint.parent, subfolder=checkpoint.name), inputs),
        logits_of(load(checkpoint), inputs),
    )


def test_a_truncated_weights_file_is_named(checkpoint):
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(OSError, match=r"model\.safetensors is truncated"):
        load(checkpoint)


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_weights_that_are_missing_or_too_many_are_named(checkpoint, change):
    weights = load_file(checkpoint / "model.safetensors")
    if change == "missing":
        del weights["projector.linear2.bias"]
        name = "projector.linear2.bias"
    else:
        name = "encoder.layers.2.fc1.bias"
        weights[name] = torch.zeros(3)
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    with pytest.raises(RuntimeError, match=f"{change}: {re.escape(name)}"):
        load(checkpoint)


def test_frozen_bf16_beside_trained_float32_comes_back_so(checkpoint, lora_model, inputs, tmp_path):
    """As training in bf16 leaves a model; to the bit, unless another dtype is asked for."""
    for parameter in lora_model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    lora_model.config.self_contained = True
    lora_model.save_pretrained(tmp_path / "mixed")
    for auto_class in (SlamAsrForConditionalGeneration, AutoModel):
        loaded = auto_class.from_pretrained(tmp_path / "mixed")
        for name, parameter in lora_model.named_parameters():
            found = loaded.get_parameter(name)
            assert found.dtype == (torch.float32 if parameter.requires_grad else torch.bfloat16)
            assert torch.equal(found, parameter)
        assert torch.equal(logits_of(loaded, inputs), logits_of(lora_model, inputs))
        for dtype in (torch.bfloat16, torch.float32):
            loaded = auto_class.from_pretrained(tmp_path / "mixed", dtype=dtype)
            assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
            assert not loaded.config.trained_in_float32


# ---------------------------------------------------------------- full


def test_a_full_checkpoint_says_where_its_weights_came_from(lora_model, base_models, tmp_path):
    lora_model.config.self_contained = True
    lora_model.config.text_model_revision = "abc"
    lora_model.save_pretrained(tmp_path / "full")
    loaded = load(tmp_path / "full").config
    assert loaded.text_model_id == base_models["text_model_id"]
    assert loaded.audio_model_id == base_models["audio_model_id"]
    assert loaded.text_model_revision == "abc"


def test_models_without_base_models_are_full(tiny_model, tmp_path, inputs):
    tiny_model.save_pretrained(tmp_path)
    assert torch.equal(logits_of(load(tmp_path), inputs), logits_of(tiny_model, inputs))


def test_full_checkpoints_keep_tied_embeddings_tied_and_may_be_sharded(
    base_models, tmp_path, inputs, tiny_processor
):
    text_config = tiny_text_config(tie_word_embeddings=True)
    Qwen2ForCausalLM(text_config).save_pretrained(base_models["text_model_id"])
    config = tiny_lean_config(base_models, lora_rank=2, audio_token_id=tiny_processor.audio_token_id)
    config.text_config, config.self_contained = text_config, True
    model = SlamAsrForConditionalGeneration.from_base_models(config)
    model.save_pretrained(tmp_path / "full", max_shard_size="40KB")
    assert len(list((tmp_path / "full").glob("model-*.safetensors"))) > 1
    loaded = load(tmp_path / "full", num_encoder_layers=2)
    assert loaded.language_model.lm_head.weight is loaded.language_model.model.embed_tokens.weight
    assert torch.equal(logits_of(load(tmp_path / "full"), inputs), logits_of(model, inputs))


# ---------------------------------------------------------------- base models


def test_a_base_model_exchanged_for_another_is_an_error(lora_model, base_models, tmp_path):
    """Of the same shape: only one weight of the LLM, or of the lowest kept encoder layer, is another."""
    lora_model.save_pretrained(tmp_path / "lean")
    for part, name in (
        ("text", "model.layers.1.mlp.up_proj.weight"),
        ("audio", "model.encoder.layers.0.fc1.bias"),
    ):
        file = Path(base_models[f"{part}_model_id"], "model.safetensors")
        weights = load_file(file)
        save_file(weights | {name: weights[name] + 1}, file, {"format": "pt"})
        with pytest.raises(
            RuntimeError, match=rf"`{part}_model_id`.* not the base.*`{part}_model_digest=None`"
        ):
            load(tmp_path / "lean")
        load(tmp_path / "lean", **{f"{part}_model_digest": None})
        save_file(weights, file, {"format": "pt"})
    load(tmp_path / "lean", num_encoder_layers=1)


def test_the_same_base_weights_in_another_file_layout_are_the_same(lora_model, base_models, tmp_path):
    lora_model.save_pretrained(tmp_path / "lean")
    llm = Qwen2ForCausalLM.from_pretrained(base_models["text_model_id"])
    shutil.rmtree(base_models["text_model_id"])
    llm.save_pretrained(base_models["text_model_id"], max_shard_size="20KB")
    load(tmp_path / "lean")


def test_a_checkpoint_without_digests_takes_the_base_models_as_they_are(lora_model, base_models, tmp_path):
    """Checkpoints from before digests; a wrong shape is still found."""
    lora_model.config.audio_model_digest = lora_model.config.text_model_digest = None
    lora_model.save_pretrained(tmp_path / "lean")
    load(tmp_path / "lean")
    Qwen2ForCausalLM(tiny_text_config(hidden_size=64)).save_pretrained(base_models["text_model_id"])
    with pytest.raises(RuntimeError, match=r"size|shape|mismatch"):
        load(tmp_path / "lean")


def loss_of(model, processor, clips) -> float:
    with torch.no_grad():
        return model.eval()(**processor(clips, text=["a cat", "it is"])).loss.item()


def merged_by_peft(model):
    wrapped = get_peft_model(
        model, LoraConfig(r=2, init_lora_weights=False, target_modules=r"language_model.*\.up_proj")
    )
    return wrapped.merge_and_unload()


def with_an_embedding_row_changed(model):
    with torch.no_grad():
        model.get_input_embeddings().weight[7] += 1.0
    return model


def with_an_encoder_weight_trained(model):
    weight = model.encoder.layers[1].fc1.weight.requires_grad_()
    weight.sum().backward()
    torch.optim.SGD([weight], 0.1).step()
    return model


def with_more_tokens(model):
    model.resize_token_embeddings(72, mean_resizing=False)
    return model


@pytest.mark.parametrize(
    "change",
    [merged_by_peft, with_an_embedding_row_changed, with_an_encoder_weight_trained, with_more_tokens],
)
def test_a_lean_checkpoint_that_would_lose_weights_becomes_a_full_one(
    lora_model, tiny_processor, two_clips, tmp_path, caplog, change
):
    changed = change(lora_model)
    expected = loss_of(changed, tiny_processor, two_clips)
    changed.save_pretrained(tmp_path / "model")
    assert "becomes a full one" in caplog.text
    again = SlamAsrForConditionalGeneration.from_pretrained(tmp_path / "model")
    assert not again.config.is_lean
    assert loss_of(again, tiny_processor, two_clips) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("changed", [False, True])
def test_a_tied_head_that_is_untied_is_not_lost(base_models, tmp_path, changed):
    """Base models hold tied weights once; a copy of them, as other processes gather, is no change."""
    text_config = tiny_text_config(tie_word_embeddings=True)
    Qwen2ForCausalLM(text_config).save_pretrained(base_models["text_model_id"])
    config = tiny_lean_config(base_models)
    config.text_config = text_config
    model = SlamAsrForConditionalGeneration.from_base_models(config)
    if changed:
        model.set_output_embeddings(torch.nn.Linear(32, 64, bias=False))
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path / "model", state_dict=weights)
    assert model.config.is_lean is not changed
    ids = BatchFeature({"input_ids": torch.tensor([[5, 6, 7]])})
    assert torch.equal(logits_of(load(tmp_path / "model"), ids), logits_of(model, ids))


def test_a_model_that_is_as_it_was_loaded_stays_lean_in_every_dtype(lora_model, tmp_path, caplog):
    lora_model.save_pretrained(tmp_path / "model")
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        model = SlamAsrForConditionalGeneration.from_pretrained(tmp_path / "model", dtype=dtype)
        model.save_pretrained(tmp_path / str(dtype))
        model.float().save_pretrained(tmp_path / f"{dtype}-as-float32")
        assert model.config.is_lean
    assert "becomes a full one" not in caplog.text


def test_a_model_whose_base_is_gone_is_saved_whole(
    lora_model, base_models, tiny_processor, two_clips, tmp_path
):
    expected = loss_of(lora_model, tiny_processor, two_clips)
    for directory in base_models.values():
        shutil.rmtree(directory)
    lora_model.save_pretrained(tmp_path / "model")
    again = SlamAsrForConditionalGeneration.from_pretrained(tmp_path / "model")
    assert loss_of(again, tiny_processor, two_clips) == pytest.approx(expected, abs=1e-6)


def test_own_lora_merged_by_peft_leaves_a_model_without_lora(lora_model, tiny_processor, two_clips, tmp_path):
    wrapped = get_peft_model(
        lora_model, LoraConfig(r=2, init_lora_weights=False, target_modules=r"language_model.*\.q_proj")
    )
    merged = wrapped.merge_and_unload()
    expected = loss_of(merged, tiny_processor, two_clips)
    merged.save_pretrained(tmp_path / "model")
    again = SlamAsrForConditionalGeneration.from_pretrained(tmp_path / "model")
    assert again.config.lora_rank == 0
    assert loss_of(again, tiny_processor, two_clips) == pytest.approx(expected, abs=1e-6)


def with_modules_to_save(model):
    get_peft_model(
        model,
        LoraConfig(r=2, target_modules=r"language_model.*\.up_proj", modules_to_save=["projector.linear1"]),
    )


def with_a_wrapped_llm(model):
    model.language_model = get_peft_model(model.language_model, LoraConfig(r=2, target_modules=["up_proj"]))


@pytest.mark.parametrize("change", [with_modules_to_save, with_a_wrapped_llm])
def test_what_could_not_be_loaded_is_not_written(lora_model, tmp_path, change):
    change(lora_model)
    with pytest.raises(ValueError, match="could not be loaded"):
        lora_model.save_pretrained(tmp_path / "model")
    assert not list(tmp_path.glob("model/*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"state_dict": {"a": torch.zeros(1)}}, "state_dict"),
        ({"gguf_file": "a.gguf"}, "gguf_file"),
        ({"key_mapping": {"a": "b"}}, "key_mapping"),
        ({"ignore_mismatched_sizes": True}, "ignore_mismatched_sizes"),
        ({"use_safetensors": False}, "use_safetensors"),
    ],
)
def test_arguments_that_do_not_apply_are_refused_by_name(checkpoint, arguments, message):
    with pytest.raises(ValueError, match=message):
        SlamAsrForConditionalGeneration.from_pretrained(checkpoint, **arguments)


def test_other_arguments_do_what_transformers_documents(checkpoint, inputs, lora_model, tmp_path):
    assert load(checkpoint, torch_dtype=torch.bfloat16).dtype == torch.bfloat16
    model, info = load(checkpoint, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    settings = GenerationConfig(num_beams=3, eos_token_id=1)
    assert load(checkpoint, generation_config=settings).generation_config.num_beams == 3
    model.save_pretrained(tmp_path / "variant", variant="fp16")
    assert (tmp_path / "variant" / "model.fp16.safetensors").exists()
    assert torch.equal(
        logits_of(load(tmp_path / "variant", variant="fp16"), inputs), logits_of(lora_model, inputs)
    )
    alone = load(None, config=model.config, state_dict=model.state_dict())
    assert torch.equal(logits_of(alone, inputs), logits_of(model, inputs))
    names = [{n for n, p in made.named_parameters() if p.requires_grad} for made in (alone, model)]
    assert names[0] == names[1]


def test_a_config_may_be_named_by_where_it_lies(checkpoint, inputs, lora_model):
    """As in transformers."""
    assert torch.equal(
        logits_of(load(checkpoint, config=str(checkpoint)), inputs), logits_of(lora_model, inputs)
    )
    shallow = load(checkpoint, config=str(checkpoint), num_encoder_layers=1)
    assert len(shallow.encoder.layers) == 1


def test_a_push_that_would_leave_files_out_is_refused(lora_model, tmp_path):
    """transformers pushes while it saves, before the adapter's copy is there."""
    with pytest.raises(ValueError, match=r"model\.push_to_hub\(repo_id\)"):
        lora_model.save_pretrained(tmp_path / "model", push_to_hub=True)
    assert not (tmp_path / "model").exists()


def test_writing_to_a_loaded_weight_leaves_the_file_alone(checkpoint, inputs):
    first = SlamAsrForConditionalGeneration.from_pretrained(checkpoint)
    expected = logits_of(first, inputs)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(1.0)
    assert torch.equal(
        logits_of(SlamAsrForConditionalGeneration.from_pretrained(checkpoint), inputs), expected
    )


def test_removed_layers_and_the_decoder_are_never_asked_for(base_models):
    tensors = base_tensors(tiny_lean_config(base_models, kept_encoder_layers=[0, 2]))
    names = {name for name in tensors if name.startswith("encoder.")}
    assert {name.split(".")[2] for name in names if name.startswith("encoder.layers.")} == {"0", "1"}
    with torch.device("meta"):
        config = tiny_lean_config(base_models, kept_encoder_layers=[0, 2])
        expected = set(SlamAsrForConditionalGeneration(config).encoder.state_dict())
    assert {name.removeprefix("encoder.") for name in names} == expected


def test_a_merged_layer_is_the_mean_of_its_layers_weights_in_their_dtype(base_models):
    base = lazy_tensors(base_models["audio_model_id"])
    merged = encoder_tensors(base, tiny_audio_config(), [[0, 1, 2]])
    prefix = "model.encoder.layers."
    names = [name.removeprefix(f"{prefix}0.") for name in base if name.startswith(f"{prefix}0.")]
    assert {n for n in merged if ".layers." in n} == {f"encoder.layers.0.{name}" for name in names}
    for name in names:
        parts = [base[f"{prefix}{layer}.{name}"][...] for layer in range(3)]
        tensor = merged[f"encoder.layers.0.{name}"]
        assert (tensor.get_shape(), tensor[...].dtype) == (list(parts[0].shape), parts[0].dtype)
        torch.testing.assert_close(tensor[...].double(), sum(part.double() for part in parts) / 3)
        assert torch.equal(tensor[:1], tensor[...][:1])


def test_a_lean_checkpoint_of_merged_layers_refuses_another_encoder(base_models, tmp_path):
    config = tiny_lean_config(base_models, kept_encoder_layers=[[0, 1], 2])
    SlamAsrForConditionalGeneration.from_base_models(config).save_pretrained(tmp_path / "lean")
    torch.manual_seed(7)
    WhisperForConditionalGeneration(tiny_audio_config()).save_pretrained(base_models["audio_model_id"])
    with pytest.raises(RuntimeError, match="their digest is"):
        SlamAsrForConditionalGeneration.from_pretrained(tmp_path / "lean")
