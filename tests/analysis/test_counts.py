"""Counts stand for the predictions: every table and test follows from them, and no text is in them."""

import json
import shutil
from pathlib import Path

import jiwer
import pandas as pd
import pytest
from made_study import make_study, row, spec_of, write_study

from modeling_slam.analysis import StudyResults
from modeling_slam.analysis.breakdowns import errors_by_frequency
from modeling_slam.analysis.counting import counts_of, write_counts
from modeling_slam.analysis.counts import BANDS, Counted, band_of, read_counts
from modeling_slam.analysis.error_types import error_type, recovered_utterances
from modeling_slam.analysis.significance import compare
from modeling_slam.evaluation.report import score, scored_rows
from modeling_slam.report.sections import report_tables

TRAINED = {"one": 5000, "two": 150, "three": 12, "four": 1}  # how often each word was in the training text
ROWS = [
    # "three" is substituted, "four" deleted, "two" and "quagga" are inserted.
    row(0, "one three two four one zebra", "one horse two one zebra two quagga", speaker="ann", tokens=5),
    row(1, "two two", "two two", speaker="bob", raw_reference="Two, two.", raw_prediction="two two"),
    row(2, "one", "", speaker="ann"),
    row(3, "four one", "one one one one one", tokens=99),
]


def limit(seconds: float) -> int:
    return 99


def counted(rows, occurrences=TRAINED) -> pd.DataFrame:
    metrics = score(rows, limit, batch_mean_size=2) | {"parameters": {"encoder_kept": 7}}
    return counts_of(rows, metrics | {"settings": {"split": "test"}}, occurrences, limit)


def test_bands_are_of_the_training_text():
    found = [band_of(count) for count in (0, 1, 9, 10, 99, 100, 999, 1000, 10**6)]
    assert found == ["0", "1-9", "1-9", "10-99", "10-99", "100-999", "100-999", "1000+", "1000+"]


def test_errors_stand_in_the_band_of_their_word_by_hand():
    counts = counted(ROWS)
    first = counts.iloc[0]
    words = {band: first[f"words_{band}"] for band in BANDS}
    assert words == {"0": 1, "1-9": 1, "10-99": 1, "100-999": 1, "1000+": 2}
    wrong = {
        (kind, band): first[f"{kind}_{band}"]
        for kind in ("substitutions", "deletions", "insertions")
        for band in BANDS
        if first[f"{kind}_{band}"]
    }
    assert first["alignment"] == "e1s1e1d1e2i2"
    assert wrong == {
        ("substitutions", "10-99"): 1, ("deletions", "1-9"): 1,
        ("insertions", "100-999"): 1, ("insertions", "0"): 1,
    }  # fmt: skip
    assert counts.loc[2, "deletions_1000+"] == 1
    assert counts["kind"].tolist() == [
        error_type(r.reference, r.prediction, r.raw_reference, "en") for r in ROWS
    ]
    assert counts["truncated"].tolist() == [False, False, False, True]
    assert counts["loop"].tolist() == [False, False, False, True]


def test_counts_are_those_of_jiwer_and_add_up_over_the_bands():
    counts = counted(ROWS)
    output = jiwer.process_words([r.reference for r in ROWS], [r.prediction for r in ROWS])
    for kind in ("substitutions", "deletions", "insertions"):
        assert counts[kind].sum() == getattr(output, kind)
        assert (counts[[f"{kind}_{band}" for band in BANDS]].sum(axis=1) == counts[kind]).all()
    assert counts[[f"words_{band}" for band in BANDS]].sum(axis=1).tolist() == [6, 2, 1, 2]


@pytest.mark.parametrize("style", ["normalized", "written"])
def test_every_metric_follows_from_the_counts(style):
    metrics = score(ROWS, limit, 2, style) | {"parameters": {}, "settings": {"text_style": style}}
    found = Counted(counts_of(ROWS, metrics, None, limit)).measure()
    assert found == {name: pytest.approx(metrics[name]) for name in found}
    scored = scored_rows(ROWS, style)
    assert found["whisper_wer"] == pytest.approx(scored.words_by_whisper.rate)
    assert ("written_wer" in found) == (style == "written")
    assert {
        "wer",
        "cer",
        "ser",
        "batch_mean_wer",
        "truncated_predictions",
        "real_time_factor",
    } <= found.keys()


def test_without_the_words_that_were_trained_on_there_are_no_bands():
    assert not [name for name in counted(ROWS, occurrences=None) if name.startswith("words_")]


def test_no_text_is_in_the_file(tmp_path):
    rows = [
        row(0, "zebra quagga", "zebra okapi", raw_reference="Zebra, quagga!", raw_prediction="zebra okapi")
    ]
    run = write_study(tmp_path, [(spec_of(6, "lora", "en"), rows)]) / "runs" / "base-6L-lora-en-s42"
    write_counts(run, run, {"zebra": 3}, limit)
    content = (run / "counts.parquet").read_bytes().lower()
    assert not [word for word in (b"zebra", b"quagga", b"okapi") if word in content]
    assert b"clip-0000" in content


