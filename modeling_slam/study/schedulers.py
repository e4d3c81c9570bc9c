"""Where runs take place: on this machine, on a Ray cluster, or in a SLURM job array.

Each scheduler takes tasks and yields their outcomes as they come; closing the generator stops what is
running. All call the one function `execute`, and all machines see the study's directory and the same
environment under the same paths. Ray and submitit are imported only where they are used.
"""

import os
import queue
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from modeling_slam.common.ray_cluster import imported, ray_cluster
from modeling_slam.study.runner import Lifeline, Outcome, Task, execute

INSTEAD = "use another `--scheduler`"
Outcomes = Generator[Outcome, None, None]


class Scheduler(Protocol):
    """Runs tasks, `workers` at a time; `wait` as in `execute`."""

    @property
    def workers(self) -> int: ...

    def run(self, tasks: Sequence[Task], wait: bool) -> Outcomes: ...


@dataclass(frozen=True)
class Local:
    """Runs on this machine, `workers` at a time; with GPUs each has one to itself."""

    workers: int

    def run(self, tasks: Sequence[Task], wait: bool) -> Outcomes:
        devices: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        visible = visible_gpus() or [None]
        for number in range(self.workers):
            devices.put(visible[number % len(visible)])
        with Lifeline() as lifeline, ThreadPoolExecutor(self.workers) as pool:

            def on_a_device(task: Task) -> Outcome:
                device = devices.get()
                try:
                    own = {} if device is None else {"CUDA_VISIBLE_DEVICES": device}
                    return execute(replace(task, environment=own), wait, lifeline)
                finally:
                    devices.put(device)

            futures = [pool.submit(on_a_device, task) for task in tasks]
            try:
                for future in as_completed(futures):
                    yield future.result()
            finally:
                lifeline.cut()
                pool.shutdown(cancel_futures=True)


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may be set to for one of the GPUs that this process sees."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]


@dataclass(frozen=True)
class Ray:
    """Runs on a Ray cluster: the one at `address`, or one of its own for `workers` runs at a time.

    Ray places runs where CPUs and a GPU are free. A run whose worker or node has died it starts again, which
    then goes on from its checkpoint.
    """

    workers: int
    address: str | None = None

    def run(self, tasks: Sequence[Task], wait: bool) -> Outcomes:
        cpus = self.workers * max(task.threads for task in tasks)
        with ray_cluster(self.address or "local", INSTEAD, cpus) as ray:
            gpus = 1 if ray.cluster_resources().get("GPU") else 0
            waiting = {}
            for task in tasks:
                remote = ray.remote(num_cpus=task.threads, num_gpus=gpus, max_retries=task.max_attempts)(
                    execute
                )
                waiting[remote.options(name=task.spec.name).remote(task, wait)] = task
            try:
                while waiting:
                    (done, *_), _ = ray.wait(list(waiting))
                    task = waiting.pop(done)
                    try:
                        yield ray.get(done)
                    except ray.exceptions.RayError as error:
                        yield Outcome(task.spec.name, "failed", f"Ray gave it up: {error}")
            finally:
                for reference in waiting:
                    ray.cancel(reference, force=True)


@dataclass(frozen=True)
class Slurm:
    """Runs as one SLURM job array, at most `workers` jobs at a time, through submitit.

    `parameters` are submitit's: slurm_partition, timeout_min, gpus_per_node and so on. With `cluster="local"`
    the jobs are processes of this machine.
    """

    workers: int
    folder: Path
    parameters: dict[str, Any] = field(default_factory=dict)
    cluster: str | None = None
    poll_seconds: float = 10.0

    def run(self, tasks: Sequence[Task], wait: bool) -> Outcomes:
        submitit = imported("submitit", "slurm", INSTEAD)
        executor = submitit.AutoExecutor(folder=self.folder, cluster=self.cluster)
        executor.update_parameters(
            cpus_per_task=max(task.threads for task in tasks),
            slurm_array_parallelism=self.workers,
            **self.parameters,
        )
        jobs = executor.map_array(SlurmRun(wait), tasks)
        names = {job.job_id: task.spec.name for job, task in zip(jobs, tasks, strict=True)}
        try:
            for job in submitit.helpers.as_completed(jobs, poll_frequency=self.poll_seconds):
                name = names.pop(job.job_id)
                try:
                    yield job.result()
                except (submitit.core.utils.FailedJobError, submitit.core.utils.UncompletedJobError) as error:
                    yield Outcome(name, "failed", f"SLURM job {job.job_id}: {error}")
        finally:
            for job in jobs:
                if job.job_id in names:
                    job.cancel()


@dataclass(frozen=True)
class SlurmRun:
    """`execute` for submitit, which calls `checkpoint` when a job is preempted or runs out of time."""

    wait: bool

    def __call__(self, task: Task) -> Outcome:
        return execute(task, self.wait)

    def checkpoint(self, task: Task) -> Any:
        """The job to queue instead: the same one, as a run goes on from its own checkpoint."""
        return imported("submitit", "slurm", INSTEAD).helpers.DelayedSubmission(self, task)
