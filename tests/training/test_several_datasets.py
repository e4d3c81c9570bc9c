"""Several datasets and languages in one training: resumed exactly, validated each, named in the prompt."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from safetensors.torch import load_file
from test_cross_fitting import FOLDS
from tiny_run import TWO_PROCESSES, flags, history, logged, one_thread, started
from transformers import EvalPrediction

import eval as eval_script
import train
from modeling_slam import SlamAsrProcessor
from modeling_slam.training.validation import ValidationMetrics, groups_of

FEW = 12  # clips of the smaller dataset, of 48


@pytest.fixture(scope="module")
def sets(world, tmp_path_factory) -> list[str]:
    """The world's own dataset and a smaller one of its clips, in a language that calls its columns so."""
    small = tmp_path_factory.mktemp("sets") / "talk"
    for split, count in {"train": FEW, "validation": 3, "test": 3}.items():
        (small / split).mkdir(parents=True)
        with (world.dataset / split / "metadata.csv").open(encoding="utf-8") as file:
            _, *rows = csv.reader(file)
        with (small / split / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["file_name", "gezegd"], *(row[:2] for row in rows[-count:])])
        for row in rows[-count:]:
            shutil.copy(world.dataset / split / row[0], small / split)
    return [str(world.dataset), str(small)]


def mixed(world, sets: list[str], run: Path, *more: str, **changes: Any) -> list[str]:
    own = ["--dataset", *sets, "--language", "en", "nl", "--text_column", "text", "gezegd"]
    return [*flags(world, run, **changes), *own, *more]


SAVED = {"save_strategy": "steps", "save_steps": 9, "eval_strategy": "no", "save_total_limit": 9}
WEIGHTS = ("--dataset_weights", "1", "1")


@pytest.mark.e2e
@pytest.mark.parametrize(
    "settings",
    [
        {
            "max_steps": 24
        },  # 15 steps an epoch: into the second, and resumed in the first and at no epoch's end
        {"max_steps": 24, "batch_seconds": 8.0},
        {"max_steps": 24, "train_sampling_strategy": "random", "dataloader_num_workers": 1},
        FOLDS | {"max_steps": 20, "augment": "speed"},
    ],
    ids=["by length", "by seconds", "random", "aligned on folds"],
)
def test_a_mixed_run_goes_on_as_if_it_had_not_been_stopped(world, sets, tmp_path, settings):
    run = tmp_path / "run"
    settings |= SAVED
    with one_thread():
        train.main(mixed(world, sets, run, *WEIGHTS, **settings))
        losses, whole = logged(run, "loss"), load_file(run / "model.safetensors")
        for later in run.glob("checkpoint-*"):
            if later.name != "checkpoint-9":
                shutil.rmtree(later)
        resumed = {"resume_from_checkpoint": run / "checkpoint-9"}
        train.main(mixed(world, sets, run, *WEIGHTS, **settings, **resumed))
    assert logged(run, "loss") == losses
    again = load_file(run / "model.safetensors")
    assert all(torch.equal(again[name], whole[name]) for name in whole)


@pytest.mark.e2e
def test_two_processes_draw_what_one_does(world, sets, tmp_path):
    one, two, log = tmp_path / "one", tmp_path / "two", tmp_path / "log"
    settings = {
        "max_steps": 18, "eval_strategy": "steps", "eval_steps": 18, "save_strategy": "no",
        "projector_dropout": 0, "lora_dropout": 0, "load_best_model_at_end": False,
    }  # fmt: skip
    whole = mixed(world, sets, one, *WEIGHTS, **settings, per_device_train_batch_size=4)
    # Groups of 4 in one process are those of twice 2 in two: lengths are sorted within 50 batches.
    half = mixed(world, sets, two, *WEIGHTS, **settings, per_device_train_batch_size=2)
    for command in (whole, half):
        command += ["--train_sampling_strategy", "sequential"]
    with started(log, *TWO_PROCESSES, "train.py", *half) as process, one_thread():
        train.main(whole)
        assert process.wait(timeout=120) == 0, log.read_text()
    assert logged(two, "loss") == pytest.approx(logged(one, "loss"), abs=1e-3)
    names = [name for name in history(one)[-2] if name.startswith("eval_wer")]
    assert len(names) == 5
    for name in names:
        assert logged(two, name) == logged(one, name)


