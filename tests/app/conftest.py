"""A tiny checkpoint as `slam-asr app` opens it, with a CTC head and depths to compare, and a recording."""

import json
from pathlib import Path

import pytest
import soundfile
from tiny_models import saved

RATE = 16_000


@pytest.fixture
def any_depth_checkpoint(sure_model, tiny_processor, tmp_path) -> Path:
    """Of a run with `--train_depths 1 2 3`."""
    sure_model.generation_config.update(max_new_tokens=12)
    directory = saved(sure_model, tiny_processor, tmp_path / "any-depth")
    run = {"data": {"language": "nl"}, "run": {"train_depths": [1, 2, 3]}}
    (directory / "run.json").write_text(json.dumps(run))
    return directory


@pytest.fixture
def recording(two_clips, tmp_path) -> Path:
    soundfile.write(tmp_path / "my talk.wav", two_clips[1], RATE)
    return tmp_path / "my talk.wav"
