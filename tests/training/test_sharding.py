"""FSDP2 in two processes computes what one process does, and leaves the same checkpoints behind.

An epoch is two batches and a bit, so that of its last batch one process gets four clips and the other none:
it keeps in step with a clip that must not count.
"""

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import psutil
import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from safetensors.torch import load_file
from tiny_run import REPOSITORY, TWO_PROCESSES, flags, logged, one_thread, started

import train
from modeling_slam import SlamAsrForConditionalGeneration
from modeling_slam.training.even_batches import REPEATED, own_clips, own_in_last
from modeling_slam.training.sharding import check_sharding

CONFIGURATIONS = REPOSITORY / "recipes" / "accelerate"
LAUNCH = ("-m", "accelerate.commands.launch", "--main_process_port", "0", "--config_file")
ON_CPU = ("tests/sharded_on_cpu.py", "train.py")
SHARDED = (*LAUNCH, "recipes/accelerate/fsdp.yaml", *ON_CPU)
REPLICATED = (*TWO_PROCESSES, "train.py")
CLIPS = 5  # of the validation: one process gets a clip too many, and the other two
SETTINGS = {
    "num_train_epochs": 2, "train_sampling_strategy": "sequential", "projector_dropout": 0, "lora_dropout": 0,
    "max_validation_clips": CLIPS, "per_device_eval_batch_size": 2, "generation_num_beams": 2,
    "llm_input": "gated", "ctc_weight": 0.3, "align_epochs": 1, "align_dropout": 0, "align_frame_dropout": 0,
}  # fmt: skip
WHOLE = {"per_device_train_batch_size": 22, "align_batch_size": 22}
HALVES = {"per_device_train_batch_size": 11, "align_batch_size": 11}
STEPS = 6


class Runs(NamedTuple):
    one: Path
    sharded: Path
    log: str


def ran(world: Any, launcher: tuple[str, ...], output_dir: Path, **settings: Any) -> str:
    """What two processes have said that trained into this directory."""
    log = output_dir.with_suffix(".log")
    with started(log, *launcher, *flags(world, output_dir, **SETTINGS | HALVES | settings)) as process:
        assert process.wait(timeout=500) == 0, log.read_text()
    return log.read_text()


@pytest.fixture(scope="module")
def runs(world, tmp_path_factory) -> Runs:
    directory = tmp_path_factory.mktemp("sharding")
    one, sharded = directory / "one", directory / "sharded"
    with one_thread():
        train.main(flags(world, one, **SETTINGS, **WHOLE))
    return Runs(one, sharded, ran(world, SHARDED, sharded))


def difference(one: Path, other: Path) -> float:
    """The largest of the weights of two checkpoints."""
    ours, theirs = (load_file(run / "model.safetensors") for run in (one, other))
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def assert_equal_runs(one: Path, other: Path) -> None:
    for name in ("loss", "grad_norm", "eval_loss"):
        assert logged(other, name) == pytest.approx(
            logged(one, name), abs=1e-3 if name == "grad_norm" else 1e-4
        )
    for name in ("eval_wer", "eval_cer", "eval_clips"):
        assert logged(other, name) == logged(one, name)
    assert difference(one, other) <= 1e-4


@pytest.mark.e2e
def test_sharded_weights_learn_as_whole_ones_do(runs):
    assert runs.log.count("Processes: 2") == 1
    assert list(logged(runs.one, "loss")) == list(range(1, STEPS + 1))
    assert_equal_runs(runs.one, runs.sharded)
    assert set(logged(runs.sharded, "eval_clips").values()) == {CLIPS}


@pytest.mark.e2e
def test_the_alignment_before_it_is_that_of_one_process(runs):
    assert difference(runs.one / "alignment", runs.sharded / "alignment") <= 1e-4
    best = [json.loads((run / "alignment" / "alignment.json").read_text())["best"] for run in runs[:2]]
    assert best[0]["wer"] == best[1]["wer"]


@pytest.mark.e2e
def test_a_sharded_run_leaves_the_files_of_one_process(runs):
    one, sharded = (
        {str(path.relative_to(run)) for path in run.rglob("*") if "rng_state" not in path.name}
        for run in runs[:2]
    )
    assert one == sharded
    assert (runs.one / "config.json").read_bytes() == (runs.sharded / "config.json").read_bytes()
    ours, theirs = (
        torch.load(run / f"checkpoint-{STEPS}" / "optimizer.pt", weights_only=True) for run in runs[:2]
    )
    assert ours["param_groups"] == theirs["param_groups"]
    for number, moments in ours["state"].items():
        for name, value in moments.items():
            torch.testing.assert_close(theirs["state"][number][name], value, atol=1e-4, rtol=1e-3)


