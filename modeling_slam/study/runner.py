"""One run from beginning to end: train.py, then eval.py, each in a process of its own, and the record.

`execute` is what every scheduler calls, on any machine that sees the study's directory. It takes up a run
wherever an earlier call was stopped or killed, and does nothing where the run is finished.
"""

import contextlib
import dataclasses
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from modeling_slam.analysis.convergence import TRAINER_STATE
from modeling_slam.analysis.counting import write_counts
from modeling_slam.analysis.results import METRICS_FILE, RUN_FILE, decoders_of, evaluations
from modeling_slam.common.command_line import as_flags, build_parser
from modeling_slam.common.files import naming_what_has_no_room, read_json, write_json
from modeling_slam.common.shipped import HOME, IS_CLONE
from modeling_slam.evaluation.arguments import EvaluationArguments
from modeling_slam.evaluation.report import package_versions
from modeling_slam.study.specs import BaselineSpec, RunRecord, RunSpec, flags_with
from modeling_slam.study.store import LOCK, RunState, StudyStore
from modeling_slam.training.run_directory import ALIGNMENT, WORDS_FILE, of_a_start

CHILD = Path(__file__).with_name("child.py")
LOG, MODEL = "log.txt", "model"
TAIL_LINES = 12


@dataclass(frozen=True)
class Task:
    """What a scheduler hands to `execute`; plain data, so that it travels."""

    spec: RunSpec | BaselineSpec
    study_dir: str
    cwd: str  # relative paths of the study file start here
    threads: int
    max_attempts: int
    keep_models: bool
    cache: Mapping[str, Any] = field(default_factory=dict)  # flags of train.py; they change no result
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What came of a task. `busy`: another engine is at it; `stopped`: it can go on later."""

    name: str
    status: Literal["finished", "failed", "busy", "stopped"]
    message: str = ""


class Lifeline:
    """A pipe that child processes watch: when it is cut, or this process dies, they end."""

    def __init__(self) -> None:
        self.reading, self._writing = os.pipe()
        self.is_cut = False

    def cut(self) -> None:
        if not self.is_cut:
            self.is_cut = True
            os.close(self._writing)

    def __enter__(self) -> "Lifeline":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.cut()
        os.close(self.reading)


class BusyError(Exception):
    """Another process works on this run."""


class ProcessError(Exception):
    """A process of a run ended with an error; the message has the end of its log."""


def execute(task: Task, wait: bool = False, lifeline: Lifeline | None = None) -> Outcome:
    """Bring one run to its end, in at most `max_attempts` attempts.

    With `wait` a run that another process holds is waited for, else it comes back as busy.
    """
    if lifeline is None:
        with Lifeline() as lifeline:
            return execute(task, wait, lifeline)
    store = StudyStore(task.study_dir)
    directory = store.run_directory(task.spec)
    try:
        with held(directory, wait) as lock:
            if store.is_finished(task.spec):
                return Outcome(task.spec.name, "finished")
            return attempt(task, directory, Processes(task, directory, lock, lifeline))
    except BusyError as error:
        return Outcome(task.spec.name, "busy", str(error))


@contextlib.contextmanager
def held(directory: Path, wait: bool) -> Generator[int]:
    """Hold a run for this process; yields the file descriptor of the lock.

    A child process that inherits the descriptor shares the lock, so that a run whose engine was killed stays
    locked until its last process has ended.

    Raises:
        BusyError: another process has it, and `wait` is False.
    """
    # Only what runs a study needs POSIX: planning, reports and publishing work without.
    import fcntl

    directory.mkdir(parents=True, exist_ok=True)
    with (directory / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.seek(0)
            raise BusyError(f"{directory.name} is being run by {file.read().strip()}") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield file.fileno()


def attempt(task: Task, directory: Path, processes: "Processes") -> Outcome:
    spec, message = task.spec, ""
    for _ in range(task.max_attempts):
        if processes.lifeline.is_cut:
            break
        try:
            if isinstance(spec, RunSpec):
                train_and_evaluate(spec, task, directory, processes)
            else:
                evaluate_baseline(spec, directory, processes)
        except ProcessError as error:
            message = str(error)
        else:
            return Outcome(spec.name, "finished")
    if processes.lifeline.is_cut:
        return Outcome(spec.name, "stopped")
    return Outcome(spec.name, "failed", f"{task.max_attempts} attempts failed. {message}")


def train_and_evaluate(spec: RunSpec, task: Task, directory: Path, processes: "Processes") -> None:
    """One attempt at a run; what an earlier attempt has done stays done."""
    model, state = directory / MODEL, RunState.read(directory)
    state.started = state.started or now()
    state.attempts += 1
    state.write(directory)

    if not state.trained:
        if not any(model.glob("checkpoint-*")) and of_a_start(model / ALIGNMENT):
            shutil.rmtree(model, ignore_errors=True)  # what a run left that was killed before its first save
        begun = time.monotonic()
        try:
            processes.run("train.py", {**train_flags(spec, model), **cache_flags(spec, task)})
            state.trained = True
        finally:
            state.train_seconds += time.monotonic() - begun
            state.write(directory)
    for checkpoint in model.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)

    begun = time.monotonic()
    try:
        for evaluation in evaluations(spec.name, spec.eval_flags, directory):
            evaluation.directory.mkdir(exist_ok=True)
            processes.run("eval.py", eval_flags(spec, model, evaluation.directory, evaluation.decoder))
    finally:
        state.evaluate_seconds += time.monotonic() - begun
        state.write(directory)
    count(spec, directory)
    record = RunRecord(
        spec=spec,
        commit=commit(),
        versions=package_versions(),
        host=platform.node(),
        threads=task.threads,
        started=state.started,
        finished=now(),
        attempts=state.attempts,
        train_seconds=round(state.train_seconds, 2),
        evaluate_seconds=round(state.evaluate_seconds, 2),
    )
    write_json(directory / RUN_FILE, record.to_dict())
    if not task.keep_models:
        if (model / TRAINER_STATE).is_file():  # the log of the training
            (model / TRAINER_STATE).replace(directory / TRAINER_STATE)
        shutil.rmtree(model)


def evaluate_baseline(spec: BaselineSpec, directory: Path, processes: "Processes") -> None:
    own = {
        "model": spec.encoder, "baseline": "whisper", "dataset": spec.dataset, "language": spec.language,
        "output_dir": str(directory),
    }  # fmt: skip
    processes.run("eval.py", own | spec.eval_flags)
    if not (directory / METRICS_FILE).is_file():
        raise ProcessError(f"eval.py ended well but wrote no {METRICS_FILE}.")
    write_counts(directory, directory, None, token_limit({"baseline": "whisper"} | spec.eval_flags))


def train_flags(spec: RunSpec, model: Path) -> dict[str, Any]:
    lora = {"lora_rank": spec.lora_rank} | ({"lora_alpha": spec.lora_alpha} if spec.lora_rank else {})
    own = {
        "encoder": spec.encoder, "llm": spec.llm, "dataset": spec.dataset, "language": spec.language,
        "keep_layers": spec.keep_layers, "seed": spec.seed, "output_dir": str(model),
        "resume_from_checkpoint": "last", "disable_tqdm": True,
    }  # fmt: skip
    return own | lora | spec.train_flags


def cache_flags(spec: RunSpec, task: Task) -> dict[str, Any]:
    """The task's, with the depths of this encoder and data that runs still need, now that this one begins."""
    if not task.cache:
        return {}
    store = StudyStore(task.study_dir)
    _, specs = store.read()
    shared = (spec.encoder, spec.dataset, spec.language)
    depths = {
        other.keep_layers
        for other in specs
        if (other.encoder, other.dataset, other.language) == shared and not store.is_finished(other)
    }
    return {**task.cache, "cache_depths": ",".join(map(str, sorted(depths, reverse=True)))}


