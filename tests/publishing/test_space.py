"""The Space of a model: what is pushed starts by itself and shows the page of the model that it names."""

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from programs import run_script

from modeling_slam.publishing.arguments import PublishArguments
from modeling_slam.publishing.hub import push
from modeling_slam.publishing.space import PACKAGE, SPACE, START, code_of, stage_space

MODEL_ID, SPACE_ID = "org/any-name", "org/its-page"


@pytest.fixture
def run_directory(tmp_path) -> Path:
    """Of a run with `--train_depths`; the Space reads nothing else of it."""
    (tmp_path / "run").mkdir()
    settings = {"data": {"language": "nl"}, "run": {"train_depths": [4, 2]}}
    (tmp_path / "run" / "run.json").write_text(json.dumps(settings))
    return tmp_path / "run"


def test_a_space_says_how_it_is_built_and_which_model_it_shows(run_directory, tmp_path):
    (tmp_path / "space").mkdir()
    stage_space(tmp_path / "space", run_directory, MODEL_ID, license="apache-2.0")
    _, head, body = (tmp_path / "space" / "README.md").read_text().split("---\n")
    settings = yaml.safe_load(head)
    assert settings["sdk"] == "gradio"
    assert re.fullmatch(r"6\.\d+\.\d+", settings["sdk_version"])
    assert settings["models"] == [MODEL_ID]
    assert settings["license"] == "apache-2.0"
    assert len(settings["short_description"]) <= 60
    assert MODEL_ID in body
    program = (tmp_path / "space" / "app.py").read_text()
    assert "main(['org/any-name', '--language', 'nl', '--depths', '4', '2'])" in program
    needed = (tmp_path / "space" / "requirements.txt").read_text().splitlines()
    assert {re.match(r"[\w-]+", line)[0] for line in needed} >= {"torch", "transformers", "av", "peft"}
    assert not any("gradio" in line for line in needed)


def test_a_space_has_the_code_of_the_page_and_none_of_training():
    files = {file.relative_to(PACKAGE).as_posix() for file in code_of(START)}
    assert files >= {"__init__.py", "app/page.py", "model/modeling_slam.py", "transcription/subtitles.py"}
    assert not any(file.startswith(("training/", "publishing/", "study/", "demo/")) for file in files)


def test_a_space_is_a_repository_of_its_kind_and_a_new_version_replaces_its_code(
    hub, api, run_directory, tmp_path
):
    (tmp_path / "space").mkdir()
    stage_space(tmp_path / "space", run_directory, MODEL_ID)
    published = push(api, tmp_path / "space", SPACE_ID, "Page", kind=SPACE)
    assert published.url == f"{hub.url}/spaces/{SPACE_ID}/tree/{published.commit}"
    assert hub.count("POST", f"/api/spaces/{SPACE_ID}/commit/main") == 1
    (tmp_path / "space" / "modeling_slam" / "loaded_parts.py").rename(tmp_path / "space" / "new.py")
    push(api, tmp_path / "space", SPACE_ID, "Page", kind=SPACE)
    files = hub.repositories[SPACE_ID].head.files
    assert "modeling_slam/loaded_parts.py" not in files
    assert {"app.py", "modeling_slam/app/page.css", ".gitattributes"} <= set(files)


def test_a_space_must_be_named_with_its_owner():
    with pytest.raises(ValueError, match="`space` must be owner/name, got 'page'"):
        PublishArguments(model="m", space="page")


@contextlib.contextmanager
def started(directory: Path, environment: dict[str, str]) -> Iterator[str]:
    """The Space in a process of its own; its address."""
    log = directory / "log"
    with log.open("w") as output:
        both = {"stdout": output, "stderr": subprocess.STDOUT}
        process = subprocess.Popen([sys.executable, "app.py"], cwd=directory, env=environment, **both)
    try:
        while not (found := re.search(r"The page is at (\S+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
        yield found[1]
    finally:
        process.terminate()
        process.wait()
    assert "Stopped by SIGTERM. The page is closed." in log.read_text()


@pytest.mark.e2e
def test_what_publish_pushes_as_a_space_starts_by_itself_and_transcribes(trained, tmp_path):
    """With nothing of this project but what is in the Space, and the model from the Hub."""
    from gradio_client import Client, handle_file

    model_id = "org/slam-d32-3L-lora-en-paged"
    done = run_script(
        "modeling_slam.publishing", trained.environment, trained.run, "--repo_id", model_id, "--metrics",
        trained.results, "--space", SPACE_ID,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert f"Its page: {trained.hub.url}/spaces/{SPACE_ID}/tree/" in done.stdout
    for path, file in trained.hub.repositories[SPACE_ID].head.files.items():
        (tmp_path / "space" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "space" / path).write_bytes(file.content)
    environment = trained.hub.environment(tmp_path) | {"GRADIO_TEMP_DIR": str(tmp_path / "gradio")}
    environment.pop("PYTHONPATH", None)
    with started(tmp_path / "space", environment) as url:
        client = Client(url, verbose=False, analytics_enabled=False)
        shown = client.predict(None, handle_file(trained.clips[0]), api_name="/on_transcribe")
    assert trained.transcripts[0] in re.sub("<[^>]*>", "", shown[0])
