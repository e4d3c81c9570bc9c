"""`make demo-assets`: the demo's speech and pretrained backbones from nothing but this repository.

    python -m modeling_slam.demo.build_assets DIRECTORY [--only speech whisper qwen2]

Speech is synthesised (needs `espeakng-loader`), the encoder and the LLM are trained; each part is written
beside its place and moved there when it is whole. The parts do not depend on each other's files, only on
`--seed`.
"""

import argparse
import json
import multiprocessing
import shutil
import time
from importlib.metadata import version
from pathlib import Path

import torch

SEED = 0
PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "soundfile",
    "soxr",
    "numpy",
    "espeakng-loader",
)


def build_speech(directory: Path, seed: int) -> dict:
    from modeling_slam.demo.speech import CLIPS, write_speech

    write_speech(directory, seed)
    return {"clips_of_each_language": CLIPS}


def build_whisper(directory: Path, seed: int) -> dict:
    from modeling_slam.demo.pretrain_encoder import pretrain_encoder

    return pretrain_encoder(directory, seed)


def build_qwen2(directory: Path, seed: int) -> dict:
    from modeling_slam.demo.pretrain_llm import pretrain_llm

    return pretrain_llm(directory, seed)


PARTS = {"speech": build_speech, "whisper": build_whisper, "qwen2": build_qwen2}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m modeling_slam.demo.build_assets",
        description="Make the demo's speech and pretrained backbones; about half an hour on two cores.",
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to make")
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    for part in arguments.only:
        # A process of its own for each: eSpeak starts once per process, and from the same state.
        process = multiprocessing.get_context("spawn").Process(
            target=build, args=(part, arguments.directory / part, arguments.seed)
        )
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"error: making {part} failed; what was there before is unchanged.")


def build(part: str, target: Path, seed: int) -> None:
    """Make one part; its card (README.md) is written by hand and stays."""
    begun = time.monotonic()
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    facts = PARTS[part](partial, seed)
    facts |= {
        "seed": seed,
        "seconds": round(time.monotonic() - begun),
        "threads": torch.get_num_threads(),
        "versions": {package: version(package) for package in PACKAGES},
    }
    (partial / "made.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    if (target / "README.md").is_file():
        shutil.copy(target / "README.md", partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    print(
        f"{target}: {sum(file.stat().st_size for file in target.rglob('*') if file.is_file()) / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    main()