def eval_flags(spec: RunSpec, model: Path, directory: Path, decoder: str | None = None) -> dict[str, Any]:
    """Flags of one evaluation, the run's first if no decoder is named."""
    own = {
        "model": str(model), "dataset": spec.dataset, "language": spec.language, "output_dir": str(directory),
    }  # fmt: skip
    return own | flags_with(spec.eval_flags, decoder or decoders_of(spec.eval_flags)[0])


def count(spec: RunSpec, directory: Path) -> None:
    """Write counts.parquet of each evaluation, from the predictions and the words that were trained on."""
    words = directory / MODEL / WORDS_FILE
    occurrences = read_json(words) if words.is_file() else None
    for one in evaluations(spec.name, spec.eval_flags, directory):
        limit = token_limit(flags_with(spec.eval_flags, one.decoder))
        write_counts(one.directory, directory, occurrences, limit)


def token_limit(eval_flags: Mapping[str, Any]) -> Callable[[float], int]:
    """Tokens at which these flags of eval.py cut the transcript of a clip of so many seconds."""
    names = [entry.name for entry in dataclasses.fields(EvaluationArguments)]
    flags = {"model": "-", "output_dir": "-"} | {
        name: eval_flags[name] for name in names if name in eval_flags
    }
    # Read as eval.py reads them: YAML takes 1e2 for a word.
    namespace = vars(build_parser(EvaluationArguments, description="").parse_args(as_flags(flags)))
    return EvaluationArguments(**{name: namespace[name] for name in names}).token_limit


@dataclass(frozen=True)
class Processes:
    """Starts the processes of one run; they write to its log and hold its lock."""

    task: Task
    directory: Path
    lock: int
    lifeline: Lifeline

    def run(self, script: str, flags: Mapping[str, Any]) -> None:
        """`python script flags`, to its end.

        Raises:
            ProcessError: it ended with an error.
        """
        command = [str(HOME / script), *as_flags(flags)]
        child = [sys.executable, str(CHILD), str(self.lifeline.reading), *command]
        threads = {"OMP_NUM_THREADS": str(self.task.threads)}
        log = self.directory / LOG
        with log.open("a", encoding="utf-8") as output:
            with naming_what_has_no_room(log):
                output.write(f"$ python {shlex.join([script, *command[1:]])}\n")
                output.flush()
            ended = subprocess.run(
                child,
                cwd=self.task.cwd,
                env={**os.environ, **threads, **self.task.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the engine, which then ends its runs
                pass_fds=(self.lock, self.lifeline.reading),
            )
        if ended.returncode:
            tail = "\n  ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:])
            raise ProcessError(f"{script} ended with status {ended.returncode}; {log} ends:\n  {tail}")


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def commit() -> str | None:
    """The commit of the code that runs, or `None` outside a clone."""
    if not IS_CLONE:
        return None
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
