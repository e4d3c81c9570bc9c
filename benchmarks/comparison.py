"""Training, evaluation and loading, ours beside others: measure, print one table, write JSON and Markdown.

    python -m benchmarks --encoder DIR --llm DIR --dataset DIR [--parts training ...] [--against CHECKOUT]

Files are written after every round. A run that was stopped keeps its rounds; the same command goes on.
"""

import functools
import os
import platform
import random
import re
import shlex
import tempfile
from collections.abc import Generator, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import soundfile
import torch
from tqdm import tqdm
from transformers import WhisperConfig

from benchmarks.flops import batch_needs
from benchmarks.results import OURS, Results, Row
from benchmarks.sides import REPOSITORY, commit, sides_of, worker
from modeling_slam.common.command_line import clear_errors, parse_arguments
from modeling_slam.data import DataArguments, load_speech
from modeling_slam.data.collator import SpeechCollator
from modeling_slam.model.audio_io import load_audio
from modeling_slam.model.audio_lengths import SAMPLING_RATE
from modeling_slam.training.arguments import LoraArguments, ModelArguments
from modeling_slam.training.assembly import build_config, build_processor

DESCRIPTION = "Time and memory of training, evaluation and loading, beside plain ways and older code."
USAGE = "python -m benchmarks [SETTINGS.yaml] --dataset DIR [--flag value ...]"
Part = Literal["training", "evaluation", "loading"]
UNTRAINED_TOKENS, TRAINED_TOKENS = 32, 200  # a model that has learned nothing does not end by itself
MODEL_FLAGS = ("encoder", "llm", "keep_layers")
NUMBERS = ("keep_layers", "steps", "batch_size", "eval_clips", "eval_batch_size", "num_beams", "seed")
NO_FACTS = {"batch": None, "steps": 1, "audio_seconds": None, "needed_flop": None}

Job = dict[str, Any]


@dataclass
class BenchmarkArguments:
    """What is measured, and how long."""

    encoder: str = field(default="openai/whisper-base", metadata={"help": "Whisper: a Hub id or directory."})
    llm: str = field(default="Qwen/Qwen2.5-0.5B", metadata={"help": "Causal LM: a Hub id or a directory."})
    keep_layers: int | None = field(
        default=None, metadata={"help": "Encoder layers to keep; all if not given."}
    )
    parts: list[str] = field(
        default_factory=lambda: list(get_args(Part)),
        metadata={"help": f"What to measure: {', '.join(get_args(Part))}."},
    )
    out: str = field(
        default="runs/benchmark",
        metadata={"help": "Directory that receives benchmark.json and benchmark.md."},
    )
    against: str | None = field(
        default=None,
        metadata={"help": "Another checkout of this project, measured in turn with this; its .venv is used."},
    )
    peer: str | None = field(
        default=None,
        metadata={"help": "Another implementation's command, run in turn with ours (benchmarks/README.md)."},
    )
    checkpoint: str | None = field(
        default=None,
        metadata={"help": "Checkpoint to evaluate and load; a fresh one, cut at 32 tokens, if not given."},
    )
    lora_ranks: list[int] = field(
        default_factory=lambda: [0, 16], metadata={"help": "LoRA ranks to train; 0 is the projector alone."}
    )
    rounds: int = field(default=5, metadata={"help": "Times that all sides take turns."})
    steps: int = field(default=4, metadata={"help": "Training steps in a round."})
    batch_size: int = field(default=4, metadata={"help": "Clips per training step."})
    eval_clips: int = field(default=64, metadata={"help": "Test clips that an evaluation transcribes."})
    eval_batch_size: int = field(default=32, metadata={"help": "Most clips that are transcribed at once."})
    num_beams: int = field(default=2, metadata={"help": "Beams of an evaluation."})
    seed: int = field(default=0, metadata={"help": "Seed of the choice of clips, weights and dropout."})

    def __post_init__(self):
        if not self.parts or set(self.parts) - set(get_args(Part)):
            raise ValueError(f"`parts` must be any of {[*get_args(Part)]}, got {self.parts}.")
        for name, value in asdict(self).items():
            if isinstance(value, int) and value < 1 and name != "seed":
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        if self.against is not None and not Path(self.against, "modeling_slam").is_dir():
            raise ValueError(f"`against` must be a checkout of this project, {self.against} is none.")


