"""The engine runs each run once, takes up what was stopped, retries what died and reports what cannot run."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pandas as pd
import pytest
from study_files import commands

from modeling_slam.analysis import StudyResults
from modeling_slam.study import load_study, run_study
from modeling_slam.study.__main__ import main
from modeling_slam.study.runner import held
from modeling_slam.study.schedulers import Local
from modeling_slam.study.store import StudyError, StudyStore

RUNS = ("tiny-3L-projector-en-s42", "tiny-1L-projector-en-s42")


def test_every_run_is_run_once_and_stands_in_the_index(study_file, stand_ins, tmp_path):
    study = load_study(study_file())
    for _ in range(2):  # the second call finds nothing to do
        outcome = run_study(study, tmp_path / "out", Local(2), threads=1)
        assert (outcome.finished, outcome.total, outcome.failures) == (2, 2, [])
    store = StudyStore(tmp_path / "out")
    for spec in study.specs:
        assert commands(store.run_directory(spec)) == ["train.py", "eval.py"]
        record = store.record(spec)
        assert (record.spec, record.attempts, record.threads) == (spec, 1, 1)
        assert record.started <= record.finished
        assert not list(store.run_directory(spec).glob("model/checkpoint-*"))
    index = pd.read_parquet(tmp_path / "out" / "index.parquet").set_index("name")
    assert set(index.index) == set(RUNS)
    assert index.loc[RUNS[0], ["keep_layers", "wer", "mode"]].tolist() == [3, 0.5, "projector"]


def test_a_run_with_damaged_predictions_is_named_and_run_again_once_deleted(study_file, stand_ins, tmp_path):
    study, out = load_study(study_file()), tmp_path / "out"
    run_study(study, out)
    directory = out / "runs" / RUNS[0]
    (out / "index.parquet").unlink()
    (directory / "predictions.jsonl").write_text("damaged\n")
    with pytest.raises(
        ValueError, match=rf"{RUNS[0]}.*line 1, is no JSON.* delete the directory {directory} and"
    ):
        StudyResults.load(out)
    shutil.rmtree(directory)
    assert run_study(study, out).finished == 2
    assert len(StudyResults.load(out).runs) == 2


def test_a_run_that_dies_goes_on_from_its_checkpoint(study_file, stand_ins, tmp_path):
    (stand_ins / "failures").write_text("1")
    outcome = run_study(load_study(study_file()), tmp_path / "out", only=[RUNS[0]])
    assert outcome.finished == outcome.total == 1
    directory = tmp_path / "out" / "runs" / RUNS[0]
    assert commands(directory) == ["train.py", "train.py", "eval.py"]
    log = (directory / "log.txt").read_text()
    assert log.index("begins") < log.index("out of memory") < log.index("resumes")


def test_a_run_that_keeps_dying_is_reported_and_the_others_go_on(study_file, stand_ins, tmp_path):
    (stand_ins / "failures").write_text("2")
    study = load_study(study_file())
    outcome = run_study(study, tmp_path / "out", max_attempts=2, keep_models=False)
    assert (outcome.finished, [failure.name for failure in outcome.failures]) == (1, [RUNS[0]])
    assert "2 attempts failed" in outcome.failures[0].message
    assert "out of memory" in outcome.failures[0].message
    assert not (tmp_path / "out" / "runs" / RUNS[1] / "model").exists()
    again = run_study(study, tmp_path / "out", max_attempts=2)  # the cause is gone
    assert (again.finished, again.failures) == (2, [])
    assert commands(tmp_path / "out" / "runs" / RUNS[1]) == ["train.py", "eval.py"]


def test_a_recipe_that_comes_to_state_a_default_changes_no_begun_run(study_file, stand_ins, tmp_path):
    results = tmp_path / "results"
    run_study(load_study(study_file()), tmp_path / "out", only=[RUNS[0]], results=results)
    stated = load_study(study_file(), ["train.final_layer_norm=as_is", "eval.dtype=auto"])
    assert run_study(stated, tmp_path / "out", results=results).finished == 2
    assert run_study(stated, tmp_path / "other", results=results).finished == 2
    assert not (tmp_path / "other" / "runs" / RUNS[0] / "log.txt").exists()  # it was kept


def test_a_begun_run_keeps_its_specification(study_file, stand_ins, tmp_path):
    run_study(load_study(study_file()), tmp_path / "out", only=[RUNS[0]])
    changed = study_file()
    with pytest.raises(StudyError, match=r"another specification:\n  train_flags was .*learning_rate"):
        run_study(load_study(changed, ["train.learning_rate=0.1"]), tmp_path / "out")
    with pytest.raises(StudyError, match="holds the study 'tiny', this one is 'other'"):
        run_study(load_study(changed, ["name=other"]), tmp_path / "out")
    larger = load_study(changed, ["seeds=[42, 43]"])
    assert run_study(larger, tmp_path / "out").finished == 4
    assert commands(tmp_path / "out" / "runs" / RUNS[0]) == ["train.py", "eval.py"]


def test_two_engines_never_run_the_same_run(study_file, stand_ins, tmp_path):
    """What one is at, the other leaves for the end, waits for it, and finds it done."""
    (stand_ins / "seconds").write_text("0.5")
    study = load_study(study_file())
    engines = [threading.Thread(target=run_study, args=(study, tmp_path / "out")) for _ in range(2)]
    for engine in engines:
        engine.start()
    for engine in engines:
        engine.join()
    for name in RUNS:
        assert commands(tmp_path / "out" / "runs" / name) == ["train.py", "eval.py"]
    assert len(pd.read_parquet(tmp_path / "out" / "index.parquet")) == 2


def test_the_end_of_an_engine_ends_its_runs(study_file, stand_ins, tmp_path):
    """Its death by SIGKILL; another one then finds the lock free and goes on from the checkpoint."""
    (stand_ins / "seconds").write_text("60")
    code = (
        "import pathlib, sys; from modeling_slam.study import load_study, run_study, runner\n"
        "runner.HOME = pathlib.Path(sys.argv[3]); run_study(load_study(sys.argv[1]), sys.argv[2])"
    )
    arguments = [str(study_file()), str(tmp_path / "out"), str(stand_ins)]
    directory = tmp_path / "out" / "runs" / RUNS[0]
    with subprocess.Popen([sys.executable, "-c", code, *arguments]) as engine:
        while not (directory / "model" / "checkpoint-1").exists():
            assert engine.poll() is None
            time.sleep(0.05)
        engine.kill()
    begun = time.monotonic()
    with held(directory, wait=True):
        assert time.monotonic() - begun < 20
    (stand_ins / "seconds").write_text("0")
    assert run_study(load_study(study_file()), tmp_path / "out").finished == 2
    assert "begins\n$ python train.py" in (directory / "log.txt").read_text()
    assert "resumes" in (directory / "log.txt").read_text()


def test_ctrl_c_stops_the_runs_and_ends_without_a_traceback(study_file, stand_ins, tmp_path, capsys):
    (stand_ins / "seconds").write_text("60")
    checkpoint = tmp_path / "out" / "runs" / RUNS[0] / "model" / "checkpoint-1"

    def interrupt() -> None:
        while not checkpoint.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt, daemon=True).start()
    before = signal.getsignal(signal.SIGTERM)
    begun = time.monotonic()
    try:
        with pytest.raises(SystemExit) as ended:
            main(["run", str(study_file()), "--output_dir", str(tmp_path / "out")])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 130
    assert time.monotonic() - begun < 20
    assert "Stopped. The same command goes on" in capsys.readouterr().err
    with held(checkpoint.parents[1], wait=False):  # nothing of the run is left
        pass


def test_data_that_is_not_there_shows_before_the_first_run(study_file, stand_ins, tmp_path):
    study = load_study(study_file(), [f"datasets.en.dataset={tmp_path / 'nowhere'}"])
    with pytest.raises(ValueError, match="there is nothing of that name"):
        run_study(study, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_baselines_are_part_of_the_study(study_file, stand_ins, tmp_path):
    study = load_study(study_file(baselines=True))
    outcome = run_study(study, tmp_path / "out", only=["tiny-en"])
    assert outcome.finished == outcome.total == 1
    directory = tmp_path / "out" / "baselines" / "tiny-en"
    assert commands(directory) == ["eval.py"]
    log = (directory / "log.txt").read_text()
    assert "--baseline whisper" in log
    assert "--num_beams 1" in log
    run_study(study, tmp_path / "out", only=["tiny-en"])
    assert commands(directory) == ["eval.py"]


def test_only_names_the_runs_that_are_run(study_file, stand_ins, tmp_path):
    with pytest.raises(ValueError, match=r"No run matches 'x-\*'\. The study has tiny-3L"):
        run_study(load_study(study_file()), tmp_path / "out", only=["x-*"])
    assert run_study(load_study(study_file()), tmp_path / "out", only=["tiny-1L-*"]).total == 1


def test_runs_that_share_an_encoder_share_its_cached_output(study_file, stand_ins, tmp_path):
    """A run stores all depths that are not finished when it begins; no specification changes."""
    run_study(load_study(study_file()), tmp_path / "out", cache_features="cache", cache_max_gb=7.5)
    for name, depths in zip(RUNS, ("3,1", "1"), strict=True):
        log = (tmp_path / "out" / "runs" / name / "log.txt").read_text()
        assert f"--cache_features cache --cache_max_gb 7.5 --cache_depths {depths}\n" in log
    assert run_study(load_study(study_file()), tmp_path / "out").finished == 2


def test_list_says_how_far_a_study_is(study_file, stand_ins, tmp_path, capsys):
    run_study(load_study(study_file()), tmp_path / "out", only=[RUNS[0]])
    main(["list", str(tmp_path / "out")])
    rows = capsys.readouterr().out.splitlines()
    assert rows[1].split()[:3] == [RUNS[0], "finished", "1"]
    assert rows[2].split()[:4] == [RUNS[1], "not", "begun", "0"]
    assert rows[-1] == "1 of 2 runs finished."
    with pytest.raises(SystemExit, match=r"holds no study: study\.json is missing"):
        main(["list", str(tmp_path / "elsewhere")])


def engine(study, directory, start, answers) -> None:
    start.wait()
    try:
        answers.put(run_study(study, directory).finished)
    except Exception as error:
        answers.put(f"{type(error).__name__}: {error}")


@pytest.mark.parametrize("names", [("tiny", "tiny"), ("tiny", "other"), ("tiny", "tiny", "tiny")])
def test_engines_that_start_at_once_on_a_new_directory_share_it_or_one_is_refused(
    study_file, stand_ins, tmp_path, names
):
    context = multiprocessing.get_context("fork")
    start, answers = context.Barrier(len(names)), context.Queue()
    for name in names:
        study = load_study(study_file(), [f"name={name}"])
        context.Process(target=engine, args=(study, tmp_path / "out", start, answers)).start()
    found = [answers.get(timeout=120) for _ in names]
    refused = [answer for answer in found if isinstance(answer, str)]
    assert len(refused) == len(set(names)) - 1
    assert all("StudyError" in answer and "holds the study" in answer for answer in refused)
    assert found.count(2) == len(names) - len(refused)
    for run in RUNS:
        assert commands(tmp_path / "out" / "runs" / run) == ["train.py", "eval.py"]
    assert len(pd.read_parquet(tmp_path / "out" / "index.parquet")) == 2
