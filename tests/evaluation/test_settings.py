"""A wrong `--model` is explained, and what decides a transcript changes the fingerprint."""

import json

import pytest

from modeling_slam.data import DataArguments, load_speech
from modeling_slam.data.collator import check_clip_lengths
from modeling_slam.evaluation.arguments import EvaluationArguments
from modeling_slam.evaluation.settings import (
    check_checkpoint,
    checkpoint_fingerprint,
    dataset_fingerprint,
)


def write_config(directory, model_type: str):
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps({"model_type": model_type}))
    return directory


def test_a_training_directory_names_the_checkpoints_inside(tmp_path):
    write_config(tmp_path / "checkpoint-300", "slam_asr")
    with pytest.raises(ValueError, match=r"no config\.json\. It has the checkpoints checkpoint-300"):
        check_checkpoint(str(tmp_path), "none")


@pytest.mark.parametrize(
    ("model_type", "baseline", "advice"),
    [
        ("whisper", "none", "add `--baseline whisper`"),
        ("slam_asr", "whisper", "leave out `--baseline`"),
        ("qwen2", "none", "expected 'slam_asr'"),
    ],
)
def test_a_checkpoint_of_another_kind_is_named_with_advice(tmp_path, model_type, baseline, advice):
    with pytest.raises(ValueError, match=advice):
        check_checkpoint(str(write_config(tmp_path / "model", model_type)), baseline)


@pytest.mark.parametrize(
    ("asked", "flag"), [({"decoder": "ctc"}, "--decoder ctc"), ({"ctc_weight": 0.3}, "--ctc_weight 0.3")]
)
def test_what_needs_a_ctc_head_is_refused_by_its_flag(tmp_path, asked, flag):
    model = write_config(tmp_path / "model", "slam_asr")
    with pytest.raises(ValueError, match=f"`{flag}` needs a CTC head"):
        check_checkpoint(str(model), "none", **asked)


@pytest.mark.parametrize("other", [{"decoder": "ctc"}, {"baseline": "whisper"}])
def test_a_joint_score_is_refused_where_there_is_no_llm(other):
    with pytest.raises(ValueError, match="`ctc_weight` weighs the CTC head against the LLM"):
        EvaluationArguments(model="m", output_dir="o", ctc_weight=0.3, **other)


def test_a_name_that_is_nowhere_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="neither a directory nor a model"):
        check_checkpoint(str(tmp_path / "runs" / "typo"), "none")


def test_retraining_in_place_changes_the_checkpoints_fingerprint(checkpoint):
    config = check_checkpoint(str(checkpoint), "none")
    before = checkpoint_fingerprint(config)
    assert checkpoint_fingerprint(config) == before
    weights = checkpoint / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    assert checkpoint_fingerprint(config) != before


def test_a_clip_beyond_the_encoders_30_seconds_is_refused_before_decoding(speech_folder):
    dataset = load_speech(DataArguments(dataset=str(speech_folder)), "test")[0]
    check_clip_lengths(dataset)
    durations = [2.0, 30.0, 30.01, 1.0, 1.0]
    with pytest.raises(ValueError, match=r"30\.01 s .* set `--max_seconds 30`"):
        check_clip_lengths(dataset.remove_columns("duration").add_column("duration", durations))


def test_an_edited_transcript_changes_the_datasets_fingerprint(speech_folder):
    def fingerprint() -> str:
        return dataset_fingerprint(load_speech(DataArguments(dataset=str(speech_folder)), "test")[0])

    before = fingerprint()
    assert fingerprint() == before
    table = speech_folder / "test" / "metadata.csv"
    table.write_text(table.read_text().replace("Zes", "Zeven"))
    assert fingerprint() != before
