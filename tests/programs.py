"""Programs of this project as users run them, and a stranger who only knows a model's id on the Hub."""

import json
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from fake_hub import FakeHub

REPOSITORY = Path(__file__).parents[1]

# Runs where neither this repository nor a file that points to it is on the path; models come from the Hub.
STRANGER = """
import importlib.util, json, sys
sys.path.append(sys.argv[1])
assert importlib.util.find_spec("modeling_slam") is None, "the project must not be in sight"
repo_id, commit, settings, *clips = sys.argv[2:]
settings = json.loads(settings)

from transformers import AutoConfig, AutoModel, AutoModelForMultimodalLM, AutoModelForSpeechSeq2Seq
from transformers import AutoProcessor, pipeline

where = {"revision": commit, "trust_remote_code": True}
processor = AutoProcessor.from_pretrained(repo_id, **where)
assert AutoConfig.from_pretrained(repo_id, **where).model_type == "slam_asr"
texts = {}
for auto_class in (AutoModel, AutoModelForSpeechSeq2Seq, AutoModelForMultimodalLM):
    model = auto_class.from_pretrained(repo_id, **where)
    ids = model.generate(**processor(clips), **settings)
    texts[auto_class.__name__] = processor.batch_decode(ids, skip_special_tokens=True)
transcribe = pipeline("automatic-speech-recognition", repo_id, **where)
texts["pipeline"] = [transcribe(clip, generate_kwargs=settings)["text"] for clip in clips]
print(json.dumps(texts))
"""


def run_script(name: str, environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess:
    """`name` as a program of its own, from the repository; both streams in `stdout`."""
    start = ["-m", name] if name.startswith("modeling_slam.") else [name]
    return subprocess.run(
        [sys.executable, *start, *map(str, arguments)],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )


def texts_of_a_stranger(
    hub: FakeHub, directory: Path, repo_id: str, commit: str, clips: Sequence[Path], **settings: int
) -> dict[str, list[str]]:
    """Transcripts of the clips by every auto class, in one batch, and by the pipeline, one by one."""
    command = [sys.executable, "-I", "-S", "-c", STRANGER, sysconfig.get_paths()["purelib"], repo_id, commit]
    done = subprocess.run(
        [*command, json.dumps(settings), *map(str, clips)],
        cwd=directory,
        env=hub.environment(directory),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    texts = json.loads(done.stdout.splitlines()[-1])
    assert set(texts) == {"AutoModel", "AutoModelForSpeechSeq2Seq", "AutoModelForMultimodalLM", "pipeline"}
    return {way: [text.strip() for text in found] for way, found in texts.items()}
