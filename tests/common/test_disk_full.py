"""A full disk: one line that names the file and what is missing, nothing half-written, what was there whole.

Checkpoints: `training/test_saving.py`; predictions: `evaluation/test_predictions.py`.
"""

import errno
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import soundfile
import torch
from full_disk import full_disk
from safetensors.torch import save_file

from modeling_slam.common.files import (
    DiskFullError,
    is_no_room,
    naming_what_has_no_room,
    replacing,
    write_bytes,
    write_json,
    write_text,
)
from modeling_slam.common.stopping import ends_in_one_line

LIMIT = 8192
LARGE = torch.zeros(100_000)


def in_a_full_place(function: Callable[..., Any]) -> str:
    """What is said of a function for which there is no room."""
    with full_disk(LIMIT), pytest.raises(DiskFullError) as full:
        function()
    return str(full.value)


def by(save: Callable[[Path], Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with replacing(path) as temporary:
            save(temporary)

    return write


WRITERS = {
    "text": lambda path: write_text(path, "æ" * 20_000),
    "json": lambda path: write_json(path, list(range(10_000))),
    "bytes": lambda path: write_bytes(path, b"x" * 40_000),
    "safetensors": by(lambda path: save_file({"a": LARGE}, path)),
    "torch": by(lambda path: torch.save({"a": LARGE}, path)),
    "parquet": by(lambda path: pd.DataFrame({"a": torch.rand(10_000).numpy()}).to_parquet(path)),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_what_was_there_stays_and_the_line_names_file_and_lack(tmp_path, kind):
    file = tmp_path / "a.file"
    file.write_text("whole")
    said = in_a_full_place(lambda: WRITERS[kind](file))
    assert said.startswith(f"There is no room for {file}: ")
    assert "8.19 kB are allowed for one file (`ulimit -f`)" in said
    if kind in ("text", "bytes"):
        assert "it takes 40 kB, 8.19 kB" in said
        assert "so 31.8 kB are missing" in said
    assert "\n" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["a.file"]
    assert file.read_text() == "whole"


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (RuntimeError("CUDA out of memory"), False),
        (ValueError("os error 280"), False),
    ],
)
def test_no_room_is_told_from_other_errors(tmp_path, error, full):
    assert is_no_room(error) is full
    with pytest.raises(DiskFullError if full else type(error)), naming_what_has_no_room(tmp_path / "a"):
        raise error


def test_a_sound_that_is_encoded_first_is_all_or_nothing(tmp_path):
    encoded = io.BytesIO()
    soundfile.write(encoded, LARGE.numpy(), 16_000, format="WAV")
    said = in_a_full_place(lambda: write_bytes(tmp_path / "a.wav", encoded.getvalue()))
    assert "no room" in said
    assert list(tmp_path.iterdir()) == []


def test_a_program_ends_with_one_line_that_says_how_to_go_on(tmp_path):
    with pytest.raises(SystemExit) as ended, ends_in_one_line(lambda: "Then go on."):
        raise DiskFullError(tmp_path / "a.file", 10**18)
    line = str(ended.value)
    assert line.startswith(f"error: There is no room for {tmp_path / 'a.file'}: it takes 1e+09 GB, ")
    assert "are missing. Nothing half-written is left, and what was there before is whole." in line
    assert line.endswith(" Make room. Then go on.")
