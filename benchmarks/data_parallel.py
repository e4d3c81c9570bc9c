"""Two training processes against one: clips a second, and the efficiency of the second process.

Each run is `python -m benchmarks.data_parallel` under `accelerate launch`, on the CPU with the gloo backend;
every process takes batches of its own and gradients are averaged by `DistributedDataParallel`, as in
`train.py`. Efficiency is the two processes' clips a second over twice those of one with as many threads.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import nn
from tqdm import tqdm

from benchmarks.arguments import OURS
from benchmarks.job import step_bench
from benchmarks.peer import Job, run
from benchmarks.tables import table as markdown
from benchmarks.training import SETTINGS, prepare

ROUNDS = 2
RUNS = {  # processes, threads of each
    "1 process, 1 thread": (1, 1),
    "1 process, 2 threads": (1, 2),
    "2 processes, 1 thread each": (2, 1),
}


def measure(job: Job, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """All runs in turn, `ROUNDS` times."""
    clips_per_second: dict[str, list[float]] = {name: [] for name in RUNS}
    with tempfile.TemporaryDirectory() as directory:
        for name in tqdm([*RUNS] * ROUNDS, desc="data parallel", unit="run"):
            processes, job.threads = RUNS[name]
            environment = job.write(rows, Path(directory))
            answer = run([sys.executable, *launch(processes), "-m", __name__], environment).answer or {}
            clips_per_second[name].append(processes * job.batch_size / statistics.median(answer["seconds"]))
    median = {name: statistics.median(values) for name, values in clips_per_second.items()}
    return {
        "clips_per_second": median,
        "efficiency": median["2 processes, 1 thread each"] / median["1 process, 1 thread"] / 2,
        "samples": clips_per_second,
    }


def launch(processes: int) -> list[str]:
    """Arguments of python. `--cpu` instead of `--multi_gpu` would start a single process, without a word."""
    if processes == 1:
        return []
    return [
        "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes),
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
        "--main_process_port", "0",
    ]  # fmt: skip


def table(result: dict[str, Any]) -> str:
    base = result["clips_per_second"]["1 process, 1 thread"]
    rows = [[name, f"{rate:.3g}", f"{rate / base:.2f}"] for name, rate in result["clips_per_second"].items()]
    return markdown(["run", "clips/s", "times one thread"], rows) + (
        f"\n\nEfficiency of two processes: {result['efficiency']:.0%}."
    )


def work() -> None:
    """One process of a run: seconds of its steps but the first; the main process prints them."""
    job = Job.read()
    unused = DistributedDataParallelKwargs(find_unused_parameters=False)
    accelerator = Accelerator(cpu=True, kwargs_handlers=[unused])
    bench = step_bench(job)
    model, optimizer = bench.build()
    prepare(model, SETTINGS[OURS])
    batches = bench.batches(SETTINGS[OURS], model)
    whole = len(batches) - len(batches) % accelerator.num_processes  # a process alone would wait for ever
    batches = batches[accelerator.process_index : whole : accelerator.num_processes]
    model, optimizer = accelerator.prepare(model, optimizer)
    seconds = []
    for batch in batches:
        accelerator.wait_for_everyone()
        start = time.perf_counter()
        accelerator.backward(model(**batch).loss)
        nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - start)
    if accelerator.is_main_process:
        print(json.dumps({"seconds": seconds[1:], "threads": torch.get_num_threads()}), flush=True)
    accelerator.free_memory(model, optimizer)
    del model, optimizer  # gradients' buckets must go before the processes part
    accelerator.end_training()


if __name__ == "__main__":
    work()
