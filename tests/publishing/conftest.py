"""A tiny model trained and evaluated for real against the fake Hub, once for all tests of this directory."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from fake_hub import FakeHub

from modeling_slam.demo.tiny_world import TinyWorld, build_tiny_world

REPOSITORY = Path(__file__).parents[2]
NAME = "slam-d32-3L-lora-en"
TRAINED_ID = f"org/{NAME}"


class TrainedWorld(NamedTuple):
    """A run of train.py with `--push_to_hub`, and eval.py's results for it."""

    hub: FakeHub
    world: TinyWorld
    run: Path
    results: Path
    log: str  # what train.py printed
    environment: dict[str, str]

    @property
    def metrics(self) -> dict:
        return json.loads((self.results / "metrics.json").read_text(encoding="utf-8"))


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


def run_script(name: str, environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess:
    """`name` as a program of its own, from the repository; both streams in `stdout`."""
    start = ["-m", name] if name.startswith("modeling_slam.") else [name]
    return subprocess.run(
        [sys.executable, *start, *map(str, arguments)],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )


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
        training = run_script(
            "train.py", environment, *common,
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
