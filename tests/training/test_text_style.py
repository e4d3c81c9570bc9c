"""`--text_style written`: a model that writes case and punctuation, and what its scores say."""

import json

import jiwer
import pytest
from tiny_run import flags, logged

import eval
import train
from modeling_slam import SlamAsrForConditionalGeneration, SlamAsrProcessor
from modeling_slam.data import DataArguments, load_speech, normalize_text
from modeling_slam.data.text import in_style
from modeling_slam.model.ctc_head import CtcVocabulary


def test_targets_are_the_texts_as_they_are_written(world):
    clips, _ = load_speech(DataArguments(str(world.dataset)), "test")
    written = in_style(clips, "written")
    assert written["text"][:] == clips["raw_text"][:]
    assert all(text[0].isupper() and text.endswith(".") for text in written["text"])
    assert [normalize_text(text) for text in written["text"]] == clips["text"][:]
    assert in_style(clips, "normalized") is clips
    assert {name: written[3][name] for name in clips.column_names} == clips[3] | {
        "text": clips[3]["raw_text"]
    }


def test_a_model_of_written_text_is_scored_as_written_and_normalised_and_eval_follows_it(
    world, tmp_path, capsys
):
    run, scores = tmp_path / "run", tmp_path / "scores"
    stage = {
        "align_epochs": 12,
        "align_learning_rate": 1e-2,
        "align_dropout": 0.0,
        "align_frame_dropout": 0.1,
    }
    style = {"text_style": "written", "metric_for_best_model": "written_wer"}
    train.main(flags(world, run, max_steps=1, learning_rate=0.0, **style, **stage))
    assert json.loads((run / "run.json").read_text())["model"]["text_style"] == "written"
    model = SlamAsrForConditionalGeneration.from_pretrained(run)
    assert model.config.text_style == "written"
    tokenizer = SlamAsrProcessor.from_pretrained(run).tokenizer
    vocabulary = CtcVocabulary(tokenizer, model.ctc_head.token_ids.tolist())
    assert vocabulary.decode(vocabulary.encode("North south.")) == "North south."
    assert set(logged(run, "eval_written_wer")) == set(logged(run, "eval_wer"))
    assert set(logged(run / "alignment", "eval_written_wer")) == set(logged(run / "alignment", "eval_wer"))

    command = ["--model", run, "--dataset", world.dataset, "--decoder", "ctc", "--output_dir", scores]
    eval.main([*map(str, command)])
    metrics = json.loads((scores / "metrics.json").read_text())
    rows = [json.loads(line) for line in (scores / "predictions.jsonl").read_text().splitlines()]
    assert metrics["settings"]["text_style"] == "written"
    assert metrics["wer"] == jiwer.wer([r["reference"] for r in rows], [r["prediction"] for r in rows])
    raw = [r["raw_reference"] for r in rows], [r["raw_prediction"].strip() for r in rows]
    assert metrics["written_wer"] == jiwer.wer(*raw)
    assert metrics["wer"] < metrics["written_wer"]
    assert any("." in prediction for prediction in raw[1])
    assert "WER as written" in capsys.readouterr().out

    # Scored again from the same predictions, the other way.
    eval.main([*map(str, command), "--text_style", "normalized"])
    again = json.loads((scores / "metrics.json").read_text())
    assert "written_wer" not in again
    assert again["wer"] == metrics["wer"]


def test_the_best_model_cannot_be_told_by_a_figure_that_its_style_does_not_have(world, tmp_path):
    with pytest.raises(SystemExit, match="add `--text_style written`"):
        train.main(flags(world, tmp_path / "run", metric_for_best_model="written_wer"))
    assert not (tmp_path / "run").exists()
