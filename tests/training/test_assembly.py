"""From settings to a model: the base models are those of the commit that the run began with."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from tiny_configs import tiny_audio_config
from tiny_run import flags
from transformers import Gemma3nTextConfig

import train
from modeling_slam import SlamAsrConfig
from modeling_slam.training.arguments import LoraArguments, ModelArguments
from modeling_slam.training.assembly import (
    build_config,
    build_model,
    build_processor,
    check_model,
    usual_length,
)

OLD, NEW = "1" * 40, "2" * 40


class Hub:
    """The cache of a machine that has fetched two commits of each base model and is now off the network."""

    def __init__(self, cache: Path, world):
        self.repositories = []
        for name in ("whisper", "qwen2"):
            repository = cache / f"models--tiny--{name}"
            (repository / "refs").mkdir(parents=True)
            (repository / "snapshots").mkdir()
            for commit in (OLD, NEW):
                (repository / "snapshots" / commit).symlink_to(world.encoder.with_name(name))
            self.repositories.append(repository)
        self.newest(OLD)

    def newest(self, commit: str) -> None:
        for repository in self.repositories:
            (repository / "refs" / "main").write_text(commit)


@pytest.fixture
def hub(world, tmp_path, monkeypatch) -> Hub:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return Hub(tmp_path / "hub", world)


def revisions(config: SlamAsrConfig) -> set[str | None]:
    return {config.audio_model_revision, config.text_model_revision}


def test_a_resumed_run_keeps_its_base_models_when_newer_ones_come_out(hub, world, tmp_path):
    run = tmp_path / "run"
    settings = {"encoder": "tiny/whisper", "llm": "tiny/qwen2", "num_train_epochs": 2, "eval_strategy": "no"}
    train.main(flags(world, run, **settings))
    assert revisions(SlamAsrConfig.from_pretrained(run)) == {OLD}
    hub.newest(NEW)
    train.main(flags(world, run, resume_from_checkpoint=run / "checkpoint-12", **settings))
    assert revisions(SlamAsrConfig.from_pretrained(run)) == {OLD}
    new_run = build_config(ModelArguments(encoder="tiny/whisper", llm="tiny/qwen2"), LoraArguments())
    assert revisions(new_run) == {NEW}


@pytest.fixture
def arguments(world) -> tuple[ModelArguments, LoraArguments]:
    model = ModelArguments(
        encoder=str(world.encoder), llm=str(world.llm), keep_layers=2, projector_dropout=0.2
    )
    return model, LoraArguments(lora_rank=4, lora_alpha=6)


def test_settings_reach_the_config_by_their_names(arguments, monkeypatch):
    """Also one that assembly has never heard of."""
    model, lora = arguments
    config = build_config(model, lora)
    assert (config.num_encoder_layers, config.projector_dropout) == (2, 0.2)
    assert (config.lora_rank, config.lora_alpha) == (4, 6)

    @dataclasses.dataclass
    class Extended(LoraArguments):
        initializer_range: float = 0.5

    assert build_config(model, Extended()).initializer_range == 0.5


def test_config_and_processor_agree_and_neither_changes_the_other(arguments):
    config = build_config(*arguments)
    before = config.to_dict()
    processor = build_processor(arguments[0], config, chunk_seconds=5.0)
    assert config.to_dict() == before
    assert config.audio_token_id == processor.audio_token_id
    assert processor.chunk_seconds == 5.0
    assert processor.projector_stack == config.projector_stack


@pytest.mark.parametrize("bf16", [False, True])
def test_what_is_trained_is_float32_whatever_the_frozen_weights_are(arguments, bf16):
    config = build_config(*arguments)
    model = build_model(config, build_processor(arguments[0], config), arguments[0], bf16=bf16)
    trained = {parameter.dtype for parameter in model.parameters() if parameter.requires_grad}
    frozen = {parameter.dtype for parameter in model.parameters() if not parameter.requires_grad}
    assert trained == {torch.float32}
    assert frozen == {torch.bfloat16 if bf16 else torch.float32}
    assert (model.generation_config.num_beams, model.generation_config.max_new_tokens) == (2, 200)


def test_an_llm_whose_layers_cannot_be_left_out_is_no_matter_of_its_attention():
    text_config = Gemma3nTextConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, num_kv_shared_layers=2, layer_types=["full_attention"] * 4,
        vocab_size_per_layer_input=64, hidden_size_per_layer_input=8, laurel_rank=4,
        activation_sparsity_pattern=[0.0] * 4,
    )  # fmt: skip
    config = SlamAsrConfig(audio_config=tiny_audio_config(), text_config=text_config, num_llm_layers=3)
    with pytest.raises(ValueError, match=r"^Layers of this LLM .*--keep_llm_layers"):
        check_model(config, ModelArguments())


def test_pieces_of_a_recording_hold_nearly_every_clip_and_the_pauses_around_it():
    assert usual_length([*np.linspace(1.0, 5.0, 101)]) == 6.0  # 99 of a hundred are below 4.96
    assert usual_length([0.5] * 10) == 2.0  # what the pipeline cuts at least
    assert usual_length([29.9] * 10) == 30.0
