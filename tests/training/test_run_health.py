"""A run that cannot succeed says so: it ends with one line, or warns and names what to try."""

import csv
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
import torch
from tiny_run import TWO_PROCESSES, flags, logged, started
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    EvalPrediction,
    Trainer,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

import train
from modeling_slam.data import DataArguments, load_speech
from modeling_slam.data.collator import CLIP_IDS, SpeechCollator
from modeling_slam.training.run_health import (
    STEPS_TO_LISTEN,
    RunError,
    RunHealth,
    WatchedTrainer,
    describe_best,
    losses_by_audio,
    readable,
    show_clips,
)
from modeling_slam.training.validation import ValidationMetrics

BAD = "train-005.flac"


@pytest.fixture(scope="module")
def spoilt(world, tmp_path_factory) -> dict[str, Any]:
    """Flags of a run whose LLM has no sound embedding of a digit that one training clip alone says."""
    directory = tmp_path_factory.mktemp("spoilt")
    speech = shutil.copytree(world.dataset, directory / "speech")
    table = speech / "train" / "metadata.csv"
    rows = list(csv.reader(table.open(encoding="utf-8")))
    assert rows[6][0] == BAD
    rows[6][1] += " 7"
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    llm = AutoModelForCausalLM.from_pretrained(world.llm)
    llm.config.tie_word_embeddings = False  # or no token would have a finite logit
    llm.lm_head.weight = torch.nn.Parameter(llm.lm_head.weight.detach().clone())
    tokenizer = AutoTokenizer.from_pretrained(world.llm)
    llm.get_input_embeddings().weight.data[tokenizer.convert_tokens_to_ids("7")] = torch.nan
    for part in (llm, tokenizer):
        part.save_pretrained(directory / "llm")
    return {"dataset": speech, "llm": directory / "llm", "projector_scale": 1.0}


def saved(run: Path) -> list[str]:
    return [path.name for path in run.rglob("*") if path.suffix in (".safetensors", ".pt")]


@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 3}, {"max_grad_norm": 0.0}])
def test_a_loss_that_is_no_number_ends_the_run_and_names_step_and_clips(world, spoilt, tmp_path, settings):
    run = tmp_path / "run"
    settings |= spoilt | {"train_sampling_strategy": "sequential", "eval_strategy": "no"}
    with pytest.raises(SystemExit) as ended:
        train.main(flags(world, run, save_strategy="no", **settings))
    line = str(ended.value)
    assert line.startswith("error: The loss is nan at step ")
    assert "\n" not in line
    step = 1 if "gradient_accumulation_steps" in settings else 2
    assert f"at step {step}," in line
    # The batch that went wrong, and no other batch of its step.
    assert f": train-004.flac, {BAD}, train-006.flac, train-007.flac. " in line
    assert not saved(run)


@pytest.mark.parametrize(
    "settings", [{"max_steps": 4}, {"max_steps": 2}, {"max_steps": 2, "eval_strategy": "no"}]
)
def test_a_run_that_diverges_saves_no_model_and_fails(world, tmp_path, settings):
    run = tmp_path / "run"
    with pytest.raises(SystemExit, match=r"error: .*loss is (nan|inf).*`--learning_rate`"):
        train.main(flags(world, run, learning_rate=1e30, save_strategy="no", **settings))
    assert not saved(run)


def test_a_stage_of_alignment_ends_as_well_and_names_its_own_flag(world, tmp_path):
    settings = {"align_epochs": 1, "align_learning_rate": 1e30, "max_steps": 1}
    with pytest.raises(SystemExit, match=r"error: The loss is .*train-.*`--align_learning_rate`"):
        train.main(flags(world, tmp_path / "run", **settings))
    assert not saved(tmp_path / "run" / "alignment")


