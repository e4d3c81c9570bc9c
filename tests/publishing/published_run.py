"""What the run that all tests of publishing share consists of."""

import json
from pathlib import Path
from typing import NamedTuple

from fake_hub import FakeHub
from tiny_world import TinyWorld

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

    @property
    def clips(self) -> list[Path]:
        """Some of the test clips, and in the same order"""
        return [self.world.dataset / "test" / row["id"] for row in self._predictions()]

    @property
    def transcripts(self) -> list[str]:
        """what eval.py wrote of them."""
        return [row["raw_prediction"].strip() for row in self._predictions()]

    def _predictions(self) -> list[dict]:
        lines = (self.results / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines[:4]]
