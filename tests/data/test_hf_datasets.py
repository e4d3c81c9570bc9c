"""datasets sources: parquet, json, saved and streamed data give the same clips as any other source."""

import io
import json
import os
import subprocess
import sys

import datasets
import pytest
import soundfile
from fake_hub import FakeHub

from modeling_slam.data import DataArguments, DataError, load_speech
from modeling_slam.model.audio_io import AudioError, load_audio


@pytest.fixture
def table(make_sound):
    """Ten FLAC clips of 1.0 to 1.9 s with their bytes in the table, the fourth without a text."""

    def flac(number):
        buffer = io.BytesIO()
        soundfile.write(buffer, make_sound(1 + number / 10), 16_000, format="FLAC")
        return buffer.getvalue()

    return datasets.Dataset.from_dict(
        {
            "speech": [{"bytes": flac(number), "path": f"{number}.flac"} for number in range(10)],
            "sentence": [None if number == 3 else f"Sentence {number}!" for number in range(10)],
            "key": [f"key-{number}" for number in range(10)],
            "who": [number % 2 for number in range(10)],
        }
    ).cast_column("speech", datasets.Audio(decode=False))


@pytest.fixture
def parquet(table, tmp_path):
    (tmp_path / "corpus").mkdir()
    table.to_parquet(tmp_path / "corpus" / "train-00000-of-00001.parquet")
    return tmp_path / "corpus"


def arguments(dataset, **settings):
    columns = {"audio_column": "speech", "text_column": "sentence", "speaker_column": "who"}
    return DataArguments(str(dataset), language="en", **{**columns, **settings})


def check(clips, report, ids):
    assert clips["id"][:] == ids
    assert clips["text"][:] == [f"sentence {number}" for number in range(10) if number != 3]
    assert clips["speaker"][:3] == ["0", "1", "0"]
    assert clips["duration"][0] == 1.0
    assert len(load_audio(clips[0]["audio"])) == 16_000
    assert report.reasons == {"empty transcript": 1}


def test_local_parquet_with_mapped_columns_loads(parquet):
    clips, report = load_speech(arguments(parquet), "train")
    check(clips, report, [f"{number}.flac" for number in range(10) if number != 3])


def test_a_file_of_no_split_beside_those_of_splits_is_named_in_the_report(parquet, table, tmp_path):
    before, report = load_speech(arguments(parquet), "train")
    assert report.note is None
    table.to_parquet(tmp_path / "corpus" / "everything.parquet")
    clips, report = load_speech(arguments(parquet), "train")
    assert len(clips) == len(before)
    assert "not read: everything.parquet, of no split" in report.summary()


def test_an_id_column_names_the_clips(parquet):
    clips, report = load_speech(arguments(parquet, id_column="key"), "train")
    check(clips, report, [f"key-{number}" for number in range(10) if number != 3])


def test_saved_datasets_load_with_and_without_splits(table, tmp_path):
    table.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": table, "test": table.select([1])}).save_to_disk(tmp_path / "both")
    ids = [f"{number}.flac" for number in range(10) if number != 3]
    check(*load_speech(arguments(tmp_path / "one"), "train"), ids)
    check(*load_speech(arguments(tmp_path / "both"), "train"), ids)
    assert load_speech(arguments(tmp_path / "both"), "test")[0]["id"][:] == ["1.flac"]
    clips, report = load_speech(arguments(tmp_path / "one"), "test")
    check(clips, report, ids)
    assert "it has no splits: all of it is read for the test" in report.summary()
    with pytest.raises(DataError, match="no split 'validation'; it has test, train"):
        load_speech(arguments(tmp_path / "both"), "validation")


def test_paths_that_are_not_unique_give_way_to_row_numbers(table, tmp_path):
    same = [{"bytes": row["bytes"], "path": "audio.flac"} for row in table["speech"]]
    renamed = table.remove_columns("speech").add_column("speech", same)
    renamed.cast_column("speech", datasets.Audio(decode=False)).save_to_disk(tmp_path / "same")
    clips, _ = load_speech(arguments(tmp_path / "same"), "train")
    assert clips["id"][:3] == ["00000000", "00000001", "00000002"]
    assert len(clips) == 9


def test_json_lines_with_paths_load(tmp_path, make_sound):
    (tmp_path / "corpus").mkdir()
    lines = []
    for number in range(3):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, make_sound(1.0), 16_000)
        lines.append(f'{{"speech": "{path}", "sentence": "Number {number}", "who": "me"}}')
    (tmp_path / "corpus" / "train.jsonl").write_text("\n".join(lines))
    clips, _ = load_speech(arguments(tmp_path / "corpus"), "train")
    assert clips["id"][:] == ["0.wav", "1.wav", "2.wav"]
    assert clips["text"][:] == ["number 0", "number 1", "number 2"]


def test_a_stream_gives_the_same_clips_as_the_table(parquet):
    clips, report = load_speech(arguments(parquet, streaming=True, id_column="key"), "train")
    check(clips, report, [f"key-{number}" for number in range(10) if number != 3])
    assert isinstance(clips, datasets.Dataset)


def test_a_stream_is_read_only_as_far_as_the_limit_needs(parquet, monkeypatch):
    monkeypatch.setattr("modeling_slam.data.selection.CHUNK_CLIPS", 2)
    settings = {"streaming": True, "id_column": "key", "max_train_hours": 2.5 / 3600}
    clips, report = load_speech(arguments(parquet, **settings), "train")
    assert clips["id"][:] == ["key-0", "key-1"]  # 1.0 and 1.1 s; the next has 1.2.
    assert report.read_clips <= 5
    assert "first of the stream" in report.summary()


