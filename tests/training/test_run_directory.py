"""A run's directory: another run is refused, and a killed one goes on from its newest whole checkpoint."""

import json
import multiprocessing
import time
from pathlib import Path

import pytest

from modeling_slam.data import DataArguments
from modeling_slam.training.arguments import LoraArguments, ModelArguments, RunArguments
from modeling_slam.training.run_directory import Run, held, run_directory
from modeling_slam.training.run_settings import record


def run_arguments(directory: Path, **fields) -> RunArguments:
    return RunArguments(output_dir=str(directory), use_cpu=True, **fields)


def settings_of(run_args: RunArguments, dataset: str = "speech", **lora) -> dict:
    return record(
        model=ModelArguments(),
        lora=LoraArguments(**({"lora_rank": 8} | lora)),
        data=DataArguments(dataset=dataset),
        run=run_args,
    )


def start(directory: Path, resume: str | None = None, *, dataset="speech", lora=None, **fields) -> Run:
    """A run that claims the directory and ends at once; it begins only if asked to."""
    begins = fields.pop("begins", False)
    run_args = run_arguments(directory, resume_from_checkpoint=resume, **fields)
    with run_directory(run_args, settings_of(run_args, dataset, **(lora or {}))) as run:
        if begins:
            run.begin()
    return run


def claim(directory: Path, resume: str | None = None, **settings) -> str | None:
    return start(directory, resume, **settings).checkpoint


def recorded(directory: Path) -> dict:
    return json.loads((directory / "run.json").read_text(encoding="utf-8"))


def write_checkpoint(directory: Path, step: int, state: str | None = '{"global_step": 1}') -> Path:
    checkpoint = directory / f"checkpoint-{step}"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    if state is not None:
        (checkpoint / "trainer_state.json").write_text(state, encoding="utf-8")
    return checkpoint


@pytest.fixture
def run(tmp_path) -> Path:
    """The directory of a run that was started and has checkpoints of steps 9 and 10."""
    start(tmp_path / "run", begins=True)
    for step in (9, 10):
        write_checkpoint(tmp_path / "run", step)
    return tmp_path / "run"


def test_a_new_run_takes_a_directory_that_is_empty_or_not_there(tmp_path):
    assert claim(tmp_path) is None
    assert claim(tmp_path / "new") is None
    assert not (tmp_path / "new").exists()


def test_a_directory_with_another_run_is_refused(run):
    before = sorted(run.rglob("*"))
    with pytest.raises(ValueError, match=r"is not empty.* Go on .* `--resume_from_checkpoint last`"):
        claim(run)
    assert sorted(run.rglob("*")) == before


def test_last_is_the_newest_checkpoint_by_step(run):
    assert claim(run, "last") == str(run / "checkpoint-10")


@pytest.mark.parametrize(
    "state",
    [None, "", '{"global_step": 11, "log_hist', "\0" * 64],
    ids=["no state", "empty state", "torn state", "zeros"],
)
def test_last_passes_over_a_half_written_checkpoint(run, state):
    """Killed before its state was there, or while it was written."""
    write_checkpoint(run, 11, state)
    assert claim(run, "last") == str(run / "checkpoint-10")


def test_a_run_killed_before_its_first_checkpoint_starts_over(tmp_path):
    start(tmp_path, begins=True)
    write_checkpoint(tmp_path, 9, None)
    assert claim(tmp_path, "last") is None


def test_a_checkpoint_can_be_named(run):
    assert claim(run, str(run / "checkpoint-9")) == str(run / "checkpoint-9")


def test_a_named_checkpoint_that_is_not_whole_is_refused(run):
    torn = write_checkpoint(run, 11, "{")
    for checkpoint in (torn, run / "checkpoint-12"):
        with pytest.raises(ValueError, match=rf"{checkpoint} is not a complete checkpoint"):
            claim(run, str(checkpoint))


def test_resuming_with_other_settings_names_each_difference(run):
    with pytest.raises(ValueError, match="holds a run with other settings") as error:
        claim(run, "last", lora={"lora_rank": 4}, dataset="other", learning_rate=2e-4, seed=1)
    for difference in (
        "lora_rank was 8, is 4",
        "dataset was 'speech', is 'other'",
        "learning_rate was 0.0001, is 0.0002",
        "seed was 42, is 1",
    ):
        assert difference in str(error.value)
    assert "weight_decay" not in str(error.value)
    assert "another `--output_dir`" in str(error.value)
    assert "`--resume_anyway`" in str(error.value)
    assert "\n" not in str(error.value)


def test_one_dataset_is_recorded_by_its_name_alone_and_several_as_a_list(run, tmp_path):
    """So a run that an older version began with a plain string goes on."""
    assert recorded(run)["data"]["dataset"] == "speech"
    assert claim(run, "last", dataset=["speech"]) == str(run / "checkpoint-10")
    with pytest.raises(ValueError, match=r"dataset was 'speech', is \['speech', 'more'\]"):
        claim(run, "last", dataset=["speech", "more"])
    start(tmp_path / "two", dataset=["speech", "more"], begins=True)
    assert recorded(tmp_path / "two")["data"]["dataset"] == ["speech", "more"]
    assert claim(tmp_path / "two", "last", dataset=["speech", "more"]) is None


