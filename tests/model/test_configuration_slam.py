"""The configuration: derived values, round trip, and a clear refusal of what cannot be."""

import json

import pytest
from tiny_configs import tiny_audio_config, tiny_text_config

from modeling_slam import SlamAsrConfig


def config(**fields) -> SlamAsrConfig:
    return SlamAsrConfig(audio_config=tiny_audio_config(), text_config=tiny_text_config(), **fields)


def test_layers_are_counted_from_the_bottom():
    assert config().encoder_layer_indices == [0, 1, 2]
    assert config(num_encoder_layers=2).encoder_layer_indices == [0, 1]
    assert config(kept_encoder_layers=[0, 2]).encoder_layer_indices == [0, 2]
    assert config(kept_encoder_layers=[0, 2]).num_encoder_layers == 2
    assert config(kept_encoder_layers=[0, 2], num_encoder_layers=1).encoder_layer_indices == [0]


def test_saved_and_loaded_configs_are_equal_and_name_no_directory(tmp_path):
    before = config(
        num_encoder_layers=2, lora_rank=8, audio_model_id="openai/whisper-tiny", text_model_id="some/llm"
    )
    before.audio_config._name_or_path = "/a/local/directory"
    before.save_pretrained(tmp_path)
    assert "/a/local/directory" not in (tmp_path / "config.json").read_text()
    after = SlamAsrConfig.from_pretrained(tmp_path)
    assert after.encoder_layer_indices == [0, 1]
    assert after.to_dict() == before.to_dict() | {"transformers_version": after.transformers_version}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_encoder_layers": 0}, "between 1 and 3"),
        ({"num_encoder_layers": 4}, "between 1 and 3"),
        ({"kept_encoder_layers": [0, 3]}, "between 0 and 2"),
        ({"kept_encoder_layers": [2, 0]}, "ascending"),
        ({"kept_encoder_layers": []}, "ascending"),
        ({"projector_type": "nope"}, "'conv', 'qformer', 'stack_mlp'"),
        ({"projector_tail": "cut"}, '"pad" or "drop"'),
        ({"projector_stack": 0}, "at least 1"),
        ({"projector_hidden_size": 0}, "at least 1"),
        ({"projector_dropout": 1.0}, r"\[0, 1\)"),
        ({"projector_queries": 8}, "leave it out"),
        ({"lora_rank": -1}, "positive"),
        ({"lora_rank": 4, "lora_alpha": 0}, "positive"),
        ({"lora_rank": 4, "lora_target_modules": []}, "empty"),
    ],
)
def test_what_cannot_be_is_refused_with_what_was_expected(fields, message):
    with pytest.raises(ValueError, match=message):
        config(**fields)


def test_only_fixed_length_projectors_have_queries():
    assert config(projector_type="qformer", projector_hidden_size=64).projector_queries == 64
    assert config().projector_queries is None


@pytest.mark.parametrize(("name", "width"), [("stack_mlp", 2048), ("conv", 2048), ("qformer", 768)])
def test_a_projector_has_a_width_of_its_own_and_checkpoints_keep_theirs(name, width, tmp_path):
    """2048 is the paper's; as every config names its width, a default that changes moves no checkpoint."""
    assert config(projector_type=name).projector_hidden_size == width
    for hidden in (width, 2048, 1024):
        config(projector_type=name, projector_hidden_size=hidden).save_pretrained(tmp_path)
        assert json.loads((tmp_path / "config.json").read_text())["projector_hidden_size"] == hidden
        assert SlamAsrConfig.from_pretrained(tmp_path).projector_hidden_size == hidden
