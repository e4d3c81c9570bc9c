"""A tiny model trained and evaluated for real against the fake Hub, once for all tests of this directory."""

import time
from collections.abc import Iterator

import pytest
from fake_hub import FakeHub
from huggingface_hub import HfApi, close_session, constants, set_client_factory
from huggingface_hub.utils import _http
from programs import run_script
from published_run import TRAINED_ID, TrainedWorld
from tiny_world import PLAIN, build_tiny_world

from modeling_slam.publishing import hub as publishing_hub
from modeling_slam.publishing.hub import open_hub


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "trained" in item.fixturenames:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


@pytest.fixture
def api(hub, monkeypatch) -> Iterator[HfApi]:
    """A client of the fake Hub, with short pauses and little patience."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(publishing_hub, "PAUSES", (0.01, 0.01, 0.01))
    monkeypatch.setattr(publishing_hub, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)  # huggingface_hub's own pauses
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield open_hub(hub.url)
    set_client_factory(_http.default_client_factory)
    close_session()


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Iterator[TrainedWorld]:
    directory = tmp_path_factory.mktemp("published")
    world = build_tiny_world(directory / "world")
    run, results = directory / "run", directory / "results"
    with FakeHub() as hub:
        hub.add_directory("tiny/whisper", world.encoder)
        hub.add_directory("tiny/qwen2", world.llm)
        environment = hub.environment(directory)
        common = ["--dataset", world.dataset, "--language", "en"]
        plain = [word for name, value in PLAIN.items() for word in (f"--{name}", value)]
        training = run_script(
            "train.py", environment, *common, *plain,
            "--encoder", "tiny/whisper", "--llm", "tiny/qwen2", "--output_dir", run, "--keep_layers", 3,
            "--projector_hidden_size", 64, "--lora_rank", 4, "--learning_rate", 3e-3, "--max_steps", 12,
            "--eval_strategy", "steps", "--eval_steps", 6, "--save_strategy", "steps", "--save_steps", 6,
            "--generation_max_new_tokens", 16, "--dataloader_num_workers", 0, "--use_cpu", True,
            "--disable_tqdm", True, "--push_to_hub", True, "--hub_model_id", TRAINED_ID,
            "--hub_always_push", True,
        )  # fmt: skip
        assert training.returncode == 0, training.stdout
        evaluation = run_script(
            "eval.py", environment, *common, "--model", run, "--output_dir", results,
            "--max_new_tokens", 16, "--num_workers", 0,
        )  # fmt: skip
        assert evaluation.returncode == 0, evaluation.stdout
        yield TrainedWorld(hub, world, run, results, training.stdout, environment)