def test_one_training_validates_and_evaluates_each_dataset_and_language(world, sets, tmp_path, capsys):
    run, results = tmp_path / "run", tmp_path / "results"
    named = {"instruction": "Write {language}:\n", "max_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
    train.main(mixed(world, sets, run, *WEIGHTS, **named, save_strategy="no"))
    (validation,) = [entry for entry in history(run) if "eval_wer" in entry]
    rates = {name for name in validation if name.startswith("eval_wer")}
    assert rates == {
        "eval_wer", "eval_wer_speech", "eval_wer_talk", "eval_wer_language_en", "eval_wer_language_nl"
    }  # fmt: skip
    assert validation["eval_wer_speech"] == validation["eval_wer_language_en"]
    processor = SlamAsrProcessor.from_pretrained(run)
    assert processor.instruction == "Write {language}:\n"

    command = ["--model", str(run), "--dataset", *sets, "--text_column", "text", "gezegd", "--num_beams", "1"]
    command += ["--output_dir", str(results), "--max_new_tokens", "6", "--num_workers", "0"]
    with pytest.raises(SystemExit, match="names the language, and clips of the data have none: set `--lang"):
        eval_script.main(command)
    capsys.readouterr()
    eval_script.main([*command, "--language", "en", "nl"])
    metrics = json.loads((results / "metrics.json").read_text())
    assert metrics["by_dataset"].keys() == {"speech", "talk"}
    assert metrics["by_language"].keys() == {"en", "nl"}
    assert [part["utterances"] for part in metrics["by_dataset"].values()] == [8, 3]
    errors = [part["wer"] * part["reference_words"] for part in metrics["by_language"].values()]
    assert sum(errors) / metrics["reference_words"] == pytest.approx(metrics["wer"])
    lines = (results / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["dataset"] for line in lines] == ["speech"] * 8 + ["talk"] * 3
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[-1] for row in printed if row and row[0] in ("speech", "talk")] == ["8", "3"]


def test_a_model_of_one_language_has_it_in_its_instruction_for_good(world, tmp_path):
    run = tmp_path / "run"
    settings = {"instruction": "Write {language}:\n", "max_steps": 1, "eval_strategy": "no"}
    with pytest.raises(
        SystemExit, match=r"'Write \{language\}.*clips of the data have none: set `--language`"
    ):
        train.main(flags(world, run, **settings))
    train.main(flags(world, run, **settings, language="nl", save_strategy="no"))
    assert SlamAsrProcessor.from_pretrained(run).instruction == "Write Dutch:\n"


def clips() -> datasets.Dataset:
    return datasets.Dataset.from_dict(
        {"dataset": ["queen", "talk", "queen", "talk"], "language": ["en", "nl", "en", "nl"]}
    )


def test_a_validation_has_the_rates_of_each_in_whatever_order_clips_come():
    metrics = ValidationMetrics(list, clips())
    labels, rows = ["'s nachts", "one two", "een", "one"], torch.tensor([[3], [0], [1], [2]]).numpy()
    found = metrics(EvalPrediction(["s nachts", "one too", "een", "one"], (labels, rows)))
    assert found["wer"] == pytest.approx(2 / 6)
    assert (found["wer_queen"], found["wer_talk"]) == pytest.approx((1 / 3, 1 / 3))
    assert found["wer_language_nl"] == found["wer_talk"], "'s is a word of Dutch"
    assert found["cer_queen"] == pytest.approx(1 / 10)


def test_clips_of_one_dataset_and_language_are_in_no_groups():
    assert groups_of(clips().filter(lambda row: row["dataset"] == "talk")) == {}
    assert groups_of(clips().remove_columns("dataset")).keys() == {"language_en", "language_nl"}
