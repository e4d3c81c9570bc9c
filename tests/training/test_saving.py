"""Where the disk is full a run ends with one line, with its checkpoints and models whole or not there."""

import json

import pytest
from full_disk import full_disk
from safetensors.torch import load_file
from tiny_run import flags

import train
from modeling_slam.training.saving import moving_into

SHORT = {"eval_strategy": "no", "save_strategy": "steps", "save_steps": 2, "logging_steps": 2}


def names(directory) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_checkpoint_that_has_no_room_is_not_there_and_the_one_before_goes_on(world, tmp_path, monkeypatch):
    run = tmp_path / "run"
    train.main(flags(world, run, max_steps=2, **SHORT))
    before = load_file(run / "checkpoint-2" / "model.safetensors")
    (run / "model.safetensors").unlink()  # as if the run had been stopped after its first checkpoint
    weights = (run / "checkpoint-2" / "model.safetensors").stat().st_size
    optimizer = (run / "checkpoint-2" / "optimizer.pt").stat().st_size
    assert weights < optimizer
    go_on = flags(world, run, max_steps=4, resume_from_checkpoint="last", resume_anyway=True, **SHORT)
    with full_disk((weights + optimizer) // 2), pytest.raises(SystemExit) as ended:
        train.main(go_on)
    line = str(ended.value)
    assert line.startswith(f"error: There is no room for {run / 'checkpoint-4'}: it takes ")
    assert line.endswith("Go on from step 2 by adding --resume_from_checkpoint last to the command.")
    assert "\n" not in line
    assert "checkpoint-4" not in names(run)
    after = load_file(run / "checkpoint-2" / "model.safetensors")
    assert all(bool((after[name] == before[name]).all()) for name in before)
    train.main(go_on)
    assert json.loads((run / "trainer_state.json").read_text())["global_step"] == 4


def test_the_first_checkpoint_without_room_leaves_a_free_directory(world, tmp_path):
    with full_disk(20_000), pytest.raises(SystemExit, match=r"There is no room for .*checkpoint-2: it takes"):
        train.main(flags(world, tmp_path / "run", max_steps=2, **SHORT))
    assert not [name for name in names(tmp_path / "run") if "checkpoint" in name or "safetensors" in name]
    train.main(flags(world, tmp_path / "run", max_steps=2, **SHORT))


@pytest.mark.parametrize("at", ["weights", "a later file"])
def test_a_model_is_replaced_as_a_whole_or_not_at_all(tmp_path, at):
    (tmp_path / "adapter").mkdir()
    old = {"model.safetensors": "old", "config.json": "old", "adapter/adapter_config.json": "old"}
    for name, text in old.items():
        (tmp_path / name).write_text(text)

    def save(directory, size):
        (directory / "adapter").mkdir()
        (directory / "model.safetensors").write_text("new" * (size if at == "weights" else 1))
        (directory / "adapter" / "adapter_config.json").write_text("new" * size)
        (directory / "config.json").write_text("new")

    no_room = pytest.raises(OSError, match=r"no room for .*model\.safetensors: it takes 1\.2 kB")
    with full_disk(1000), no_room, moving_into(tmp_path, 1200) as staging:
        save(staging, 400)
    assert {name: (tmp_path / name).read_text() for name in old} == old
    assert names(tmp_path) == ["adapter", "config.json", "model.safetensors"]
    (tmp_path / "model-00001-of-00002.safetensors").write_text("of a model in two files")
    with moving_into(tmp_path, 12) as staging:
        save(staging, 1)
    assert {(tmp_path / name).read_text() for name in old} == {"new"}
    assert names(tmp_path) == ["adapter", "config.json", "model.safetensors"]
