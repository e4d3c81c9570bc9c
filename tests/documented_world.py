"""What the commands of the documentation presume: tiny random models on the fake Hub under the ids that are
printed, and a directory like a fresh clone with speech and recordings under the names that are printed.

To serve another model add its layers to `WHISPERS` or `LLMS`; for another dataset a name to `DATASETS`.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import soundfile
import yaml
from fake_hub import FakeHub
from programs import REPOSITORY
from sound_files import coded
from tiny_whisper import write_decoding_whisper
from tiny_world import SAMPLING_RATE, speak, write_causal_lm, write_speech

# Layers: the encoders' own, of LLMs as many as a page keeps.
WHISPERS = {"base": 6, "small": 12, "medium": 24, "large-v2": 32}
LLMS = {
    "Qwen/Qwen2.5-0.5B": 2,
    "Qwen/Qwen2.5-3B": 24,
    "HuggingFaceTB/SmolLM2-135M": 24,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 2,
}
DATASETS = ("my-speech", "adventure-queen-en", "adventure-sky-en", "dialogue-nl", "digits-en")
COMMON_VOICE = "cv-corpus-22.0-2025-06-20"
CLIPS = {"train": 8, "dev": 2, "test": 2}
LINKED = ("train.py", "eval.py", "slam_asr.py", "modeling_slam", "benchmarks", "recipes")


# Another implementation, as benchmarks/README.md describes it.
PEER = """import json
print(json.dumps({"seconds": 1.0}))
"""


def serve_models(hub: FakeHub, directory: Path) -> None:
    """The base models, also as directories below `directory`."""
    for size, layers in WHISPERS.items():
        whisper = directory / f"whisper-{size}"
        write_decoding_whisper(whisper, "multilingual", encoder_layers=layers)
        (whisper / "normalizer.json").write_text(json.dumps({"colour": "color"}))
        hub.add_directory(f"openai/whisper-{size}", whisper)
    for model, layers in LLMS.items():
        write_causal_lm(directory / Path(model).name, layers)
        hub.add_directory(model, directory / Path(model).name)


def write_data(directory: Path) -> None:
    """`data/` with every dataset, and recordings of three seconds or so."""
    rng = np.random.default_rng(0)
    for name in DATASETS:
        write_speech(directory / "data" / name, rng)
        (directory / name).symlink_to(directory / "data" / name)  # some pages leave `data/` out
    for language in ("da", "en", "nl"):
        write_common_voice(directory / "data" / COMMON_VOICE / language, language, rng)
    (directory / "interviews").mkdir()
    for name in ("clip.wav", "talk.wav", "interviews/first.flac", "interviews/second.wav"):
        soundfile.write(directory / name, speak(["north", "up", "left"], 1, rng), SAMPLING_RATE)
    for name in ("clip.mp3", "talk.mp3", "interview.mp3"):
        (directory / name).write_bytes(coded("mp3", "libmp3lame"))
    (directory / "peer.py").write_text(PEER)
    (directory / "film.mp4").write_bytes(coded("mp4", "aac", video=True))


def write_common_voice(folder: Path, language: str, rng: np.random.Generator) -> None:
    """The columns and files of a release that are read."""
    (folder / "clips").mkdir(parents=True)
    durations = ["clip\tduration[ms]"]
    for split, count in CLIPS.items():
        rows = ["client_id\tpath\tsentence\tlocale"]
        for number in range(count):
            name, words = f"common_voice_{language}_{split}{number}.mp3", ["south", "down", "east"]
            samples = speak(words, number % 3, rng)
            soundfile.write(folder / "clips" / name, samples, SAMPLING_RATE)
            rows.append(f"speaker{number % 3}\t{name}\t{' '.join(words).capitalize()}.\t{language}")
            durations.append(f"{name}\t{round(1000 * len(samples) / SAMPLING_RATE)}")
        (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "clip_durations.tsv").write_text("\n".join(durations) + "\n", encoding="utf-8")


def clone(directory: Path, world: Path) -> Path:
    """Looks like a clone of this repository with data and recordings in it; its demo study is small."""
    directory.mkdir(parents=True)
    for name in LINKED:
        (directory / name).symlink_to(REPOSITORY / name)
    (directory / "docs").mkdir()
    shutil.copytree(REPOSITORY / "studies", directory / "studies")
    demo = yaml.safe_load((directory / "studies/demo.yaml").read_text())
    demo["encoders"]["demo"]["keep_layers"] = [6, 4]  # 4 runs of 2 steps instead of 36 of 200
    demo["datasets"] = {"en": demo["datasets"]["en"]}
    demo["train"] |= {"max_steps": 2, "dataloader_num_workers": 0}
    demo["eval"] = {"max_test_clips": 8}
    (directory / "studies/demo.yaml").write_text(yaml.safe_dump(demo))
    for path in world.iterdir():
        (directory / path.name).symlink_to(path)
    return directory
