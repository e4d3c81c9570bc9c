"""`python -m modeling_slam.publishing` from end to end: a stranger loads by id what was published."""

import json
import re
import subprocess
import sys
import sysconfig

import pytest
from fake_hub import FakeHub
from huggingface_hub import ModelCard
from published_run import run_script

PUBLISHED_ID = "org/slam-d32-3L-lora-en-v1"
COMMAND = "modeling_slam.publishing"

# Runs where neither this repository nor a file that points to it is on the path; models come from the Hub.
STRANGER = """
import importlib.util, json, sys
sys.path.append(sys.argv[1])
assert importlib.util.find_spec("modeling_slam") is None, "the project must not be in sight"
repo_id, commit, *clips = sys.argv[2:]

from transformers import AutoConfig, AutoModel, AutoModelForMultimodalLM, AutoModelForSpeechSeq2Seq
from transformers import AutoProcessor, pipeline

where = {"revision": commit, "trust_remote_code": True}
processor = AutoProcessor.from_pretrained(repo_id, **where)
assert AutoConfig.from_pretrained(repo_id, **where).model_type == "slam_asr"
texts = {}
for auto_class in (AutoModel, AutoModelForSpeechSeq2Seq, AutoModelForMultimodalLM):
    model = auto_class.from_pretrained(repo_id, **where)
    texts[auto_class.__name__] = [
        processor.batch_decode(
            model.generate(**processor(clip), num_beams=2, max_new_tokens=16), skip_special_tokens=True
        )[0]
        for clip in clips
    ]
transcribe = pipeline("automatic-speech-recognition", repo_id, **where)
settings = {"num_beams": 2, "max_new_tokens": 16}
texts["pipeline"] = [transcribe(clip, generate_kwargs=settings)["text"] for clip in clips]
print(json.dumps(texts))
"""


def publish(trained, *arguments):
    return run_script(COMMAND, trained.environment, trained.run, "--metrics", trained.results, *arguments)


def stranger(trained, repo_id, commit, directory):
    """Transcripts of the test clips, by the ways that a stranger has to load the model."""
    command = [sys.executable, "-I", "-S", "-c", STRANGER, sysconfig.get_paths()["purelib"], repo_id, commit]
    clips = [trained.world.dataset / "test" / row["id"] for row in predictions(trained)[:4]]
    done = subprocess.run(
        [*command, *map(str, clips)], cwd=directory, env=trained.hub.environment(directory),
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def predictions(trained):
    lines = (trained.results / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


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
    expected = [row["raw_prediction"] for row in predictions(trained)[:4]]
    texts = stranger(trained, PUBLISHED_ID, commit, tmp_path)
    assert set(texts) == {"AutoModel", "AutoModelForSpeechSeq2Seq", "AutoModelForMultimodalLM", "pipeline"}
    for way, found in texts.items():
        assert [text.strip() for text in found] == [text.strip() for text in expected], way
    assert trained.hub.count("GET", "/tiny/whisper/resolve/[0-9a-f]{40}/model.safetensors") > 0


@pytest.mark.parametrize("flags", [[], ["--merge_lora"]])
def test_the_full_format_needs_no_base_model_and_writes_the_same(trained, tmp_path, flags):
    """Its repository is loaded from a Hub that has nothing else."""
    done = publish(trained, "--repo_id", f"org/full-{len(flags)}", "--format", "full", *flags)
    assert done.returncode == 0, done.stdout
    repository = trained.hub.repositories[f"org/full-{len(flags)}"]
    with FakeHub() as other:
        other.repositories[PUBLISHED_ID] = repository
        alone = trained._replace(hub=other)
        texts = stranger(alone, PUBLISHED_ID, repository.head.oid, tmp_path)
    expected = [row["raw_prediction"] for row in predictions(trained)[:4]]
    for way, found in texts.items():
        assert [text.strip() for text in found] == [text.strip() for text in expected], way


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
