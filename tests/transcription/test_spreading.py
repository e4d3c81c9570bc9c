"""Recordings spread over processes or a Ray cluster: what one process writes, whatever dies on the way."""

import json
import os
import sys
from pathlib import Path

import deadly
import pytest

from modeling_slam.transcription import spreading
from modeling_slam.transcription.__main__ import main
from modeling_slam.transcription.recordings import Recording
from modeling_slam.transcription.spreading import groups_of, share

WAYS = {"processes": ("--num_processes", "2"), "ray": ("--ray", "local", "--num_processes", "2")}


def run(*argv: object) -> int | str | None:
    """The exit code, or the error."""
    try:
        main([str(word) for word in argv])
    except SystemExit as ended:
        return ended.code
    return 0


def files(out: Path) -> dict[Path, bytes]:
    return {path.relative_to(out): path.read_bytes() for path in out.rglob("*.*") if path.suffix != ".jsonl"}


def journal(out: Path) -> dict[str, dict]:
    rows = map(json.loads, (out / "transcripts.jsonl").read_text(encoding="utf-8").splitlines())
    return {row["name"]: row | {"at": 0} for row in rows}


@pytest.mark.e2e
@pytest.mark.parametrize("way", WAYS)
def test_spread_recordings_become_what_one_process_writes_whatever_dies_on_the_way(
    way, checkpoint, folder, tmp_path, monkeypatch, capsys
):
    """One dies with its process each time, one the first time, and a neighbour of the former is heard."""
    for other in ("cut.wav", "silent.wav", "stereo.flac"):
        (folder / other).unlink()
    monkeypatch.chdir(tmp_path)  # paths are those that were typed, in every process
    command = (checkpoint, folder.name, "--recursive", "--format", "txt,json", "--output_dir")
    assert run(*command, "one") == 1
    for name in ("deadly.wav", "second.wav"):
        (folder / name).write_bytes((folder / "one.wav").read_bytes())

    monkeypatch.setattr(spreading, "GROUP_SECONDS", 1.2)
    monkeypatch.setattr(spreading, "hear_group", deadly.hear_unless_deadly)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))  # of Ray's processes
    capsys.readouterr()
    assert run(*command, "spread", *WAYS[way]) == 1
    printed = capsys.readouterr().out
    assert "4 recordings, " in printed
    assert "2 could not be transcribed:" in printed
    assert "in/deadly.wav: the process that heard it died, twice" in printed

    expected, found = files(Path("one")), files(Path("spread"))
    assert found.pop(Path("second.txt")) == expected[Path("one.txt")]
    found.pop(Path("second.json"))
    assert found == expected
    lines = journal(Path("spread"))
    assert lines.pop("deadly")["error"]
    assert lines.pop("second")["text"] == lines["one"]["text"]
    assert lines == journal(Path("one"))


def test_a_process_on_ray_gets_what_the_machines_can_give():
    small, large = {"CPU": 4.0, "memory": 1e9}, {"CPU": 16.0}
    assert share([small, large], None) == (4, 0)
    assert share([small, large], 10) == (2, 0)
    assert share([small], 9) == (1, 0)
    assert share([{"memory": 1e9}, large], None) == (16, 0)
    assert share([small, {"CPU": 16.0, "GPU": 4.0}, {"CPU": 64.0, "GPU": 8.0}], 2) == (4, 1)
    with pytest.raises(ValueError, match="no CPUs"):
        share([{"memory": 1e9}], None)


def test_groups_are_of_some_minutes_and_hold_each_recording_once():
    recordings = [(Recording(Path(f"{number}.wav"), str(number)), seconds) for number, seconds in
                  enumerate([100.0, 250.0, 10.0, 0.0, 4000.0, 1.0])]  # fmt: skip
    assert [[one.name for one in group] for group in groups_of(recordings)] == [
        ["0", "1"], ["2", "3", "4"], ["5"],
    ]  # fmt: skip


def test_ray_that_is_not_there_ends_in_one_line(checkpoint, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    message = run(checkpoint, folder, "--output_dir", tmp_path / "out", "--ray", "auto")
    assert "pip install 'slam-asr[ray]'`, or leave `--ray` out." in message
