"""Two processes compute what one does on the same global batches, and validate and test each clip once.

Clips come in the order of the dataset, so that batches of 2 in two processes, 4 in one, and 2 accumulated
twice hold the same clips. Their halves hold unequal numbers of labels: a mean of means would differ.
"""

import json
from pathlib import Path
from typing import NamedTuple

import pytest
from safetensors.torch import load_file
from tiny_run import TWO_PROCESSES, flags, logged, one_thread, started
from tiny_world import TinyWorld
from transformers import AutoTokenizer

import eval as eval_script
import train
from modeling_slam.data import DataArguments, load_speech

pytestmark = pytest.mark.e2e

CLIPS = 7  # odd: one process gets a clip too many, which must not count
SETTINGS = {
    "num_train_epochs": 2,
    "train_sampling_strategy": "sequential",
    "projector_dropout": 0,
    "lora_dropout": 0,
    "max_validation_clips": CLIPS,
    "per_device_eval_batch_size": 2,
}


# Beside training, so that two processes are started once for both.
def evaluation(world: TinyWorld, model: Path, output_dir: Path) -> list[str]:
    """Command line of `eval.py`."""
    settings = {"model": model, "dataset": world.dataset, "output_dir": output_dir, "max_test_clips": CLIPS}
    settings |= {"max_new_tokens": 6, "batch_size": 2, "num_workers": 0}
    return [f"--{name}={value}" for name, value in settings.items()]


class Runs(NamedTuple):
    one: Path
    accumulated: Path
    two: Path
    tested_by_one: Path
    tested_by_two: Path
    log: str


@pytest.fixture(scope="module")
def runs(world, tmp_path_factory) -> Runs:
    directory = tmp_path_factory.mktemp("distributed")
    one, accumulated, two, by_one, by_two = (directory / name for name in Runs._fields[:5])
    log = directory / "two.log"
    halves = {"per_device_train_batch_size": 2}
    scripts = (
        "train.py",
        *flags(world, two, **halves, **SETTINGS),
        "+",
        "eval.py",
        *evaluation(world, two, by_two),
    )
    with started(log, *TWO_PROCESSES, "tests/scripts_in_turn.py", *scripts) as process, one_thread():
        train.main(flags(world, one, per_device_train_batch_size=4, **SETTINGS))
        train.main(flags(world, accumulated, gradient_accumulation_steps=2, **halves, **SETTINGS))
        assert process.wait() == 0, log.read_text()
        eval_script.main(evaluation(world, two, by_one))
    return Runs(one, accumulated, two, by_one, by_two, log.read_text())


def test_accelerate_launch_starts_two_processes(runs):
    assert "Processes: 2" in runs.log
    assert runs.log.count("Processes:") == 1, "only the main process reports"


@pytest.mark.parametrize("other", ["two", "accumulated"])
def test_the_same_global_batches_give_the_same_losses_and_weights(runs, other):
    directory = getattr(runs, other)
    expected, losses = logged(runs.one, "loss"), logged(directory, "loss")
    assert list(expected) == list(range(1, 25))
    assert losses == pytest.approx(expected, abs=1e-4)
    one, weights = load_file(runs.one / "model.safetensors"), load_file(directory / "model.safetensors")
    assert max((one[name] - weights[name]).abs().max() for name in one) <= 1e-4


def test_the_halves_of_a_batch_hold_unequal_numbers_of_labels(world):
    """Else the test above could not tell a mean over labels from a mean of means."""
    data, _ = load_speech(DataArguments(dataset=str(world.dataset)), "train")
    tokenizer = AutoTokenizer.from_pretrained(world.llm)
    labels = [len(tokenizer(text)["input_ids"]) + 1 for text in data["text"]]
    halves = [sum(labels[start : start + 2]) for start in range(0, len(labels), 2)]
    assert sum(first != second for first, second in zip(halves[::2], halves[1::2], strict=True)) >= 6


def test_validation_counts_each_clip_once(runs):
    for directory in (runs.one, runs.two):
        assert set(logged(directory, "eval_clips").values()) == {CLIPS}
    for rate in ("eval_wer", "eval_cer"):
        assert logged(runs.two, rate) == logged(runs.one, rate)


def test_only_the_main_process_writes_checkpoints(runs):
    one, two = ({path.name for path in directory.iterdir()} for directory in (runs.one, runs.two))
    assert one == two


def test_two_processes_decode_each_clip_once_and_agree_with_one(runs):
    alone, together = (
        [json.loads(line) for line in (directory / "predictions.jsonl").read_text().splitlines()]
        for directory in (runs.tested_by_one, runs.tested_by_two)
    )
    for row in alone + together:
        del row["seconds"]
    assert [row["index"] for row in together] == list(range(CLIPS))
    assert len({row["prediction"] for row in together}) > 1, "the clips cannot be told apart"
    assert together == alone
    metrics = json.loads((runs.tested_by_two / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["settings"]["processes"] == 2


def test_a_cache_that_is_too_small_stops_neither_process(world, tmp_path):
    cache = {"cache_features": tmp_path / "cache", "cache_depths": "3,2", "cache_max_gb": 1e-6}
    argv = flags(world, tmp_path / "run", max_steps=2, eval_strategy="no", **cache)
    with started(tmp_path / "log", *TWO_PROCESSES, "train.py", *argv) as process:
        assert process.wait() == 0, (tmp_path / "log").read_text()
    assert (tmp_path / "log").read_text().count("The run goes on without the cache") == 1


def test_two_processes_align_as_one_does_and_train_on(world, tmp_path):
    settings = {
        "llm_input": "gated", "ctc_weight": 0.3, "align_epochs": 1,
        "align_dropout": 0, "align_frame_dropout": 0, "max_steps": 1,
        "projector_dropout": 0, "train_sampling_strategy": "sequential", "max_validation_clips": CLIPS,
    }  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    argv = flags(world, two, **settings, align_batch_size=2, per_device_train_batch_size=2)
    with started(tmp_path / "log", *TWO_PROCESSES, "train.py", *argv) as process, one_thread():
        train.main(flags(world, one, **settings, align_batch_size=4))
        assert process.wait(timeout=300) == 0, (tmp_path / "log").read_text()
    ours, theirs = (load_file(run / "alignment" / "model.safetensors") for run in (one, two))
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) <= 1e-4
    wer = [
        json.loads((run / "alignment" / "alignment.json").read_text())["best"]["wer"] for run in (one, two)
    ]
    assert wer[0] == wer[1]
