"""Every command and Python snippet of the documentation runs, as a reader would run it.

Page by page, in the order printed, in a directory like a fresh clone in which what the page presumes lies
under the printed names, with the fake Hub as the Hub. A command stays as it is printed, but for flags behind
it that make it small and what stands for a name of the reader's own. What cannot run here: `EXCEPTIONS`.
"""

import itertools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from documented_world import clone, serve_models, write_data
from fake_hub import FakeHub
from programs import REPOSITORY
from test_documentation import BLOCK, PAGES

# Pages that are read one after the other, and the trained models that they presume.
WALKS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("README.md",): ("runs/slam-medium-22L-lora-nl",),
    ("docs/first-model.md",): (),
    ("docs/data.md",): (),
    ("docs/training.md", "docs/evaluation.md", "docs/publishing.md"): ("runs/nl-medium",),
    ("docs/plan.md",): ("runs/dialogue-nl",),
    ("docs/app.md",): ("runs/nl-medium",),
    ("docs/serve.md",): ("runs/nl-medium",),
    ("docs/transcribe.md",): ("runs/nl-medium",),
    ("docs/pipeline.md",): ("runs/nl-medium",),
    ("docs/checkpoints.md",): ("runs/nl-medium",),
    ("docs/vllm.md",): ("runs/nl-medium",),
    ("docs/layer-choice.md",): (),
    ("docs/llm-layers.md",): (),
    ("docs/study.md", "docs/study-reading.md"): (),
    ("docs/demo.md",): (),
    ("docs/gpu.md",): (),
    ("docs/paper-notes.md",): (),
    ("docs/performance.md",): (),
    ("docs/results.md",): (),
    ("recipes/README.md",): (),
    ("benchmarks/README.md",): ("runs/mine",),
    ("CONTRIBUTING.md",): (),
}

# Beginning of a command, or a part of it: why it does not run here.
EXCEPTIONS = {
    "pip install": "`make nightly` has installed the project with all its extras before it comes here",
    "make ": "`make` makes an environment of its own first; what it then runs is on these pages",
    "git clone": "there is no address yet",
    "--num_processes 8": "eight GPUs; tests/training/test_sharding.py runs two processes",
    "--num_machines": "several nodes with eight GPUs each",
    "export FIRST_NODE": "SLURM",
    "modeling_slam.demo.build_assets": "an hour of training",
    "$DATA": "hours on real models and speech",
    "runs/real-small": "the report of a study that is not run here",
}

# What stands for a name of the reader's own, or for a place or cluster that is not here.
OWN_NAMES = {
    "--encoder DIR": "--encoder models/whisper-base",
    "--llm DIR": "--llm models/SmolLM2-135M",
    "--dataset DIR": "--dataset data/digits-en",
    "--recordings DIR": "--recordings interviews",
    "encoders.base.model=DIR": "encoders.base.model=models/whisper-base",
    " llm=DIR": " llm=models/Qwen2.5-0.5B",
    "datasets.en.dataset=DIR": "datasets.en.dataset=data/digits-en",
    "datasets.nl.dataset=DIR": "datasets.nl.dataset=data/dialogue-nl",
    "--model RUN": "--model runs/mine",
    "--against CHECKOUT": "--against ../slam-asr-before",
    '"CMD"': f'"{sys.executable} peer.py"',
    "-m benchmarks ...": "-m benchmarks --encoder models/whisper-base --llm models/Qwen2.5-0.5B "
    "--dataset data/digits-en",
    " ...": " --output_dir runs/mixed",
    "/data/": "",
    "--ray auto": "--ray local",
    "me/slam-medium-": "me/slam-d8-",  # the tiny encoder has a width of 8, and a name must be true
    "/tmp/": "tmp/",
}

