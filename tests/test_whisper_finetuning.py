"""Whisper fine-tuned beside ours: the clock ends it, and `eval.py` reads what it kept as it was validated."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_whisper import write_decoding_whisper
from tiny_world import write_speech
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer
from transformers.models.whisper.modeling_whisper import shift_tokens_right

import eval as eval_script
from benchmarks import whisper_finetuning
from benchmarks.whisper_finetuning import WallClock, WhisperCollator

TELLS_LANGUAGE = {"multilingual": {"language": "en", "task": "transcribe"}, "english": {}}


@pytest.fixture(params=list(TELLS_LANGUAGE))
def whisper(request, tmp_path) -> Path:
    directory = tmp_path / request.param
    directory.mkdir()
    write_decoding_whisper(directory, request.param)
    return directory


@pytest.fixture
def speech(tmp_path) -> Path:
    write_speech(tmp_path / "speech", np.random.default_rng(0))
    return tmp_path / "speech"


@pytest.mark.e2e
def test_eval_finds_the_error_rate_of_the_best_validation(whisper, speech, tmp_path):
    tuned, results = tmp_path / "tuned", tmp_path / "results"
    data = ["--dataset", str(speech), "--language", "en", "--num_workers", "0"]
    whisper_finetuning.main(
        [
            *("--model", str(whisper), *data, "--max_validation_clips", "3", "--batch_size", "4"),
            *("--output_dir", str(tuned), "--learning_rate", "1e-2", "--warmup", "0"),
            *("--minutes", "0.15", "--validate_minutes", "0.001"),
        ]
    )
    facts = json.loads((tuned / "finetuning.json").read_text(encoding="utf-8"))
    assert facts["seconds"] >= 0.15 * 60
    assert facts["validations"]
    assert facts["validations"][-1]["step"] == facts["steps"]
    assert facts["best"]["wer"] == min(validation["wer"] for validation in facts["validations"])
    assert not list(tuned.glob("checkpoint-*"))
    before, after = (
        WhisperForConditionalGeneration.from_pretrained(path).state_dict() for path in (whisper, tuned)
    )
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same <= {"model.encoder.embed_positions.weight"}, "all that Whisper's authors trained is trained"

    eval_script.main(
        [
            *("--model", str(tuned), "--baseline", "whisper", "--num_beams", "1", *data),
            *("--split", "validation", "--max_validation_clips", "3", "--output_dir", str(results)),
        ]
    )
    metrics = json.loads((results / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["utterances"] == 3
    assert metrics["wer"] == pytest.approx(facts["best"]["wer"])
    assert metrics["cer"] == pytest.approx(facts["best"]["cer"])


def test_labels_are_prompt_and_transcript_shifted_as_transformers_does(whisper, speech):
    tokenizer = WhisperTokenizer.from_pretrained(whisper)
    tokenizer.set_prefix_tokens(**TELLS_LANGUAGE[whisper.name])
    collator = WhisperCollator(WhisperFeatureExtractor.from_pretrained(whisper), tokenizer)
    rows = [
        {"audio": str(speech / f"train/train-00{number}.flac"), "text": text}
        for number, text in enumerate(["up", "down and up"])
    ]
    batch = collator(rows)
    assert batch["input_features"].shape == (2, 8, 3000)
    start, end = tokenizer.convert_tokens_to_ids(["<|startoftranscript|>", "<|endoftext|>"])
    prompt = {"multilingual": "<|en|><|transcribe|><|notimestamps|>", "english": "<|notimestamps|>"}
    for labels, row in zip(batch["labels"], rows, strict=True):
        written = tokenizer.decode(labels[labels >= 0])
        assert written == f"{prompt[whisper.name]} {row['text']}<|endoftext|>"
    assert torch.equal(batch["decoder_input_ids"], shift_tokens_right(batch["labels"], end, start))


def test_the_rate_rises_and_falls_with_the_clock_whatever_the_step(monkeypatch):
    now = 100.0
    monkeypatch.setattr(whisper_finetuning.time, "monotonic", lambda: now)
    clock = WallClock(minutes=10, validate_minutes=2, warmup=0.1)
    clock.on_train_begin()
    factors = []
    for seconds in (0, 30, 60, 330, 600, 700):
        now = 100.0 + seconds
        factors.append(clock.rate_factor(step=7))
    assert factors == pytest.approx([0, 0.5, 1, 0.5, 0, 0])


def test_a_transcript_too_long_for_the_decoder_is_named_before_training(whisper, speech, tmp_path):
    table = speech / "train/metadata.csv"
    lines = table.read_text(encoding="utf-8").splitlines()
    name, _, *rest = lines[1].split(",")
    lines[1] = ",".join([name, "up " * 200, *rest])
    table.write_text("\n".join(lines), encoding="utf-8")
    flags = ["--model", str(whisper), "--dataset", str(speech), "--language", "en", "--minutes", "1"]
    with pytest.raises(SystemExit, match=r"train-000.* at most 448"):
        whisper_finetuning.main([*flags, "--output_dir", str(tmp_path / "tuned")])
