"""Hotwords in an evaluation: told to the model, kept with the predictions, scored."""

import json

import pytest
from transformers import AutoProcessor

import eval as eval_script
from benchmarks.hotwords import COLUMNS, table
from modeling_slam.evaluation.arguments import EvaluationArguments
from modeling_slam.evaluation.hotwords import hotword_scores, summary_of
from modeling_slam.evaluation.predictions import Prediction, read_predictions, to_lines


def row(reference: str, prediction: str, hotwords: list[str] | None) -> Prediction:
    raw = reference, prediction
    return Prediction("id", 0, reference, prediction, *raw, 1.0, 0.1, 3, None, "en", hotwords=hotwords)


def test_recall_counts_told_words_that_are_said_and_parroting_those_that_are_not():
    rows = [
        row("ask joe king and joe king", "ask joe king and george king", ["Joe King", "azura"]),
        row("bob saw it", "bob saw azura", ["Azura", "bob", "lola", "saw bob"]),
        row("nobody", "bob", []),
    ]
    scores = hotword_scores(rows)
    assert scores == {"hotwords": {"said": 3, "recall": 2 / 3, "not_said": 4, "parroting": 1 / 4}}
    assert "66.67 % of 3 said" in summary_of(scores)[0]
    assert "25.00 % of 4 not said" in summary_of(scores)[0]
    assert hotword_scores([row("a", "a", None)]) == {}
    assert summary_of({}) == []


def test_predictions_keep_what_was_told_and_old_ones_stay_as_they_are(tmp_path):
    file = tmp_path / "predictions.jsonl"
    for words in (["één", "joe king"], [], None):
        file.write_text(to_lines([row("a", "b", words)]), encoding="utf-8")
        assert read_predictions(file) == [row("a", "b", words)]
        assert ("hotwords" in file.read_text(encoding="utf-8")) == (words is not None)
    values = json.loads(to_lines([row("a", "b", [])]))
    for wrong in ("word", [1], [["a"]]):
        file.write_text(json.dumps(values | {"hotwords": wrong}) + "\n", encoding="utf-8")
        with pytest.raises(ValueError, match="`hotwords` must be list"):
            read_predictions(file)


@pytest.fixture
def told(checkpoint):
    """The checkpoint, of a model that can be told hotwords."""
    processor = AutoProcessor.from_pretrained(checkpoint)
    processor.instruction = "{hotwords} say:\n"
    processor.save_pretrained(checkpoint)
    return checkpoint


@pytest.fixture
def command(checkpoint, speech_folder) -> list[str]:
    return [
        "--model", str(checkpoint), "--dataset", str(speech_folder), "--language", "nl", "--batch_size", "2",
        "--max_new_tokens", "6", "--num_workers", "0", "--output_dir",
    ]  # fmt: skip


def test_each_clip_is_told_its_words_which_the_results_record(command, told, tmp_path, capsys):
    told_by = {}
    for name in ("nothing", "oracle", "mixed", "distractors"):
        words = [] if name == "nothing" else ["--hotwords", name, "--hotword_count", "4"]
        eval_script.main([*command, str(tmp_path / name), *words])
        told_by[name] = read_predictions(tmp_path / name / "predictions.jsonl")
    assert "hotwords:" in capsys.readouterr().out
    for one in told_by["oracle"]:
        assert one.hotwords
        assert all(word in one.reference for word in one.hotwords)
    assert not [
        word for one in told_by["distractors"] for word in one.hotwords or () if word in one.reference.split()
    ]
    assert max(len(one.hotwords or ()) for one in told_by["mixed"]) == 4
    assert {one.hotwords is None for one in told_by["nothing"]} == {True}
    texts = {name: [one.raw_prediction for one in rows] for name, rows in told_by.items()}
    assert texts["oracle"] != texts["nothing"]
    settings = json.loads((tmp_path / "mixed" / "metrics.json").read_text(encoding="utf-8"))["settings"]
    assert settings["hotwords"] == "mixed"
    lines = table(tmp_path)
    assert [line.split()[1] for line in lines[2:]] == ["nothing", "oracle", "mixed", "distractors"]
    assert {line.count("|") for line in lines} == {len(COLUMNS) + 1}


def test_a_file_is_told_to_all_clips_and_one_with_other_words_is_another_evaluation(command, told, tmp_path):
    file, results = tmp_path / "words.txt", tmp_path / "results"
    file.write_text("Tien\nacht\n", encoding="utf-8")
    eval_script.main([*command, str(results), "--hotwords", str(file)])
    assert {tuple(one.hotwords or ()) for one in read_predictions(results / "predictions.jsonl")} == {
        ("tien", "acht")
    }
    file.write_text("Tien\nzeven\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="made with other settings: hotwords_content"):
        eval_script.main([*command, str(results), "--hotwords", str(file)])


@pytest.mark.parametrize("words", ["oracle", "words.txt"])
def test_a_model_that_cannot_be_told_hotwords_says_how_to_train_one(command, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.txt").write_text("tien\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"`--instruction \"Hotwords: \{hotwords\}"):
        eval_script.main([*command, str(tmp_path / "results"), "--hotwords", words])


@pytest.mark.parametrize("without", [{"decoder": "ctc"}, {"baseline": "whisper"}])
def test_hotwords_are_refused_where_no_llm_reads_them(without):
    with pytest.raises(ValueError, match="`hotwords` stand in the LLM's prompt"):
        EvaluationArguments(model="m", output_dir="o", hotwords="oracle", **without)
