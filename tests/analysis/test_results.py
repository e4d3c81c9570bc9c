"""What the runs wrote comes back as frames, and is recomputed where the engine's index is old."""

import json

import jiwer
import numpy as np
import pandas as pd
import pytest
from made_study import make_study, row, spec_of, write_results, write_run, write_study

from modeling_slam.analysis import StudyResults
from modeling_slam.analysis.results import run_row, shown_rates
from modeling_slam.analysis.utterances import operations, same_utterances, utterance_frame
from modeling_slam.evaluation.metrics import ERROR_RATES, METRICS
from modeling_slam.study.specs import RunRecord


def test_every_finished_run_is_one_row_deepest_first(study):
    english = study.runs[study.runs["language"] == "en"]
    assert list(zip(english["keep_layers"], english["mode"], strict=True)) == [
        (layers, mode) for layers in (6, 4, 2) for mode in ("projector", "lora")
    ]
    assert study.unfinished == []


def test_rates_are_those_of_jiwer(study):
    for run in study.runs.itertuples():
        rows = study.read(run.name)
        references, predictions = [r.reference for r in rows], [r.prediction for r in rows]
        assert run.wer == pytest.approx(jiwer.wer(references, predictions))
        assert run.cer == pytest.approx(jiwer.cer(references, predictions))
        assert run.wer_low <= run.wer <= run.wer_high
        assert run.speaker_low <= run.wer <= run.speaker_high


def test_an_utterance_has_the_counts_of_its_alignment(study):
    frame = study.utterances(study.runs["name"].iloc[-1])
    for clip in frame.itertuples():
        output = jiwer.process_words(clip.reference, clip.prediction)
        assert (clip.substitutions, clip.deletions, clip.insertions, clip.hits) == (
            output.substitutions, output.deletions, output.insertions, output.hits,
        )  # fmt: skip
        sizes = dict.fromkeys("esdi", 0)
        for letter, size in operations(clip.alignment):
            sizes[letter] += size
        assert list(sizes.values()) == [clip.hits, clip.substitutions, clip.deletions, clip.insertions]
        assert clip.wer == pytest.approx(output.wer)


def test_a_run_counts_when_its_record_is_there(tmp_path):
    done, begun = spec_of(6, "projector", "en"), spec_of(4, "projector", "en")
    write_study(tmp_path, [(done, [row(0, "one", "one")]), (begun, [row(0, "one", "two")])])
    (tmp_path / "runs" / begun["name"] / "run.json").unlink()
    study = StudyResults.load(tmp_path)
    assert list(study.runs["name"]) == [done["name"]]
    assert study.unfinished == [begun["name"]]


def test_the_engines_index_is_read_unless_a_run_is_newer(study_directory, tmp_path):
    spec = spec_of(6, "projector", "en")
    write_study(tmp_path, [(spec, [row(0, "one", "one")])])
    index = pd.DataFrame([run_row(tmp_path / "runs" / spec["name"])]).assign(wer=0.5)
    index.to_parquet(tmp_path / "index.parquet")
    assert StudyResults.load(tmp_path).runs["wer"].tolist() == [0.5]
    record = tmp_path / "runs" / spec["name"] / "run.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"finished": "2026-02-02T00:00:00Z"}))
    assert StudyResults.load(tmp_path).runs["wer"].tolist() == [0.0]


def test_a_run_that_lost_predictions_is_no_smaller_test_set(tmp_path):
    spec = spec_of(6, "projector", "en")
    write_study(tmp_path, [(spec, [row(0, "one", "one"), row(1, "two", "two")])])
    file = tmp_path / "runs" / spec["name"] / "predictions.jsonl"
    file.write_text(file.read_text().splitlines(keepends=True)[0])
    with pytest.raises(ValueError, match=r"holds 1 predictions, and metrics\.json beside it is of 2"):
        StudyResults.load(tmp_path)


@pytest.mark.parametrize("stored", ["metrics.json", "index.parquet"])
def test_intervals_of_an_older_method_are_made_anew_from_the_predictions(tmp_path, stored):
    spec = spec_of(6, "projector", "en")
    write_study(tmp_path, [(spec, [row(0, "one two", "one two")])])
    run = tmp_path / "runs" / spec["name"]
    if stored == "metrics.json":
        older = json.loads((run / "metrics.json").read_text()) | {"wer_interval": [0.0, 0.0]}
        del older["interval_method"]
        (run / "metrics.json").write_text(json.dumps(older))
    else:
        index = pd.DataFrame([run_row(run)]).assign(wer_high=0.0, interval_method="bootstrap")
        index.to_parquet(tmp_path / "index.parquet")
    (found,) = StudyResults.load(tmp_path).runs.itertuples()
    assert (found.wer, found.wer_low) == (0.0, 0.0)
    assert found.wer_high > 0.7


