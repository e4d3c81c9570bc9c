"""Files written by the project are whole or not there."""

import pytest

from modeling_slam.common.files import check_writable, files_below, replacing, write_json, write_text


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


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path):
    check_writable(tmp_path / "a" / "b", "output_dir")
    check_writable(tmp_path, "output_dir")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["file/x", "file", "file/a/b", "gone/x"])
def test_a_place_below_a_file_or_a_dead_link_is_refused(tmp_path, place):
    (tmp_path / "file").write_text("x")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"`output_dir` .* cannot be written"):
        check_writable(tmp_path / place, "output_dir")


def test_files_below_a_directory_are_found_through_links_and_not_for_ever(tmp_path):
    for name in ("b/2.txt", "a/1.txt", ".hidden/3.txt", "__MACOSX/4.txt", "a/.5.txt"):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "6.txt").touch()
    (tmp_path / "root" / "c").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "a" / "up").symlink_to(tmp_path / "root")
    found = [path.relative_to(tmp_path / "root").as_posix() for path in files_below(tmp_path / "root")]
    assert found == ["a/1.txt", "b/2.txt", "c/6.txt"]
