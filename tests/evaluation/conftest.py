"""A tiny SLAM-ASR checkpoint and a folder of short clips, made on the fly."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny_models import saved

TEXTS = ["Een, twee!", "Drie vier vijf.", "Zes", "Zeven acht.", "'s Nachts tien"]
SECONDS = [1.1, 2.3, 0.7, 1.6, 0.9]


def write_speech_folder(folder: Path, texts=TEXTS, seconds=SECONDS) -> Path:
    """An AudioFolder with one test split of noisy tones."""
    generator = np.random.default_rng(0)
    (folder / "test").mkdir(parents=True)
    with (folder / "test" / "metadata.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "text"])
        for number, (text, length) in enumerate(zip(texts, seconds, strict=True)):
            time = np.arange(int(16_000 * length)) / 16_000
            tone = 0.3 * np.sin(2 * np.pi * 200 * (number + 1) * time)
            soundfile.write(
                folder / "test" / f"{number}.wav", tone + 0.05 * generator.standard_normal(len(time)), 16_000
            )
            table.writerow([f"{number}.wav", text])
    return folder


@pytest.fixture
def write_speech() -> Callable[..., Path]:
    return write_speech_folder


@pytest.fixture
def speech_folder(tmp_path) -> Path:
    return write_speech_folder(tmp_path / "speech")


@pytest.fixture
def checkpoint(tiny_model, tiny_processor, tmp_path) -> Path:
    return saved(tiny_model, tiny_processor, tmp_path / "checkpoint")
