"""Figures that are kept: records and counts alone make a run finished, on any machine, and are reported."""

import json
import shutil

import pandas as pd
import pytest
from study_files import commands

from modeling_slam.analysis import StudyResults
from modeling_slam.report.pages import write_report
from modeling_slam.study import load_study, run_study
from modeling_slam.study.__main__ import main
from modeling_slam.study.store import StudyError

RUNS = ("tiny-3L-projector-en-s42", "tiny-1L-projector-en-s42")
KEPT = {"run.json", "counts.parquet"}


def test_a_fresh_machine_goes_on_from_what_was_kept(study_file, stand_ins, world, tmp_path):
    results = tmp_path / "results"
    directories = ["--output_dir", str(tmp_path / "a"), "--results", str(results)]
    main(["run", str(study_file()), *directories, "--only", RUNS[0]])
    assert {file.name for file in (results / "runs" / RUNS[0]).iterdir()} == KEPT
    assert not (results / "runs" / RUNS[1]).exists()
    shutil.rmtree(tmp_path / "a")
    elsewhere = shutil.copytree(world.encoder, tmp_path / "elsewhere" / world.encoder.name)
    study = load_study(study_file(), [f"encoders.tiny.model={elsewhere}"])
    outcome = run_study(study, tmp_path / "b", results=results)
    assert (outcome.finished, outcome.total) == (2, 2)
    assert {file.name for file in (tmp_path / "b" / "runs" / RUNS[0]).iterdir()} == KEPT  # nothing ran
    assert commands(tmp_path / "b" / "runs" / RUNS[1]) == ["train.py", "eval.py"]
    assert {file.name for file in (results / "runs" / RUNS[1]).iterdir()} == KEPT
    runs = StudyResults.load(tmp_path / "b").runs  # beside each other
    assert sorted(runs["name"]) == sorted(RUNS)
    assert set(pd.read_parquet(tmp_path / "b" / "index.parquet")["name"]) == set(RUNS)
    # The directory of what is kept is a study's directory: it can be reported without a run.
    assert sorted(StudyResults.load(results).runs["name"]) == sorted(RUNS)


def test_nothing_kept_names_this_machine_or_quotes_a_text(study_file, stand_ins, tmp_path):
    results = tmp_path / "results"
    run_study(load_study(study_file(baselines=True)), tmp_path / "out", results=results)
    contents = [file.read_bytes() for file in results.rglob("*") if file.is_file()]
    assert len(contents) == 6  # study.json, two records, two tables of counts, a baseline's
    assert not [text for text in contents if str(tmp_path.parent).encode() in text or b"north" in text]
    record = json.loads((results / "runs" / RUNS[0] / "run.json").read_text())
    assert (record["host"], record["spec"]["encoder"]) == ("", "whisper")


def test_baselines_are_kept_too(study_file, stand_ins, tmp_path):
    results = tmp_path / "results"
    study = load_study(study_file(baselines=True))
    run_study(study, tmp_path / "a", results=results)
    outcome = run_study(study, tmp_path / "b", results=results)
    assert (outcome.finished, outcome.total) == (3, 3)
    assert not list((tmp_path / "b").rglob("log.txt"))
    assert StudyResults.load(tmp_path / "b").baselines["name"].tolist() == ["tiny-en"]


def test_kept_results_of_something_else_are_refused(study_file, stand_ins, tmp_path):
    results = tmp_path / "results"
    run_study(load_study(study_file()), tmp_path / "a", results=results)
    with pytest.raises(StudyError, match=r"is of another run:\n  train_flags was .*learning_rate"):
        run_study(load_study(study_file(), ["train.learning_rate=0.1"]), tmp_path / "b", results=results)
    with pytest.raises(StudyError, match="is of the study 'tiny', this one is 'other'"):
        run_study(load_study(study_file(), ["name=other"]), tmp_path / "b", results=results)
    with pytest.raises(ValueError, match="`results` and `output_dir` are both"):
        run_study(load_study(study_file()), tmp_path / "a", results=tmp_path / "a")
    assert not (tmp_path / "b").exists()
    # Nor does a study that was finished elsewhere leave there what is of other settings than it says.
    other = load_study(study_file(), ["train.learning_rate=0.1"])
    run_study(other, tmp_path / "c")
    with pytest.raises(StudyError, match=r"is of another run:\n  train_flags was .*learning_rate"):
        run_study(other, tmp_path / "c", results=results)


def test_counts_read_flags_as_the_evaluation_reads_them(study_file, stand_ins, tmp_path):
    """YAML takes 1e2 and quoted numbers for words."""
    study = load_study(study_file(eval={"batch_seconds": "1e2", "max_new_tokens": "8"}))
    outcome = run_study(study, tmp_path / "out")
    assert (outcome.finished, outcome.total) == (2, 2)


def test_clips_of_runs_without_texts_are_refused_by_name(study_file, stand_ins, tmp_path):
    run_study(load_study(study_file()), tmp_path / "a", results=tmp_path / "results")
    report = write_report(tmp_path / "results", tmp_path / "report")
    assert not (report / "errors.html").exists()
    assert (
        f"only counts were kept, so their texts are not here: {RUNS[0]}" in (report / "report.md").read_text()
    )
    with pytest.raises(ValueError, match=f"`clips` shows what runs heard, and of {RUNS[0]}, {RUNS[1]} only"):
        write_report(tmp_path / "results", tmp_path / "report", clips=2)


BOTH = {"eval": {"decoder": ["llm", "ctc"], "ctc_weight": 0.3, "num_beams": 4}}


def test_a_run_is_evaluated_by_each_decoder_and_counted_separately(study_file, stand_ins, tmp_path):
    path = study_file(**BOTH)
    study = load_study(path, ["train.ctc_weight=0.3", "encoders.tiny.keep_layers=[3]"])
    assert [spec.name for spec in study.specs] == [RUNS[0]]
    assert study.axes == {"decoder": "decoder"}
    run_study(study, tmp_path / "out", results=tmp_path / "results")
    run = tmp_path / "out" / "runs" / RUNS[0]
    assert commands(run) == ["train.py", "eval.py", "eval.py"]
    llm, ctc = (line for line in (run / "log.txt").read_text().splitlines() if "eval.py" in line)
    assert "--ctc_weight 0.3" in llm
    assert "--decoder" not in llm
    assert f"--output_dir {run / 'ctc'}" in ctc
    assert "--decoder ctc" in ctc
    assert "ctc_weight" not in ctc  # there is no LLM to weigh it against
    assert (run / "counts.parquet").is_file()
    assert (run / "ctc" / "counts.parquet").is_file()
    for directory in ("out", "results"):
        results = StudyResults.load(tmp_path / directory)
        assert results.runs[["name", "decoder"]].to_numpy().tolist() == [
            [f"{RUNS[0]}-ctc", "ctc"], [RUNS[0], "llm"],
        ]  # fmt: skip
        assert results.unfinished == []
        assert len(results.utterances(f"{RUNS[0]}-ctc")) == 1


def test_a_control_without_a_head_is_refused_before_anything_runs(study_file):
    with pytest.raises(ValueError, match="asks for the decoder ctc, and the run has no CTC head: set"):
        load_study(study_file(eval={"decoder": ["llm", "ctc"]}))
    with pytest.raises(ValueError, match="invalid choice: 'cct'"):
        load_study(study_file(eval={"decoder": ["llm", "cct"]}))
    with pytest.raises(ValueError, match="decoder` must name at least one, each once"):
        load_study(study_file(eval={"decoder": ["llm", "llm"]}))
