"""predictions.jsonl survives kills, never mixes settings and can be scored by anyone with jiwer."""

import json
import multiprocessing
import os
import signal

import jiwer
import pytest

from modeling_slam.evaluation.metrics import error_rates
from modeling_slam.evaluation.predictions import (
    Prediction,
    PredictionStore,
    SettingsError,
    read_predictions,
)

SETTINGS = {"model": "runs/a", "num_beams": 2, "seconds": [0.5, 30.0]}


def prediction(index: int, reference: str = "een blå fugl", text: str = "een blå fugl") -> Prediction:
    return Prediction(
        id=f"clip-{index}", index=index, reference=reference, prediction=text, raw_reference=reference,
        raw_prediction=text, duration=2.0, seconds=0.5, tokens=4, speaker=None, language="da",
    )  # fmt: skip


@pytest.fixture
def store(tmp_path) -> PredictionStore:
    store = PredictionStore(tmp_path / "run")
    store.start(SETTINGS)
    return store


def test_what_is_written_is_read_back_in_dataset_order_with_letters_as_they_are(store):
    with store.open_part(0) as part:
        part.append([prediction(2), prediction(0)])
        part.append([prediction(1)])
    assert store.finish(3) == [prediction(0), prediction(1), prediction(2)] == read_predictions(store.path)
    assert "blå" in store.path.read_text(encoding="utf-8")
    assert sorted(path.name for path in store.directory.iterdir()) == [
        "predictions.jsonl",
        "predictions.settings.json",
    ]


def test_a_torn_last_line_is_dropped_and_the_next_run_appends_after_the_last_whole_one(store):
    with store.open_part(0) as part:
        part.append([prediction(0), prediction(1)])
    path = store.directory / "predictions.part-0.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert store.read() == [prediction(0)]
    with store.open_part(0) as part:
        part.append([prediction(1)])
    assert store.finish(2) == [prediction(0), prediction(1)]


def append_and_die(store: PredictionStore) -> None:
    store.open_part(0).append([prediction(0), prediction(1)])
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_keeps_every_batch_it_appended(store):
    process = multiprocessing.get_context("fork").Process(target=append_and_die, args=(store,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert store.read() == [prediction(0), prediction(1)]


def test_parts_of_several_processes_count_each_utterance_once(store):
    for process, indices in enumerate([(0, 2), (1, 2)]):
        with store.open_part(process) as part:
            part.append(prediction(index) for index in indices)
    assert [row.index for row in store.finish(3)] == [0, 1, 2]


def test_an_unfinished_set_never_becomes_predictions_jsonl(store):
    with store.open_part(0) as part:
        part.append([prediction(0)])
    with pytest.raises(RuntimeError, match="1 predictions where the dataset has 2"):
        store.finish(2)
    assert not store.path.exists()
    assert store.read() == [prediction(0)]


def test_resuming_with_the_same_settings_is_allowed(store):
    PredictionStore(store.directory).start(dict(SETTINGS, seconds=(0.5, 30.0)))


def test_resuming_with_other_settings_names_each_difference_and_changes_nothing(store):
    before = store.settings_path.read_text()
    with pytest.raises(SettingsError, match="num_beams was 2, is 4") as error:
        store.start({**SETTINGS, "num_beams": 4, "language": "nl"})
    assert "language was None, is 'nl'" in str(error.value)
    assert "model" not in str(error.value)
    assert store.settings_path.read_text() == before


def test_predictions_without_settings_are_not_adopted(tmp_path):
    (tmp_path / "predictions.jsonl").write_text("")
    with pytest.raises(SettingsError, match=r"no predictions\.settings\.json"):
        PredictionStore(tmp_path).start(SETTINGS)


@pytest.mark.parametrize(
    ("line", "message"), [("{bad", "line 1, is not JSON"), ('{"id": "x"}', r"got \['id'\]")]
)
def test_a_damaged_line_in_the_middle_is_an_error_and_names_its_place(tmp_path, line, message):
    path = tmp_path / "predictions.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(ValueError, match=message):
        read_predictions(path)


def test_ten_lines_with_jiwer_alone_recompute_the_reported_wer(store):
    texts = [("een twee drie", "een drie"), ("vier", "vier vijf"), ("zes", "acht"), ("ål på", "ål på")]
    with store.open_part(0) as part:
        part.append(prediction(index, *pair) for index, pair in enumerate(texts))
    rows = store.finish(len(texts))
    reported = error_rates([row.reference for row in rows], [row.prediction for row in rows])["wer"]

    with store.path.open(encoding="utf-8") as lines:
        table = [json.loads(line) for line in lines]
    assert jiwer.wer([row["reference"] for row in table], [row["prediction"] for row in table]) == reported
    assert reported == pytest.approx(3 / 7)
