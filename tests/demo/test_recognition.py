"""The method works: a projector trained for a minute on pretrained backbones recognises unheard voices.

Everything is what a user runs: `train.py` with the demo's recipe (fewer steps), then `eval.py` with beam 2.
"""

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from plain_search import plain_tokens

import eval as eval_script
import train
from modeling_slam import SlamAsrForConditionalGeneration, SlamAsrProcessor
from modeling_slam.evaluation.predictions import read_predictions

REPOSITORY = Path(__file__).parents[2]
SPEECH = REPOSITORY / "modeling_slam" / "demo" / "assets" / "speech"


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def word_error_rate(model: Path, directory: Path) -> float:
    eval_script.main(
        f"--model {model} --dataset {SPEECH / 'en'} --language en --id_column id --num_workers 0 "
        f"--output_dir {directory}".split()
    )
    metrics = json.loads((directory / "metrics.json").read_text())
    assert metrics["utterances"] == 80
    return metrics["wer"]


def written(directory: Path) -> list[str]:
    return [row.raw_prediction for row in read_predictions(directory / "predictions.jsonl")]


def written_plainly(model_directory: Path) -> list[str]:
    """By transformers' beam search, in unsorted batches of 8."""
    model = SlamAsrForConditionalGeneration.from_pretrained(model_directory).eval()
    processor = SlamAsrProcessor.from_pretrained(model_directory)
    clips = Dataset.from_parquet(str(SPEECH / "en" / "test.parquet"))["audio"][:]
    tokens = plain_tokens(model, processor, clips, num_beams=2, max_new_tokens=256)
    return processor.batch_decode(list(tokens), skip_special_tokens=True)


def test_training_turns_noise_into_recognition(tmp_path, monkeypatch, one_thread):
    monkeypatch.chdir(REPOSITORY)  # the recipe's paths are relative to it
    flags = (
        "--eval_strategy no --save_strategy no --dataloader_num_workers 0 --use_cpu true --disable_tqdm true"
    )
    for name, settings in {
        "untrained": "--max_steps 1 --learning_rate 0",
        "trained": "--max_steps 200",
    }.items():
        train.main(
            ["recipes/demo.yaml", *flags.split(), *settings.split(), f"--output_dir={tmp_path / name}"]
        )
    assert word_error_rate(tmp_path / "untrained", tmp_path / "before") >= 0.9
    assert word_error_rate(tmp_path / "trained", tmp_path / "after") <= 0.35
    assert written(tmp_path / "after") == written_plainly(tmp_path / "trained")
