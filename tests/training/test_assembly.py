"""From settings to a model: the base models are those of the commit that the run began with."""

from pathlib import Path

import pytest
from huggingface_hub import constants
from tiny_run import flags

import train
from modeling_slam import SlamAsrConfig
from modeling_slam.training.arguments import LoraArguments, ModelArguments
from modeling_slam.training.assembly import build_config

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
