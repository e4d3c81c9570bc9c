"""A run's directory: one run at a time, and which checkpoint to go on from.

    with run_directory(run_args, settings) as run:       # refused, or this run's until the block ends
        ...
        run.begin(reports)                               # run.json is written: from here on it can be resumed

What a start that failed has written does not stand in the way of the next: until there is a whole checkpoint
or a model, a directory counts as free.
"""

import contextlib
import dataclasses
import re
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import SAFE_WEIGHTS_NAME

from modeling_slam.common.files import check_writable, locked, read_json, write_json
from modeling_slam.data import DataReport
from modeling_slam.evaluation.own_run import RUN_FILE
from modeling_slam.training.arguments import RunArguments
from modeling_slam.training.run_settings import (
    Settings,
    changes,
    in_checkpoints,
    keep_global_batch,
    misfits,
)
from modeling_slam.training.saving import STAGING

CHECKPOINT = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-\d+")
LOCK = ".lock"
LOCK_SECONDS = 6  # the data workers of a killed run live on that long, at most
# What a run writes before its first checkpoint; `runs` is TensorBoard's.
WORDS_FILE = "words_train.json"  # each word of the training text, and how often it stands there
CALIBRATION = "calibration"  # directory of what layer choices are made from
LLM_LAYERS = "llm_layers"
CHOSEN_BY_DATA = (CALIBRATION, LLM_LAYERS)  # entries of run.json: how layers of encoder and LLM were chosen
OF_A_START = (
    LOCK, RUN_FILE, WORDS_FILE, "data_train.json", "data_validation.json", "runs", "frames", CALIBRATION,
    STAGING,
)  # fmt: skip
ALIGNMENT = "alignment"  # directory of the alignment stage
ALIGNMENT_FILE = "alignment.json"  # in it, written last: what the stage came to


@dataclasses.dataclass
class Run:
    """A run that has its directory."""

    directory: Path
    settings: Settings
    checkpoint: str | None = None  # to go on from
    earlier: dict[str, Any] | None = None  # its run.json
    changed: dict[str, tuple[Any, Any]] = dataclasses.field(default_factory=dict)
    # Of how layers were chosen by the data, what run.json records, by the name that it has there.
    chosen: dict[str, Any] = dataclasses.field(default_factory=dict)

    def has_ended(self, max_steps: int) -> bool:
        """Whether the checkpoint is the last that these settings give: training on would go past the end."""
        if self.checkpoint is None:
            return False
        state = state_of(Path(self.checkpoint))
        if 0 < max_steps <= state["global_step"]:
            return True
        # With changed settings it went on from here before, and was stopped before its next checkpoint.
        changes = (self.earlier or {}).get("changes", [])
        went_on = self.changed or any(change["step"] == step_of(Path(self.checkpoint)) for change in changes)
        control = state.get("stateful_callbacks", {}).get("TrainerControl", {}).get("args", {})
        return not went_on and bool(control.get("should_training_stop"))

    def begin(
        self, reports: Mapping[str, DataReport] | None = None, words: Mapping[str, int] | None = None
    ) -> None:
        """Record the settings, for each split what was read, and how often each word stands in the training
        text; the main process does."""
        if not PartialState().is_main_process:
            return
        history = list((self.earlier or {}).get("changes", []))
        step = None if self.checkpoint is None else step_of(Path(self.checkpoint))
        history += [
            {"step": step, "setting": name, "before": before, "after": after}
            for name, (before, after) in self.changed.items()
        ]
        earlier = {name: (self.earlier or {}).get(name) for name in CHOSEN_BY_DATA}
        notes = {name: note for name, note in (earlier | self.chosen | {"changes": history}).items() if note}
        self.directory.mkdir(parents=True, exist_ok=True)
        write_json(self.directory / RUN_FILE, self.settings | notes)
        for split, report in (reports or {}).items():
            report.save(self.directory / f"data_{split}.json")
        if words is not None:
            write_json(self.directory / WORDS_FILE, words)


@contextlib.contextmanager
def run_directory(run_args: RunArguments, settings: Settings) -> Generator[Run]:
    """Hold the directory as long as the block runs.

    The main process looks and tells the others. With `resume_anyway` on another number of processes the
    batches of `run_args` are made such that a step sees as many clips as before.

    Raises:
        ValueError: it holds another run, another process runs in it, it cannot be written, or the checkpoint
            is not there or belongs to other settings.
    """
    directory = Path(run_args.output_dir)
    with contextlib.ExitStack() as stack:
        found: list[Any] = [None]
        if PartialState().is_main_process:
            check_writable(directory, "output_dir")
            stack.enter_context(held(directory))
            found = [find_run(directory, run_args, settings)]
        broadcast_object_list(found)
        run, batches = found[0]
        for name, value in batches.items():
            setattr(run_args, name, value)
        yield run


@contextlib.contextmanager
def held(directory: Path) -> Generator[None]:
    """No second run in a directory; if the first writes nothing, the directory is taken away again.

    Raises:
        ValueError: another run is going on in it.
    """
    made = [path for path in (directory, *directory.absolute().parents) if not path.exists()]
    busy = (
        f"Another run is going on in `output_dir` {directory}. Wait for its end, or name another directory."
    )
    try:
        with locked(directory / LOCK, LOCK_SECONDS, busy):
            yield
    finally:
        for path in made:
            with contextlib.suppress(OSError):  # it holds something
                path.rmdir()