def test_a_checkpoint_without_its_runs_settings_is_refused(run):
    (run / "run.json").unlink()
    with pytest.raises(ValueError, match=r"cannot be resumed: .*run\.json.* is missing"):
        claim(run, "last")


def test_a_checkpoint_of_another_directory_is_refused(run, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(ValueError, match="is not in `output_dir`"):
        claim(other, str(run / "checkpoint-9"))


def test_last_does_not_start_over_on_a_finished_run(tmp_path):
    start(tmp_path, begins=True)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match="finished model"):
        claim(tmp_path, "last")


# ---------------------------------------------------------------- starts that fail


def test_a_start_that_fails_leaves_no_directory(tmp_path):
    """Neither the one it made nor those above it; one that was there stays."""
    (tmp_path / "there").mkdir()
    for place in ("new/er/est", "there"):
        run_args = run_arguments(tmp_path / place)
        with pytest.raises(KeyboardInterrupt), run_directory(run_args, settings_of(run_args)):
            raise KeyboardInterrupt
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


@pytest.mark.parametrize("resume", [None, "last"])
def test_what_a_start_wrote_before_it_was_killed_does_not_block_the_next(tmp_path, resume):
    """Not even with other settings, or with a first checkpoint cut off."""
    run = start(tmp_path, begins=True, seed=1)
    (tmp_path / ".lock").touch()
    (tmp_path / ".run.json.17-abc.tmp").write_text("{")
    (tmp_path / "data_train.json").write_text("{}")
    (tmp_path / "words_train.json").write_text("{}")
    write_checkpoint(tmp_path, 9, "{")
    assert run.checkpoint is None
    assert claim(tmp_path, resume, seed=2) is None


def test_files_that_no_start_writes_do_block(tmp_path):
    for name in ("notes.txt", "checkpoint-3"):
        directory = tmp_path / name
        directory.mkdir()
        (directory / name).mkdir()
        with pytest.raises(ValueError, match=rf"is not empty: it holds {name}"):
            claim(directory)
        assert (directory / name).is_dir()


def test_a_second_run_at_the_same_time_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("modeling_slam.training.run_directory.LOCK_SECONDS", 0)
    first = run_arguments(tmp_path / "run")
    with run_directory(first, settings_of(first)) as run:
        run.begin()
        for resume in (None, "last"):
            with pytest.raises(ValueError, match="Another run is going on"):
                claim(tmp_path / "run", resume)
        assert recorded(tmp_path / "run") == settings_of(first)
    assert claim(tmp_path / "run") is None
    assert not (tmp_path / "run" / ".lock").exists()


# ---------------------------------------------------------------- resuming anyway


def test_a_changed_setting_is_recorded_when_the_run_goes_on_anyway(run):
    start(run, "last", resume_anyway=True, learning_rate=2e-4, begins=True)
    (run / "checkpoint-10").rename(run / "checkpoint-20")
    start(run, "last", resume_anyway=True, learning_rate=2e-4, lora={"lora_dropout": 0.0}, begins=True)
    now = recorded(run)
    assert (now["run"]["learning_rate"], now["lora"]["lora_dropout"]) == (2e-4, 0.0)
    assert now["changes"] == [
        {"step": 10, "setting": "learning_rate", "before": 1e-4, "after": 2e-4},
        {"step": 20, "setting": "lora_dropout", "before": 0.1, "after": 0.0},
    ]
    assert claim(run, "last", learning_rate=2e-4, lora={"lora_dropout": 0.0}) is not None


def test_a_run_that_goes_on_unchanged_keeps_the_record_of_changes(run):
    start(run, "last", resume_anyway=True, weight_decay=0.5, begins=True)
    before = recorded(run)
    start(run, "last", weight_decay=0.5, begins=True)
    assert recorded(run)["changes"] == before["changes"]


def test_weights_of_another_shape_cannot_be_gone_on_from_in_any_way(run):
    with pytest.raises(ValueError, match="weights do not fit lora_rank"):
        claim(run, "last", resume_anyway=True, lora={"lora_rank": 4})


