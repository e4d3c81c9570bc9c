"""SIGTERM ends eval.py in one line, without its copy of the clips, and the same command goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import eval as eval_script

pytestmark = pytest.mark.e2e

REPOSITORY = Path(__file__).parents[2]


def test_a_stopped_evaluation_leaves_no_copy_of_the_clips_and_goes_on(checkpoint, speech_folder, tmp_path):
    results, cache = tmp_path / "results", tmp_path / "hf"
    command = [
        "--model", str(checkpoint), "--dataset", str(speech_folder), "--language", "nl",
        "--output_dir", str(results), "--max_new_tokens", "1000", "--max_tokens_per_second", "1000",
        "--batch_size", "1", "--num_workers", "1",
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "eval.py", *command],
        cwd=REPOSITORY,
        env=os.environ | {"HF_HOME": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    part = results / "predictions.part-0.jsonl"
    while not (part.exists() and part.stat().st_size):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert output.splitlines()[-1] == "Stopped by SIGTERM. The same command goes on where it stopped."
    assert "Traceback" not in output
    assert list((cache / "datasets").glob("slam_asr_*")) == []
    eval_script.main(command)
    assert len((results / "predictions.jsonl").read_text(encoding="utf-8").splitlines()) == 5
