"""The engine: brings every run of a study to its end, once, and says how far it is.

It can be stopped or killed at any moment; the same call goes on. Two engines may work on one study: a run is
held by a lock while it runs, and the engine that meets a held one does the others first.
"""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from tqdm import tqdm

from modeling_slam.common.shipped import HOME
from modeling_slam.data.joining import open_parts
from modeling_slam.study.cost import estimate
from modeling_slam.study.grid import PlannedRun, Study
from modeling_slam.study.runner import Outcome, Task
from modeling_slam.study.schedulers import Local, Outcomes, Scheduler, visible_gpus
from modeling_slam.study.specs import BaselineSpec, RunSpec
from modeling_slam.study.store import StudyStore
from modeling_slam.training.feature_cache import CacheArguments


@dataclass(frozen=True)
class StudyOutcome:
    """How a call of `run_study` ended."""

    directory: Path
    finished: int  # of all, those finished before included
    total: int
    failures: list[Outcome]


def run_study(
    study: Study,
    output_dir: str | os.PathLike,
    scheduler: Scheduler | None = None,
    threads: int | None = None,
    max_attempts: int = 3,
    keep_models: bool = True,
    only: Sequence[str] = (),
    cache_features: str | None = None,
    cache_max_gb: float = CacheArguments.cache_max_gb,
    results: str | os.PathLike | None = None,
) -> StudyOutcome:
    """Run what is not finished yet.

    Args:
        scheduler: where; on this machine, one run a GPU at a time, if not given.
        threads: CPU threads of each run; an equal share of this machine's if not given.
        max_attempts: how often a run is started, each time from its checkpoint, before it counts as failed.
        keep_models: whether a run's checkpoint stays after its evaluation.
        only: patterns such as "base-4L-*"; runs and baselines that match none are left for another time.
        cache_features: directory for the frozen encoders' output, computed once for the depths of all runs
            that are not finished.
        cache_max_gb: how large that directory may become; what does not fit is computed batch by batch.
        results: directory of records and counts; runs kept there are finished, and others are added when they
            are.

    Raises:
        ValueError: the study does not fit the directory, its data cannot be opened, or `only` matches
            nothing.
    """
    check_system()
    scheduler = scheduler or Local(len(visible_gpus()) or 1)
    store = StudyStore(output_dir)
    specs: list[RunSpec | BaselineSpec] = [*study.specs, *study.baselines]
    chosen = [s for s in specs if not only or any(fnmatchcase(s.name, pattern) for pattern in only)]
    if not chosen:
        raise ValueError(
            f"No run matches {', '.join(map(repr, only))}. The study has {', '.join(s.name for s in specs)}."
        )
    check_scripts()
    store.check(study.name, study.specs)  # what can be refused is, before anything is written
    kept = check_results(results, store)
    if kept is not None:
        store.take(kept, study.name, chosen)
    left = [spec for spec in chosen if not store.is_finished(spec)]
    names = {spec.name for spec in left}
    check_data([run for run in study.runs if run.spec.name in names])
    store.claim(study.name, study.specs, study.axes)
    store.write_index()
    if kept is not None:
        store.keep(kept, chosen)
    cpus = threads or share_of_cpus(scheduler)
    cache = {} if cache_features is None else {"cache_features": cache_features, "cache_max_gb": cache_max_gb}
    tasks = [
        Task(spec, str(store.directory), str(Path.cwd()), cpus, max_attempts, keep_models, cache)
        for spec in left
    ]

    failures = []
    with Progress(study, store, chosen, left, scheduler.workers) as progress:
        for outcome in in_two_rounds(scheduler, tasks):
            if outcome.status == "failed":
                failures.append(outcome)
                tqdm.write(f"{outcome.name} failed. {outcome.message}")
            store.write_index()
            if kept is not None:
                store.keep(kept, chosen)
            progress.update(outcome)
    finished = sum(store.is_finished(spec) for spec in chosen)
    return StudyOutcome(store.directory, finished, len(chosen), failures)


def in_two_rounds(scheduler: Scheduler, tasks: Sequence[Task]) -> Outcomes:
    """All tasks; those that another engine was at come again at the end, and are then waited for."""
    busy = []
    if tasks:
        for outcome in scheduler.run(tasks, wait=False):
            if outcome.status == "busy":
                busy.append(outcome.name)
            else:
                yield outcome
    if busy:
        tqdm.write(f"Another engine runs {', '.join(busy)}; waiting for it.")
        yield from scheduler.run([task for task in tasks if task.spec.name in busy], wait=True)


def check_system() -> None:
    """Runs share locks and end with their engine in ways that only POSIX has."""
    if os.name != "posix":
        raise ValueError(
            f"A study runs on Linux and macOS, this is {platform.system()}; use its Linux subsystem. "
            "Planning (--dry_run), reports and publishing work here."
        )


def check_results(results: str | os.PathLike | None, store: StudyStore) -> Path | None:
    if results is None:
        return None
    kept = Path(results).resolve()
    if kept == store.directory:
        raise ValueError(
            f"`results` and `output_dir` are both {kept}; what is kept lies in a directory of its own."
        )
    return kept


def check_scripts() -> None:
    for script in ("train.py", "eval.py"):
        if not (HOME / script).is_file():
            raise ValueError(f"There is no {HOME / script}, which a study runs: install slam-asr again.")


def check_data(runs: Sequence[PlannedRun]) -> None:
    """Open all data once, so that a wrong path shows now and not hours later."""
    for data in {repr(run.data): run.data for run in runs}.values():
        for role in ("train", "test"):
            open_parts(data, role)


def share_of_cpus(scheduler: Scheduler) -> int:
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cpus // scheduler.workers) if isinstance(scheduler, Local) else cpus


class Progress:
    """A bar over the runs, with the hours spent so far and those that are left.

    What is left is foreseen from what the finished runs took for each unit of their estimated cost.
    """

    def __init__(
        self,
        study: Study,
        store: StudyStore,
        chosen: Sequence[RunSpec | BaselineSpec],
        left: Sequence[RunSpec | BaselineSpec],
        workers: int,
    ):
        self.store, self.workers = store, workers
        names = {spec.name for spec in chosen}
        planned = [run for run in study.runs if run.spec.name in names]
        self.specs = {run.spec.name: run.spec for run in planned}
        self.costs = {run.spec.name: estimate(run).flops or 1.0 for run in planned}
        self.done = self.costs.keys() - {spec.name for spec in left}
        self.bar = tqdm(total=len(chosen), initial=len(chosen) - len(left), desc="runs", unit="run")

    def __enter__(self) -> "Progress":
        self.show()
        return self

    def update(self, outcome: Outcome) -> None:
        if outcome.status == "finished" and outcome.name in self.specs:
            self.done.add(outcome.name)
        self.bar.update()
        self.show()

    def show(self) -> None:
        records = [self.store.record(self.specs[name]) for name in self.done]
        seconds = sum(record.train_seconds + record.evaluate_seconds for record in records if record)
        text = f"{seconds / 3600:.2f} h of computing"
        if seconds:
            rate = seconds / sum(self.costs[name] for name in self.done)
            left = rate * sum(cost for name, cost in self.costs.items() if name not in self.done)
            text += f", about {left / self.workers / 3600:.2f} h left"
        self.bar.set_postfix_str(text)

    def __exit__(self, *_exception: object) -> None:
        self.bar.close()
