"""A wheel, installed where nothing else of this project is, does what a clone does."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest
import soundfile

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The programs of an environment that holds the wheel and, of this one, only the packages of others."""
    directory = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(directory), str(REPOSITORY)]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = directory.glob("*.whl")
    programs = directory / "environment" / "bin"
    venv.create(programs.parent, with_pip=False)
    into = ["--python", str(programs / "python"), "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, *into, str(wheel)], check=True)
    # What a .pth file names is searched, but no .pth file there is read: this clone stays out of sight.
    (site_of(programs) / "others.pth").write_text(sysconfig.get_paths()["purelib"])
    return programs


def site_of(programs: Path) -> Path:
    (site,) = programs.parent.glob("lib/python*/site-packages")
    return site


def run(installed: Path, cwd: Path, *command: object) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [installed / "slam-asr", *map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_installed_wheel_plans_a_study_of_its_own_by_name(installed, tmp_path):
    """The study, its recipe, backbones and speech all come from the wheel."""
    assert run(installed, tmp_path, "--version").startswith("slam-asr ")
    assert "36 runs" in run(installed, tmp_path, "study", "run", "demo", "--dry_run")
    assert (site_of(installed) / "modeling_slam" / "shipped" / "train.py").exists()


@pytest.mark.e2e
def test_an_installed_wheel_trains_evaluates_transcribes_and_publishes(installed, tmp_path):
    quick = ["--max_steps", 2, "--eval_strategy", "no", "--save_strategy", "no", "--use_cpu", True,
             "--dataloader_num_workers", 0, "--max_train_hours", 0.01]  # fmt: skip
    run(installed, tmp_path, "train", "demo", *quick, "--output_dir", "runs/quick")
    flags = ["--max_test_clips", 4, "--num_workers", 0, "--output_dir", "results"]
    assert "WER" in run(installed, tmp_path, "eval", "--model", "runs/quick", *flags)
    soundfile.write(tmp_path / "noise.flac", np.random.default_rng(0).normal(scale=0.1, size=32_000), 16_000)
    assert "1 recording" in run(
        installed, tmp_path, "transcribe", "runs/quick", "noise.flac", "--num_beams", 1
    )
    assert (tmp_path / "transcripts" / "noise.txt").exists()
    card = ["--metrics", "results", "--format", "full", "--language", "en", "--license", "apache-2.0"]
    assert "Dry run" in run(installed, tmp_path, "publish", "runs/quick", *card, "--dry_run")
