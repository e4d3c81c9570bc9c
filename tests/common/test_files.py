"""Files written by the project are whole or not there."""

import pytest

from modeling_slam.common.files import replacing, write_json, write_text


def fill_half(path):
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(OSError, match="full"):
        fill_half(tmp_path / "a.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_json_is_written_as_people_read_it(tmp_path):
    write_json(tmp_path / "a.json", {"wer": 0.5, "name": "é"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "wer": 0.5,\n  "name": "é"\n}\n'
