"""The method works, and so does sharing it: real speech is recognised before publishing and after.

Everything is what a user runs: `train.py` with the demo's recipe (fewer steps) on pretrained backbones that
come from a Hub by id, `eval.py` with beam 2 on unheard voices, the publishing command, and a stranger's
interpreter that has only the model's id.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jiwer
import pytest
from datasets import Audio, Dataset
from fake_hub import FakeHub
from plain_search import plain_tokens
from programs import REPOSITORY, run_script, texts_of_a_stranger

from modeling_slam import SlamAsrForConditionalGeneration, SlamAsrProcessor
from modeling_slam.data import normalize_text

pytestmark = pytest.mark.e2e

ASSETS = REPOSITORY / "modeling_slam" / "demo" / "assets"
PUBLISHED_ID = "org/slam-d128-6L-lora-en"
CLIPS = 12
SPEECH = ("--dataset", ASSETS / "speech" / "en", "--language", "en", "--id_column", "id")
TRAINING = (
    "--encoder", "demo/whisper", "--llm", "demo/qwen2", "--eval_strategy", "no", "--save_strategy", "no",
    "--dataloader_num_workers", 0, "--use_cpu", True, "--disable_tqdm", True,
)  # fmt: skip


class DemoRun(NamedTuple):
    """A model trained on the demo's speech, and what `eval.py` heard."""

    hub: FakeHub
    model: Path
    results: Path
    environment: dict[str, str]

    @property
    def word_error_rate(self) -> float:
        metrics = json.loads((self.results / "metrics.json").read_text(encoding="utf-8"))
        assert metrics["utterances"] == 80
        return metrics["wer"]

    @property
    def predictions(self) -> list[dict]:
        lines = (self.results / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines[:CLIPS]]


def train_and_evaluate(hub: FakeHub, directory: Path, *settings: object) -> DemoRun:
    run = DemoRun(hub, directory / "model", directory / "results", hub.environment(directory))
    for command in (
        ("train.py", "recipes/demo.yaml", *SPEECH, *TRAINING, *settings, "--output_dir", run.model),
        ("eval.py", "--model", run.model, *SPEECH, "--num_workers", 0, "--output_dir", run.results),
    ):
        done = run_script(command[0], run.environment, *command[1:])
        assert done.returncode == 0, done.stdout
    return run


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.add_directory("demo/whisper", ASSETS / "whisper")
        hub.add_directory("demo/qwen2", ASSETS / "qwen2")
        yield hub


@pytest.fixture(scope="module")
def trained(hub, tmp_path_factory) -> DemoRun:
    return train_and_evaluate(hub, tmp_path_factory.mktemp("trained"), "--max_steps", 200)


def test_training_turns_noise_into_recognition(trained, tmp_path):
    untrained = train_and_evaluate(trained.hub, tmp_path, "--max_steps", 1, "--learning_rate", 0)
    assert untrained.word_error_rate >= 0.9
    assert trained.word_error_rate <= 0.35


def test_every_transcript_is_that_of_transformers_beam_search(trained):
    """All 80 clips, there in unsorted batches of 8."""
    local = {"audio_model_id": str(ASSETS / "whisper"), "text_model_id": str(ASSETS / "qwen2")}
    local |= dict.fromkeys(("audio_model_revision", "text_model_revision"))
    model = SlamAsrForConditionalGeneration.from_pretrained(trained.model, **local).eval()
    processor = SlamAsrProcessor.from_pretrained(trained.model)
    clips = Dataset.from_parquet(str(ASSETS / "speech" / "en" / "test.parquet"))["audio"][:]
    tokens = list(plain_tokens(model, processor, clips, num_beams=2, max_new_tokens=256))
    lines = (trained.results / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    written = [json.loads(line)["raw_prediction"] for line in lines]
    assert written == processor.batch_decode(tokens, skip_special_tokens=True)


@pytest.mark.parametrize("checkpoint_format", ["lean", "full"])
def test_a_stranger_recognises_speech_with_the_published_model(trained, tmp_path, checkpoint_format):
    """By every auto class and the pipeline: the very words that the model wrote before it was published."""
    done = run_script(
        "modeling_slam.publishing", trained.environment, trained.model, "--metrics", trained.results,
        "--repo_id", PUBLISHED_ID, "--format", checkpoint_format,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    published = trained.hub.repositories.pop(PUBLISHED_ID)
    files = [tmp_path / f"{number}.ogg" for number in range(CLIPS)]
    clips = Dataset.from_parquet(str(ASSETS / "speech" / "en" / "test.parquet"), cache_dir=str(tmp_path))
    recordings = {row["id"]: row["audio"] for row in clips.cast_column("audio", Audio(decode=False))}
    for file, row in zip(files, trained.predictions, strict=True):
        file.write_bytes(recordings[row["id"]]["bytes"])
    with FakeHub() as other:  # a full checkpoint must do without base models
        other.repositories = {PUBLISHED_ID: published}
        if checkpoint_format == "lean":
            other.repositories |= trained.hub.repositories
        texts = texts_of_a_stranger(other, tmp_path, PUBLISHED_ID, published.head.oid, files, num_beams=2)
        fetched = other.count("GET", "^/demo/.*/resolve/[0-9a-f]{40}/model.safetensors")
    assert fetched == (2 if checkpoint_format == "lean" else 0)
    for way, found in texts.items():
        assert found == [row["raw_prediction"].strip() for row in trained.predictions], way
    heard = [normalize_text(text, "en") for text in texts["pipeline"]]
    assert all(heard)
    assert jiwer.wer([row["reference"] for row in trained.predictions], heard) <= 0.35
