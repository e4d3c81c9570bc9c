"""predictions.jsonl survives kills, never mixes settings and can be scored by anyone with jiwer."""

import dataclasses
import json
import multiprocessing
import os
import re
import signal
from pathlib import Path

import jiwer
import pytest
from full_disk import full_disk

from modeling_slam.common.files import DiskFullError
from modeling_slam.evaluation.metrics import error_rates
from modeling_slam.evaluation.predictions import (
    Prediction,
    PredictionStore,
    SettingsError,
    read_predictions,
    to_lines,
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
    with pytest.raises(SettingsError, match=r"predictions\.settings\.json is missing or damaged"):
        PredictionStore(tmp_path).start(SETTINGS)


GOOD = json.dumps(dataclasses.asdict(prediction(0)))


def with_value(**values) -> str:
    return json.dumps(json.loads(GOOD) | values)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{bad", "is no JSON"),
        (GOOD[:-9], "is no JSON"),
        ("\0" * 40, "is no JSON"),
        (GOOD + GOOD, "is no JSON"),
        ("[1, 2]", r"expected an object with the fields of a prediction, got \[1, 2\]"),
        ("null", "got null"),
        ('{"id": "x"}', "got no duration, index, language"),
        (GOOD[:-1] + ', "more": 1}', "got also more"),
        (with_value(prediction=None), "`prediction` must be str, got null"),
        (with_value(reference=7), "`reference` must be str, got 7"),
        (with_value(raw_prediction="\ud800"), "`raw_prediction` must be str"),
        (with_value(index=-1), "`index` must be int, got -1"),
        (with_value(index=True), "`index` must be int, got true"),
        (with_value(index=0.5), "`index` must be int, got 0.5"),
        (with_value(tokens="4"), "`tokens` must be int"),
        (with_value(duration=float("nan")), "`duration` must be float, got NaN"),
        (with_value(seconds=None), "`seconds` must be float, got null"),
        (with_value(seconds=10**400), "`seconds` must be float, got 1000"),
        (with_value(duration=1e308), "`duration` must be float, got 1e.308"),
        ("[" * 100_000, "is no JSON"),
        (with_value(speaker=["a"]), "`speaker` must be str | None"),
        (GOOD, "has the clip 'clip-0' of line 1 again"),
        (with_value(id="other"), "has the index 0 of line 1 again"),
    ],
)
@pytest.mark.parametrize("end", ["\n", ""])
def test_a_line_that_is_no_prediction_is_an_error_that_names_file_and_line(tmp_path, line, message, end):
    path = tmp_path / "predictions.jsonl"
    path.write_text(f"{GOOD}\n{line}{end}", encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(f"{path}, line 2")) as error:
        read_predictions(path)
    assert re.search(message.replace("|", r"\|"), str(error.value))
    assert str(error.value).endswith("Delete that line and run the same `eval.py` command again: it decodes "
                                     "what is missing.")  # fmt: skip
    assert "\n" not in str(error.value)


def test_what_an_editor_does_to_a_file_changes_nothing(tmp_path):
    """A byte order mark, Windows' line ends, an empty line, no line end at the end."""
    path = tmp_path / "predictions.jsonl"
    lines = [json.dumps(dataclasses.asdict(prediction(index))) for index in range(2)]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(lines).encode())
    assert read_predictions(path) == [prediction(0), prediction(1)]


def test_a_file_that_an_editor_saved_as_utf_16_is_said_to_be(tmp_path):
    path = tmp_path / "predictions.jsonl"
    for encoding in ("utf-16-le", "utf-16-be"):
        path.write_bytes(("\ufeff" + to_lines([prediction(0), prediction(1)])).encode(encoding))
        with pytest.raises(ValueError, match=r"predictions\.jsonl is UTF-16 text .* Save it as UTF-8\."):
            read_predictions(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (prediction(7), "'clip-7' is no clip of this dataset"),
        (dataclasses.replace(prediction(1), index=2), "'clip-1' has the index 2, and is number 1 of this"),
        (prediction(1, "een"), "'clip-1' has another reference than the dataset"),
        (dataclasses.replace(prediction(1), raw_reference="Een"), "'clip-1' has another raw_reference than"),
        (dataclasses.replace(prediction(1), duration=0), "'clip-1' has another duration than the dataset"),
    ],
)
@pytest.mark.parametrize("part", [True, False])
def test_a_line_of_another_dataset_is_named_and_once_deleted_its_clip_is_decoded_again(
    store, row, message, part
):
    path = store.directory / ("predictions.part-0.jsonl" if part else "predictions.jsonl")
    text = "een blå fugl"
    dataset = [{"id": f"clip-{i}", "text": text, "raw_text": text, "duration": 2.0} for i in range(3)]
    path.write_text(to_lines([prediction(0), row, prediction(2)]), encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(f"{path}, line 2: {message}")):
        store.check(dataset)
    path.write_text(to_lines([prediction(0), prediction(2)]), encoding="utf-8")
    store.check(dataset)
    with store.open_part(1) as lines:
        lines.append([prediction(1)])
    assert store.finish(3) == [prediction(0), prediction(1), prediction(2)]


