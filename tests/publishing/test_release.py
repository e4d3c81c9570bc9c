"""What is uploaded: only files a stranger needs, only what a stranger can load, and no secret."""

import json

import pytest
from tiny_configs import tiny_lean_config

from modeling_slam import SlamAsrForConditionalGeneration
from modeling_slam.publishing.check import check_in_fresh_process
from modeling_slam.publishing.release import list_release, refuse_secrets, stage

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def lean(tmp_path, lora_model, tiny_processor):
    """A run's directory: a lean checkpoint among the things that a run leaves behind."""
    lora_model.save_pretrained(tmp_path / "run")
    tiny_processor.save_pretrained(tmp_path / "run")
    ids = dict.fromkeys(("audio_model_id", "text_model_id"), "owner/base")
    edit_config(tmp_path / "run", **ids, audio_model_revision=COMMIT, text_model_revision=COMMIT)
    for name in (
        "training_args.bin",
        "optimizer.pt",
        "run.json",
        "adapter_config.json",
        "README.md",
        "x.pkl",
    ):
        (tmp_path / "run" / name).write_text("{}")
    (tmp_path / "run" / "checkpoint-5").mkdir()
    (tmp_path / "run" / "checkpoint-5" / "model.safetensors").write_text("")
    (tmp_path / "staged").mkdir()
    return tmp_path / "run"


def test_only_what_a_stranger_needs_is_published(lean, tmp_path):
    left = stage(lean, tmp_path / "staged")
    assert left == [
        "adapter_config.json", "checkpoint-5/", "optimizer.pt", "run.json", "training_args.bin", "x.pkl",
    ]  # fmt: skip
    staged = {file.path: file.size for file in list_release(tmp_path / "staged")}
    assert staged["model.safetensors"] == (lean / "model.safetensors").stat().st_size
    assert {"config.json", "modeling_slam.py", "processor_config.json", "tokenizer.json"} <= set(staged)
    assert "README.md" not in staged  # the card is rendered, never copied


def edit_config(checkpoint, **changes):
    fields = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(fields | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audio_model_id": "/data/whisper"}, r"`audio_model_id` '/data/whisper', which is no id of the Hub"),
        ({"text_model_revision": "main"}, r"`text_model_revision` 'main', which is no commit"),
        ({"model_type": "whisper"}, "is a 'whisper' checkpoint"),
    ],
)
def test_a_lean_checkpoint_that_nobody_else_could_load_is_refused(lean, tmp_path, changes, message):
    edit_config(lean, **changes)
    with pytest.raises(ValueError, match=message):
        stage(lean, tmp_path / "staged")


@pytest.mark.parametrize(
    "trained", [{"encoder_lora_rank": 2}, {"trained_encoder_layers": [1], "train_llm": True}], ids=str
)
def test_what_was_trained_of_the_encoder_and_the_llm_is_published(base_models, tmp_path, trained):
    model = SlamAsrForConditionalGeneration.from_base_models(tiny_lean_config(base_models, **trained))
    model.save_pretrained(tmp_path / "run")
    ids = dict.fromkeys(("audio_model_id", "text_model_id"), "owner/base")
    edit_config(tmp_path / "run", **ids, audio_model_revision=COMMIT, text_model_revision=COMMIT)
    (tmp_path / "staged").mkdir()
    assert stage(tmp_path / "run", tmp_path / "staged") == []
    copied = (tmp_path / "staged/encoder_adapter/adapter_model.safetensors").exists()
    assert copied is ("encoder_lora_rank" in trained)


def test_a_directory_without_a_checkpoint_is_refused_and_one_inside_it_named(lean, tmp_path):
    (lean / "config.json").rename(lean / "checkpoint-5" / "config.json")
    with pytest.raises(ValueError, match="It has the checkpoints checkpoint-5"):
        stage(lean, tmp_path / "staged")


def test_all_weights_are_not_published_as_lean(tmp_path, tiny_model):
    tiny_model.save_pretrained(tmp_path / "all")
    (tmp_path / "staged").mkdir()
    with pytest.raises(ValueError, match="Publish it by `--format full`"):
        stage(tmp_path / "all", tmp_path / "staged")


def test_a_file_with_an_access_token_stops_everything(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    refuse_secrets(tmp_path, "my-own-token")
    for secret in ("my-own-token", "hf_" + "a1B2" * 9):
        (tmp_path / "config.json").write_text(json.dumps({"note": secret}))
        with pytest.raises(ValueError, match=r"config\.json holds an access token") as error:
            refuse_secrets(tmp_path, "my-own-token")
        assert secret not in str(error.value)


@pytest.mark.e2e
def test_code_that_needs_the_project_is_found_before_anything_is_sent(tmp_path, tiny_model, tiny_processor):
    """The whole checkpoint loads in a fresh process until a published file imports what strangers lack."""
    tiny_model.save_pretrained(tmp_path)
    tiny_processor.save_pretrained(tmp_path)
    result = check_in_fresh_process(tmp_path)
    assert result.batch_invariant
    assert result.logit_difference < 1e-4
    assert result.parameters == tiny_model.parameter_counts()
    file = tmp_path / "projectors.py"
    file.write_text("import modeling_slam.data\n" + file.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"(?s)do not load.*modeling_slam"):
        check_in_fresh_process(tmp_path)
