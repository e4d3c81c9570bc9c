"""Recordings spread over processes of this machine, or over a Ray cluster: the same transcripts, sooner.

Either way processes hear groups of some minutes, in batches, and keep their model for the next group. A
process that dies, as the system ends one when memory is short, costs its recordings a second try, each by
itself when the others are done. Whatever dies with the process again is listed as failed.
"""

import contextlib
import functools
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path

import torch

from modeling_slam.common.ray_cluster import ray_cluster
from modeling_slam.transcription.hearing import CountingPipeline, Task, hear, load
from modeling_slam.transcription.journal import Heard, stamp
from modeling_slam.transcription.recordings import Recording

GROUP_SECONDS = 300.0  # of sound that a process is given at a time

Group = list[Recording]
Work = Callable[[Group], list[Heard]]
# Groups, and whether they come one after the other -> each with what was heard; `None` if its process died.
Run = Callable[[Sequence[Group], bool], Iterator[tuple[Group, list[Heard] | None]]]


def hear_spread(
    task: Task, recordings: list[tuple[Recording, float]], processes: int | None, ray: str | None = None
) -> Iterator[Heard]:
    """As `hear`, in several processes; what was heard comes in any order.

    Args:
        recordings: with the seconds that they state.
        processes: how many; `None`, with Ray, for one on each GPU, or each machine if there is none.
        ray: the address of a Ray cluster; `None` for this machine without Ray.

    Raises:
        ValueError: Ray is not there, or not as it must be.
    """
    work = functools.partial(hear_group, task)
    spread = in_processes(work, processes or 1) if ray is None else on_ray(work, ray, processes)
    again: list[Group] = []
    with spread as run:
        for group, heard in run(groups_of(recordings), False):
            if heard is None:
                again += [[recording] for recording in group]
            else:
                yield from heard
        for (recording,), heard in run(again, True):
            yield from [died(task, recording)] if heard is None else heard


def hear_group(task: Task, group: Group) -> list[Heard]:
    return list(hear(loaded(task), task, group))


@functools.lru_cache(maxsize=1)
def loaded(task: Task) -> CountingPipeline:
    """The pipeline of this process, which stays for its next group."""
    return load(task)


def died(task: Task, recording: Recording) -> Heard:
    error = (
        f"{recording.path}: the process that heard it died, twice, as the system ends one when memory is "
        "short. Try a smaller `--batch_size`, or fewer `--num_processes`."
    )
    return Heard.of(recording, stamp(recording.path), dict(task.settings), error=error)


def groups_of(recordings: list[tuple[Recording, float]]) -> list[Group]:
    """Groups of some minutes, which a process hears in batches."""
    groups: list[Group] = []
    room = 0.0
    for recording, seconds in recordings:
        if room <= 0:
            groups.append([])
            room = GROUP_SECONDS
        groups[-1].append(recording)
        room -= max(seconds, 1.0)
    return groups


# ---------------------------------------------------------------- processes of this machine


@contextlib.contextmanager
def in_processes(work: Work, count: int) -> Generator[Run]:
    """Each process is a pool of its own: of a pool of several, one that dies ends all."""
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork

    def started(place: int) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, context, take_place, (place, count))

    def submitted(place: int, group: Group) -> Future[list[Heard]]:
        try:
            return pools[place].submit(work, group)
        except BrokenProcessPool:  # it died while it had nothing to do
            pools[place] = started(place)
            return pools[place].submit(work, group)

    def run(groups: Sequence[Group], one_by_one: bool) -> Iterator[tuple[Group, list[Heard] | None]]:
        left, free = deque(groups), deque(range(1 if one_by_one else count))
        running: dict[Future[list[Heard]], tuple[int, Group]] = {}
        while left or running:
            while left and free:
                place, group = free.popleft(), left.popleft()
                running[submitted(place, group)] = place, group
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                place, group = running.pop(future)
                free.append(place)
                try:
                    heard = future.result()
                except BrokenProcessPool:
                    heard = None
                yield group, heard

    pools = [started(place) for place in range(count)]
    try:
        yield run
    finally:
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)


def take_place(place: int, count: int) -> None:
    """In a new process: its share of the cores, and of the GPUs the next in turn."""
    torch.set_num_threads(max(1, torch.get_num_threads() // count))
    if torch.cuda.is_available():
        torch.cuda.set_device(place % torch.cuda.device_count())


# ---------------------------------------------------------------- a Ray cluster


@contextlib.contextmanager
def on_ray(work: Work, address: str, count: int | None) -> Generator[Run]:
    """Ray places processes where CPUs, or a GPU and its share of the CPUs, are free."""

    def run(groups: Sequence[Group], one_by_one: bool) -> Iterator[tuple[Group, list[Heard] | None]]:
        left = iter(groups)
        running = {}
        try:
            while True:  # A second try is no reason to leave other machines idle, so `one_by_one` is not.
                more = islice(left, count and count - len(running))
                running.update({at_work(group): group for group in more})
                if not running:
                    return
                (done, *_), _ = ray.wait(list(running))
                group = running.pop(done)
                try:
                    heard = ray.get(done)
                except ray.exceptions.RayTaskError as error:  # our code raised it
                    raise (error.cause or error) from error
                except ray.exceptions.RayError:
                    heard = None
                yield group, heard
        finally:
            for reference in running:
                ray.cancel(reference, force=True)

    with ray_cluster(address, "leave `--ray` out") as ray:
        cpus, gpus = share([node["Resources"] for node in ray.nodes() if node["Alive"]], count)
        # Ray would start all of a group again, which a recording that kills its process would kill again.
        remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(work_here)
        at_work = functools.partial(remote.remote, work, str(Path.cwd()), cpus)
        yield run


def share(nodes: list[dict[str, float]], count: int | None) -> tuple[int, int]:
    """CPUs and GPUs of a process, so that `count` of them fit, or one for each GPU or machine.

    Raises:
        ValueError: no machine has a CPU to give.
    """
    with_gpu = [node for node in nodes if node.get("GPU", 0) >= 1 and node.get("CPU", 0) >= 1]
    if with_gpu:
        return max(1, min(int(node["CPU"] / node["GPU"]) for node in with_gpu)), 1
    cpus = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
    if not cpus:
        raise ValueError("The Ray cluster of `--ray` has no CPUs: start its machines with `--num-cpus`.")
    return max(1, min(*cpus, sum(cpus) // (count or 1))), 0


def work_here(work: Work, directory: str, threads: int, group: Group) -> list[Heard]:
    """In a process of Ray: where the command was typed, so that paths mean the same."""
    try:
        os.chdir(directory)
    except OSError as error:
        raise ValueError(
            f"A machine of the Ray cluster has no directory {directory}. All of them must see the model, the "
            "recordings and the directory of the call under the same paths."
        ) from error
    torch.set_num_threads(threads)
    return work(group)
