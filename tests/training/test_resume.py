"""A run killed at any moment goes on from its newest whole checkpoint as if it had not been killed.

The one that is killed is `train.py` in a process of its own. The other two run in this one, which knows of
the killed one only what its files say, and need not import everything again.
"""

import json
import signal
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from tiny_run import flags, history, logged, one_thread, started

import train
from modeling_slam.training.run_directory import find_checkpoint, is_complete

pytestmark = pytest.mark.e2e

# Not a whole number of epochs of 12 steps: the order within an epoch must be found again as well.
SAVE_STEPS = 15
# Dropout and LoRA are on, batches are grouped by length, validation falls between checkpoints and after.
# Workers live as long as their process, so a resumed run starts them in the middle of a training.
SETTINGS = {
    "dataloader_num_workers": 1,
    "num_train_epochs": 5,
    "save_strategy": "steps",
    "save_steps": SAVE_STEPS,
    "eval_strategy": "steps",
    "eval_steps": SAVE_STEPS,
    "save_total_limit": 10,
}


class Runs(NamedTuple):
    whole: Path
    killed: Path
    resumed_at: int
    written: dict[Path, int]  # when: the weights of the checkpoints that the killed run left


@pytest.fixture(scope="module")
def runs(world, tmp_path_factory) -> Runs:
    """One run to its end; beside it one that is killed after a checkpoint, and resumed."""
    directory = tmp_path_factory.mktemp("runs")
    whole, killed, log = directory / "whole", directory / "killed", directory / "killed.log"
    with started(log, "train.py", *flags(world, killed, **SETTINGS)) as process, one_thread():
        while not is_complete(killed / f"checkpoint-{SAVE_STEPS}"):
            assert process.poll() is None, log.read_text()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the run had ended before it was killed"
        checkpoint, written = find_checkpoint(killed, "last"), times(killed)
        train.main(flags(world, whole, **SETTINGS))
        train.main(flags(world, killed, resume_from_checkpoint="last", **SETTINGS))
    return Runs(whole, killed, int(checkpoint.name.rpartition("-")[2]), written)


def times(run: Path) -> dict[Path, int]:
    """When the weights of each whole checkpoint were written."""
    checkpoints = filter(is_complete, run.glob("checkpoint-*"))
    return {path: (path / "model.safetensors").stat().st_mtime_ns for path in checkpoints}


def test_a_killed_run_resumes_with_the_losses_of_one_that_was_not(runs):
    """The next 20 steps; float32, same seed."""
    expected, losses = logged(runs.whole, "loss"), logged(runs.killed, "loss")
    steps = range(runs.resumed_at + 1, runs.resumed_at + 21)
    assert set(steps) <= set(losses), "the run was killed too late to leave 20 steps"
    assert max(abs(losses[step] - expected[step]) for step in steps) <= 1e-5


def test_a_killed_run_ends_with_the_weights_and_scores_of_one_that_was_not(runs):
    assert logged(runs.killed, "eval_wer") == logged(runs.whole, "eval_wer")
    for last_or_best in ("checkpoint-60/model.safetensors", "model.safetensors"):
        whole, killed = (load_file(directory / last_or_best) for directory in (runs.whole, runs.killed))
        assert max((whole[name] - killed[name]).abs().max() for name in whole) <= 1e-5


def test_a_resumed_run_goes_on_from_its_checkpoint(runs):
    """It neither starts over nor repeats a step."""
    steps = list(logged(runs.killed, "loss"))
    assert steps == list(range(1, 61))
    assert runs.resumed_at >= SAVE_STEPS
    assert runs.written.items() <= times(runs.killed).items(), "steps before the kill were taken again"
    assert (runs.killed / "checkpoint-60").is_dir()


