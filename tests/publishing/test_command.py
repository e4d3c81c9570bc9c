"""`python -m modeling_slam.publishing` from end to end: a stranger loads by id what was published."""

import re

import pytest
from fake_hub import FakeHub
from huggingface_hub import ModelCard
from programs import run_script, texts_of_a_stranger

PUBLISHED_ID = "org/slam-d32-3L-lora-en-v1"
COMMAND = "modeling_slam.publishing"
SETTINGS = {"num_beams": 2, "max_new_tokens": 16}  # those of eval.py in the fixture


def publish(trained, *arguments):
    return run_script(COMMAND, trained.environment, trained.run, "--metrics", trained.results, *arguments)


def test_a_dry_run_shows_everything_and_sends_nothing(trained, tmp_path):
    before = len(trained.hub.requests)
    done = publish(trained, "--dry_run", "--card", tmp_path / "card.md")
    assert done.returncode == 0, done.stdout
    assert "No `--repo_id`; this shows owner/slam-d32-3L-lora-en." in done.stdout
    assert re.search(r"[\d,]+ bytes  model\.safetensors", done.stdout)
    assert "Not published: " in done.stdout
    assert "Transcribed in a fresh process" in done.stdout
    assert "nothing was sent" in done.stdout
    assert {method for method, _ in trained.hub.requests[before:]} <= {"GET", "HEAD"}
    card = ModelCard.load(tmp_path / "card.md")
    assert card.data.eval_results[0].metric_value == round(100 * trained.metrics["wer"], 2)


def test_a_stranger_loads_by_id_what_was_published_and_gets_the_same_transcripts(trained, tmp_path):
    done = publish(
        trained, "--repo_id", PUBLISHED_ID, "--tag", "v1.0", "--collection", "Slam", "--license", "apache-2.0"
    )
    assert done.returncode == 0, done.stdout
    repository = trained.hub.repositories[PUBLISHED_ID]
    commit = repository.tags["v1.0"]
    assert [c.title for c in repository.commits] == ["initial commit", "Publish v1.0 (lean)"]
    assert f'revision="{commit}"' in done.stdout
    assert trained.hub.token not in done.stdout
    assert str(trained.run.parent) not in "".join(
        file.content.decode()
        for path, file in repository.head.files.items()
        if path.endswith((".json", ".md"))
    )
    texts = texts_of_a_stranger(trained.hub, tmp_path, PUBLISHED_ID, commit, trained.clips, **SETTINGS)
    for way, found in texts.items():
        assert found == trained.transcripts, way
    assert trained.hub.count("GET", "/tiny/whisper/resolve/[0-9a-f]{40}/model.safetensors") > 0


@pytest.mark.parametrize("flags", [[], ["--merge_lora"]])
def test_the_full_format_needs_no_base_model_and_writes_the_same(trained, tmp_path, flags):
    """Its repository is loaded from a Hub that has nothing else."""
    done = publish(trained, "--repo_id", f"org/full-{len(flags)}", "--format", "full", *flags)
    assert done.returncode == 0, done.stdout
    repository = trained.hub.repositories[f"org/full-{len(flags)}"]
    with FakeHub() as other:
        other.repositories[PUBLISHED_ID] = repository
        commit = repository.head.oid
        texts = texts_of_a_stranger(other, tmp_path, PUBLISHED_ID, commit, trained.clips, **SETTINGS)
    for way, found in texts.items():
        assert found == trained.transcripts, way


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repo_id", "org/slam-medium-22L-nl"], "says size medium, the encoder is d32; 22 layers"),
        ([], "`repo_id` is missing: owner/slam-d32-3L-lora-en would say"),
    ],
)
def test_a_wrong_name_ends_with_one_line_before_anything_is_loaded(
    trained, arguments, message, monkeypatch, capsys
):
    from modeling_slam.publishing.__main__ import main

    monkeypatch.setenv("HF_TOKEN", trained.hub.token)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(SystemExit, match=re.escape(message)):
        main([str(trained.run), *arguments])


def test_merging_without_the_full_format_is_refused(trained, capsys):
    from modeling_slam.publishing.__main__ import main

    with pytest.raises(SystemExit, match="2"):
        main([str(trained.run), "--merge_lora"])
    assert "needs `--format full`" in capsys.readouterr().err