class Benchmark:
    """The parts by name; each yields a row's facts and the job that all its sides do."""

    def __init__(self, arguments: BenchmarkArguments, data_arguments: DataArguments, directory: Path):
        """`directory` receives clips, jobs and the fresh checkpoint."""
        self.arguments, self.data_arguments, self.directory = arguments, data_arguments, directory
        self.programs = {OURS: worker(REPOSITORY)}
        if arguments.against is not None:
            self.programs["before"] = worker(Path(arguments.against))
        self.programs["plain"] = worker(REPOSITORY)
        if arguments.peer is not None:
            self.programs["peer"] = (shlex.split(arguments.peer), {})

    def training(self) -> Generator[tuple[Row, Job]]:
        arguments = self.arguments
        clips = self.clips("train", arguments.steps * arguments.batch_size)
        for rank in arguments.lora_ranks:
            setting = f"LoRA, rank {rank}" if rank else "projector only"
            facts = {"setting": setting, "batch": arguments.batch_size, "steps": arguments.steps}
            needed = self.needed_flop(clips, rank)
            job = {"lora_rank": rank, "batch_size": arguments.batch_size, "clips": clips}
            yield facts | {"audio_seconds": seconds_of(clips), "needed_flop": needed}, job

    def evaluation(self) -> Generator[tuple[Row, Job]]:
        arguments = self.arguments
        clips = self.clips("test", arguments.eval_clips)
        setting = f"{len(clips)} clips, {arguments.num_beams} beams"
        limit = TRAINED_TOKENS if arguments.checkpoint else UNTRAINED_TOKENS
        job = {"clips": clips, "batch_size": arguments.eval_batch_size, "checkpoint": self.checkpoint}
        job |= {"num_beams": arguments.num_beams, "max_new_tokens": limit}
        yield {"setting": setting, "batch": job["batch_size"], "audio_seconds": seconds_of(clips)}, job

    def loading(self) -> Generator[tuple[Row, Job]]:
        yield {"setting": "files in the page cache"}, {"checkpoint": self.checkpoint}

    def measure(self, part: str, results: Results) -> None:
        """All rounds of a part that `results` does not have yet."""
        for facts, job in getattr(self, part)():
            facts = NO_FACTS | facts | {"part": part}
            names = [name for name in self.programs if (part, name) != ("loading", "peer")]
            rows = {name: results.row(**facts, side=name) for name in names}
            rounds = range(len(rows[OURS]["samples"]), self.arguments.rounds)
            jobs = {name: self.job(part, name) | job for name in names}
            with sides_of(jobs, self.programs, self.directory) as running:
                for number in tqdm(rounds, desc=f"{part}, {facts['setting']}", unit="round"):
                    # A B, B A, A B ...: a machine that slows down bends no ratio.
                    order = [*running] if number % 2 == 0 else [*running][::-1]
                    answers = {name: running[name].round() for name in order}
                    for name, row in rows.items():
                        add_answer(row, answers[name], answers[OURS])
                    results.save()

    def job(self, part: str, side: str) -> Job:
        """What all jobs have."""
        given = {name: getattr(self.arguments, name) for name in (*MODEL_FLAGS, "seed")}
        way = "plain" if side == "plain" else OURS
        return {"part": part, "way": way, "lora_rank": LoraArguments().lora_rank, **given}

    @functools.cached_property
    def checkpoint(self) -> str:
        """The one to evaluate and load. A fresh one is saved by the older code, which the newer one reads."""
        if self.arguments.checkpoint is not None:
            return self.arguments.checkpoint
        name = "before" if "before" in self.programs else OURS
        directory = str(self.directory / "checkpoint")
        job = self.job("checkpoint", name) | {"checkpoint": directory}
        with sides_of({name: job}, self.programs, self.directory) as sides:
            sides[name].round()
        return directory

    def clips(self, split: Literal["train", "test"], count: int) -> list[dict[str, Any]]:
        """Clips of the split in random order, written as 16 kHz WAV, so that every program can read them."""
        speech, _ = load_speech(self.data_arguments, split)
        if len(speech) < count:
            flag = {"train": "--steps", "test": "--eval_clips"}[split]
            raise ValueError(
                f"{count} clips are needed, the {split} split has {len(speech)}: lower `{flag}`."
            )
        clips = []
        for number in random.Random(self.arguments.seed).sample(range(len(speech)), count):
            row, path = speech[number], str(self.directory / f"{split}-{number}.wav")
            soundfile.write(path, load_audio(row["audio"]), SAMPLING_RATE)
            audio = {"path": path, "bytes": None}
            clips.append({"path": path, "audio": audio, "text": row["text"], "duration": row["duration"]})
        return clips

    def needed_flop(self, clips: list[dict[str, Any]], rank: int) -> float | None:
        """For one step on every batch; unknown for encoders other than Whisper's."""
        flags = {name: getattr(self.arguments, name) for name in MODEL_FLAGS}
        model_args = ModelArguments(**flags, projector_stack=5, projector_context=1)  # the workers' model
        config = build_config(model_args, LoraArguments(lora_rank=rank))
        if not isinstance(config.audio_config, WhisperConfig):
            return None
        return batch_needs(config, SpeechCollator(build_processor(model_args, config))(clips))


