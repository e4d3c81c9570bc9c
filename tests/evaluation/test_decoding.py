"""Every clip is decoded once, whatever its batch, and not again on resume."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from accelerate import PartialState

from modeling_slam.data import DataArguments, load_speech, normalize_text
from modeling_slam.evaluation.arguments import EvaluationArguments
from modeling_slam.evaluation.decoding import (
    SlamRecogniser,
    Transcript,
    batches_of,
    decode,
    read_transcripts,
)
from modeling_slam.evaluation.predictions import PredictionStore
from modeling_slam.model.audio_io import load_audio


@pytest.fixture
def dataset(speech_folder):
    return load_speech(DataArguments(dataset=str(speech_folder), language="nl"), "test")[0]


@pytest.fixture
def store(tmp_path):
    store = PredictionStore(tmp_path / "run")
    store.start({})
    return store


def recogniser(checkpoint, **changes) -> SlamRecogniser:
    arguments = EvaluationArguments(model=str(checkpoint), output_dir="", max_new_tokens=6, **changes)
    return SlamRecogniser(arguments, torch.device("cpu"))


def test_batched_predictions_equal_clips_decoded_alone_by_the_model(
    checkpoint, dataset, store, tiny_model, tiny_processor
):
    decode(recogniser(checkpoint), dataset, store, PartialState(cpu=True), batch_size=3, num_workers=0)
    rows = store.finish(len(dataset))
    for row, example in zip(rows, dataset, strict=True):
        inputs = tiny_processor(audio=[load_audio(example["audio"])])
        generated = tiny_model.generate(**inputs, num_beams=2, max_new_tokens=6)
        expected = tiny_processor.batch_decode(generated, skip_special_tokens=True)[0]
        assert (row.id, row.raw_prediction) == (example["id"], expected)
        assert row.prediction == normalize_text(expected, "nl")
        assert (row.reference, row.raw_reference) == (example["text"], example["raw_text"])
        assert row.duration == example["duration"]
    assert all(row.seconds > 0 for row in rows)
    assert rows[4].reference == "'s nachts tien"


def test_the_longest_clips_come_first(checkpoint, dataset, store):
    decode(recogniser(checkpoint), dataset, store, PartialState(cpu=True), batch_size=2, num_workers=0)
    lines = (store.directory / "predictions.part-0.jsonl").read_text().splitlines()
    order = [line.split('"index": ')[1].split(",")[0] for line in lines]
    assert order == ["1", "3", "0", "4", "2"]


def test_a_batch_is_bounded_in_clips_and_in_seconds():
    seconds = [31.0, 12.0, 9.0, 5.0, 5.0, 4.0, 1.0, 1.0, 1.0, 1.0, 0.5]
    assert batches_of(seconds, 4, 24.0) == [[0], [1, 2], [3, 4, 5, 6], [7, 8, 9, 10]]
    assert batches_of(seconds, 1, 24.0) == [[place] for place in range(11)]
    assert batches_of(seconds, 8, math.inf) == [list(range(8)), [8, 9, 10]]
    assert batches_of([], 8, 24.0) == []


def test_silence_that_clips_are_padded_with_counts(checkpoint, dataset, store, monkeypatch):
    slam = recogniser(checkpoint)
    slam.processor.pad_to_seconds = 5.0
    sizes, transcribe = [], slam.transcribe
    monkeypatch.setattr(
        slam, "transcribe", lambda inputs: sizes.append(len(inputs["input_ids"])) or transcribe(inputs)
    )
    decode(slam, dataset, store, PartialState(cpu=True), batch_size=8, num_workers=0, batch_seconds=10.0)
    assert sizes == [2, 2, 1]


def test_loader_workers_give_the_same_predictions(checkpoint, dataset, tmp_path):
    texts = []
    for workers in (0, 1):
        store = PredictionStore(tmp_path / str(workers))
        store.start({})
        decode(recogniser(checkpoint), dataset, store, PartialState(cpu=True), 2, num_workers=workers)
        texts.append([row.raw_prediction for row in store.finish(len(dataset))])
    assert texts[0] == texts[1]


def test_an_interrupted_run_continues_with_the_missing_clips_alone(checkpoint, dataset, store, monkeypatch):
    slam = recogniser(checkpoint)
    transcribe = slam.transcribe
    batches = itertools.count()

    def fail_in_the_second_batch(inputs):
        if next(batches) == 1:
            raise KeyboardInterrupt
        return transcribe(inputs)

    monkeypatch.setattr(slam, "transcribe", fail_in_the_second_batch)
    with pytest.raises(KeyboardInterrupt):
        decode(slam, dataset, store, PartialState(cpu=True), batch_size=2, num_workers=0)
    kept = store.read()
    assert [row.index for row in kept] == [1, 3]

    seen = []
    monkeypatch.setattr(slam, "transcribe", lambda inputs: seen.append(inputs) or transcribe(inputs))
    decode(slam, dataset, store, PartialState(cpu=True), batch_size=2, num_workers=0)
    assert sum(len(inputs["input_ids"]) for inputs in seen) == 3
    rows = store.finish(len(dataset))
    assert [rows[1], rows[3]] == kept


@dataclasses.dataclass
class Ends:
    eos_token_id: int | list[int]
    pad_token_id: int


@pytest.mark.parametrize("ends", [Ends(1, 0), Ends([1, 9], 0), Ends(1, 1)])
def test_tokens_are_counted_up_to_end_of_text_and_reach_the_limit_only_where_cut(tiny_tokenizer, ends):
    padding = ends.pad_token_id
    a, b = tiny_tokenizer.convert_tokens_to_ids(["a", "b"])
    generated = torch.tensor([[a, b, 1, padding], [a, b, a, b], [1, padding, padding, padding]])
    assert read_transcripts(generated, tiny_tokenizer, ends) == [
        Transcript("ab", 2),
        Transcript("abab", 4),
        Transcript("", 0),
    ]


def test_features_are_made_without_the_model(checkpoint):
    prepare = recogniser(checkpoint).prepare()
    features = prepare(audio=[np.zeros(16_000, np.float32)])
    assert features["input_features"].shape[0] == 1
    assert not any(isinstance(value, torch.nn.Module) for value in vars(prepare).values())
