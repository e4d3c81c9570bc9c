"""benchmarks gpu: lines stay, time and memory end cleanly, checks find faults, the bundle runs bare."""

import json
import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import mission
from benchmarks.flops import batch_needs
from benchmarks.gpu import bundle, checks, command, run_bundle, sizes, variants
from benchmarks.gpu.device import Device
from benchmarks.gpu.lines import BrokenDeviceError, Lines, OutOfTimeError
from benchmarks.gpu.speed import Speed
from benchmarks.gpu.table import write_table

ABOUT = {"device": "CPU", "torch": "2"}
CPU = Device("cpu")


def lines_in(tmp_path: Path, **about: str) -> Lines:
    return Lines(tmp_path, {**ABOUT, **about}, CPU, minutes=None)


def facts(name: str) -> dict:
    return {"part": "check", "name": name}


def test_a_line_is_on_disk_when_it_is_measured_and_is_not_measured_again(tmp_path):
    lines_in(tmp_path).line(facts("one"), lambda: {"ok": True})
    with (tmp_path / "gpu.jsonl").open("a") as file:
        file.write('{"case": "check tw')  # killed while it wrote
    again = lines_in(tmp_path)
    assert again.line(facts("one"), lambda: pytest.fail("measured twice"))["ok"]
    again.line(facts("two"), lambda: {"ok": False})
    first, *rest = map(json.loads, (tmp_path / "gpu.jsonl").read_text().splitlines())
    assert first == {"about": ABOUT}
    assert [line["case"] for line in rest] == ["check one", "check two"]


def test_figures_of_another_device_are_not_mixed(tmp_path):
    lines_in(tmp_path)
    with pytest.raises(
        ValueError, match=r"made otherwise: device was 'CPU', is 'H100'\. Give another `--out`"
    ):
        lines_in(tmp_path, device="H100")


def test_when_the_time_is_over_nothing_half_measured_is_kept(tmp_path):
    lines = lines_in(tmp_path)

    def work() -> dict:
        lines.end = time.monotonic() - 1
        lines.check_time()
        return {}

    with pytest.raises(OutOfTimeError):
        lines.line(facts("slow"), work)
    assert lines_in(tmp_path).line(facts("slow"), lambda: {"ok": True})["ok"]


def test_the_end_of_memory_is_a_finding_and_ends_the_growth_of_batches(tmp_path):
    lines = lines_in(tmp_path)
    speed = Speed(CPU, "tiny", lines)
    measured = []

    def full(name: str, side: str, batch: int, variant: str | None) -> dict:
        measured.append(batch)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. ...")

    speed._training = full
    speed.trainings("medium-22", "ours")
    assert measured == [1]
    [line] = lines.lines.values()
    assert line["out_of_memory"]
    assert line["error"] == "CUDA out of memory"


def test_an_error_is_written_and_the_next_case_follows(tmp_path):
    lines = lines_in(tmp_path)
    error = lines.line(facts("bad"), lambda: {}["missing"])["error"]
    assert error == "KeyError: 'missing'"
    assert lines.line(facts("good"), lambda: {"ok": True})["ok"]
    assert "| bad | error | error KeyError: 'missing' |" in write_table(lines)


def test_a_device_that_an_error_has_broken_ends_the_run_behind_its_line(tmp_path, monkeypatch):
    lines = lines_in(tmp_path)
    monkeypatch.setattr(lines, "device", SimpleNamespace(**{
        "noticing_the_end_of_memory": CPU.noticing_the_end_of_memory, "forget": CPU.forget,
        "timed": lambda work: 1 / 0, "torch": CPU.torch,
    }))  # fmt: skip
    with pytest.raises(BrokenDeviceError):
        lines.line(facts("bad"), lambda: {}["missing"])
    assert "error" in lines_in(tmp_path).lines["check bad"]


