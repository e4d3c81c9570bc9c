"""load_speech: bad input is a listed drop or a clear error, and subsets are seeded and exact."""

import json
import os
import signal
import subprocess
import sys

import datasets
import numpy as np
import pytest
import soundfile

from modeling_slam.data import DataArguments, DataError, load_for_run, load_speech
from modeling_slam.data import selection as selection_module
from modeling_slam.model.audio_io import load_audio

CLIPS = [(f"clip{number:02d}.wav", f"Tekst nummer {number}.", 0.5 + number / 10) for number in range(20)]


@pytest.fixture
def speech(audio_folder, tmp_path):
    audio_folder(tmp_path / "speech", "train", CLIPS)
    return audio_folder(tmp_path / "speech", "test", CLIPS[:3])


def test_the_dataset_has_the_promised_columns_and_undecoded_audio(speech):
    clips, report = load_speech(DataArguments(str(speech), language="nl"), "test")
    assert clips.column_names == ["id", "audio", "text", "raw_text", "duration", "speaker", "language"]
    assert clips.features["audio"] == datasets.Audio(decode=False)
    assert clips[1] == {
        "id": "clip01.wav",
        "audio": {"bytes": None, "path": str(speech / "test" / "clip01.wav")},
        "text": "tekst nummer 1",
        "raw_text": "Tekst nummer 1.",
        "duration": 0.6,
        "speaker": "speaker1",
        "language": "nl",
    }
    assert len(load_audio(clips[1]["audio"])) == 9_600
    assert report.kept_seconds == pytest.approx(sum(clips["duration"]))
    assert report.kept_hours == pytest.approx(1.8 / 3600)


def test_every_kind_of_bad_clip_is_a_listed_drop(audio_folder, tmp_path):
    names = ["good", "short", "long", "silent_text", "garbage", "empty", "cut", "gone", "nan", "good"]
    seconds = {"short": 0.3, "long": 31.0}
    clips = [
        (f"{name}.wav", "..." if name == "silent_text" else name, seconds.get(name, 1.0)) for name in names
    ]
    folder = audio_folder(tmp_path, "train", clips) / "train"
    (folder / "garbage.wav").write_bytes(b"not audio at all")
    (folder / "empty.wav").write_bytes(b"")
    (folder / "cut.wav").write_bytes((folder / "cut.wav").read_bytes()[:9_000])
    (folder / "gone.wav").unlink()
    soundfile.write(folder / "nan.wav", np.full(16_000, np.nan, np.float32), 16_000, subtype="FLOAT")

    clips, report = load_speech(DataArguments(str(tmp_path)), "train")

    assert clips["id"][:] == ["good.wav"]
    assert sorted((drop.id, drop.reason) for drop in report.dropped) == [
        ("cut.wav", "truncated"),
        ("empty.wav", "empty"),
        ("garbage.wav", "unreadable"),
        ("gone.wav", "missing file"),
        ("good.wav", "duplicate id"),
        ("long.wav", "too long"),
        ("nan.wav", "not finite"),
        ("short.wav", "too short"),
        ("silent_text.wav", "empty transcript"),
    ]
    assert sum(report.reasons.values()) == 9
    assert report.read_clips == 10
    assert report.not_needed_clips == 0


def test_bounds_are_inclusive(audio_folder, tmp_path):
    audio_folder(tmp_path, "train", [("a.wav", "a", 0.5), ("b.wav", "b", 30.0), ("c.wav", "c", 30.001)])
    clips, _ = load_speech(DataArguments(str(tmp_path)), "train")
    assert clips["id"][:] == ["a.wav", "b.wav"]


def test_a_subset_by_hours_is_full_exact_seeded_and_independent_of_listing_order(speech, tmp_path):
    def load(folder, seed):
        return load_speech(DataArguments(str(folder), max_train_hours=10 / 3600, subset_seed=seed), "train")

    clips, report = load(speech, 1)
    total = sum(clips["duration"])
    assert total == pytest.approx(report.kept_seconds)
    assert 10 - 2.4 < total <= 10  # The longest clip has 2.4 s: the next one did not fit.
    assert report.not_needed_clips == 20 - len(clips)
    assert "seed 1" in report.summary()
    assert clips["id"][:] == sorted(clips["id"])  # In the order of the source.

    again, _ = load(speech, 1)
    other, _ = load(speech, 2)
    assert again["id"][:] == clips["id"][:] != other["id"][:]

    metadata = speech / "train" / "metadata.csv"
    header, *rows = metadata.read_text().splitlines()
    metadata.write_text("\n".join([header, *reversed(rows)]))
    reversed_listing, _ = load(speech, 1)
    assert sorted(reversed_listing["id"]) == clips["id"][:]


def test_a_dropped_clip_of_a_subset_is_replaced_by_the_next(speech):
    arguments = DataArguments(str(speech), max_validation_clips=5, validation_split="train")
    before, _ = load_speech(arguments, "validation")
    for name in before["id"][:2]:
        (speech / "train" / name).unlink()
    after, report = load_speech(arguments, "validation")
    assert len(after) == 5
    assert set(before["id"][2:]) <= set(after["id"])
    assert report.reasons == {"missing file": 2}


