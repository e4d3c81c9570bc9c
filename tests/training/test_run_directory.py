"""A run's directory: another run is refused, and a killed one goes on from its newest whole checkpoint."""

import dataclasses
import json
from pathlib import Path

import pytest

from modeling_slam.data import DataArguments
from modeling_slam.training.arguments import LoraArguments, ModelArguments, RunArguments
from modeling_slam.training.run_directory import claim_run_directory, result_settings, write_run_file


def run_arguments(directory: Path, **fields) -> RunArguments:
    return RunArguments(output_dir=str(directory), use_cpu=True, **fields)


def settings_of(run_args: RunArguments, lora_rank: int = 8, dataset: str = "speech") -> dict:
    return result_settings(
        ModelArguments(), LoraArguments(lora_rank=lora_rank), DataArguments(dataset=dataset), run_args
    )


def claim(
    directory: Path, resume: str | None = None, *, lora_rank: int = 8, dataset: str = "speech", **fields
):
    run_args = run_arguments(directory, resume_from_checkpoint=resume, **fields)
    return claim_run_directory(run_args, settings_of(run_args, lora_rank, dataset))


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
    run_args = run_arguments(tmp_path / "run")
    write_run_file(run_args, settings_of(run_args))
    for step in (9, 10):
        write_checkpoint(tmp_path / "run", step)
    return tmp_path / "run"


def test_a_new_run_takes_a_directory_that_is_empty_or_not_there(tmp_path):
    assert claim(tmp_path) is None
    assert claim(tmp_path / "new") is None
    assert not (tmp_path / "new").exists()


def test_a_directory_with_another_run_is_refused(run):
    before = sorted(run.rglob("*"))
    with pytest.raises(ValueError, match=r"is not empty\. Go on .* `--resume_from_checkpoint last`"):
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
    run_args = run_arguments(tmp_path)
    write_run_file(run_args, settings_of(run_args))
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
        claim(run, "last", lora_rank=4, dataset="other", learning_rate=2e-4, seed=1)
    for difference in (
        "lora_rank was 8, is 4",
        "dataset was 'speech', is 'other'",
        "learning_rate was 0.0001, is 0.0002",
        "seed was 42, is 1",
    ):
        assert difference in str(error.value)
    assert "weight_decay" not in str(error.value)


def test_settings_that_do_not_change_the_result_may_change(run):
    assert claim(run, "last", logging_steps=1, dataloader_num_workers=0, save_total_limit=5) is not None


def test_a_checkpoint_without_its_runs_settings_is_refused(run):
    (run / "run.json").unlink()
    with pytest.raises(ValueError, match=r"cannot be resumed: .*run\.json.* is missing"):
        claim(run, "last")


def test_settings_that_shape_the_result_are_all_recorded(tmp_path):
    run_args = run_arguments(tmp_path)
    write_run_file(run_args, settings_of(run_args))
    recorded = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    for group, arguments in (("model", ModelArguments), ("lora", LoraArguments), ("data", DataArguments)):
        assert set(recorded[group]) == {field.name for field in dataclasses.fields(arguments)}
    assert recorded["run"]["warmup_steps"] == 0.05
    assert recorded["run"]["lr_scheduler_kwargs"] == {"min_lr_rate": 0.1}
    assert recorded["run"]["world_size"] == 1


def test_the_settings_file_is_whole_or_as_before(run, monkeypatch):
    """Killed between writing and renaming: the earlier file is untouched."""
    before = (run / "run.json").read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    run_args = run_arguments(run, seed=1)
    with pytest.raises(KeyboardInterrupt):
        write_run_file(run_args, settings_of(run_args))
    assert (run / "run.json").read_bytes() == before


def test_a_checkpoint_of_another_directory_is_refused(run, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(ValueError, match="is not in `output_dir`"):
        claim(other, str(run / "checkpoint-9"))


def test_last_does_not_start_over_on_a_finished_run_or_another_one(tmp_path):
    run_args = run_arguments(tmp_path)
    write_run_file(run_args, settings_of(run_args))
    with pytest.raises(ValueError, match="holds a run with other settings"):
        claim(tmp_path, "last", learning_rate=1.0)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match="finished model"):
        claim(tmp_path, "last")