@pytest.mark.parametrize(
    ("processes", "begun_with", "now_with", "becomes"),
    [
        (4, (2, 1, 4), (2, 1), (2, 1)),  # the same
        (2, (2, 1, 4), (2, 1), (2, 2)),
        (1, (2, 1, 4), (2, 1), (2, 4)),
        (8, (4, 2, 2), (4, 1), (2, 1)),
        (2, (4, 1, 1), (2, 1), (2, 1)),  # adapted by hand
    ],
)
def test_another_number_of_processes_keeps_the_clips_of_a_step(
    run, monkeypatch, processes, begun_with, now_with, becomes
):
    old = recorded(run)
    names = ("per_device_train_batch_size", "gradient_accumulation_steps", "world_size")
    old["run"] |= dict(zip(names, begun_with, strict=True))
    (run / "run.json").write_text(json.dumps(old))
    monkeypatch.setattr(RunArguments, "world_size", processes)
    fields = dict(zip(names, now_with, strict=False))
    run_args = run_arguments(run, resume_from_checkpoint="last", resume_anyway=True, **fields)
    with run_directory(run_args, settings_of(run_args)) as resumed:
        resumed.begin()
    assert (run_args.per_device_train_batch_size, run_args.gradient_accumulation_steps) == becomes
    now = recorded(run)["run"]
    assert [now[name] for name in names] == [*becomes, processes]


@pytest.mark.parametrize(("processes", "size"), [(3, "per_device_train_batch_size"), (16, "batch_seconds")])
def test_processes_that_cannot_share_a_step_are_refused(run, monkeypatch, processes, size):
    old = recorded(run)
    old["run"] |= {size: 4, "gradient_accumulation_steps": 1, "world_size": 2}
    (run / "run.json").write_text(json.dumps(old))
    monkeypatch.setattr(RunArguments, "world_size", processes)
    with pytest.raises(ValueError, match=rf"8 (clips|seconds) a step.*{processes} processes.*`{size}`"):
        claim(run, "last", resume_anyway=True, **{size: 4})


def test_a_copy_of_a_checkpoint_is_not_taken_for_one_of_the_run(run):
    write_checkpoint(run, "30-backup")
    assert claim(run, "last") == str(run / "checkpoint-10")
    with pytest.raises(ValueError, match="not named checkpoint-STEP"):
        claim(run, str(run / "checkpoint-30-backup"))


def test_a_damaged_run_file_is_named(run):
    (run / "run.json").write_text('{"run": {', encoding="utf-8")
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        claim(run, "last")


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({}, {"optim": "adafactor"}),
        ({"lr_scheduler_type": "reduce_lr_on_plateau"}, {"learning_rate": 1e-5}),
        ({}, {"lr_scheduler_type": "reduce_lr_on_plateau"}),
    ],
)
def test_what_stands_in_the_checkpoints_state_cannot_be_changed_anyway(tmp_path, before, now):
    fields = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    start(tmp_path / "run", begins=True, **fields, **before)
    write_checkpoint(tmp_path / "run", 1)
    earlier = recorded(tmp_path / "run")
    with pytest.raises(ValueError, match=f"hold the state of .*{next(iter(now))}"):
        claim(tmp_path / "run", "last", resume_anyway=True, **fields, **before | now)
    assert recorded(tmp_path / "run") == earlier


@pytest.mark.parametrize(
    ("step", "stopped", "max_steps", "has_ended"),
    [(10, True, -1, True), (10, False, -1, False), (10, False, 10, True), (10, False, 12, False)],
)
def test_a_run_has_ended_at_its_last_step_or_where_it_stopped_early(run, step, stopped, max_steps, has_ended):
    control = {"TrainerControl": {"args": {"should_training_stop": stopped}}}
    state = {"global_step": step, "stateful_callbacks": control}
    (run / "checkpoint-10" / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
    assert start(run, "last").has_ended(max_steps) is has_ended
    # Who goes on with other settings may have more steps in mind, or more patience.
    changed = start(run, "last", resume_anyway=True, weight_decay=0.5)
    assert changed.has_ended(max_steps) is (0 < max_steps <= step)


def take_turns(directory: Path, start, answers) -> None:
    """Hold the directory for a moment, as a run that is refused or fails at once does, again and again."""
    for number in range(40):
        start.wait()
        try:
            with held(directory / str(number)):
                owner = directory / str(number) / "owner"
                answers.put("free" if not owner.exists() else "taken")
                owner.write_text("")
                time.sleep(0.001)
                owner.unlink()
        except Exception as error:
            answers.put(f"{type(error).__name__}: {error}")


def test_no_two_runs_hold_a_new_directory_that_others_take_away_again(tmp_path):
    context = multiprocessing.get_context("fork")
    start, answers = context.Barrier(3), context.Queue()
    processes = [context.Process(target=take_turns, args=(tmp_path, start, answers)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=60) for _ in range(120)]
    for process in processes:
        process.join()
    assert set(found) == {"free"}
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_run_that_went_on_with_more_steps_and_was_stopped_goes_on_again(run):
    state = {
        "global_step": 10,
        "stateful_callbacks": {"TrainerControl": {"args": {"should_training_stop": True}}},
    }
    (run / "checkpoint-10" / "trainer_state.json").write_text(json.dumps(state))
    assert start(run, "last").has_ended(-1)
    longer = {"num_train_epochs": 9.0, "resume_anyway": True}
    assert not start(run, "last", begins=True, **longer).has_ended(-1)
    again = start(run, "last", **longer)
    assert not again.changed
    assert not again.has_ended(-1)
