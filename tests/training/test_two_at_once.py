"""Programs that start at once on one new directory: each ends well or is refused in one line."""

import json
import subprocess
import sys

import pytest
from tiny_run import ENVIRONMENT, REPOSITORY, flags

from modeling_slam.training.run_directory import LOCK

pytestmark = pytest.mark.e2e

SHORT = {"max_steps": 6, "eval_strategy": "no"}


def at_once(*commands) -> list[tuple[int, str]]:
    """(exit status, output) of Python with each of these arguments, started together."""
    processes = [
        subprocess.Popen([sys.executable, *command], cwd=REPOSITORY, env=ENVIRONMENT, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for command in commands
    ]  # fmt: skip
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert not [output for output in outputs if "Traceback" in output]
    return [(process.returncode, output) for process, output in zip(processes, outputs, strict=True)]


def evaluation(world, model, directory) -> list[str]:
    return [
        "eval.py", "--model", str(model), "--dataset", str(world.dataset), "--language", "en",
        "--output_dir", str(directory), "--max_new_tokens", "8", "--num_workers", "0",
    ]  # fmt: skip


def test_of_two_trainings_one_is_refused_and_of_two_evaluations_both_end_well(world, tmp_path):
    training = ["train.py", *flags(world, tmp_path / "run", **SHORT)]
    codes = sorted(at_once(training, training))
    assert [code for code, _ in codes] == [0, 1]
    refusal = codes[1][1].strip().splitlines()[-1]
    assert refusal.startswith("error: ")
    assert "Another run is going on" in refusal or "is not empty" in refusal
    assert not (tmp_path / "run" / LOCK).exists()
    assert json.loads((tmp_path / "run" / "trainer_state.json").read_text())["global_step"] == 6

    results = tmp_path / "results"
    both = at_once(*[evaluation(world, tmp_path / "run", results)] * 2)
    assert [code for code, _ in both] == [0, 0]
    lines = (results / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["index"] for line in lines] == list(range(8))
    assert sorted(path.name for path in results.iterdir()) == [
        "data_test.json", "metrics.json", "predictions.jsonl", "predictions.settings.json",
    ]  # fmt: skip

    together = tmp_path / "together"
    trained, evaluated = at_once(
        ["train.py", *flags(world, together, **SHORT)], evaluation(world, tmp_path / "run", together)
    )
    assert evaluated[0] == 0
    assert (together / "predictions.jsonl").read_text(encoding="utf-8").count("\n") == 8
    assert trained[0] == 0 or "is not empty" in trained[1]
    assert trained[0] == 1 or (together / "model.safetensors").is_file()
