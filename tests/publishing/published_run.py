"""Programs of this project against the fake Hub, and what the run that all tests share consists of."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from fake_hub import FakeHub
from tiny_world import TinyWorld

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
        timeout=600,
    )