# Part of a command: flags behind it that make it small (or tell of errors). The first that fits counts.
TRAIN = "--max_steps 2 --max_train_hours 0.01 --max_validation_clips 2 --dataloader_num_workers 0"
GPU = "--device cpu --size tiny --minutes 0.1"
SMALL = {
    "curl ": "--fail-with-body",
    "benchmarks gpu": GPU,
    "run.py gpu": GPU,
    "benchmarks mission": "--size tiny --clip_seconds 2",
    "benchmarks bundle": "",
    "benchmarks.hotwords": "--max_test_clips 2 --num_workers 0",
    "benchmarks.llm_depth": "",
    "benchmarks.whisper_finetuning": "--minutes 0.02 --validate_minutes 0.01 --num_workers 0",
    "benchmarks.time_to_wer": f"{TRAIN} --max_steps 4 --eval_steps 2 --mark 9 --rates 1e-4",
    "benchmarks.serve": "--clients 2 --seconds 1 --alone_seconds 1",
    "--checkpoint runs/mine": "--parts evaluation --rounds 1 --eval_clips 2",
    "-m benchmarks": "--parts training --rounds 1 --steps 1 --lora_ranks 16",  # the rest: test_benchmarks.py
    "eval.py": "--max_test_clips 2 --num_workers 0",
    "slam-asr eval": "--max_test_clips 2 --num_workers 0",
    "train.py": TRAIN,
    "slam-asr train": TRAIN,
    "studies/real-small.yaml": "--dry_run",  # the demo study runs
    "studies/mine.yaml": "--only '*22L*llm12*lora-nl-1h*no-context*s42'",
    "slam-asr probe": "--align_epochs 1 --dataloader_num_workers 0",
    "depth_probe": "--align_epochs 1 --dataloader_num_workers 0",
}
# Beginning of a command: what is typed before it. What was presumed further up gives way to the real one.
BEFORE = {
    "accelerate launch train.py --keep_layers 22": "rm -r runs/slam-medium-22L-lora-nl",
    "for assets in": "mkdir tmp && ln -s ../modeling_slam/demo/assets tmp/rebuilt",
}
SHELL = re.compile(r"[>\n]|&&")
SERVERS = re.compile(r"slam-asr (serve|app) |transformers_serve ")
ADDRESS = re.compile(r" (?:at|on) (http://[\w.]+:\d+)")
SECONDS = 600  # of one command, on a machine that does much else


def snippets(page: str) -> Iterator[tuple[str, str]]:
    """(language, text) of all that a reader types: commands one by one, files and Python block by block."""
    for language, block in BLOCK.findall((REPOSITORY / page).read_text(encoding="utf-8")):
        if language == "python" or (language == "yaml" and block.startswith("name: ")):
            yield language, block
        if language == "bash":
            block = re.sub(r"(^|\s+)#.*", "", block.replace("\\\n", " "))
            for command in re.findall(r"^for (?s:.*?)^done$|^.+$", block, re.M):
                yield language, command


def excepted(command: str) -> list[str]:
    return [part for part in EXCEPTIONS if part in command]


def as_typed(command: str, port: int) -> str:
    """The command with names of the reader's own, and small."""
    for name, own in OWN_NAMES.items():
        command = command.replace(name, own)
    lines = []
    for line in command.replace("8000", str(port)).splitlines():
        flags = next((flags for part, flags in SMALL.items() if part in line), "")
        before, redirection, file = line.partition(" > ")
        lines.append(f"{before} {flags}{redirection}{file}")
    return "\n".join(lines)