def test_a_case_that_ended_the_process_twice_is_left_out_but_not_one_that_a_person_stopped(tmp_path):
    def stopped() -> dict:
        raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            lines_in(tmp_path).line(facts("long"), stopped)
    (tmp_path / "begun.json").write_text('{"check deadly": 2}')
    assert "2 times" in lines_in(tmp_path).line(facts("deadly"), stopped)["error"]


@pytest.fixture(scope="module")
def found() -> checks.Checks:
    return checks.Checks(CPU, "tiny")


@pytest.mark.parametrize(
    "name",
    [
        "batch invariance", "own search", "attention", "packed rows", "loss in parts",
        "features on the device", "static cache",
    ],
)  # fmt: skip
def test_the_checks_pass_on_this_machine(found, name):
    assert found.all()[name]()["ok"]


def test_a_model_that_hears_its_neighbours_fails_the_check(found, monkeypatch):
    usual = checks.Checks.inputs

    def mixed(self: checks.Checks, clips: list, model: torch.nn.Module) -> dict:
        made = usual(self, clips, model)
        made["input_features"] = made["input_features"] + made["input_features"].mean()
        return made

    monkeypatch.setattr(checks.Checks, "inputs", mixed)
    assert not found.batch_invariance()["ok"]


def test_packed_clips_do_not_hear_each_other_and_the_row_has_no_padding(found):
    """That the row is one, and the check fails if positions run on from clip to clip."""
    model, batch = found.model(tiny=True), found.labelled()
    seen = []
    variants.put_on(model, variants.PACKED, CPU)
    model.language_model.register_forward_pre_hook(
        lambda _, __, inputs: seen.append(inputs["position_ids"]), with_kwargs=True
    )
    loss = model(**batch).loss.item()
    assert seen[0].shape == (1, int(batch["attention_mask"].sum()))
    model.language_model.register_forward_pre_hook(
        lambda _, args, inputs: (args, inputs | {"position_ids": torch.arange(seen[0].shape[1])[None]}),
        with_kwargs=True,
    )
    assert abs(model(**batch).loss.item() - loss) > 1e-3


def test_shapes_are_the_real_ones_and_all_sides_get_the_same_work():
    config = sizes.model_config("real", "medium-22", "3B")
    assert (config.audio_config.d_model, config.num_encoder_layers) == (1024, 22)
    assert (config.text_config.hidden_size, config.num_llm_layers) == (2048, 36)
    speed = Speed(CPU, "tiny", SimpleNamespace(check_time=lambda: None))
    config = sizes.model_config("tiny", "medium-22", "tiny")
    ours, plain = (speed._batches(config, side, 2) for side in ("ours", "plain"))
    assert ours[1:] == pytest.approx(plain[1:])
    assert {batch["input_features"].shape[2] for batch in plain[0]} == {3000}
    padding = [int((batch["attention_mask"] == 0).sum()) for batch in ours[0]]
    assert sum(padding) < sum(int((batch["attention_mask"] == 0).sum()) for batch in plain[0])
    assert sum(batch_needs(config, batch) for batch in ours[0]) == ours[2]


def test_a_bundle_takes_wheels_of_this_python_and_of_the_stable_interface():
    here = f"cp3{sys.version_info.minor}"
    names = {
        "a-1-py3-none-any": True, "a-1-py2.py3-none-any": True, "a-1-cp310-abi3-x": True,
        f"a-1-{here}-{here}-x": True, "a-1-cp39-cp39-x": False, "a-1-cp399-abi3-x": False,
    }  # fmt: skip
    assert {name: run_bundle.fits(Path(f"{name}.whl")) for name in names} == names


def test_wrong_settings_end_before_anything_runs(tmp_path, capsys):
    for main, flags, message in (
        (command.main, ["--out", str(tmp_path), "--minutes", "0"], "`minutes` must be positive"),
        (bundle.main, ["--out", str(tmp_path)], "`out` must not exist"),
    ):
        with pytest.raises(SystemExit):
            main(flags)
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit, match="cannot be used by this torch"):
        command.main(["--out", str(tmp_path), "--device", "xpu"])