def test_only_the_clips_a_subset_needs_are_decoded(speech, monkeypatch):
    decoded = []

    def counting_load_audio(source, **options):
        decoded.append(source["path"])
        return load_audio(source, **options)

    monkeypatch.setattr(selection_module, "load_audio", counting_load_audio)
    monkeypatch.setattr(selection_module, "CHUNK_CLIPS", 2)
    load_speech(DataArguments(str(speech), train_split="train", max_train_hours=4 / 3600), "train")
    assert len(decoded) == len(set(decoded)) < 12


def test_when_nothing_is_left_the_error_says_why(audio_folder, tmp_path):
    audio_folder(tmp_path, "train", [("a.wav", "!!!", 1.0), ("b.wav", "ja", 0.2)])
    with pytest.raises(DataError, match=r"No clip is left(.|\n)*empty transcript(.|\n)*too short"):
        load_speech(DataArguments(str(tmp_path)), "train")


@pytest.mark.parametrize("dataset", ["./no/such/folder", "no/such/corpus.tar.gz", "/nowhere"])
def test_a_path_that_does_not_exist_lists_what_is_accepted(dataset):
    with pytest.raises(
        DataError, match=r"nothing of that name(.|\n)*mdc:(.|\n)*Common Voice(.|\n)*metadata\.csv"
    ):
        load_speech(DataArguments(dataset), "train")


def test_a_file_that_is_no_source_is_not_recognised(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match="not recognised"):
        load_speech(DataArguments(str(tmp_path / "notes.txt")), "train")


def test_missing_splits_and_columns_are_named_with_those_there_are(speech):
    with pytest.raises(DataError, match=r"no split 'validation'; it has test, train"):
        load_speech(DataArguments(str(speech)), "validation")
    with pytest.raises(DataError, match=r"no column 'words' \(--text_column\).*file_name, text, speaker"):
        load_speech(DataArguments(str(speech), text_column="words"), "train")
    with pytest.raises(DataError, match=r"no column 'who' \(--speaker_column\)"):
        load_speech(DataArguments(str(speech), speaker_column="who"), "train")


def test_an_unquoted_comma_in_a_metadata_csv_is_an_error_with_its_line(speech):
    metadata = speech / "test" / "metadata.csv"
    metadata.write_text("file_name,text,speaker\nclip00.wav,one, two,me\n")
    with pytest.raises(DataError, match=r"line 2.*double quotes"):
        load_speech(DataArguments(str(speech)), "test")


def test_metadata_may_be_jsonl(speech):
    folder = speech / "test"
    (folder / "metadata.csv").unlink()
    rows = [{"file_name": "clip00.wav", "text": "Één"}, {"file_name": "clip01.wav", "text": None}]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    clips, report = load_speech(DataArguments(str(speech)), "test")
    assert clips["text"][:] == ["één"]
    assert report.reasons == {"empty transcript": 1}


def test_the_report_is_json_with_every_drop(audio_folder, tmp_path):
    audio_folder(tmp_path / "speech", "train", [("a.wav", "ja", 1.0), ("b.wav", "nee", 0.2)])
    _, report = load_speech(DataArguments(str(tmp_path / "speech")), "train")
    report.save(tmp_path / "reports" / "train.json")
    saved = json.loads((tmp_path / "reports" / "train.json").read_text())
    assert saved == report.to_dict()
    assert saved["kept_clips"] == 1
    assert saved["dropped"] == [
        {"id": "b.wav", "reason": "too short", "detail": "0.20 s, the least is 0.5 s"}
    ]
    assert [path.name for path in (tmp_path / "reports").iterdir()] == ["train.json"]


@pytest.mark.parametrize(
    "settings",
    [
        {"dataset": " "},
        {"language": "Danish"},
        {"min_seconds": 3.0, "max_seconds": 2.0},
        {"max_train_hours": 0.0},
        {"max_test_clips": -1},
    ],
)
def test_impossible_arguments_are_refused_on_creation(settings):
    with pytest.raises(ValueError, match="`"):
        DataArguments(**{"dataset": "somewhere", **settings})


KILLED = """
import os, signal, sys
from modeling_slam.data import DataArguments, load_speech
load_speech(DataArguments(sys.argv[1]), "train")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_copy_of_clips_that_a_killed_process_left_is_removed_by_the_next(speech, tmp_path, monkeypatch):
    """Those that are read at the moment stay."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    folder = speech
    mine, _ = load_speech(DataArguments(str(folder)), "train")
    before = set((tmp_path / "datasets").glob("slam_asr_*"))
    environment = os.environ | {"HF_DATASETS_CACHE": str(tmp_path / "datasets")}
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder)], env=environment)
    assert done.returncode == -signal.SIGKILL
    left = set((tmp_path / "datasets").glob("slam_asr_*")) - before
    assert len(left) == 1
    load_speech(DataArguments(str(folder)), "train")
    now = set((tmp_path / "datasets").glob("slam_asr_*"))
    assert left.isdisjoint(now)
    assert before <= now
    assert mine[0]["audio"]


