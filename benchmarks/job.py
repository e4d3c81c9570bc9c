"""Our side of a comparison: reads a job, runs it, prints its line of JSON (see `benchmarks/peer.py`).

SLAM_BENCH_JOB=job.json python -m benchmarks.job [--setting plain]
"""

import argparse
import json
import time

import datasets

from benchmarks.arguments import OURS, BenchmarkArguments
from benchmarks.evaluation import EVALUATIONS, EvaluationBench, transcribe
from benchmarks.peer import Job
from benchmarks.training import SETTINGS, StepBench, prepare, training_step
from modeling_slam.training.arguments import LoraArguments, ModelArguments


def step_bench(job: Job) -> StepBench:
    rows = [
        {"audio": {"path": clip["path"], "bytes": None}, "text": clip["text"], "duration": clip["seconds"]}
        for clip in job.clips
    ]
    bench_args = BenchmarkArguments(batch_size=job.batch_size, threads=job.threads, seed=job.seed)
    model_args = ModelArguments(encoder=job.encoder, llm=job.llm, keep_layers=job.keep_layers)
    lora_args = LoraArguments(lora_rank=job.lora_rank, lora_alpha=job.lora_alpha)
    return StepBench(bench_args, model_args, lora_args, rows)


def train(job: Job, setting: str) -> dict:
    """Seconds of each step but the first."""
    bench = step_bench(job)
    model, optimizer = bench.build()
    prepare(model, SETTINGS[setting])
    seconds = []
    for batch in bench.batches(SETTINGS[setting], model):
        start = time.perf_counter()
        training_step(model, optimizer, batch, SETTINGS[setting])
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds[1:]}


def evaluate(job: Job, setting: str) -> dict:
    """Seconds of a pass over all clips after one over the first few."""
    columns = {
        "id": [clip["path"] for clip in job.clips],
        "audio": [{"path": clip["path"], "bytes": None} for clip in job.clips],
        "text": [clip["text"] for clip in job.clips],
        "raw_text": [clip["text"] for clip in job.clips],
        "duration": [clip["seconds"] for clip in job.clips],
        "speaker": [""] * len(job.clips),
        "language": ["en"] * len(job.clips),
    }
    speech = datasets.Dataset.from_dict(columns).cast_column("audio", datasets.Audio(decode=False))
    bench_args = BenchmarkArguments(threads=job.threads, num_beams=job.num_beams)
    bench = EvaluationBench(bench_args, job.checkpoint or "", speech, job.max_new_tokens)
    recogniser = bench.recogniser()
    transcribe(recogniser, speech.select(range(min(len(speech), 8))), EVALUATIONS[setting])
    start = time.perf_counter()
    written = transcribe(recogniser, speech, EVALUATIONS[setting])
    return {"seconds": [time.perf_counter() - start], "transcripts": [text for text, _ in written]}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.job", description="Run a job of a comparison."
    )
    parser.add_argument("--setting", default=OURS, help="Way to train or to evaluate (default: ours).")
    arguments = parser.parse_args()
    job = Job.read()
    known = SETTINGS if job.task == "training" else EVALUATIONS
    if arguments.setting not in known:
        parser.error(f"`--setting` must be one of {[*known]} for {job.task}, got {arguments.setting!r}.")
    answer = train(job, arguments.setting) if job.task == "training" else evaluate(job, arguments.setting)
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
