"""What a run says of its data holds for its model, where nobody says otherwise."""

import json

import pytest

import eval as eval_script
from modeling_slam.evaluation.own_run import data_of_run, flags_of_run, language_of_run

DATA = {
    "dataset": "speech", "language": "nl", "text_column": "zin", "test_share": 0.2, "subset_seed": 7,
    "id_column": None, "max_train_hours": 3.0, "min_seconds": 1.0,
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"data": DATA}))
    return tmp_path


def test_dataset_columns_and_the_split_are_taken_and_limits_of_training_are_not(run):
    expected = ["--dataset", "speech", "--language", "nl", "--text_column", "zin", "--test_share", "0.2"]
    assert flags_of_run(["--model", str(run)]) == [*expected, "--subset_seed", "7"]
    assert flags_of_run([f"--model={run}", "--num_beams", "1"]) == [*expected, "--subset_seed", "7"]


def test_flags_win_and_beside_another_dataset_only_the_language_is_taken(run):
    assert "--language" not in flags_of_run(["--model", str(run), "--language", "da"])
    assert flags_of_run(["--model", str(run), "--dataset", "other"]) == ["--language", "nl"]
    assert flags_of_run(["--dataset=other", "--language=da", "--model", str(run)]) == []


def test_a_checkpoint_within_a_run_is_of_that_run_and_others_have_none(run):
    assert data_of_run(run / "checkpoint-20")["dataset"] == "speech"
    assert data_of_run("org/model") == {}
    assert flags_of_run(["settings.yaml", "--model", str(run)]) == []
    assert flags_of_run([]) == []


def test_several_languages_are_no_language_of_the_model(run):
    assert language_of_run(run) == "nl"
    several = DATA | {"dataset": ["a", "b"], "language": ["nl", "en"]}
    (run / "run.json").write_text(json.dumps({"data": several}))
    assert language_of_run(run) is None
    assert flags_of_run(["--model", str(run)])[:6] == ["--dataset", "a", "b", "--language", "nl", "en"]
    assert flags_of_run(["--model", str(run), "--dataset", "other"]) == []


@pytest.mark.parametrize("content", [[], "run", {"data": None}, {"data": ["nl"]}])
def test_a_damaged_run_file_is_named(run, content):
    (run / "run.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"run\.json holds no settings of a run under `data`"):
        data_of_run(run)


def test_an_evaluation_needs_no_more_than_the_run(checkpoint, speech_folder, tmp_path, capsys):
    data = {"dataset": str(speech_folder), "language": "nl", "text_column": ["text"]}
    (checkpoint / "run.json").write_text(json.dumps({"data": data}))
    eval_script.main(["--model", str(checkpoint), "--output_dir", str(tmp_path / "results"),
                      "--max_new_tokens", "4", "--num_workers", "0"])  # fmt: skip
    assert f"As the model's run has it: --dataset {speech_folder} --language nl" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "results" / "metrics.json").read_text())
    assert metrics["settings"]["language"] == "nl"
    assert metrics["utterances"] == 5