def test_a_file_that_is_no_table_of_counts_is_named(tmp_path):
    file = tmp_path / "counts.parquet"
    file.write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"counts\.parquet cannot be read"):
        read_counts(file)
    pd.DataFrame({"id": ["a"]}).to_parquet(file)
    with pytest.raises(ValueError, match=r"no table of counts: it has no alignment, deletions, .*, scored"):
        read_counts(file)


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[StudyResults, StudyResults]:
    """A study with its predictions, and what is kept of it: records and counts."""
    whole = make_study(tmp_path_factory.mktemp("whole"), utterances=20)
    kept = tmp_path_factory.mktemp("kept")
    shutil.copy(whole / "study.json", kept)
    for run in (whole / "runs").iterdir():
        (run / "model").mkdir()
        report = {"kept_clips": 7, "kept_hours": 0.5}
        (run / "model" / "data_train.json").write_text(json.dumps(report))
        write_counts(run, run, TRAINED, lambda seconds: 256)
        (kept / "runs" / run.name).mkdir(parents=True)
        for name in ("run.json", "counts.parquet"):
            shutil.copy(run / name, kept / "runs" / run.name)
    return StudyResults.load(whole), StudyResults.load(kept)


def test_the_row_of_a_kept_run_is_that_of_the_complete_one(both):
    whole, kept = (study.runs for study in both)
    pd.testing.assert_frame_equal(whole, kept, check_dtype=False, check_exact=False)


def test_all_tables_but_examples_follow_from_what_is_kept(both):
    whole, kept = ({table.name: table for table in report_tables(study)} for study in both)
    assert whole.keys() - kept.keys() == {"misses_by_frequency"}  # it counts in the texts of the test set
    assert "errors_by_training_frequency" in kept
    texts = ["reference", "pruned", "pruned_lora"]
    for name, table in kept.items():
        ours = whole[name].data.drop(columns=texts, errors="ignore")
        pd.testing.assert_frame_equal(
            table.data.drop(columns=texts, errors="ignore"), ours, check_dtype=False
        )


def test_what_lora_recovers_is_counted_by_kind_without_its_texts(tmp_path):
    heard = {(6, "projector"): "two two", (4, "projector"): "one one one one one", (4, "lora"): "two two"}
    runs = [(spec_of(*key, "en"), [row(0, "two two", text)]) for key, text in heard.items()]
    study = write_study(tmp_path, runs)
    for run in (study / "runs").iterdir():
        write_counts(run, run, None, limit)
        (run / "predictions.jsonl").unlink()
        (run / "metrics.json").unlink()
    (line,) = recovered_utterances(StudyResults.load(study)).to_dict("records")
    assert (line["kind"], line["id"], line["reference"]) == ("repetition", "en/clip-0000", None)
    table = {table.name: table for table in report_tables(StudyResults.load(study))}["table6_recovered"]
    assert table.shown.loc[0, ["kind", "reference", "with LoRA"]].tolist() == ["repetition", "", ""]


def test_paired_tests_of_a_kept_run_and_a_complete_one(both, tmp_path):
    whole, kept = both
    first, second = "base-6L-projector-en-s42", "base-4L-lora-en-s42"
    mixed = Path(shutil.copytree(whole.directory, tmp_path / "mixed"))
    for name in ("predictions.jsonl", "metrics.json"):
        (mixed / "runs" / first / name).unlink()
    expected = compare(whole, first, second)
    assert compare(kept, first, second) == expected == compare(StudyResults.load(mixed), first, second)
    by_speaker = [compare(study, first, second, by_speaker=True) for study in both]
    assert by_speaker[0] == by_speaker[1]


def test_what_needs_text_names_the_run_that_has_none(both):
    _, kept = both
    run = kept.runs["name"].iloc[0]
    with pytest.raises(ValueError, match=f"{run} has no predictions: only its counts were kept"):
        kept.read(run)


def test_errors_by_frequency_add_up_to_the_wer(both):
    _, kept = both
    table = errors_by_frequency(kept)
    for name, bands in table.groupby("name"):
        errors = bands[["substitutions", "deletions", "insertions"]].sum(axis=1)
        of_words = bands[bands["reference_words"] > 0]
        assert (of_words["wer"] * of_words["reference_words"]).tolist() == pytest.approx(
            errors[of_words.index]
        )
        wer = errors.sum() / bands["reference_words"].sum()
        assert wer == pytest.approx(kept.runs.set_index("name").loc[name, "wer"])


@pytest.mark.parametrize("inserted", ["quagga", "one", "four three"])
def test_a_band_in_which_words_were_only_inserted_has_no_rate_and_stays_in_the_report(inserted, tmp_path):
    rows = [row(0, "two two", f"two two {inserted}"), row(1, "two", "two")]
    study = write_study(tmp_path, [(spec_of(6, mode, "en"), rows) for mode in ("projector", "lora")])
    for run in (study / "runs").iterdir():
        write_counts(run, run, TRAINED, limit)
    tables = {table.name: table for table in report_tables(StudyResults.load(study))}
    written = tables["errors_by_training_frequency"].shown
    empty = {band_of(TRAINED.get(word, 0)) for word in inserted.split()}
    assert empty < set(written.columns)
    assert set(written[sorted(empty)].to_numpy().ravel()) == {""}
    assert set(written[band_of(TRAINED["two"])]) == {"0.0"}