def test_checkpoints_hold_only_what_was_trained(runs):
    checkpoint = runs.whole / f"checkpoint-{SAVE_STEPS}"
    names = set(load_file(checkpoint / "model.safetensors"))
    attention = ("q_proj", "k_proj", "v_proj", "o_proj")
    assert names == {
        f"projector.{layer}.{part}" for layer in ("linear1", "linear2", "norm") for part in ("weight", "bias")
    } | {
        f"language_model.model.layers.{layer}.self_attn.{module}.lora_{side}.default.weight"
        for layer in (0, 1)
        for module in attention
        for side in "AB"
    }
    optimizer = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    assert len(optimizer["state"]) == len(names)
    files = {str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*.safetensors")}
    assert files == {"model.safetensors", "adapter/adapter_model.safetensors"}  # the LoRA once more, for PEFT


def test_a_run_that_goes_on_anyway_takes_its_new_settings(world, tmp_path):
    """Rate and decay would come from the checkpoint's optimizer."""
    run = tmp_path / "run"
    settings = {
        "eval_strategy": "no",
        "save_strategy": "steps",
        "save_steps": 3,
        "lr_scheduler_type": "constant",
    }
    train.main(flags(world, run, max_steps=6, weight_decay=0.0, **settings))
    changed = {"learning_rate": 1e-4, "weight_decay": 0.5, "adam_beta2": 0.9}
    resume = {"resume_from_checkpoint": run / "checkpoint-3", "resume_anyway": True}
    train.main(flags(world, run, max_steps=6, **settings, **changed, **resume))
    assert logged(run, "learning_rate") == dict.fromkeys((1, 2, 3), 3e-3) | dict.fromkeys((4, 5, 6), 1e-4)
    groups = torch.load(run / "checkpoint-6" / "optimizer.pt", weights_only=True)["param_groups"]
    assert {(group["lr"], group["betas"]) for group in groups} == {(1e-4, (0.9, 0.9))}
    assert {group["weight_decay"] for group in groups} == {0.5, 0.0}
    recorded = json.loads((run / "run.json").read_text(encoding="utf-8"))["changes"]
    assert {change["setting"] for change in recorded} == set(changed)
    assert {change["step"] for change in recorded} == {3}


def test_a_run_that_has_ended_takes_no_further_step(world, tmp_path):
    """Asked to go on again, or killed between its last checkpoint and its model."""
    run = tmp_path / "run"
    settings = {"eval_strategy": "no", "save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    train.main(flags(world, run, **settings))
    weights, state = (run / "model.safetensors").read_bytes(), history(run)
    for name in ((), ("model.safetensors", "trainer_state.json")):
        for file in name:
            (run / file).unlink()
        train.main(flags(world, run, resume_from_checkpoint="last", **settings))
        assert (run / "model.safetensors").read_bytes() == weights
        assert logged(run, "loss") == {entry["step"]: entry["loss"] for entry in state if "loss" in entry}
        assert sorted(path.name for path in run.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]


def test_a_start_that_fails_leaves_the_record_of_the_settings(world, tmp_path):
    run = tmp_path / "run"
    settings = {"eval_strategy": "no", "save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    train.main(flags(world, run, **settings))
    before = (run / "run.json").read_bytes()
    (run / "checkpoint-2" / "optimizer.pt").write_bytes(b"damaged")
    changed = {"max_steps": 4, "resume_from_checkpoint": "last", "resume_anyway": True}
    with pytest.raises(SystemExit, match="checkpoint-2 is damaged"):
        train.main(flags(world, run, **settings | changed))
    assert (run / "run.json").read_bytes() == before


def test_every_setting_of_the_optimizer_is_taken(world, tmp_path):
    run = tmp_path / "run"
    settings = {"eval_strategy": "no", "save_strategy": "steps", "save_steps": 1, "optim": "sgd"}
    train.main(flags(world, run, max_steps=1, **settings))
    changed = {"max_steps": 2, "optim_args": "momentum=0.9", "resume_from_checkpoint": "last"}
    train.main(flags(world, run, **settings, **changed, resume_anyway=True))
    groups = torch.load(run / "checkpoint-2" / "optimizer.pt", weights_only=True)["param_groups"]
    assert {group["momentum"] for group in groups} == {0.9}
