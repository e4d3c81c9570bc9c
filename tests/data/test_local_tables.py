"""Tables on disk: those of a split are found, and ids and paths mean the same wherever they stand."""

from pathlib import Path

import pytest
import soundfile

from modeling_slam.data import DataArguments, DataError, load_speech
from modeling_slam.data.splits import pick_split, split_of_path


@pytest.fixture
def write(tmp_path, make_sound):
    """`write(name, text)` writes a file; an empty text is a recording."""

    def to(name: str, text: str = "") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text:
            path.write_text(text, encoding="utf-8")
        else:
            soundfile.write(path, make_sound(0.5), 16_000)
        return tmp_path

    return to


def read(dataset: object, split: str = "test", **settings):
    clips, report = load_speech(DataArguments(str(dataset), **settings), split)
    return dict(zip(clips["id"], clips["text"], strict=True)), report


def test_a_split_is_known_by_the_words_that_people_call_it():
    for path, split in {
        "dev.tsv": "dev", "cv_test.jsonl": "cv_test", "data/train-00001-of-00002.parquet": "train",
        "valid/metadata.csv": "valid", "test_1.csv": "test", "train/speaker1/metadata.csv": "train",
        "latest.csv": None, "trainer/contest.csv": None,
    }.items():  # fmt: skip
        assert split_of_path(Path(path)) == split
    assert pick_split("validation", ["train", "dev", "validated"], "x") == "dev"
    assert pick_split("test-clean", ["test-clean", "test-other"], "x") == "test-clean"
    for wanted, available in (("test", ["test-clean", "test-other"]), ("test-clean", ["test"]), ("a", [])):
        with pytest.raises(DataError, match=f"no split {wanted!r}"):
            pick_split(wanted, available, "x")


def test_clips_of_several_tables_are_told_apart_by_their_folders(write):
    for speaker in ("anna", "bob"):
        write(f"test/{speaker}/1.wav")
        root = write(f"test/{speaker}/metadata.csv", f"file_name,text\n1.wav,{speaker}\n")
    assert read(root)[0] == {"anna/1.wav": "anna", "bob/1.wav": "bob"}


def test_absolute_paths_give_ids_below_the_folder_they_share_and_relative_ones_as_they_are(write):
    write("sounds/x/1.wav")
    root = write("sounds/y/1.wav")
    write("lists/test.csv", f"path,text\n{root}/sounds/x/1.wav,one\n{root}/sounds/y/1.wav,two\n")
    assert read(root / "lists")[0] == {"x/1.wav": "one", "y/1.wav": "two"}
    write("lists/test.csv", "path,text\n../sounds/x/1.wav,one\n")
    assert read(root / "lists")[0] == {"../sounds/x/1.wav": "one"}


def test_rows_that_belong_to_no_split_are_listed_where_others_do(write):
    write("test/1.wav")
    root = write("metadata.csv", "file_name,text\ntest/1.wav,one\ntrain/2.wav,two\n3.wav,three\n")
    found, report = read(root)
    assert found == {"test/1.wav": "one"}
    assert [drop.id for drop in report.dropped] == ["metadata.csv line 4"]
    with pytest.raises(DataError, match="no split 'validation'; it has test, train"):
        read(root, "validation")


def test_a_file_named_by_itself_is_read_whole_though_its_recordings_lie_in_the_folder_of_a_split(write):
    root = write("dev/1.wav")
    write("mine.csv", "file_name,text\ndev/1.wav,one\n")
    assert read(root / "mine.csv")[0] == {"dev/1.wav": "one"}


def test_a_split_of_an_unusual_name_is_read_by_it_and_a_wrong_name_lists_them(write):
    for name in ("queen", "sky"):
        write(f"{name}/1.wav")
        root = write(f"{name}/metadata.csv", f"file_name,text\n1.wav,{name}\n")
    assert read(root, test_split="sky")[0] == {"1.wav": "sky"}
    with pytest.raises(DataError, match="no split 'quen'; it has queen, sky"):
        read(root, test_split="quen")


def test_a_card_that_says_which_file_is_which_split_is_not_guessed_at(write):
    write("a.csv", "path,text\n1.wav,one\n")
    root = write("README.md", "---\nconfigs:\n- data_files:\n  - split: test\n    path: a.csv\n---\n")
    with pytest.raises(DataError, match=r"README\.md says which files are which split.*--dataset .*a\.csv"):
        read(root)


def test_a_linked_split_is_read(write, tmp_path):
    write("elsewhere/1.wav")
    write("elsewhere/metadata.csv", "file_name,text\n1.wav,one\n")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "test").symlink_to(tmp_path / "elsewhere")
    assert read(tmp_path / "corpus")[0] == {"1.wav": "one"}


def test_files_beside_the_tables_of_splits_are_no_tables(write):
    write("1.wav")
    write("test.jsonl", '{"audio": "1.wav", "text": "one"}\n')
    write("speakers.csv", "name,age\nanna,30\n")
    root = write("vocab.json", '{"a": 1}')
    assert read(root)[0] == {"1.wav": "one"}


@pytest.mark.parametrize("name", ["metadata.csv", "all.tsv"])
def test_a_table_of_no_split_beside_those_of_splits_is_named_in_the_report(write, name):
    own = "metadata.csv" if name == "metadata.csv" else "part.tsv"
    row = "{}{}{}\n".format
    by = "\t" if name.endswith(".tsv") else ","
    write("test/1.wav")
    root = write(f"test/{own}", row("file_name", by, "text") + row("1.wav", by, "one"))
    assert read(root)[1].note is None
    write("2.wav")
    write(name, row("file_name", by, "text") + row("2.wav", by, "two"))
    texts, report = read(root)
    assert texts == {"1.wav": "one"}
    assert f"not read: {name}, of no split" in report.summary()
    assert read(root / name)[0] == {"2.wav": "two"}
