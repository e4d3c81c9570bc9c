"""Parts of the errors add up to the whole, and every band holds what it says."""

import jiwer
import pytest
from made_study import row, spec_of, write_study

from modeling_slam.analysis.breakdowns import (
    failure_rates,
    misses_by_frequency,
    reference_words,
    wer_by_length,
    wer_by_part,
)
from modeling_slam.analysis.results import StudyResults
from modeling_slam.analysis.utterances import utterance_frame
from modeling_slam.report.sections import report_tables


def test_bands_of_length_add_up_to_the_run(study):
    bands = wer_by_length(study)
    for name, parts in bands.groupby("name"):
        whole = study.runs.set_index("name").loc[name]
        errors = (parts["wer"] * parts["reference_words"]).sum()
        assert errors / parts["reference_words"].sum() == pytest.approx(whole["wer"])
        assert parts["utterances"].sum() == whole["utterances"]


def test_a_band_is_jiwers_rate_of_its_clips(study):
    name = study.runs["name"].iloc[0]
    clips = study.utterances(name)
    short = clips[clips["duration"] <= 2]
    bands = wer_by_length(study).set_index(["name", "seconds"])
    assert bands.loc[(name, "0 to 2"), "wer"] == pytest.approx(
        jiwer.wer(list(short["reference"]), list(short["prediction"]))
    )


def test_reference_words_are_missed_where_they_were_substituted_or_deleted():
    words = reference_words(utterance_frame("run", [row(0, "a b c", "a x c d"), row(1, "e f", "f")]))
    assert dict(zip(words["word"], words["missed"], strict=True)) == {
        "a": False, "b": True, "c": False, "e": True, "f": False,
    }  # fmt: skip


def test_rare_words_are_those_that_occur_seldom(study):
    misses = misses_by_frequency(study, bands=(1, 5, 50))
    assert set(misses["occurrences"]) <= {"1 to 4", "5 to 49", "50 or more"}
    for name, parts in misses.groupby("name"):
        run = study.runs.set_index("name").loc[name]
        missed = (parts["missed"] * parts["reference_words"]).sum()
        assert missed == pytest.approx(run["substitutions"] + run["deletions"])


def test_failures_are_shares_of_utterances(study):
    rates = failure_rates(study.runs).set_index("name")
    for run in study.runs.itertuples():
        assert rates.loc[run.name, "loop"] == study.utterances(run.name)["loop"].mean()
        assert rates.loc[run.name, "empty"] == (study.utterances(run.name)["prediction"] == "").mean()


def test_a_run_on_several_datasets_has_a_rate_for_each_and_for_each_language(tmp_path):
    rows = [
        row(0, "one two", "one too", dataset="queen"),
        row(1, "three", "three", dataset="sky"),
        row(2, "vier vijf", "vier", language="nl", dataset="talk"),
    ]
    plain, mixed = spec_of(6, "lora", "nl"), spec_of(4, "lora", "en")
    study = StudyResults.load(write_study(tmp_path, [(plain, [row(0, "one", "one")]), (mixed, rows)]))
    parts = wer_by_part(study)
    assert set(parts["name"]) == {mixed["name"]}
    assert dict(zip(parts["part"], parts["wer"], strict=True)) == {
        "queen": 0.5, "sky": 0.0, "talk": 0.5, "language en": 1 / 3, "language nl": 0.5,
    }  # fmt: skip
    (table,) = [table for table in report_tables(study) if table.name == "wer_by_part"]
    assert list(table.shown.columns[-6:-1]) == ["queen", "sky", "talk", "language en", "language nl"]
    assert len(table.shown) == 1