class Reader:
    """Types what a page says, in one directory, in a shell with this environment."""

    def __init__(self, directory: Path, environment: dict[str, str], programs: subprocess.Popen):
        self.directory = directory
        self.environment = environment
        self.programs = programs
        self.servers: list[subprocess.Popen] = []
        self.failures: list[str] = []  # a page is read to its end
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def read(self, page: str) -> None:
        for language, typed in itertools.groupby(snippets(page), key=lambda snippet: snippet[0]):
            texts = [text for _, text in typed if not excepted(text)]
            if language == "python":
                code = "\n".join(texts).replace("8000", str(self.port))
                self.run(["python", "-c", code, "results/nl-medium"], code)
            elif language == "yaml":
                for text in texts:
                    path = self.directory / "studies" / f"{yaml.safe_load(text)['name']}.yaml"
                    path.write_text(text, encoding="utf-8")
            else:
                for text in texts:
                    for command, before in BEFORE.items():
                        if text.startswith(command):
                            self.type(before)
                    self.type(as_typed(text, self.port))

    def type(self, command: str) -> None:
        words = shlex.split(command.removeprefix("OMP_NUM_THREADS=1 "))  # so it is anyway
        if SERVERS.search(command):
            self.serve(command)
        elif words[0] == "python" and not SHELL.search(command):
            self.run(words, command)
        elif words[0] == "slam-asr":
            self.run([shutil.which("slam-asr", path=self.environment["PATH"]), *words[1:]], command)
        else:
            self.run(["bash", "-ec", command], command)

    def run(self, words: list[str], shown: str) -> None:
        """Python is forked from a process that has imported all, the rest is started."""
        begun, log = time.monotonic(), self.directory / "log.txt"
        if words[0] == "bash":
            with log.open("w") as file:
                code = subprocess.run(
                    words, cwd=self.directory, env=self.environment, timeout=SECONDS,
                    stdout=file, stderr=file, stdin=subprocess.DEVNULL,
                ).returncode  # fmt: skip
            seconds = time.monotonic() - begun
        else:
            job = {"words": words, "directory": str(self.directory), "log": str(log)}
            self.programs.stdin.write(json.dumps(job) + "\n")
            code, seconds = map(float, self.programs.stdout.readline().split())
        print(f"\n{seconds:6.1f} s  {shown}", flush=True)
        if code:
            self.failures.append(f"{shown}\n\n{log.read_text()[-6000:]}")
            print(self.failures[-1], flush=True)

    def serve(self, command: str) -> None:
        """Start it, in the place of one before it, and go on when it answers."""
        self.stop()
        log = self.directory / "server.log"
        with log.open("w") as file:
            server = subprocess.Popen(
                ["bash", "-c", f"exec {command}"], cwd=self.directory, env=self.environment,
                stdout=file, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.servers.append(server)
        until = time.monotonic() + SECONDS
        while not (address := ADDRESS.search(log.read_text())):
            assert server.poll() is None, f"{command}\n\n{log.read_text()[-6000:]}"
            assert time.monotonic() < until, f"{command} never said where it is"
            time.sleep(0.2)
        path = "/" if " app " in command else "/v1/models"
        assert urllib.request.urlopen(address[1] + path, timeout=60).status == 200
        print(f"          {command}", flush=True)

    def stop(self) -> None:
        for server in self.servers:
            server.send_signal(signal.SIGINT)
            try:
                code = server.wait(60)
            finally:
                server.kill()
            assert code in (0, 130), server.args
        self.servers.clear()


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Iterator[FakeHub]:
    """With the base models of the pages; the reader's own name there is `me`."""
    with FakeHub() as hub:
        hub.user = "me"
        yield hub


@pytest.fixture(scope="module")
def world(hub, tmp_path_factory) -> Path:
    world = tmp_path_factory.mktemp("documented") / "world"
    serve_models(hub, world / "models")
    write_data(world)
    return world


@pytest.fixture(scope="module")
def environment(hub, world) -> dict[str, str]:
    """Of a shell in which this project is installed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return hub.environment(world.parent) | {"PATH": path, "PYTHONPATH": str(REPOSITORY)}


@pytest.fixture(scope="module")
def programs(environment) -> Iterator[subprocess.Popen]:
    command = [sys.executable, REPOSITORY / "tests/forked_programs.py"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        yield process
        process.stdin.close()


@pytest.fixture(scope="module")
def trained(hub, world, environment, programs) -> Path:
    """A tiny model as the pages have one: 22 layers of Whisper medium, a CTC head, LoRA on both sides."""
    reader = Reader(clone(world.parent / "before", world), environment, programs)
    flags = f"--keep_layers 22 --encoder_lora_rank 2 --output_dir run {TRAIN}"
    reader.type(f"python train.py recipes/nl-medium.yaml {flags}")
    assert not reader.failures
    hub.add_directory("org/checkpoint", reader.directory / "run")
    return reader.directory / "run"


@pytest.mark.nightly
@pytest.mark.parametrize("pages", WALKS, ids=lambda pages: pages[-1])
def test_what_the_documentation_says_to_type_runs(pages, world, environment, programs, trained, tmp_path):
    (tmp_path / "slam-asr-before").symlink_to(REPOSITORY)
    reader = Reader(clone(tmp_path / "slam-asr", world), environment, programs)
    for run in WALKS[pages]:
        shutil.copytree(trained, reader.directory / run)
    try:
        for page in pages:
            reader.read(page)
    finally:
        reader.stop()
    assert not reader.failures, "\n\n".join(reader.failures)


def test_every_page_is_read_and_every_exception_is_of_a_command_that_is_there():
    pages = {page for walk in WALKS for page in walk}
    there = {str(path.relative_to(REPOSITORY)) for pattern in PAGES for path in REPOSITORY.glob(pattern)}
    typed = {page: [text for _, text in snippets(page)] for page in there}
    assert {page for page in there if typed[page]} == pages
    commands = [command for texts in typed.values() for command in texts]
    assert [part for part in EXCEPTIONS if not any(part in command for command in commands)] == []
