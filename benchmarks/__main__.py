"""`python -m benchmarks`: measure, print tables, write one JSON file for each part.

    python -m benchmarks --encoder DIR --llm DIR --dataset DIR [--checkpoint DIR] [--parts training ...]

Files appear as soon as their part is done, so a run that is cut off keeps what it has.
"""

import contextlib
import json
import tempfile
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import torch

from benchmarks import curves, data_parallel, evaluation, loading, peer, training
from benchmarks.arguments import BenchmarkArguments
from benchmarks.machine import describe
from benchmarks.tables import loading_table, peer_table, settings_table, stage_table
from modeling_slam.common.command_line import clear_errors, parse_arguments
from modeling_slam.data import DataArguments, load_speech
from modeling_slam.evaluation.predictions import write_atomically
from modeling_slam.training.arguments import LoraArguments, ModelArguments
from modeling_slam.training.assembly import build_config, build_model, build_processor

DESCRIPTION = "Time, memory and share of the machine's limit: training, evaluation, loading."
USAGE = "python -m benchmarks [SETTINGS.yaml] --dataset DIR [--flag value ...]"
UNTRAINED_TOKENS = 32  # a model that has learned nothing does not end by itself


class Benchmarks:
    """The parts by name; each returns what its file holds, and what is printed."""

    def __init__(self, bench_args: BenchmarkArguments, model_args: ModelArguments, data_args: DataArguments):
        self.bench_args, self.model_args, self.data_args = bench_args, model_args, data_args

    def training(self) -> Generator[tuple[str, dict[str, Any], str]]:
        rows = training.choose_clips(self.bench_args, self.data_args)
        for rank in self.bench_args.lora_ranks:
            bench = training.StepBench(self.bench_args, self.model_args, LoraArguments(lora_rank=rank), rows)
            result = training.measure(bench) | {"lora_rank": rank}
            title = f"lora_{rank}" if rank else "projector"
            yield f"training_{title}", result, settings_table(result, "step") + "\n\n" + stage_table(result)

    def evaluation(self) -> Generator[tuple[str, dict[str, Any], str]]:
        speech = self.test_speech()
        limit = 200 if self.bench_args.checkpoint else UNTRAINED_TOKENS
        with self.checkpoint() as checkpoint:
            bench = evaluation.EvaluationBench(self.bench_args, checkpoint, speech, limit)
            result = evaluation.measure(bench)
        result |= {"clips": len(speech), "audio_seconds": sum(speech["duration"][:])}
        yield "evaluation", result, settings_table(result, "round") + "\n\n" + stage_table(result)

    def loading(self) -> Generator[tuple[str, dict[str, Any], str]]:
        with self.checkpoint() as checkpoint:
            result = loading.measure(checkpoint)
        yield "loading", result, loading_table(result)

    def curves(self) -> Generator[tuple[str, dict[str, Any], str]]:
        config = build_config(self.model_args, LoraArguments(lora_rank=0))
        for name in self.bench_args.curves:
            result = curves.measure(self.bench_args, config, name)
            yield f"curve_{name.replace(' ', '_')}", result, curves.table(result)

    def data_parallel(self) -> Generator[tuple[str, dict[str, Any], str]]:
        rows = training.choose_clips(self.bench_args, self.data_args)
        job = peer.make_job("training", self.bench_args, self.model_args, lora_rank=0)
        result = data_parallel.measure(job, rows)
        yield "data_parallel", result, data_parallel.table(result)

    def peer(self) -> Generator[tuple[str, dict[str, Any], str]]:
        rows = training.choose_clips(self.bench_args, self.data_args)
        jobs = {
            f"training_{rank}": (peer.make_job("training", self.bench_args, self.model_args, rank), rows)
            for rank in self.bench_args.lora_ranks
        }
        if self.bench_args.checkpoint is not None:
            speech = self.test_speech()
            job = peer.make_job("evaluation", self.bench_args, self.model_args, lora_rank=0)
            jobs["evaluation"] = (job, [speech[i] for i in range(len(speech))])
        for name, (job, clips) in jobs.items():
            result = peer.measure(job, clips, self.bench_args.peer or "", self.bench_args.eval_rounds)
            yield f"peer_{name}", result, peer_table(result)

    def test_speech(self) -> datasets.Dataset:
        speech, _ = load_speech(self.data_args, "test")
        return speech.select(range(min(self.bench_args.eval_clips, len(speech))))

    @contextlib.contextmanager
    def checkpoint(self) -> Generator[str]:
        """The one to evaluate, or a fresh one in a temporary directory."""
        if self.bench_args.checkpoint is not None:
            yield self.bench_args.checkpoint
            return
        with tempfile.TemporaryDirectory() as directory:
            config = build_config(self.model_args, LoraArguments())
            processor = build_processor(self.model_args, config)
            build_model(config, processor, self.model_args, bf16=False).save_pretrained(directory)
            processor.save_pretrained(directory)
            yield directory


def context(bench_args: BenchmarkArguments, model_args: ModelArguments, data_args: DataArguments) -> dict:
    """What was measured, without directories of this machine."""
    settings = {
        name: value
        for name, value in asdict(bench_args).items()
        if name not in ("output_dir", "peer", "name")
    }
    return (
        {
            "machine": describe(),
            "encoder": short_name(model_args.encoder),
            "keep_layers": model_args.keep_layers,
            "llm": short_name(model_args.llm),
            "dataset": short_name(data_args.dataset),
        }
        | settings
        | {"checkpoint": bench_args.checkpoint and short_name(bench_args.checkpoint)}
    )


def short_name(source: str) -> str:
    """A Hub id as it is; of a directory its name, not where it lies on this machine."""
    return Path(source).name if Path(source).exists() else source


def parse(argv: list[str] | None) -> tuple[BenchmarkArguments, ModelArguments, DataArguments]:
    return parse_arguments(
        BenchmarkArguments, ModelArguments, DataArguments, description=DESCRIPTION, argv=argv, usage=USAGE
    )


def main(argv: list[str] | None = None) -> None:
    bench_args, model_args, data_args = parse(argv)
    torch.set_num_threads(bench_args.threads)
    output = Path(bench_args.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    benchmarks = Benchmarks(bench_args, model_args, data_args)
    with clear_errors():
        build_config(model_args, LoraArguments())  # a base model that cannot be found shows here
        for part in bench_args.parts:
            about = context(bench_args, model_args, data_args)
            for name, result, text in getattr(benchmarks, part)():
                file = output / f"{name}{bench_args.name and '_' + bench_args.name}.json"
                write_atomically(file, json.dumps(about | result, indent=1) + "\n")
                print(f"\n## {name}\n\n{text}\n\nEvery sample: {file}", flush=True)


if __name__ == "__main__":
    main()
