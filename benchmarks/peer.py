"""Another implementation against ours, in turn: each run is a process of its own (A B A B ...).

The protocol. The command is run with `SLAM_BENCH_JOB` in its environment, the path of a JSON file with the
fields of `Job`: models, clips as WAV files with their texts, batch size, threads. It loads its model, works
through the clips and prints one line of JSON: `{"seconds": [...]}`, one number for each training step but
the first, or for each pass over all clips of an evaluation; or `{"clips_per_second": ...}`. An evaluation may
add `"transcripts"`, in the order of the clips. A command that prints no such line is compared by the seconds
of the whole process, loading included, on both sides. Our side is `python -m benchmarks.job`, a program like
any other.
"""

import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import soundfile
from tqdm import tqdm

from benchmarks.arguments import OURS, BenchmarkArguments, add_ratios
from modeling_slam.model.audio_io import load_audio
from modeling_slam.model.audio_lengths import SAMPLING_RATE
from modeling_slam.training.arguments import LoraArguments, ModelArguments

JOB_VARIABLE = "SLAM_BENCH_JOB"
OUR_COMMAND = [sys.executable, "-m", "benchmarks.job"]


@dataclass
class Job:
    """What a program is asked to run."""

    task: str  # "training" or "evaluation"
    encoder: str  # Whisper, a directory or Hub id
    llm: str
    keep_layers: int | None  # encoder layers, all if None
    checkpoint: str | None  # of an evaluation
    lora_rank: int  # 0 trains the projector alone
    lora_alpha: int
    batch_size: int
    threads: int
    num_beams: int
    max_new_tokens: int
    seed: int
    clips: list[dict[str, Any]] = field(default_factory=list)  # path (16 kHz WAV), text, seconds

    @classmethod
    def read(cls) -> "Job":
        """The job that the environment names."""
        if JOB_VARIABLE not in os.environ:
            raise SystemExit(f"error: {JOB_VARIABLE} must name a job file; `python -m benchmarks` sets it.")
        return cls(**json.loads(Path(os.environ[JOB_VARIABLE]).read_text(encoding="utf-8")))

    def write(self, rows: list[dict[str, Any]], directory: Path) -> dict[str, str]:
        """Write the clips of `rows` and the job itself; returns the environment of a program that runs it."""
        self.clips = []
        for number, row in enumerate(rows):
            path = directory / f"{number:04d}.wav"
            soundfile.write(path, load_audio(row["audio"]), SAMPLING_RATE)
            self.clips.append({"path": str(path), "text": row["text"], "seconds": row["duration"]})
        file = directory / "job.json"
        file.write_text(json.dumps(asdict(self)), encoding="utf-8")
        return os.environ | {JOB_VARIABLE: str(file), "OMP_NUM_THREADS": str(self.threads)}


def make_job(task: str, bench_args: BenchmarkArguments, model_args: ModelArguments, lora_rank: int) -> Job:
    return Job(
        task=task,
        encoder=model_args.encoder,
        llm=model_args.llm,
        keep_layers=model_args.keep_layers,
        checkpoint=bench_args.checkpoint,
        lora_rank=lora_rank,
        lora_alpha=LoraArguments().lora_alpha,
        batch_size=bench_args.batch_size,
        threads=bench_args.threads,
        num_beams=bench_args.num_beams,
        max_new_tokens=200,
        seed=bench_args.seed,
    )


@dataclass
class Run:
    """One process that ran a job."""

    answer: dict[str, Any] | None  # its line of JSON
    seconds: float
    peak_bytes: int


def run(command: list[str], environment: dict[str, str]) -> Run:
    """Raises `RuntimeError` with the end of what the program said if it fails."""
    with tempfile.TemporaryFile("w+") as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise RuntimeError(f"{shlex.join(command)} failed with {process.returncode}:\n{text[-4000:]}")
    return Run(read_answer(text), seconds, 1024 * usage.ru_maxrss)


def read_answer(text: str) -> dict[str, Any] | None:
    """The last line of JSON that has times."""
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            try:
                answer = json.loads(line)
            except ValueError:
                continue
            if "seconds" in answer or "clips_per_second" in answer:
                return answer
    return None


def measure(job: Job, rows: list[dict[str, Any]], command: str, rounds: int) -> dict[str, Any]:
    """Both sides `rounds` times, in turn."""
    sides = {OURS: OUR_COMMAND, "peer": shlex.split(command)}
    runs: dict[str, list[Run]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as directory:
        environment = job.write(rows, Path(directory))
        for _ in tqdm(range(rounds), desc=f"peer, {job.task}", unit="round"):
            for side, program in sides.items():
                runs[side].append(run(program, environment))
    answered = all(each.answer for side in runs.values() for each in side)
    figures = {side: summarise(job, each, answered) for side, each in runs.items()}
    add_ratios(figures)
    compared = "the seconds that each side states" if answered else "whole processes, loading included"
    return {"task": job.task, "lora_rank": job.lora_rank, "compared": compared, "sides": figures}


def summarise(job: Job, runs: list[Run], answered: bool) -> dict[str, Any]:
    clips = job.batch_size if answered and job.task == "training" else len(job.clips)
    seconds = [s for each in runs for s in (stated_seconds(each, clips) if answered else [each.seconds])]
    median = statistics.median(seconds)
    return {
        "median_seconds": median,
        "clips_per_second": clips / median,
        "process_seconds": statistics.median(each.seconds for each in runs),
        "peak_bytes": max(each.peak_bytes for each in runs),
        "seconds": seconds,
        "transcripts": (runs[-1].answer or {}).get("transcripts"),
    }


def stated_seconds(run: Run, clips: int) -> list[float]:
    answer = run.answer or {}
    return answer["seconds"] if "seconds" in answer else [clips / answer["clips_per_second"]]
