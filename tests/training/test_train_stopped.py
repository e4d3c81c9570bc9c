"""Ctrl-C and SIGTERM end train.py in one line that says how to go on, and leave nothing behind.

The programs are real, with data workers as most runs have them. eval.py: `evaluation/test_eval_stopped.py`.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from tiny_run import ENVIRONMENT, REPOSITORY, flags

from modeling_slam.training.run_directory import is_complete

pytestmark = pytest.mark.e2e

FOREVER = {"num_train_epochs": 1000, "eval_strategy": "no", "dataloader_num_workers": 1}


class Stopped(NamedTuple):
    code: int
    last_words: list[str]  # what was written after the signal
    cache: Path


def stop(tmp_path: Path, when, number: int, whole_group: bool, **settings) -> Stopped:
    """Start train.py, send the signal when `when()` is true, and wait for the end."""
    log, cache = tmp_path / "log", tmp_path / "hf"
    command = [sys.executable, "train.py", *flags(**settings)]
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=ENVIRONMENT | {"HF_HOME": str(cache)},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while not when(log.read_text()):
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        written = len(log.read_text())
        (os.killpg if whole_group else os.kill)(process.pid, number)
        code = process.wait(timeout=60)
    finally:
        process.kill()
        process.wait()
    words = [line for line in log.read_text()[written:].splitlines() if line.strip()]
    own = [line for line in words if not line.startswith(("{'", "Writing model"))]
    return Stopped(code, own, cache)


def copies(cache: Path) -> list[Path]:
    return list((cache / "datasets").glob("slam_asr_*"))


@pytest.mark.parametrize(
    ("number", "whole_group", "code"),
    [(signal.SIGTERM, True, 143), (signal.SIGINT, True, 130), (signal.SIGTERM, False, 143)],
)
def test_a_stopped_run_says_from_which_step_it_can_go_on(world, tmp_path, number, whole_group, code):
    """As SLURM and terminals stop (everybody), and as docker does (the program alone)."""
    run = tmp_path / "run"
    stopped = stop(
        tmp_path,
        lambda log: is_complete(run / "checkpoint-12"),
        number,
        whole_group,
        world=world,
        output_dir=run,
        **FOREVER,
    )
    assert stopped.code == code
    (line,) = stopped.last_words
    assert signal.Signals(number).name in line
    assert "step 12" in line or "step 24" in line
    assert "--resume_from_checkpoint last" in line
    assert copies(stopped.cache) == []
    assert not (run / ".lock").exists()


def test_a_run_stopped_before_its_first_checkpoint_says_so_and_its_directory_is_free(world, tmp_path):
    import train

    run = tmp_path / "run"
    settings = FOREVER | {"save_strategy": "no"}
    stopped = stop(
        tmp_path, lambda log: "'loss'" in log, signal.SIGTERM, False, world=world, output_dir=run, **settings
    )
    assert stopped.code == 143
    (line,) = stopped.last_words
    assert "the same command" in line
    assert copies(stopped.cache) == []
    train.main(flags(world, run, max_steps=1, eval_strategy="no"))  # not "not empty"


def test_ctrl_c_while_the_libraries_load_shows_no_traceback(world, tmp_path):
    stopped = stop(
        tmp_path,
        lambda log: time.sleep(1) or True,
        signal.SIGINT,
        True,
        world=world,
        output_dir=tmp_path / "run",
    )
    assert stopped.code in (-signal.SIGINT, 130)
    assert not any("Traceback" in line for line in stopped.last_words)
    assert not (tmp_path / "run").exists()