def test_a_metric_that_a_run_was_not_scored_by_follows_from_its_predictions(tmp_path):
    spec = spec_of(6, "projector", "en")
    write_study(tmp_path, [(spec, [row(0, "one two", "one two"), row(1, "one", "two")])])
    file = tmp_path / "runs" / spec["name"] / "metrics.json"
    older = json.loads(file.read_text())
    del older["ser"], older["ser_interval"]
    file.write_text(json.dumps(older))
    (run,) = StudyResults.load(tmp_path).runs.itertuples()
    assert run.ser == 0.5
    assert run.ser_low <= 0.5 <= run.ser_high


def test_the_figure_of_leaderboards_follows_from_old_predictions_and_by_the_rules_that_are_here(tmp_path):
    spec = spec_of(6, "projector", "en")
    write_study(tmp_path, [(spec, [row(0, "won't go", "will not go"), row(1, "one", "two")])])
    file = tmp_path / "runs" / spec["name"] / "metrics.json"
    ours = json.loads(file.read_text())
    older = {name: value for name, value in ours.items() if not name.startswith("whisper")}
    elsewhere = ours | {"whisper_wer": 0.99, "whisper_rules": "of another machine"}
    for metrics in (ours, older, elsewhere):
        file.write_text(json.dumps(metrics))
        (run,) = StudyResults.load(tmp_path).runs.itertuples()
        assert (run.whisper_wer, run.whisper_rules) == (0.25, ours["whisper_rules"])
    assert np.isnan(run.written_wer)  # of a model of normalised text
    assert "written_wer" not in shown_rates(StudyResults.load(tmp_path).runs)
    elsewhere["settings"]["text_style"] = "written"
    file.write_text(json.dumps(elsewhere))
    assert "written_wer" in shown_rates(StudyResults.load(tmp_path).runs)


def test_the_index_has_every_metric_of_the_table(study):
    bounds = {f"{name}_{end}" for name in ERROR_RATES for end in ("low", "high")}
    assert {*METRICS, *bounds} <= set(study.runs.columns)


def test_a_directory_without_a_study_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"holds no study.*study\.json"):
        StudyResults.load(tmp_path)
    (tmp_path / "study.json").write_text(json.dumps({"name": "empty", "specs": []}))
    with pytest.raises(ValueError, match=r"No run of .* is finished"):
        StudyResults.load(tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "missing"),
    [
        ("study.json", "{}", "name, specs"),
        ("study.json", '{"name": "made"}', "specs"),
        ("runs/base-4L-lora-en-s42/run.json", "[]", "spec, finished"),
        ("runs/base-4L-lora-en-s42/run.json", '{"spec": {}}', "finished, commit"),
        ("runs/base-4L-lora-en-s42/metrics.json", "{}", "utterances, parameters, settings"),
        ("runs/base-4L-lora-en-s42/metrics.json", "7", "utterances"),
    ],
)
def test_a_file_of_a_study_that_lost_entries_is_named_with_what_is_missing(tmp_path, file, text, missing):
    study = make_study(tmp_path, languages=["en"], utterances=3)
    (study / file).write_text(text)
    with pytest.raises(ValueError, match=f"{study / file} is damaged: it has no {missing}"):
        StudyResults.load(study)


def test_runs_on_other_clips_are_not_compared():
    one = utterance_frame("one", [row(0, "a b", "a b"), row(1, "c", "c")])
    with pytest.raises(ValueError, match="different clips"):
        same_utterances(one, utterance_frame("two", [row(0, "a b", "a b")]))
    with pytest.raises(ValueError, match="other references"):
        same_utterances(one, utterance_frame("two", [row(0, "a b", "a b"), row(1, "d", "c")]))
    turned = same_utterances(one, utterance_frame("two", [row(1, "c", "x"), row(0, "a b", "a")]))
    assert turned["errors"].tolist() == [1, 1]
    assert turned.index.tolist() == one.index.tolist()


def test_a_baseline_is_a_row_of_its_own(tmp_path):
    spec = spec_of(6, "projector", "en")
    write_study(tmp_path, [(spec, [row(0, "one two", "one two")])])
    write_results(
        tmp_path / "baselines" / "large-v2-en",
        [row(0, "one two", "one")],
        {"encoder": 9, "decoder": 5, "total": 14},
    )
    (baseline,) = StudyResults.load(tmp_path).baselines.to_dict("records")
    assert (baseline["encoder_name"], baseline["language"], baseline["wer"]) == ("large-v2", "en", 0.5)
    assert np.isnan(baseline["speaker_low"])


def test_write_run_is_what_the_engine_reads(tmp_path):
    spec = spec_of(6, "lora", "en")
    write_run(tmp_path, spec, [row(0, "one", "one")])
    record = json.loads((tmp_path / "runs" / spec["name"] / "run.json").read_text())
    assert RunRecord.from_dict(record).spec.name == spec["name"]
