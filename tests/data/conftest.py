"""Small corpora made on the fly: clips are tones with a little noise, so that every codec has work to do."""

import csv
import functools
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile


def sound(seconds: float, rate: int = 16_000, seed: int = 0) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).normal(scale=0.05, size=len(time))
    return (0.2 * np.sin(2 * np.pi * 300 * time) + noise).astype(np.float32)


def write_audio_folder(root: Path, split: str, clips: list[tuple[str, str, float]]) -> Path:
    """Write (file_name, text, seconds) clips as wav files with a metadata.csv."""
    folder = root / split
    folder.mkdir(parents=True)
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "text", "speaker"])
        for number, (name, text, seconds) in enumerate(clips):
            soundfile.write(folder / name, sound(seconds), 16_000)
            writer.writerow([name, text, f"speaker{number % 2}"])
    return root


def write_common_voice(root: Path, language: str) -> Path:
    """A release as Mozilla ships it, with one clip each that is truncated, 0.3 s and 31 s long."""
    folder = root / "cv-corpus-22.0-2025-06-20" / language
    (folder / "clips").mkdir(parents=True)
    clips = {  # path: (sentence, seconds)
        "quoted.mp3": ('"Kom," zei ze, "we gaan."', 1.5),
        "lone_quote.mp3": ('Een " te veel', 1.2),
        "commas.mp3": ("Een, twee, drie, en 's avonds vier", 2.0),
        "truncated.mp3": ("Dit breekt af", 6.0),
        "short.mp3": ("Ja", 0.3),
        "long.mp3": ("Een heel lang verhaal", 31.0),
        "plain.mp3": ("Zo'n één coördinaat", 1.0),
    }
    for path, (_, seconds) in clips.items():
        soundfile.write(folder / "clips" / path, sound(seconds, rate=32_000), 32_000)
    truncated = folder / "clips" / "truncated.mp3"
    truncated.write_bytes(truncated.read_bytes()[: truncated.stat().st_size // 2])

    header = ["client_id", "path", "sentence_id", "sentence", "sentence_domain", "up_votes", "down_votes"]
    header += ["age", "gender", "accents", "variant", "locale", "segment"]
    rows = [
        [f"voice{number % 3}", path, "f" * 64, sentence, "", "2", "0", "", "", "", "", language, ""]
        for number, (path, (sentence, _)) in enumerate(clips.items())
    ]
    for split, split_rows in {"train": rows, "dev": rows[:2], "test": rows[-1:], "validated": rows}.items():
        lines = ["\t".join(row) for row in [header, *split_rows]]
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    durations = [f"{path}\t{round(1000 * seconds)}" for path, (_, seconds) in clips.items()]
    (folder / "clip_durations.tsv").write_text("\n".join(["clip\tduration[ms]", *durations]) + "\n")
    return root / "cv-corpus-22.0-2025-06-20"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Keep what `datasets` and `load_speech` cache out of the user's home and away from other tests."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    return cache


@pytest.fixture
def audio_folder():
    """`audio_folder(root, split, [(file_name, text, seconds), ...])` writes one split."""
    return write_audio_folder


@pytest.fixture(scope="session")
def common_voice_releases(tmp_path_factory):
    """Encoding mp3 takes a second, so each language is written once and copied for the tests."""
    return functools.cache(lambda language: write_common_voice(tmp_path_factory.mktemp(language), language))


@pytest.fixture
def common_voice(common_voice_releases):
    """`common_voice(root, language)` puts a release below root and returns its folder."""

    def copy(root: Path, language: str = "nl") -> Path:
        release = common_voice_releases(language)
        return Path(shutil.copytree(release, root / release.name))

    return copy


@pytest.fixture
def make_sound():
    return sound