@pytest.mark.e2e
def test_a_sharded_run_leaves_a_model_that_one_process_loads(runs):
    one, sharded = (SlamAsrForConditionalGeneration.from_pretrained(run).eval() for run in runs[:2])
    prompt = {"input_ids": torch.full((1, 4), 7), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    with torch.no_grad():
        torch.testing.assert_close(sharded(**prompt).logits, one(**prompt).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.nightly
def test_in_bf16_shared_weights_compute_in_the_types_of_whole_ones(world, tmp_path):
    """One process rounds otherwise, as its batches are padded otherwise; so two processes are compared."""
    settings = {"bf16": True, "align_epochs": 0, "num_train_epochs": 1}
    replicated, shared = tmp_path / "replicated", tmp_path / "shared"
    ran(world, REPLICATED, replicated, **settings)
    ran(world, SHARDED, shared, **settings)
    assert logged(shared, "loss") == pytest.approx(logged(replicated, "loss"), abs=1e-5)
    assert difference(replicated, shared) <= 1e-5


@pytest.mark.nightly
@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_learns_as_one_process_does(world, tmp_path, stage):
    """DeepSpeed is not among what we install, and clips the gradient of the whole model alone."""
    pytest.importorskip("deepspeed")
    one, shared = tmp_path / "one", tmp_path / "shared"
    with one_thread():
        train.main(flags(world, one, **SETTINGS | WHOLE, clip_by_part=False))
    ran(world, (*LAUNCH, f"recipes/accelerate/zero{stage}.yaml", *ON_CPU), shared, clip_by_part=False)
    assert_equal_runs(one, shared)


@pytest.mark.nightly
@pytest.mark.parametrize("goes_on", ["sharded", "replicated", "in one process"])
def test_a_run_goes_on_in_another_number_of_processes(runs, world, tmp_path, goes_on):
    begun = runs.sharded if goes_on == "in one process" else runs.one
    run = tmp_path / "run"
    shutil.copytree(begun, run, ignore=shutil.ignore_patterns(f"checkpoint-{STEPS}"))
    (run / "model.safetensors").unlink()
    resume = {"resume_from_checkpoint": "last", "resume_anyway": True}
    if goes_on == "in one process":
        with one_thread():
            train.main(flags(world, run, **SETTINGS | HALVES | resume))
    else:
        ran(world, SHARDED if goes_on == "sharded" else REPLICATED, run, **WHOLE | resume)
    assert_equal_runs(runs.one, run)


@pytest.mark.nightly
@pytest.mark.parametrize("launcher", [REPLICATED, SHARDED], ids=["replicated", "sharded"])
def test_a_process_that_dies_ends_the_others_within_a_minute_and_is_named(world, tmp_path, launcher):
    log = tmp_path / "log"
    endless = {"num_train_epochs": 10_000, "eval_strategy": "no", "save_strategy": "no", "align_epochs": 0}
    with started(log, *launcher, *flags(world, tmp_path / "run", **SETTINGS | HALVES | endless)) as process:
        while "'loss'" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.5)
        second = psutil.Process(process.pid).children()[1]
        second.kill()
        assert process.wait(timeout=60) != 0
    words = log.read_text()
    assert f"Signal 9 (SIGKILL) received by PID {second.pid}" in words
    assert "rank      : 1" in words


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGURATIONS.glob("*.yaml")))
def test_accelerate_takes_every_configuration(name):
    """For as many processes as are asked for on the command line, and in the types that `train.py` says."""
    parser = launch_command_parser()
    arguments = parser.parse_args(
        ["--config_file", str(CONFIGURATIONS / name), "--num_processes", "8", "train.py"]
    )
    arguments, _, _ = _validate_launch_command(arguments)
    assert (arguments.num_processes, arguments.mixed_precision) == (8, "no")
    shares = arguments.use_fsdp, arguments.use_deepspeed and arguments.zero_stage
    expected = {"ddp": (False, False), "fsdp": (True, False), "zero2": (False, 2), "zero3": (False, 3)}
    assert shares == expected[Path(name).stem]


@pytest.mark.parametrize("changes", [{"fsdp": "full_shard"}, {"deepspeed": "zero.json"}])
def test_the_way_to_share_out_weights_is_a_configuration_of_accelerate(changes):
    with pytest.raises(ValueError, match=r"recipes/accelerate/fsdp\.yaml"):
        check_sharding(SimpleNamespace(**{"fsdp": None, "deepspeed": None} | changes), 1)


def test_folds_of_the_alignment_and_packed_weights_are_refused_where_weights_are_shared_out(monkeypatch):
    run = SimpleNamespace(fsdp=None, deepspeed=None)
    check_sharding(run, 3)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    check_sharding(run, 1)
    with pytest.raises(ValueError, match="--align_folds 3"):
        check_sharding(run, 3)
    with pytest.raises(ValueError, match="--quantization 4bit"):
        check_sharding(run, 1, "4bit")


@pytest.mark.parametrize("clips", range(1, 50))
def test_of_repeated_clips_each_counts_once(clips):
    """Batches of 4 in three processes; the last ones of an epoch together have what is left."""
    own = [own_in_last(clips, 4, 3, process) for process in range(3)]
    assert sum(own) == (clips % 12 or 12)
    assert own == sorted(own, reverse=True)


def test_a_batch_without_own_clips_keeps_one_that_has_no_labels():
    batch = {"labels": torch.tensor([[1, 2], [3, 4]]), "clip_ids": ["a", "b"]}
    assert own_clips(batch, 1)["clip_ids"] == ["a"]
    assert own_clips(batch, 1)["labels"].tolist() == [[1, 2]]
    left = own_clips(batch, 0)
    assert left[REPEATED]
    assert left["labels"].tolist() == [[-100, -100]]
    assert batch["labels"].tolist() == [[1, 2], [3, 4]]
