"""`train.py --push_to_hub`: each push is a release for strangers, and nothing else leaves the machine."""

import json
from pathlib import Path

import pytest
from fake_hub import FakeHub
from huggingface_hub import ModelCard
from programs import run_script
from published_run import TRAINED_ID

import modeling_slam
from modeling_slam.publishing.arguments import PushArguments

CODE = {path.name for path in Path(modeling_slam.__file__).parent.glob("model/*.py")} - {"__init__.py"}


def test_checkpoints_and_the_end_are_releases_with_code_processor_and_our_card(trained):
    first, *pushes = trained.hub.repositories[TRAINED_ID].commits
    assert [commit.title for commit in pushes] == [
        "Training in progress, step 6", "Training in progress, step 12", "End of training",
    ]  # fmt: skip
    for commit in pushes:
        files = set(commit.files) - set(first.files)
        assert {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json"} <= files
        assert files >= CODE
        card = ModelCard(commit.files["README.md"].content.decode())
        assert card.data.base_model == ["tiny/whisper", "tiny/qwen2"]
        assert "generated_from_trainer" not in card.data.tags
    assert pushes[-1].files["model.safetensors"].content == (trained.run / "model.safetensors").read_bytes()


def test_no_pickle_no_root_adapter_and_nothing_of_this_machine_leaves_it(trained):
    for commit in trained.hub.repositories[TRAINED_ID].commits:
        assert "adapter_config.json" not in commit.files
        suffixes = {path.rpartition(".")[2] for path in commit.files} - {"gitattributes"}
        assert suffixes <= {"json", "py", "md", "safetensors", "txt", "jinja"}
        for path, file in commit.files.items():
            assert trained.hub.token.encode() not in file.content, path
            assert str(trained.run.parent).encode() not in file.content, path
    assert trained.hub.token not in trained.log
    for path in trained.run.rglob("*"):
        assert path.is_dir() or trained.hub.token.encode() not in path.read_bytes(), path


def test_the_card_names_the_validation_score_as_one_and_claims_no_test_result(trained):
    files = trained.hub.repositories[TRAINED_ID].head.files
    text = files["README.md"].content.decode()
    state = json.loads((trained.run / "trainer_state.json").read_text(encoding="utf-8"))
    scores = {row["step"]: row["eval_wer"] for row in state["log_history"] if "eval_wer" in row}
    best = state["best_global_step"]
    assert f"on the validation split was {100 * scores[best]:.2f} % (step {best})" in text
    assert "it is no test result" in text
    assert "has not been evaluated on a test set" in text
    assert ModelCard(text).data.eval_results is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"push_to_hub": True}, "needs `hub_model_id`"),
        (
            {"push_to_hub": True, "hub_model_id": "me/x", "hub_strategy": "checkpoint"},
            "must be every_save or end, got checkpoint",
        ),
    ],
)
def test_settings_of_a_push_are_checked_on_creation(settings, message):
    with pytest.raises(ValueError, match=message):
        PushArguments(**settings)


def test_a_push_that_cannot_work_ends_the_run_before_it_begins(trained, tmp_path):
    """No token: refused with the remedy, and the run's directory is not even made."""
    with FakeHub() as hub:
        hub.repositories = trained.hub.repositories
        done = run_script(
            "train.py", hub.environment(tmp_path, token=None), "--encoder", "tiny/whisper",
            "--llm", "tiny/qwen2", "--dataset", trained.world.dataset, "--output_dir", tmp_path / "run",
            "--push_to_hub", True, "--hub_model_id", "org/model", "--use_cpu", True,
        )  # fmt: skip
    assert done.returncode != 0
    assert "error: There is no Hub token. Log in by `hf auth login`" in done.stdout
    assert not (tmp_path / "run").exists()