def find_run(directory: Path, run_args: RunArguments, settings: Settings) -> tuple[Run, dict[str, Any]]:
    """The run that begins or goes on here, and the changes of its batches that keep the clips of a step."""
    new = Run(directory, settings), {}
    strangers = [path.name for path in directory.iterdir() if not of_a_start(path)]
    resume = run_args.resume_from_checkpoint
    if resume is None:
        if strangers:
            advice = (
                "Go on with the run in it by `--resume_from_checkpoint last`, or name another directory."
                if (directory / RUN_FILE).is_file()
                else "Name another directory."
            )
            raise ValueError(
                f"`output_dir` {directory} is not empty: it holds {', '.join(sorted(strangers)[:3])}. "
                f"{advice}"
            )
        return new
    checkpoint = find_checkpoint(directory, resume)
    if checkpoint is None and not strangers:
        return new
    if checkpoint is not None and checkpoint.resolve().parent != directory.resolve():
        raise ValueError(
            f"{checkpoint} is not in `output_dir` {directory}. A run goes on in its own directory: set "
            f"`output_dir` to {checkpoint.parent}."
        )
    run_file = directory / RUN_FILE
    if not run_file.exists():
        raise ValueError(f"{directory} cannot be resumed: {run_file}, the settings of its run, is missing.")
    earlier = read_json(run_file)
    batches = {}
    if run_args.resume_anyway and earlier["run"].get("world_size") != run_args.world_size:
        batches = keep_global_batch(earlier, run_args)
        settings["run"] |= batches
    changed = changes(earlier, settings)
    check_changes(directory, changed, settings, run_args.resume_anyway)
    # Without a checkpoint the run was killed before its first one, or has ended without any.
    if checkpoint is None and (directory / SAFE_WEIGHTS_NAME).exists():
        raise ValueError(f"{directory} holds a finished model and no checkpoint to go on from.")
    path = None if checkpoint is None else str(checkpoint)
    return Run(directory, settings, path, earlier, changed), batches


def check_changes(
    directory: Path, changed: dict[str, tuple[Any, Any]], settings: Settings, anyway: bool
) -> None:
    """Refuse to go on with changed settings, unless that is asked for and the weights fit."""
    described = "; ".join(f"{name} was {before!r}, is {now!r}" for name, (before, now) in changed.items())
    if changed and not anyway:
        raise ValueError(
            f"{directory} holds a run with other settings: {described}. Resume with those it was started "
            "with; or start a new run in another `--output_dir`; or go on with the new ones by "
            "`--resume_anyway`, which records the change in run.json."
        )
    aligned = [name for name in changed if name.startswith("align_")]
    if aligned and (directory / ALIGNMENT / ALIGNMENT_FILE).is_file():
        raise ValueError(
            f"{directory} holds a run that is aligned: {described}. `--resume_anyway` does not change that; "
            "start a new run in another `--output_dir`."
        )
    if kept := in_checkpoints(changed, settings):
        raise ValueError(
            f"{directory} holds a run whose checkpoints hold the state of {', '.join(kept)}: {described}. "
            "`--resume_anyway` does not change it; start a new run in another `--output_dir`."
        )
    if others := misfits(changed):
        raise ValueError(
            f"{directory} holds a run whose weights do not fit {', '.join(others)}: {described}. "
            "`--resume_anyway` does not change the model; start a new run in another `--output_dir`."
        )


def of_a_start(path: Path) -> bool:
    """Whether a run writes this before there is anything to go on from; a torn checkpoint is nothing."""
    if path.name.startswith(f"{PREFIX_CHECKPOINT_DIR}-"):
        return path.with_name(RUN_FILE).is_file() and not is_complete(path)
    if path.name == ALIGNMENT:
        return not (path / ALIGNMENT_FILE).is_file() and find_checkpoint(path, "last") is None
    return path.name in OF_A_START or (path.name.startswith(f".{RUN_FILE}.") and path.suffix == ".tmp")


def how_to_go_on(output_dir: str) -> str:
    """For whoever has stopped a run."""
    checkpoint = find_checkpoint(Path(output_dir), "last")
    if checkpoint is None and not of_a_start(Path(output_dir, ALIGNMENT)):
        return "Go on with what is aligned by adding --resume_from_checkpoint last to the command."
    if checkpoint is None:
        return "There is no checkpoint yet: the same command starts anew."
    return f"Go on from step {step_of(checkpoint)} by adding --resume_from_checkpoint last to the command."


def find_checkpoint(directory: Path, wanted: str) -> Path | None:
    """The checkpoint `wanted`; for "last" the newest complete one in `directory`, `None` before the first."""
    if wanted != "last":
        checkpoint = Path(wanted)
        if not is_complete(checkpoint) or not CHECKPOINT.fullmatch(checkpoint.name):
            raise ValueError(
                f"{checkpoint} is not a complete checkpoint of a run: it is not named "
                f"{PREFIX_CHECKPOINT_DIR}-STEP, or its {TRAINER_STATE_NAME} is missing or cut off. Use "
                "`--resume_from_checkpoint last` for the newest complete one in `output_dir`."
            )
        return checkpoint
    candidates = [path for path in directory.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if is_complete(path)]
    # A copy that somebody made, such as checkpoint-3-backup, is none of the run's own.
    own = [path for path in candidates if CHECKPOINT.fullmatch(path.name)]
    return max(own, key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def state_of(checkpoint: Path) -> dict[str, Any]:
    """What the trainer wrote of itself, last of all files of a checkpoint."""
    return read_json(checkpoint / TRAINER_STATE_NAME)


def is_complete(checkpoint: Path) -> bool:
    """A checkpoint with a readable state is whole."""
    try:
        state_of(checkpoint)
    except (OSError, ValueError):
        return False
    return True
