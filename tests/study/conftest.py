"""A study on the miniature world; scripts that stand in for training where only the engine is tested."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_world import PLAIN, TinyWorld, build_tiny_world

from modeling_slam.evaluation.intervals import INTERVAL_METHOD
from modeling_slam.evaluation.metrics import ERROR_RATES, METRICS, interval_of
from modeling_slam.evaluation.predictions import Prediction, to_lines
from modeling_slam.study import runner

# Takes the flags of `train.py`; fails as often as the file `failures` beside it says.
TRAIN = """
import pathlib, sys, time
flags = dict(zip((name.removeprefix("--") for name in sys.argv[1::2]), sys.argv[2::2]))
here, model = pathlib.Path(__file__).parent, pathlib.Path(flags["output_dir"])
print("resumes" if any(model.glob("checkpoint-*")) else "begins", flush=True)
(model / "checkpoint-1").mkdir(parents=True, exist_ok=True)
time.sleep(float((here / "seconds").read_text()))
failures = here / "failures"
if int(failures.read_text()):
    failures.write_text(str(int(failures.read_text()) - 1))
    sys.exit("out of memory")
(model / "model.safetensors").touch()
"""
NO_ERRORS = dict.fromkeys(METRICS, 0) | {interval_of(name): [0, 0] for name in ERROR_RATES}
NO_ERRORS |= {"interval_method": INTERVAL_METHOD, "utterances": 1}
HEARD = Prediction("clip", 0, "north up", "north", "North up.", "north", 1.5, 0.1, 1, "ann", "en")
EVAL = (
    f"METRICS, LINES = {NO_ERRORS}, {to_lines([HEARD])!r}"
    + """
import json, pathlib, sys
flags = dict(zip((name.removeprefix("--") for name in sys.argv[1::2]), sys.argv[2::2]))
results = pathlib.Path(flags["output_dir"])
metrics = METRICS | {"wer": 0.5, "wer_interval": [0.4, 0.6]}
metrics |= {"parameters": {"encoder_kept": 1}, "settings": {}}
(results / "predictions.jsonl").write_text(LINES)
(results / "metrics.json").write_text(json.dumps(metrics))
"""
)


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> TinyWorld:
    return build_tiny_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def study_file(world, tmp_path) -> Callable[..., Path]:
    """Writes a study file on the miniature world: two depths of a Whisper of four layers, without LoRA."""

    def write(**changes: Any) -> Path:
        settings = {
            "name": "tiny",
            "llm": str(world.llm),
            "encoders": {"tiny": {"model": str(world.encoder), "keep_layers": [3, 1]}},
            "datasets": {"en": {"dataset": str(world.dataset)}},
            "modes": ["projector"],
            "lora": {"rank": 4, "alpha": 8},
            "train": PLAIN
            | {"projector_hidden_size": 64, "max_steps": 30, "save_strategy": "steps", "save_steps": 10,
               "eval_strategy": "no", "dataloader_num_workers": 0, "use_cpu": True},
            "eval": {"num_workers": 0, "max_new_tokens": 16},
        }  # fmt: skip
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(settings | changes), encoding="utf-8")
        return path

    return write


@pytest.fixture
def stand_ins(tmp_path, monkeypatch) -> Path:
    """A directory whose train.py and eval.py the engine runs instead: real processes that take no time."""
    directory = tmp_path / "scripts"
    directory.mkdir()
    files = {"train.py": TRAIN, "eval.py": EVAL, "failures": "0", "seconds": "0"}
    for name, text in files.items():
        (directory / name).write_text(text)
    monkeypatch.setattr(runner, "HOME", directory)
    return directory