@pytest.mark.e2e
def test_two_processes_end_together_with_one_line(world, spoilt, tmp_path):
    log, run = tmp_path / "log", tmp_path / "run"
    settings = spoilt | {"train_sampling_strategy": "sequential", "per_device_train_batch_size": 2}
    with started(log, *TWO_PROCESSES, "train.py", *flags(world, run, **settings)) as process:
        assert process.wait(timeout=120) != 0
    lines = [line for line in log.read_text().splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert "at step 2," in lines[0]
    assert f"batch: train-004.flac, {BAD}." in lines[0]
    assert "Stopped by" not in log.read_text()
    assert not saved(run)


class Line(torch.nn.Module):
    """Any model: its loss is the mean of what it makes of x."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.weight * x).mean(), "logits": x}


class AnyTrainer(WatchedTrainer, Trainer):
    """A trainer of another kind than `SlamTrainer`."""


def any_trainer(directory: Path, rows: list[tuple[str, float]], **settings) -> AnyTrainer:
    arguments = TrainingArguments(
        str(directory), use_cpu=True, per_device_train_batch_size=1, report_to="none", disable_tqdm=True,
        remove_unused_columns=False, train_sampling_strategy="sequential", save_strategy="no", **settings,
    )  # fmt: skip

    def collate(batch: list[tuple[str, float]]) -> dict:
        return {"x": torch.tensor([[x] for _, x in batch]), CLIP_IDS: [name for name, _ in batch]}

    return AnyTrainer(Line(), arguments, data_collator=collate, train_dataset=rows)


def test_any_trainer_can_watch(tmp_path):
    any_trainer(tmp_path, [("a", 1.0), ("b", 2.0)]).train()
    with pytest.raises(RunError, match=r"loss is inf at step 2,.* batch: b\. "):
        any_trainer(tmp_path, [("a", 1.0), ("b", float("inf")), ("c", 1.0)]).train()


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    trainer = any_trainer(tmp_path, [("a", 1.0)])
    trainer.model.weight.data.fill_(float("nan"))
    with pytest.raises(RunError, match="weight"):
        trainer.save_model()
    assert not saved(tmp_path)


def test_batches_name_their_clips(world, tiny_processor):
    data, _ = load_speech(DataArguments(dataset=str(world.dataset)), "validation")
    batch = SpeechCollator(tiny_processor)([data[0], data[1]])
    assert batch[CLIP_IDS] == [data[0]["id"], data[1]["id"]]


class ByAudio(torch.nn.Module):
    """A model whose loss says how far the audio is from what the text asks for, as far as it `listens`."""

    def __init__(self, listens: float, queries: int | None = None):
        super().__init__()
        self.listens, self.device = listens, "cpu"
        self.config = SimpleNamespace(projector_queries=queries)

    def forward(self, input_features: torch.Tensor, labels: torch.Tensor):
        return SimpleNamespace(loss=1 + self.listens * (input_features != labels).float().mean())


def health(is_aligned: bool = False) -> RunHealth:
    def collate(rows: list[int]) -> dict:
        return {"input_features": torch.tensor(rows), "labels": torch.tensor(rows), CLIP_IDS: rows}

    return RunHealth(list(range(20)), collate, is_aligned)


def warned(caplog, model: ByAudio, wer: float | None, same: float = 0.0, is_aligned: bool = False) -> str:
    caplog.clear()
    metrics = {"eval_loss": 1.0, "eval_same": same} | ({} if wer is None else {"eval_wer": wer})
    health(is_aligned).on_evaluate(
        None, TrainerState(global_step=7), TrainerControl(), model=model, metrics=metrics
    )
    return caplog.text


def test_a_validation_on_the_plateau_is_named_with_what_to_try(caplog):
    for wer in (0.9, None):
        assert "--align_epochs" in warned(caplog, ByAudio(0.1), wer)
        assert not warned(caplog, ByAudio(2.0), wer), "it listens"
    assert "Step 7: the loss is 1.00, and 1.10 with another clip's audio" in warned(caplog, ByAudio(0.1), 1.0)
    assert not warned(caplog, ByAudio(0.1), 0.5), "words come from the audio"
    assert "--llm_input" in warned(caplog, ByAudio(0.1), 1.0, is_aligned=True)
    assert "--projector_type" in warned(caplog, ByAudio(0.1, queries=8), 1.0)


def test_one_transcript_for_most_clips_is_named_with_its_share(caplog):
    assert "75 % of the clips got one wrong transcript" in warned(caplog, ByAudio(2.0), 1.0, same=0.75)
    assert not warned(caplog, ByAudio(2.0), 1.0, same=0.5)


def test_the_share_counts_wrong_transcripts_alone():
    clips = datasets.Dataset.from_dict({"language": ["en"] * 4})
    metrics = ValidationMetrics(lambda rows: rows, clips)
    assert metrics(EvalPrediction(["yes"] * 4, ["yes", "yes", "no", "up"]))["same"] == 0.5


def test_a_run_without_validation_on_the_plateau_is_told_of_alignment_until_it_listens(caplog):
    watch, step = health(), STEPS_TO_LISTEN
    watch.on_step_end(None, TrainerState(global_step=step - 1), TrainerControl(), model=ByAudio(0.0))
    assert not caplog.text
    watch.on_step_end(None, TrainerState(global_step=step), TrainerControl(), model=ByAudio(0.0))
    assert f"Step {step}: " in caplog.text
    assert "--align_epochs" in caplog.text
    caplog.clear()
    watch.on_step_end(None, TrainerState(global_step=2 * step), TrainerControl(), model=ByAudio(3.0))
    watch.on_step_end(None, TrainerState(global_step=3 * step), TrainerControl(), model=ByAudio(0.0))
    assert not caplog.text


def test_a_real_model_is_asked_without_a_change_of_its_state(tiny_model, tiny_processor, two_clips):
    batch = dict(tiny_processor(two_clips, text=["one", "two words"]))
    tiny_model.train()
    state = torch.get_rng_state()
    own, other = losses_by_audio(tiny_model, batch)
    assert own != other
    assert own == pytest.approx(tiny_model.eval()(**batch).loss.item())
    assert losses_by_audio(tiny_model.train(), batch) == (own, other)
    assert tiny_model.training
    assert torch.equal(state, torch.get_rng_state())


def test_a_validation_shows_the_same_three_clips_in_whatever_order_they_come(caplog):
    caplog.set_level(logging.INFO)
    clips = [(f"reference {n}", f"transcript {n}") for n in range(10)]
    texts = []
    for order in (clips, clips[::-1]):
        caplog.clear()
        show_clips([reference for reference, _ in order], [transcript for _, transcript in order])
        texts.append([record.message for record in caplog.records])
    assert texts[0] == texts[1]
    assert len(texts[0]) == 3
    assert all(text.count(text.rpartition(" ")[2]) == 2 for text in texts[0]), "reference and its transcript"


@pytest.mark.e2e
def test_the_end_of_a_run_names_its_best_step_and_wer(world, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    run = tmp_path / "run"
    train.main(flags(world, run, num_train_epochs=3))
    rates = logged(run, "eval_wer")
    step = min(rates, key=rates.get)
    assert f"Best validation: step {step}, WER {100 * rates[step]:.2f} %; the model is of that" in caplog.text
    assert caplog.text.count("reference: ") == 9


def test_the_best_step_is_named_by_the_metric_of_the_run():
    history = [{"step": 1, "eval_loss": 1.0, "eval_wer": 0.5}, {"step": 2, "eval_loss": 2.0, "eval_wer": 0.4}]
    arguments = SimpleNamespace(metric_for_best_model="loss", load_best_model_at_end=False)
    assert describe_best(history, arguments) == (
        "Best validation: step 1, WER 50.00 %, loss 1; the model is of the last step."
    )
    assert describe_best([{"step": 1, "loss": 1.0}], arguments) is None


@pytest.fixture(scope="module")
def stopped(world, tmp_path_factory) -> Path:
    """A run with a checkpoint after each of 2 steps, as if it had been killed behind the second."""
    run = tmp_path_factory.mktemp("stopped") / "run"
    train.main(flags(world, run, **SHORT))
    (run / "model.safetensors").unlink()
    return run


SHORT = {"max_steps": 4, "eval_strategy": "no", "save_strategy": "steps", "save_steps": 2}


@pytest.mark.parametrize("file", ["optimizer.pt", "model.safetensors", "scheduler.pt", "rng_state.pth", None])
def test_a_damaged_checkpoint_ends_in_one_line(world, stopped, tmp_path, file):
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    shutil.rmtree(run / "checkpoint-4")
    path = run / "checkpoint-2" / (file or "optimizer.pt")
    whole = path.read_bytes()
    path.unlink()
    if file is not None:
        path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SystemExit, match=r"error: .*checkpoint-2 is damaged \(.*\)\. Delete it") as ended:
        train.main(flags(world, run, resume_from_checkpoint="last", **SHORT))
    assert "\n" not in str(ended.value)


def test_a_lack_of_memory_is_not_taken_for_damage():
    with pytest.raises(torch.OutOfMemoryError), readable("checkpoint-2"):
        raise torch.OutOfMemoryError
