"""Runs that train encoder or LLM, by LoRA or itself: what is cached, what learns and how fast, resuming."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny_configs import tiny_audio_config, tiny_text_config, tiny_waveform_config
from tiny_run import flags, logged, one_thread
from transformers import AutoModel, Wav2Vec2FeatureExtractor

import train
from modeling_slam import SlamAsrConfig
from modeling_slam.model.audio_encoders import PrunedWhisperEncoder
from modeling_slam.training.arguments import LoraArguments, ModelArguments
from modeling_slam.training.assembly import build_config, build_processor
from modeling_slam.training.feature_cache import CacheArguments, Encoding, FeatureCache
from modeling_slam.training.run_directory import find_checkpoint
from modeling_slam.training.upper_layers import frozen_layers, layers_to_skip

SHORT = {"max_steps": 4, "eval_strategy": "no", "save_strategy": "steps", "save_steps": 2}


def config_of(audio_config=None, **fields) -> SlamAsrConfig:
    audio_config = audio_config or tiny_audio_config()
    return SlamAsrConfig(audio_config=audio_config, text_config=tiny_text_config(), **fields)


@pytest.mark.parametrize(
    ("fields", "frozen"),
    [
        ({}, 3),
        ({"encoder_lora_rank": 2}, 0),
        ({"encoder_lora_rank": 2, "encoder_lora_target_modules": ["layers.1.self_attn.q_proj"]}, 1),
        ({"encoder_lora_rank": 2, "encoder_lora_target_modules": ["layers.2.fc1", "layers.1.fc2"]}, 1),
        ({"trained_encoder_layers": [2]}, 2),
        ({"trained_encoder_layers": [2], "kept_encoder_layers": [0, 2]}, 1),
        ({"trained_encoder_layers": [2], "kept_encoder_layers": [0, 1]}, 2),
    ],
    ids=str,
)
def test_layers_below_all_that_is_trained_are_counted_as_frozen(fields, frozen):
    config = config_of(**fields)
    assert frozen_layers(config) == frozen
    assert config.trains_encoder is (frozen < config.num_encoder_layers)


def test_a_cache_of_which_nothing_would_be_read_is_refused():
    upper = config_of(trained_encoder_layers=[2])
    assert layers_to_skip(upper, "cache", aligns=False, augmentations=()) == 2
    assert layers_to_skip(upper, "cache", aligns=True, augmentations={"masking"}) == 0
    assert layers_to_skip(config_of(), "cache", aligns=False, augmentations=()) == 0
    waveforms = config_of(tiny_waveform_config("wav2vec2"), trained_encoder_layers=[2])
    assert layers_to_skip(waveforms, None, aligns=False, augmentations=()) == 0
    for config, augmentations in (
        (config_of(encoder_lora_rank=2), ()), (upper, {"masking"}), (waveforms, ()),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"`--cache_features` would keep nothing"):
            layers_to_skip(config, "cache", aligns=False, augmentations=augmentations)


@pytest.fixture
def below(monkeypatch) -> list[int]:
    """Batch sizes of what came into an encoder from its features, not from kept states."""
    sizes, plain = [], PrunedWhisperEncoder._below_layers

    def counted(self, features, mask):
        sizes.append(len(features))
        return plain(self, features, mask)

    monkeypatch.setattr(PrunedWhisperEncoder, "_below_layers", counted)
    return sizes


@pytest.mark.e2e
@pytest.mark.parametrize(
    "trained",
    [
        {"train_encoder_layers": 1},
        {"encoder_lora_rank": 2, "encoder_lora_target_modules": "layers.2.self_attn.q_proj"},
    ],
    ids=["layers", "lora"],
)
def test_a_run_goes_on_from_the_kept_states_as_if_it_heard_the_clips(world, tmp_path, below, trained):
    settings = trained | {"max_steps": 3, "eval_strategy": "steps", "eval_steps": 3, "save_strategy": "no"}
    train.main(flags(world, tmp_path / "plain", **settings))
    below.clear()
    train.main(flags(world, tmp_path / "cached", **settings, cache_features=tmp_path / "cache"))
    assert sum(below) == 48 + 8, "48 training clips and 8 for validation are encoded once"
    for name in ("loss", "eval_loss", "eval_wer"):
        assert logged(tmp_path / "cached", name) == pytest.approx(logged(tmp_path / "plain", name), rel=1e-5)
    plain, cached = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "cached"))
    assert plain.keys() == cached.keys()
    assert any(name.startswith("encoder.layers.2.") for name in plain)
    assert not any(name.startswith(("encoder.layers.0.", "encoder.layers.1.")) for name in plain)


def test_kept_states_are_not_taken_for_frames_and_differ_by_depth(world, tmp_path):
    model_args = ModelArguments(encoder=str(world.encoder), llm=str(world.llm), keep_layers=2)
    config = build_config(model_args, LoraArguments())
    processor = build_processor(model_args, config)
    spaces = set()
    for bf16, depth in ((False, 0), (False, 1), (False, 2), (True, 1)):
        encoding = Encoding(torch.float32, autocast=bf16)
        arguments = CacheArguments(str(tmp_path), cache_depths=["2", "3"])
        cache = FeatureCache(arguments, config, processor, encoding, states_at=depth)
        assert cache.depths == ([depth] if depth else [2, 3])
        # Sums of the layers' outputs: to round them would change what the layers above read.
        assert cache.stored_dtype is torch.float32
        spaces |= {*cache.spaces.values()}
    assert len(spaces) == 2 + 3


@pytest.mark.e2e
def test_after_alignment_on_the_frozen_encoders_frames_the_upper_layers_learn(world, tmp_path, below):
    """Its own cache holds frames for the stage, and states for what follows; both are taken away."""
    settings = {"align_epochs": 1, "train_encoder_layers": 1, "ctc_weight": 0.1, **SHORT}
    train.main(flags(world, tmp_path / "run", **settings))
    assert sum(below) == 2 * 48
    assert not (tmp_path / "run/frames").exists()
    assert any(name.startswith("encoder.") for name in load_file(tmp_path / "run/model.safetensors"))


@pytest.mark.e2e
@pytest.mark.parametrize(
    "trained",
    [
        {"encoder_lora_rank": 2, "align_epochs": 1, "ctc_weight": 0.1},
        {
            "train_encoder_layers": 1, "cache_features": "cache", "train_llm": True, "lora_rank": 0,
            "keep_llm_layers": 1,
        },
    ],
    ids=["lora", "themselves"],
)  # fmt: skip
def test_a_resumed_run_ends_with_the_same_weights(world, tmp_path, trained):
    if "cache_features" in trained:
        trained = trained | {"cache_features": tmp_path / "cache"}
    run = tmp_path / "run"
    with one_thread():
        train.main(flags(world, run, **SHORT, **trained))
        whole = load_file(run / "model.safetensors")
        (run / "model.safetensors").unlink()
        for path in (run / "checkpoint-4").iterdir():  # as if it had been killed before step 4
            path.unlink() if path.is_file() else None
        assert find_checkpoint(run, "last").name == "checkpoint-2"
        train.main(flags(world, run, **SHORT, **trained, resume_from_checkpoint="last"))
    again = load_file(run / "model.safetensors")
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_each_part_has_its_rate_and_only_projector_and_head_wait(world, tmp_path):
    rates = {"learning_rate": 1e-3, "encoder_lora_learning_rate": 0.0, "llm_learning_rate": 1e-2}
    trained = {"train_llm": True, "lora_rank": 0, "encoder_lora_rank": 2, "freeze_projector_steps": 10}
    train.main(flags(world, tmp_path / "run", **SHORT, **trained, **rates))
    state = torch.load(tmp_path / "run/checkpoint-4/optimizer.pt", weights_only=True)
    peaks = {group["part"]: group["initial_lr"] for group in state["param_groups"]}
    assert peaks == {"projector": 1e-3, "encoder_lora": 0.0, "llm": 1e-2}
    first, last = (load_file(tmp_path / f"run/checkpoint-{n}/model.safetensors") for n in (2, 4))
    moved = {name.split(".")[0] for name in first if not torch.equal(first[name], last[name])}
    assert moved == {"language_model"}


@pytest.mark.e2e
def test_a_run_on_a_waveform_encoder_trains_its_upper_part(world, tmp_path):
    torch.manual_seed(0)
    encoder = AutoModel.from_config(tiny_waveform_config("wav2vec2", feat_extract_norm="layer"))
    encoder.save_pretrained(tmp_path / "encoder")
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "encoder")
    settings = {"encoder": tmp_path / "encoder", "keep_layers": 2, **SHORT, "max_steps": 1}
    for name, trained in (
        ("lora", {"encoder_lora_rank": 2, "align_epochs": 1}), ("layers", {"train_encoder_layers": 1}),
    ):  # fmt: skip
        train.main(flags(world, tmp_path / name, **settings | trained))
        names = [n for n in load_file(tmp_path / name / "model.safetensors") if n.startswith("encoder.")]
        assert all((".lora_" in n) is (name == "lora") for n in names)
        assert names
    config = json.loads((tmp_path / "layers/config.json").read_text())
    assert config["trained_encoder_layers"] == [1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_llm": True}, "lora_rank.*set it to 0"),
        ({"train_encoder_layers": 1, "encoder_lora_rank": 2}, "--train_encoder_layers.*leave one"),
        ({"train_encoder_layers": 4}, "--train_encoder_layers.*between 0 and 3"),
        ({"encoder_lora_rank": 2, "cache_features": "cache"}, "--cache_features.*would keep nothing"),
        (
            {"encoder_lora_rank": 2, "encoder_lora_target_modules": "query"},
            "encoder_lora_target_modules.*'query'",
        ),
        (
            {"encoder_lora_rank": 2, "align_epochs": 1, "align_folds": 2, "freeze_projector_steps": 2},
            "--align_folds 2.*--encoder_lora_rank",
        ),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused_by_its_flags(world, tmp_path, changes, message):
    with pytest.raises(SystemExit, match=message):
        train.main(flags(world, tmp_path / "run", **changes | {"dataset": "nowhere"}))