@pytest.mark.parametrize("content", ["", "{", "null", "[]", '{"model": ', "[" * 100_000])
def test_settings_that_cannot_be_read_are_named_with_advice_that_helps(tmp_path, content):
    store = PredictionStore(tmp_path)
    store.settings_path.write_text(content)
    store.start(SETTINGS)  # no prediction is there that they could be needed for
    assert store.read_settings() == json.loads(json.dumps(SETTINGS))
    store.path.write_text(to_lines([prediction(0)]))
    store.settings_path.write_text(content)
    with pytest.raises(
        SettingsError, match=r"settings\.json is missing or damaged.* Delete .*predictions\.\* "
    ):
        store.start(SETTINGS)
    for file in tmp_path.glob("predictions.*"):
        file.unlink()
    store.start(SETTINGS)
    assert store.read() == []


def test_settings_saved_with_a_byte_order_mark_are_the_same(store):
    store.settings_path.write_bytes(b"\xef\xbb\xbf" + store.settings_path.read_bytes())
    store.start(SETTINGS)


def test_a_slash_at_the_end_of_a_path_is_no_other_setting(store):
    for model in ("runs/a/", "./runs/a", "runs//a"):
        store.start(SETTINGS | {"model": model})
    with pytest.raises(SettingsError, match="model was 'runs/a', is 'runs/b/'"):
        store.start(SETTINGS | {"model": "runs/b/"})


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


def test_the_documented_lines_for_whole_speakers_are_honest_where_nobody_is_named(store, capsys):
    page = Path(__file__).parents[2].joinpath("docs", "evaluation.md").read_text(encoding="utf-8")
    snippets = [part.split("```")[0] for part in page.split("```python\n")]
    (lines,) = [snippet for snippet in snippets if snippet.startswith("from modeling_slam")]
    store.path.write_text(to_lines(prediction(index, "a b", "a x") for index in range(20)), encoding="utf-8")
    exec(lines.replace("results/nl-medium/predictions.jsonl", str(store.path)), {})
    rate, low, high = map(float, re.findall(r"[\d.]+", capsys.readouterr().out))
    assert rate == 0.5
    assert 0.2 < low < 0.4 < 0.6 < high < 0.8


def decode_all(directory, start, answers) -> None:
    """As an evaluation goes, on twenty new directories."""
    for number in range(20):
        start.wait()
        store = PredictionStore(directory / str(number))
        store.start(SETTINGS)
        done = {row.index for row in store.read()}
        with store.open_part(0) as part:
            for index in range(6):
                if index not in done:
                    part.append([prediction(index)])
        answers.put([row.index for row in store.finish(6)])


@pytest.mark.parametrize("processes", [2, 3])
def test_several_evaluations_of_one_new_directory_all_end_well(tmp_path, processes):
    context = multiprocessing.get_context("fork")
    start, answers = context.Barrier(processes), context.Queue()
    started = [context.Process(target=decode_all, args=(tmp_path, start, answers)) for _ in range(processes)]
    for process in started:
        process.start()
    found = [answers.get(timeout=60) for _ in range(20 * processes)]
    for process in started:
        process.join()
    assert found == [list(range(6))] * (20 * processes)
    for number in range(20):
        rows = read_predictions(tmp_path / str(number) / "predictions.jsonl")
        assert rows == [prediction(index) for index in range(6)]


def hold(directory, settings, begun, end) -> None:
    PredictionStore(directory).start(settings)
    begun.set()
    end.wait()


def test_other_settings_are_refused_at_once_while_a_process_decodes(tmp_path):
    context = multiprocessing.get_context("fork")
    begun, end = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path / "run", SETTINGS, begun, end))
    process.start()
    begun.wait()
    with pytest.raises(SettingsError, match="num_beams was 2, is 4"):
        PredictionStore(tmp_path / "run").start({**SETTINGS, "num_beams": 4})
    process.kill()  # whoever dies holds nothing
    process.join()
    PredictionStore(tmp_path / "run").start(SETTINGS)


def test_a_batch_that_has_no_room_is_not_half_written_and_decoded_again_later(store):
    path = store.directory / "predictions.part-0.jsonl"
    with store.open_part(0) as part:
        part.append([prediction(0)])
        size = path.stat().st_size
        with full_disk(2 * size + 10), pytest.raises(DiskFullError, match=f"no room for {path}: it takes "):
            part.append([prediction(1), prediction(2)])
    assert path.stat().st_size == size
    assert store.read() == [prediction(0)]
    with store.open_part(0) as part:
        part.append([prediction(1), prediction(2)])
    with full_disk(size), pytest.raises(DiskFullError, match=f"no room for {store.path}: it takes "):
        store.finish(3)
    assert not store.path.exists()
    assert [row.index for row in store.finish(3)] == [0, 1, 2]


def test_the_name_of_the_dataset_is_written_where_there_is_one_and_a_line_without_it_is_read(tmp_path):
    path = tmp_path / "predictions.jsonl"
    rows = [prediction(0), dataclasses.replace(prediction(1), dataset="sky")]
    path.write_text(to_lines(rows), encoding="utf-8")
    first, second = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert "dataset" not in first
    assert second["dataset"] == "sky"
    assert read_predictions(path) == rows
    path.write_text(json.dumps(second | {"dataset": 3}), encoding="utf-8")
    with pytest.raises(ValueError, match="`dataset` must be"):
        read_predictions(path)


def test_a_process_that_looks_in_while_another_begins_is_let_in(tmp_path):
    first = PredictionStore(tmp_path)

    class Second(PredictionStore):
        def read_settings(self):
            """As if the other began right behind this."""
            found = super().read_settings()
            if found is None:
                first.start({"a": 1})
                first.open_part(0).append([prediction(0)])
            return found

    second = Second(tmp_path)
    second.start({"a": 1})
    assert [row.index for row in second.finish(1)] == [0]