def seconds_of(clips: list[dict[str, Any]]) -> float:
    return sum(clip["duration"] for clip in clips)


def add_answer(row: Row, answer: dict[str, Any], ours: dict[str, Any]) -> None:
    row["samples"].append(answer["seconds"])
    if "matmul_peak" in answer:
        row["matmul_peaks"].append(answer["matmul_peak"])
    row |= {name: answer[name] for name in ("peak_extra_bytes", "versions") if name in answer}
    if "loss" in answer:
        row["output"] = f"loss {answer['loss']:.5f}"
    if "transcripts" in answer:
        texts, of_ours = answer["transcripts"], ours["transcripts"]
        same = sum(text == other for text, other in zip(texts, of_ours, strict=True))
        row["output"] = f"{same} of {len(of_ours)} transcripts as ours"


def about(arguments: BenchmarkArguments, dataset: list[str], sides: Iterable[str]) -> dict[str, Any]:
    """What the figures depend on, without directories of this machine."""
    values = asdict(arguments)
    return {
        "encoder": short_name(arguments.encoder),
        "llm": short_name(arguments.llm),
        "dataset": " + ".join(map(short_name, dataset)),
        "checkpoint": short_name(arguments.checkpoint) if arguments.checkpoint else "untrained",
        **{name: values[name] for name in NUMBERS},
        "threads": torch.get_num_threads(),
        "sides": ", ".join(sides),
        "device": device_name(),
        "commit": commit(REPOSITORY),
        "commit_before": commit(Path(arguments.against)) if arguments.against else None,
    }


def short_name(source: str) -> str:
    """A Hub id as it is; of a directory its name, not where it lies on this machine."""
    return Path(source).resolve().name if Path(source).exists() else source


def device_name() -> str:
    device = torch.accelerator.current_accelerator(check_available=True)
    if device is not None:
        return getattr(torch.get_device_module(device), "get_device_name", lambda: device.type)()
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text() if cpuinfo.exists() else "")
    return f"{model[1] if model else platform.processor()}, {os.cpu_count()} cores"


def parse(argv: list[str] | None) -> tuple[BenchmarkArguments, DataArguments]:
    return parse_arguments(BenchmarkArguments, DataArguments, description=DESCRIPTION, argv=argv, usage=USAGE)


def main(argv: list[str] | None = None) -> None:
    arguments, data_arguments = parse(argv)
    with clear_errors(), tempfile.TemporaryDirectory() as directory:
        benchmark = Benchmark(arguments, data_arguments, Path(directory))
        results = Results(Path(arguments.out), about(arguments, data_arguments.dataset, benchmark.programs))
        for part in arguments.parts:
            benchmark.measure(part, results)
    print(f"\n{results.markdown()}\nEvery sample: {results.path}")