def test_a_dropped_row_does_not_claim_its_id(audio_folder, tmp_path):
    audio_folder(tmp_path, "train", [("a.wav", "...", 1.0), ("b.wav", "b", 1.0), ("gone.wav", "c", 1.0)])
    table = tmp_path / "train" / "metadata.csv"
    (tmp_path / "train" / "gone.wav").rename(tmp_path / "train" / "c.wav")
    rows = ["a.wav,,text of a,1", "gone.wav,,missing,2", "c.wav,,text of c,2", "b.wav,,b,3", "b.wav,,again,3"]
    table.write_text("\n".join(["file_name,speaker,text,key", "a.wav,,!!!,1", *rows]))
    clips, report = load_speech(DataArguments(str(tmp_path), id_column="key"), "train")
    assert dict(zip(clips["id"], clips["text"], strict=True)) == {
        "1": "text of a",
        "2": "text of c",
        "3": "b",
    }
    assert report.reasons == {"empty transcript": 1, "missing file": 1, "duplicate id": 1}


def test_a_row_that_says_where_it_lies_is_used_only_if_its_recording_was_cut(audio_folder, tmp_path):
    rows = {"uncut.wav": (0, 1000, 2.0), "cut.wav": (7000, 9000, 2.0), "blank.wav": ("", "", 2.0)}
    root = audio_folder(tmp_path, "test", [(name, "words", row[2]) for name, row in rows.items()])
    lines = [f"{name},words,{start},{end}" for name, (start, end, _) in rows.items()]
    (root / "test" / "metadata.csv").write_text("\n".join(["file_name,text,Start,End", *lines]) + "\n")
    clips, report = load_speech(DataArguments(str(root)), "test")
    assert clips["id"][:] == ["cut.wav", "blank.wav"]
    assert "of this recording of 2.00 s. Cut it out" in report.summary()


def test_a_duration_in_another_unit_does_not_drop_the_clips(audio_folder, tmp_path):
    audio_folder(tmp_path, "train", [(f"{name}.wav", name, 1.0) for name in "abcd"])
    rows = ["a.wav,a,1.0", "b.wav,b,1000", "c.wav,c,", "d.wav,d,3.5"]
    (tmp_path / "train" / "metadata.csv").write_text("\n".join(["file_name,text,duration", *rows]))
    clips, report = load_speech(DataArguments(str(tmp_path)), "train")
    assert clips["text"][:] == ["a", "b", "c"]
    assert report.reasons == {"truncated": 1}


def with_silent_files(audio_folder, root, good: int, bad: int) -> str:
    """A split `train` of which so many recordings hold nothing."""
    names = [f"{number}.wav" for number in range(good + bad)]
    folder = audio_folder(root, "train", [(name, f"text {name}", 0.5) for name in names])
    for name in names[good:]:
        (folder / "train" / name).write_bytes(b"")
    return str(root)


@pytest.mark.parametrize(
    ("good", "bad", "max_dropped", "starts"),
    [
        (1, 10, 0.1, True),
        (89, 11, 0.1, False),
        (99, 11, 0.1, True),
        (1, 11, 1.0, True),
        (60, 11, 0.0, False),
    ],
)
def test_a_run_is_refused_for_more_than_ten_unreadable_clips_and_more_than_their_share(
    audio_folder, tmp_path, good, bad, max_dropped, starts
):
    corpus = with_silent_files(audio_folder, tmp_path / "speech", good, bad)
    arguments = DataArguments(corpus, max_dropped=max_dropped)
    if starts:
        clips, _ = load_for_run(arguments, "train", tmp_path / "run")
        assert len(clips) == good
    else:
        with pytest.raises(
            DataError, match=f"--max_dropped {max_dropped:g} allows.*data_train.json names each"
        ):
            load_for_run(arguments, "train", tmp_path / "run")
        assert len(load_speech(arguments, "train")[0]) == good
    written = json.loads((tmp_path / "run" / "data_train.json").read_text())
    assert written["reasons"] == {"empty": bad}
    assert len(written["dropped"]) == bad


def test_short_clips_and_empty_texts_are_no_unreadable_audio(audio_folder, tmp_path):
    clips = [(f"{number}.wav", "" if number % 2 else "short", 0.2) for number in range(40)]
    audio_folder(tmp_path / "speech", "train", [*clips, ("good.wav", "good", 1.0)])
    _, report = load_for_run(DataArguments(str(tmp_path / "speech")), "train", None)
    assert (len(report.dropped), report.unread_clips) == (40, 0)


def test_the_report_is_written_also_if_no_clip_is_left(audio_folder, tmp_path):
    corpus = with_silent_files(audio_folder, tmp_path / "speech", 0, 2)
    with pytest.raises(DataError, match="No clip is left"):
        load_for_run(DataArguments(corpus), "train", tmp_path)
    assert json.loads((tmp_path / "data_train.json").read_text())["reasons"] == {"empty": 2}


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_of_dropped_clips_is_from_0_to_1(share):
    with pytest.raises(ValueError, match="`max_dropped` must be a share from 0 to 1"):
        DataArguments("speech", max_dropped=share)
