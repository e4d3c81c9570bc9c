"""The configuration: derived values, round trip, and a clear refusal of what cannot be."""

import json
import sys
from pathlib import Path

import pytest
from tiny_configs import tiny_audio_config, tiny_text_config, tiny_waveform_config
from transformers.dynamic_module_utils import get_imports, get_relative_imports

from modeling_slam import SlamAsrConfig
from modeling_slam.model import configuration_slam
from modeling_slam.model.configuration_slam import PROJECTOR_WIDTHS
from modeling_slam.model.projectors import PROJECTORS


def config(**fields) -> SlamAsrConfig:
    return SlamAsrConfig(audio_config=tiny_audio_config(), text_config=tiny_text_config(), **fields)


def test_layers_are_counted_from_the_bottom():
    for fields, kept in (
        ({}, [0, 1, 2]),
        ({"num_encoder_layers": 2}, [0, 1]),
        ({"kept_encoder_layers": [0, 2]}, [0, 2]),
        ({"kept_encoder_layers": (0, 2)}, [0, 2]),
        ({"kept_encoder_layers": [0, 2], "num_encoder_layers": 1}, [0]),
        ({"kept_encoder_layers": [0, [1, 2]]}, [0, [1, 2]]),
        ({"kept_encoder_layers": [[0], [1, 2]]}, [0, [1, 2]]),
        ({"kept_encoder_layers": [[0, 1], 2], "num_encoder_layers": 1}, [[0, 1]]),
    ):
        made = config(**fields)
        assert (made.kept_encoder_layers, made.num_encoder_layers) == (kept, len(kept))


@pytest.mark.parametrize(
    ("saved", "asked", "kept"),
    [
        ({"num_encoder_layers": 3, "kept_encoder_layers": None}, {}, [0, 1, 2]),  # as the first release did
        ({"num_encoder_layers": 2, "kept_encoder_layers": None}, {}, [0, 1]),
        ({"num_encoder_layers": 1, "kept_encoder_layers": [0, 2]}, {}, [0]),
        ({"num_encoder_layers": 2, "kept_encoder_layers": [0, 2]}, {"num_encoder_layers": 1}, [0]),
        ({"num_encoder_layers": 1, "kept_encoder_layers": None}, {"kept_encoder_layers": [1, 2]}, [1, 2]),
        ({}, {"kept_encoder_layers": [1, 2], "num_encoder_layers": 1}, [1]),
        ({}, {"num_encoder_layers": 1, "kept_encoder_layers": [1, 2]}, [1]),
    ],
)
def test_the_depth_of_a_saved_config_is_one_list_whatever_it_is_asked_for(saved, asked, kept, tmp_path):
    config().save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | saved))
    loaded, unused = SlamAsrConfig.from_pretrained(
        tmp_path, return_unused_kwargs=True, **asked, revision=None
    )
    assert (loaded.kept_encoder_layers, loaded.num_encoder_layers) == (kept, len(kept))
    assert not set(unused) & set(asked)
    written = loaded.to_dict()
    assert (written["kept_encoder_layers"], written["num_encoder_layers"]) == (kept, len(kept))


def test_a_depth_that_is_set_later_takes_layers_off_the_top():
    made = config(kept_encoder_layers=[0, 2])
    made.num_encoder_layers = 1
    assert made.kept_encoder_layers == [0]
    with pytest.raises(ValueError, match="`--keep_layers`"):
        made.num_encoder_layers = 2


@pytest.mark.parametrize("model_type", ["wav2vec2", "hubert", "wavlm"])
def test_any_encoder_of_the_table_may_stand_before_the_projector(model_type, tmp_path):
    made = SlamAsrConfig(
        audio_config=tiny_waveform_config(model_type).to_dict(),
        text_config=tiny_text_config(),
        num_encoder_layers=2,
    )
    made.save_pretrained(tmp_path)
    loaded = SlamAsrConfig.from_pretrained(tmp_path)
    assert loaded.audio_config.model_type == model_type
    assert loaded.kept_encoder_layers == [0, 1]
    assert loaded.audio_geometry == made.audio_geometry
    assert loaded.audio_geometry.frames_of_samples(16_000) == 49


def test_an_encoder_whose_first_layer_serves_all_keeps_it():
    with pytest.raises(ValueError, match="must begin with 0"):
        SlamAsrConfig(
            audio_config=tiny_waveform_config("wavlm"),
            text_config=tiny_text_config(),
            kept_encoder_layers=[1, 2],
        )


def test_configurations_are_read_without_torch():
    """By what the two files import themselves: transformers has torch behind its lazy imports."""
    directory = Path(configuration_slam.__file__).parent
    for name in ("configuration_slam", "audio_lengths"):
        imported = get_imports(directory / f"{name}.py")
        assert set(imported) - set(sys.stdlib_module_names) <= {"transformers", "numpy"}
    siblings = get_relative_imports(directory / "configuration_slam.py")
    assert siblings == ["audio_lengths"]
    assert not get_relative_imports(directory / "audio_lengths.py")


def test_every_projector_has_a_width():
    assert set(PROJECTORS) == set(PROJECTOR_WIDTHS)


def test_saved_and_loaded_configs_are_equal_and_name_no_directory(tmp_path):
    before = config(
        num_encoder_layers=2, lora_rank=8, audio_model_id="openai/whisper-tiny", text_model_id="some/llm"
    )
    before.audio_config._name_or_path = "/a/local/directory"
    before.save_pretrained(tmp_path)
    assert "/a/local/directory" not in (tmp_path / "config.json").read_text()
    after = SlamAsrConfig.from_pretrained(tmp_path)
    assert after.kept_encoder_layers == [0, 1]
    assert after.to_dict() == before.to_dict() | {"transformers_version": after.transformers_version}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_encoder_layers": 0}, "`--keep_layers`.*between 1 and 3"),
        ({"num_encoder_layers": 4}, "`--keep_layers`.*between 1 and 3"),
        ({"kept_encoder_layers": [0, 3]}, "between 0 and 2"),
        ({"kept_encoder_layers": [2, 0]}, "ascending"),
        ({"kept_encoder_layers": []}, "ascending"),
        ({"kept_encoder_layers": [[0, 1], 1]}, "ascending"),
        ({"kept_encoder_layers": [0, []]}, "ascending"),
        ({"final_layer_norm": "nope"}, "as_is.*refitted.*trained"),
        ({"projector_type": "nope"}, "'conv', 'qformer', 'stack_mlp'"),
        ({"projector_tail": "cut"}, '"pad" or "drop"'),
        ({"projector_stack": 0}, "at least 1"),
        ({"projector_hidden_size": 0}, "at least 1"),
        ({"projector_dropout": 1.0}, r"\[0, 1\)"),
        ({"projector_queries": 8}, "leave it out"),
        ({"projector_type": "qformer", "projector_queries": 0}, "at least 1"),
        ({"lora_rank": -1}, "positive"),
        ({"lora_rank": 4, "lora_alpha": 0}, "positive"),
        ({"lora_rank": 4, "lora_alpha": float("nan")}, "positive"),
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
