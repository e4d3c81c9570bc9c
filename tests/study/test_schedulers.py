"""Runs on Ray and SLURM give what the scripts give by hand, also when a worker is killed on the way."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from study_files import commands, transcripts

import eval as evaluation
import train
from modeling_slam.common.command_line import as_flags
from modeling_slam.study import load_study, run_study
from modeling_slam.study.grid import Study
from modeling_slam.study.runner import eval_flags, train_flags
from modeling_slam.study.schedulers import Ray, Slurm
from modeling_slam.study.store import StudyStore
from modeling_slam.training.run_directory import is_complete

pytestmark = pytest.mark.e2e

LONGER = ["train.max_steps=80"]  # so that there is time to kill a run after its first checkpoint


def by_hand(study: Study, directory: Path) -> dict[str, list[tuple]]:
    """Name -> what each run hears, trained and evaluated in this process, one thread, no engine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    heard = {}
    for spec in study.specs:
        run = directory / spec.name
        train.main(as_flags(train_flags(spec, run / "model")))
        evaluation.main(as_flags(eval_flags(spec, run / "model", run)))
        heard[spec.name] = transcripts(run)
    torch.set_num_threads(threads)
    return heard


def kill_the_worker(run: Path) -> None:
    """SIGKILL, after the first checkpoint, for the process that holds the run."""
    while not any(map(is_complete, run.glob("model/checkpoint-*"))):
        time.sleep(0.02)
    os.kill(int((run / "lock").read_text().split()[1]), signal.SIGKILL)


def check_killed_on_ray(study: Study, tmp_path: Path) -> None:
    store, killed = StudyStore(tmp_path / "out"), study.specs[0]
    killer = threading.Thread(target=kill_the_worker, args=(store.run_directory(killed),), daemon=True)
    killer.start()
    outcome = run_study(study, store.directory, Ray(workers=2), threads=1)
    assert not killer.is_alive()
    assert (outcome.finished, outcome.failures) == (len(study.specs), [])

    expected = by_hand(study, tmp_path / "by_hand")
    for spec in study.specs:
        directory = store.run_directory(spec)
        assert transcripts(directory) == expected[spec.name]
        again = 1 + (spec is killed)
        assert commands(directory) == [*["train.py"] * again, "eval.py"]
        assert store.record(spec).attempts == again


@pytest.mark.nightly
def test_ray_with_a_killed_worker_equals_the_scripts_by_hand(study_file, tmp_path):
    check_killed_on_ray(load_study(study_file(), LONGER), tmp_path)


@pytest.mark.nightly
def test_ray_with_a_killed_worker_equals_the_scripts_by_hand_on_six_runs(study_file, tmp_path):
    changes = [*LONGER, "modes=[projector, lora]", "encoders.tiny.keep_layers=[4, 2, 1]"]
    check_killed_on_ray(load_study(study_file(), changes), tmp_path)


def test_a_slurm_array_returns_what_its_jobs_return(study_file, tmp_path):
    """A job is a process of this machine here."""
    study = load_study(study_file(), ["train.max_steps=1", "encoders.tiny.keep_layers=[1]"])
    slurm = Slurm(2, tmp_path / "jobs", cluster="local", poll_seconds=0.1)
    outcome = run_study(study, tmp_path / "out", slurm, threads=1)
    assert (outcome.finished, outcome.failures) == (1, [])
    assert commands(StudyStore(tmp_path / "out").run_directory(study.specs[0])) == ["train.py", "eval.py"]
