"""A folder of recordings as people have them."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

RATE = 16_000


@pytest.fixture
def folder(two_clips, tmp_path) -> Path:
    """A clip and a stereo one, 42 s with pauses, silence, half a file, no audio, and a film in a folder."""
    folder = tmp_path / "in"
    (folder / "films").mkdir(parents=True)
    one, other = two_clips
    soundfile.write(folder / "one.wav", one, RATE)
    soundfile.write(folder / "stereo.flac", np.stack([other, other], axis=1), RATE)
    pause = np.zeros(RATE // 2, np.float32)
    soundfile.write(folder / "long.wav", np.concatenate([one, pause, other, pause] * 9), RATE)
    soundfile.write(folder / "silent.wav", np.zeros(3 * RATE, np.float32), RATE)
    whole = (folder / "long.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.mp3").write_text("no audio at all")
    (folder / "readme.md").write_text("no recording")
    soundfile.write(folder / "films" / "one.ogg", other, RATE)
    return folder
