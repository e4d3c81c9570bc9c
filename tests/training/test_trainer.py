"""The trainer: what it validates on, what it scores, and which model it leaves behind."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import jiwer
import pytest
import torch
from safetensors.torch import load_file
from tiny_run import flags, history, logged
from tiny_world import WORDS

import train
from modeling_slam import SlamAsrForConditionalGeneration, SlamAsrProcessor
from modeling_slam.data import DataArguments, load_speech
from modeling_slam.data.text import normalize_text
from modeling_slam.training.assembly import usual_length
from modeling_slam.training.trainer import SlamTrainer, prompts_of


class Run(NamedTuple):
    trainer: SlamTrainer
    directory: Path


def run_training(argv: list[str]) -> SlamTrainer:
    """`train.py` in this process; returns the trainer it used."""
    trainers = []

    class KeptTrainer(SlamTrainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            trainers.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "SlamTrainer", KeptTrainer)
        train.main(argv)
    return trainers[0]


@pytest.fixture(scope="module")
def run(world, tmp_path_factory) -> Run:
    """Five epochs with validation after each, LoRA and dropout on."""
    directory = tmp_path_factory.mktemp("trainer") / "run"
    return Run(run_training(flags(world, directory, num_train_epochs=5)), directory)


@pytest.fixture(scope="module")
def validation_clips(world) -> list[dict]:
    return list(load_speech(DataArguments(dataset=str(world.dataset)), "validation")[0])


def transcripts(model, processor, clips: list[dict]) -> list[str]:
    """Greedy, one clip at a time."""
    texts = []
    for clip in clips:
        prompt = processor(clip["audio"])
        ids = model.eval().generate(**prompt, num_beams=1, max_new_tokens=16, max_tokens_per_second=20)
        texts += processor.batch_decode(ids, skip_special_tokens=True)
    return texts


def test_the_prompts_of_a_training_batch_are_those_of_the_processor(tiny_processor, two_clips):
    batch = tiny_processor(two_clips, text=["a much longer transcript", "one"])
    prompts, expected = prompts_of(batch, tiny_processor.pad_token_id), tiny_processor(two_clips)
    assert set(prompts) == set(expected)
    for name in expected:
        assert torch.equal(prompts[name], expected[name])


def test_the_logged_wer_is_jiwers_on_transcripts_of_the_same_clips(run, validation_clips):
    best_step = run.trainer.state.best_global_step
    model, processor = run.trainer.model, run.trainer.processing_class  # the best model, loaded at the end
    references = [clip["text"] for clip in validation_clips]
    predictions = [normalize_text(text) for text in transcripts(model, processor, validation_clips)]
    assert logged(run.directory, "eval_wer")[best_step] == pytest.approx(jiwer.wer(references, predictions))
    assert logged(run.directory, "eval_cer")[best_step] == pytest.approx(jiwer.cer(references, predictions))
    assert logged(run.directory, "eval_clips")[best_step] == len(validation_clips) == 8


def test_the_model_left_behind_is_the_one_with_the_lowest_wer(run):
    rates = logged(run.directory, "eval_wer")
    assert len(rates) == 5
    assert len(set(rates.values())) > 1, "all rates are equal, so nothing was chosen"
    best_step = min(rates, key=rates.get)
    assert best_step != max(rates), "the last model is the best, so nothing was chosen"
    final = load_file(run.directory / "model.safetensors")
    best = load_file(run.directory / f"checkpoint-{best_step}" / "model.safetensors")
    last = load_file(run.directory / f"checkpoint-{max(rates)}" / "model.safetensors")
    assert all(torch.equal(final[name], best[name]) for name in best)
    assert any(not torch.equal(final[name], last[name]) for name in last)


def test_the_final_model_loads_and_transcribes_as_the_trainers_did(run, validation_clips):
    model = SlamAsrForConditionalGeneration.from_pretrained(run.directory)
    processor = SlamAsrProcessor.from_pretrained(run.directory)
    expected = transcripts(run.trainer.model, run.trainer.processing_class, validation_clips)
    assert transcripts(model, processor, validation_clips) == expected
    assert processor.chunk_seconds == usual_length(run.trainer.train_dataset["duration"])
    # Validation has not left its own limits in what users call.
    assert (model.generation_config.num_beams, model.generation_config.max_new_tokens) == (2, 200)
    assert model.generation_config.max_length is None


def test_a_run_says_what_it_read_and_how_long_it_took(run):
    for split, clips in (("train", 48), ("validation", 8)):
        report = json.loads((run.directory / f"data_{split}.json").read_text(encoding="utf-8"))
        assert report["kept_clips"] == clips
    words = json.loads((run.directory / "words_train.json").read_text(encoding="utf-8"))
    assert set(words) == set(WORDS)  # as they are compared: in lower case, without full stops
    assert list(words.values()) == sorted(words.values(), reverse=True)
    assert json.loads((run.directory / "train_results.json").read_text())["train_runtime"] > 0


def test_the_loss_falls(run):
    losses = list(logged(run.directory, "loss").values())
    assert len(losses) == 60
    assert sum(losses[-12:]) < 0.8 * sum(losses[:12])


def test_a_run_on_several_datasets_trains_and_validates_on_all_of_them(world, tmp_path):
    both = ["--dataset", str(world.dataset), str(shutil.copytree(world.dataset, tmp_path / "more"))]
    trainer = run_training([*flags(world, tmp_path / "run", max_steps=1), *both])
    assert (len(trainer.train_dataset), len(trainer.eval_dataset)) == (2 * 48, 2 * 8)
    assert {clip.split("/")[0] for clip in trainer.eval_dataset["id"]} == {"speech", "more"}
    read = json.loads((tmp_path / "run" / "data_train.json").read_text(encoding="utf-8"))
    assert [part["kept_clips"] for part in read["parts"]] == [48, 48]
    recorded = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert recorded["data"]["dataset"] == both[1:]


def test_training_stops_when_the_wer_no_longer_falls(world, tmp_path):
    """A learning rate that changes nothing: the first validation stays the best."""
    argv = flags(world, tmp_path / "run", num_train_epochs=6, learning_rate=1e-12, early_stopping_patience=1)
    state = run_training(argv).state
    assert state.global_step == 24
    assert state.best_global_step == 12
    assert [entry["step"] for entry in history(tmp_path / "run") if "eval_wer" in entry] == [12, 24]


def test_the_log_has_the_rate_of_each_part_where_they_differ(world, tmp_path):
    settings = {"max_steps": 2, "logging_steps": 1, "eval_strategy": "no", "lr_scheduler_type": "constant"}
    rates = {"freeze_projector_steps": 10, "lora_rank": 4, "lora_learning_rate": 2e-3}
    run_training(flags(world, tmp_path / "run", **settings, **rates))
    (*lines, _) = history(tmp_path / "run")
    assert [line["learning_rate"] for line in lines] == [2e-3, 2e-3]
    assert [line["learning_rate_lora"] for line in lines] == [2e-3, 2e-3]
    assert [line["learning_rate_projector"] for line in lines] == [0, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep_layers": 5}, r"`--keep_layers` .* 4.* 5"),
        ({"encoder": "{llm}"}, r"`--encoder`.*qwen2"),
        ({"validation_split": "nowhere"}, "nowhere"),
        ({"text_column": "words"}, "words"),
    ],
)
def test_settings_that_do_not_fit_end_before_the_run_and_leave_its_directory_free(
    world, tmp_path, changes, message
):
    changes = {name: str(value).format(**world._asdict()) for name, value in changes.items()}
    with pytest.raises(SystemExit, match=rf"error: .*{message}"):
        train.main(flags(world, tmp_path / "run", **changes))
    # The report on a split that was read stands in no run's way.
    assert {path.name for path in tmp_path.glob("run/*")} <= {"data_train.json"}


def test_the_log_says_how_much_of_the_batches_is_padding(world, run):
    shares = logged(run.directory, "padding")
    assert list(shares) == list(logged(run.directory, "loss"))
    assert all(0 <= share < 0.3 for share in shares.values())
    assert any(shares.values())


def test_batches_by_seconds_of_speech_train_on_every_clip(world, tmp_path):
    trainer = run_training(
        flags(world, tmp_path / "run", num_train_epochs=2, batch_seconds=6, eval_strategy="no")
    )
    batches = len(trainer.get_train_dataloader())
    assert trainer.state.global_step == 2 * batches
    assert batches < 48 / 2


def test_a_run_of_batches_by_seconds_goes_on_within_an_epoch(world, tmp_path):
    directory = tmp_path / "run"
    settings = {"num_train_epochs": 2, "batch_seconds": 6, "eval_strategy": "no", "save_total_limit": 9}
    settings |= {"save_strategy": "steps", "save_steps": 5}
    run_training(flags(world, directory, **settings))
    losses, weights = logged(directory, "loss"), load_file(directory / "model.safetensors")
    run_training(flags(world, directory, resume_from_checkpoint=directory / "checkpoint-5", **settings))
    assert logged(directory, "loss") == losses
    resumed = load_file(directory / "model.safetensors")
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)