@pytest.mark.e2e
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a Python without its packages, as on Linux")
def test_the_bundle_runs_where_there_is_only_torch_and_no_network(tmp_path):
    """From an empty directory, by a Python that sees no site-packages but torch and what torch brings."""
    print(bundle.make(tmp_path / "bundle", []))
    assert sum(file.stat().st_size for file in (tmp_path / "bundle").rglob("*")) < 40e6
    bare, empty = tmp_path / "bare", tmp_path / "empty"
    bare.mkdir()
    empty.mkdir()
    installed = Path(sysconfig.get_path("purelib"))
    of_torch = (
        "torch", "torchgen", "functorch", "typing_extensions.py", "filelock", "fsspec", "sympy", "mpmath",
        "networkx", "jinja2", "markupsafe", "setuptools",
    )  # fmt: skip
    for name in (*of_torch, *(path.name for path in installed.glob("filelock-*.dist-info"))):
        if (installed / name).exists():
            (bare / name).symlink_to(installed / name)
    for path in installed.glob("torch-*.dist-info"):
        (bare / path.name).symlink_to(path)
    python = Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
    environment = {"PATH": os.environ["PATH"], "HOME": str(empty), "PYTHONPATH": str(bare)}
    environment |= {
        "OMP_NUM_THREADS": "1",
        **dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9"),
    }
    gpu = ["gpu", "--device", "cpu", "--size", "tiny", "--out", "figures"]
    run = [str(python), "-S", str(tmp_path / "bundle/run.py"), *gpu]

    def figures(*flags: str) -> list[dict]:
        done = subprocess.run([*run, *flags], cwd=empty, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        written = (empty / "figures/gpu.jsonl").read_text().splitlines()
        return [json.loads(line) for line in written]

    begun = figures("--minutes", "0.02")
    whole = figures()
    assert whole[: len(begun)] == begun
    assert len(begun) < len(whole)
    checked = {line["name"]: line["ok"] for line in whole[1:] if line["part"] == "check"}
    assert checked.pop("device against CPU") is None
    assert checked.pop("flash attention") is None
    assert len(checked) == 9
    assert all(checked.values())
    assert not [line for line in whole if "error" in line]
    parts = {(line["part"], line.get("side")) for line in whole[1:]}
    assert parts >= {(part, side) for part in ("training", "evaluation") for side in ("ours", "plain")}


PEER = """
import json, os
from pathlib import Path
job = json.loads(Path(os.environ["SLAM_BENCH_JOB"]).read_text())
assert all(Path(clip["path"]).is_file() for clip in job["clips"])
assert Path(job["encoder"], "model.safetensors").is_file()
assert Path(job["checkpoint"], "config.json").is_file()
print(json.dumps({"seconds": 2.0}))
"""


def test_a_peer_gets_models_and_clips_as_files(tmp_path):
    (tmp_path / "peer.py").write_text(PEER)
    lines = lines_in(tmp_path)
    command.measure_peer(f"{sys.executable} {tmp_path / 'peer.py'}", "medium-22", Speed(CPU, "tiny", lines))
    training, evaluation = lines.lines.values()
    assert training["step_seconds"] == 0.5, training
    assert evaluation["seconds"] == 2.0, evaluation


@pytest.mark.nightly
def test_the_mission_is_built_trained_a_step_saved_and_loaded_by_a_stranger(tmp_path, capsys):
    mission.main(["--out", str(tmp_path / "mission"), "--size", "tiny", "--clip_seconds", "2"])
    steps = json.loads((tmp_path / "mission/mission.json").read_text())
    assert steps["train"]["is_lean"]
    assert steps["train"]["checkpoint_gib"] > 0
    assert all(steps[name]["peak_gib"] > 0.1 for name in ("write", "train", "load"))
    assert steps["load"]["dtype"] == "bfloat16"
    printed = capsys.readouterr().out
    assert "| train |" in printed
    assert "Training: batches of 4, clips of up to 2 s, bfloat16" in printed  # as planned