def test_wrong_columns_splits_and_names_are_explained(parquet, table, tmp_path, monkeypatch):
    with pytest.raises(
        DataError, match=r"no column 'words' \(--text_column\); it has speech, sentence, key, who"
    ):
        load_speech(arguments(parquet, text_column="words"), "train")
    with pytest.raises(DataError, match=r"'who' is Value\('int64'\), which is not audio"):
        load_speech(arguments(parquet, audio_column="who"), "train")
    for streaming in (False, True):
        with pytest.raises(DataError, match=r"no split 'nope'; it has train"):
            load_speech(arguments(parquet, train_split="nope", streaming=streaming), "train")
    with pytest.raises(DataError, match="configuration nope"):
        load_speech(arguments(parquet, dataset_config="nope"), "train")


def test_columns_of_usual_names_need_no_flags_and_labels_are_their_names(table, tmp_path):
    named = table.rename_columns({"speech": "audio", "sentence": "transcription", "who": "speaker_id"})
    labels = datasets.ClassLabel(names=["anna", "bob"])
    named.cast_column("speaker_id", labels).to_parquet(tmp_path / "test.parquet")
    clips, _ = load_speech(DataArguments(str(tmp_path)), "test")
    assert clips["text"][:2] == ["sentence 0", "sentence 1"]
    assert clips["speaker"][:3] == ["anna", "bob", "anna"]


def test_a_column_of_lists_is_refused_by_its_name(table, tmp_path):
    split = [str(text).split() for text in table["sentence"]]
    table.remove_columns("sentence").add_column("sentence", split).to_parquet(tmp_path / "test.parquet")
    for streaming in (False, True):
        with pytest.raises(DataError, match=r"'sentence' is List.*no text.*--text_column"):
            load_speech(arguments(tmp_path, streaming=streaming), "test")


@pytest.mark.parametrize("streaming", [False, True])
def test_a_row_whose_audio_cannot_be_fetched_is_a_listed_drop(table, tmp_path, streaming):
    audio = [*table["speech"][:1], {"bytes": None, "path": "http://127.0.0.1:9/gone.flac"}, None]
    rows = datasets.Dataset.from_dict({"speech": audio, "sentence": table["sentence"][:3]})
    rows.to_parquet(tmp_path / "test.parquet")
    settings = {"streaming": streaming, "speaker_column": None}
    clips, report = load_speech(arguments(tmp_path, **settings), "test")
    assert clips["text"][:] == ["sentence 0"]
    assert report.reasons == {"unreachable": 1, "unreadable": 1}


def test_an_address_that_answers_once_only_ends_no_run(table, tmp_path, monkeypatch):
    """It is read when the clip is checked, and again when it is written."""
    answers = iter([table["speech"][0]])
    audio = [table["speech"][1], {"bytes": None, "path": "http://127.0.0.1:9/once.flac"}]
    rows = datasets.Dataset.from_dict({"speech": audio, "sentence": table["sentence"][:2]})
    rows.to_parquet(tmp_path / "test.parquet")

    def read_once(place):
        if (audio := next(answers, None)) is None:
            raise AudioError(f"{place}: 404", reason="unreachable")
        return audio

    monkeypatch.setattr("modeling_slam.data.arrow_tables.read_place", read_once)
    clips, report = load_speech(arguments(tmp_path, speaker_column=None), "test")
    assert (len(clips), report.kept_clips) == (1, 1)
    assert report.kept_seconds == pytest.approx(1.1)
    assert report.reasons == {"unreachable": 1}


FROM_HUB = """
import json, sys
from modeling_slam.data import DataArguments, load_speech
found = {name: load_speech(DataArguments(name), "test")[0] for name in sys.argv[1:]}
print(json.dumps({name: [clips["id"][:], clips["text"][:]] for name, clips in found.items()}))
"""


@pytest.mark.e2e
def test_hub_datasets_of_loose_files_and_of_parquet_are_read_without_torchcodec(
    table, audio_folder, tmp_path
):
    audio_folder(tmp_path / "folder", "test", [("a.wav", "one", 1.0)])
    (audio_folder(tmp_path / "paths", "sounds", [("a.wav", "", 1.0)]) / "sounds" / "metadata.csv").unlink()
    (tmp_path / "paths" / "test.csv").write_text("path,sentence\nsounds/a.wav,two\n")
    (tmp_path / "parquet").mkdir()
    named = table.select(range(2)).rename_columns({"speech": "audio"})
    named.cast_column("audio", datasets.Audio()).to_parquet(tmp_path / "parquet" / "eval.parquet")
    with FakeHub() as hub:
        for name in ("folder", "paths", "parquet"):
            hub.add_directory(f"org/{name}", tmp_path / name)
        command = [sys.executable, "-c", FROM_HUB, "org/folder", "org/paths", "org/parquet"]
        environment = hub.environment(tmp_path / "home") | {"PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "org/folder": [["a.wav"], ["one"]],
        "org/paths": [["sounds/a.wav"], ["two"]],
        "org/parquet": [["0.flac", "1.flac"], ["sentence 0", "sentence 1"]],
    }
