"""benchmarks: sides take turns, a stopped run goes on, and every part measures; no figure is made here."""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from programs import REPOSITORY
from tiny_world import TinyWorld, build_tiny_world

from benchmarks import comparison as harness
from benchmarks import worker

# A side without torch: 2 s a round for plain, 1 s for others; notes its rounds in a file beside the job.
PROGRAM = """
import json, os, sys
from pathlib import Path
file = Path(os.environ["SLAM_BENCH_JOB"])
job = json.loads(file.read_text())
assert all(os.path.exists(clip["path"]) for clip in job.get("clips", []))
stays = "--once" not in sys.argv
print("loading ...")
while True:
    with open(os.environ["ROUNDS"], "a") as rounds:
        print(file.stem, os.getpid(), file=rounds)
    answer = {"seconds": 2.0 if job["way"] == "plain" else 1.0, "loss": 3.0, "again": stays}
    print(json.dumps(answer), flush=True)
    if not stays or not sys.stdin.readline():
        break
"""


@pytest.fixture
def world(tmp_path) -> TinyWorld:
    return build_tiny_world(tmp_path / "world")


@pytest.fixture
def flags(world, tmp_path) -> list[str]:
    return [
        *("--encoder", str(world.encoder), "--llm", str(world.llm), "--dataset", str(world.dataset)),
        *("--out", str(tmp_path / "out"), "--rounds", "2", "--steps", "2", "--batch_size", "2"),
        *("--eval_clips", "3", "--keep_layers", "3", "--lora_ranks", "2"),
    ]


@pytest.fixture
def program(tmp_path, monkeypatch) -> Path:
    """`PROGRAM` in the place of our worker."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    monkeypatch.setenv("ROUNDS", str(tmp_path / "rounds"))
    monkeypatch.setattr(harness, "worker", lambda checkout: ([sys.executable, str(path)], {}))
    return path


def rounds_of(tmp_path: Path) -> tuple[list[str], list[str]]:
    """Sides and process ids, in the order in which rounds were done."""
    lines = (tmp_path / "rounds").read_text().split("\n")[:-1]
    sides, processes = zip(*(line.split() for line in lines), strict=True)
    return list(sides), list(processes)


def read(tmp_path: Path) -> dict:
    text = (tmp_path / "out/benchmark.json").read_text()
    assert str(tmp_path) not in text, "no directory of this machine"
    return json.loads(text)


def test_sides_take_turns_and_a_stopped_run_goes_on(flags, program, tmp_path, capsys):
    peer = f"{sys.executable} {program} --once"
    flags = [*flags, "--parts", "training", "--against", str(REPOSITORY), "--peer", peer]
    harness.main([*flags, "--rounds", "1"])
    harness.main(flags)  # one round is there, one is missing
    harness.main(flags)  # all are there
    sides, _ = rounds_of(tmp_path)
    assert sides == ["ours", "before", "plain", "peer", "peer", "plain", "before", "ours"]
    rows = read(tmp_path)["rows"]
    assert [row["side"] for row in rows] == sides[:4]
    assert [row["samples"] for row in rows] == [[1.0] * 2, [1.0] * 2, [2.0] * 2, [1.0] * 2]
    table = (tmp_path / "out/benchmark.md").read_text()
    assert table in capsys.readouterr().out
    assert "| training | LoRA, rank 2 | plain | 2 | 1 | 1 to 1 |" in table  # two steps a round
    assert "| 2.00 | loss 3.00000 |" in table


def test_a_side_stays_for_its_rounds_or_is_started_for_each(flags, program, tmp_path):
    peer = f"{sys.executable} {program} --once"
    harness.main([*flags, "--parts", "training", "--peer", peer])
    sides, processes = rounds_of(tmp_path)
    started = {side: len({p for s, p in zip(sides, processes, strict=True) if s == side}) for side in sides}
    assert started == {"ours": 1, "plain": 1, "peer": 2}


def test_figures_of_other_settings_are_not_mixed(flags, program):
    harness.main([*flags, "--parts", "training"])
    with pytest.raises(SystemExit, match=r"made otherwise: steps was 2, is 1\. Give another `--out`"):
        harness.main([*flags, "--parts", "training", "--steps", "1"])


def test_a_side_that_fails_ends_the_run_with_its_own_words(flags, program):
    peer = f"{sys.executable} -c \"print('what went wrong'); raise SystemExit(3)\""
    with pytest.raises(SystemExit, match=r"(?s)raise SystemExit\(3\).* ended with 3 .*what went wrong"):
        harness.main([*flags, "--parts", "training", "--peer", peer])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--parts", "everything"], "`parts` must be any of"),
        (["--steps", "0"], "`steps` must be at least 1"),
        (["--against", "nowhere"], "`against` must be a checkout of this project"),
    ],
)
def test_wrong_settings_end_before_anything_runs(flags, capsys, wrong, message):
    with pytest.raises(SystemExit):
        harness.main([*flags, *wrong])
    assert message in capsys.readouterr().err


@pytest.fixture
def benchmark(flags, tmp_path) -> harness.Benchmark:
    arguments, data_arguments = harness.parse(flags)
    return harness.Benchmark(arguments, data_arguments, tmp_path)


def answers(benchmark: harness.Benchmark, part: str, job: dict, side: str) -> list[dict]:
    """Two rounds of the worker, in this process: a fresh one imports for seconds."""
    rounds = worker.PARTS[part](benchmark.job(part, side) | job)
    found = list(itertools.islice(rounds, 2))
    rounds.close()
    assert all(answer["seconds"] > 0 for answer in found)
    return found


def test_a_training_step_is_measured_on_the_same_clips_both_ways(benchmark):
    [(facts, job)] = benchmark.training()
    ours, plain = (answers(benchmark, "training", job, side) for side in ("ours", "plain"))
    assert ours[0]["loss"] == ours[1]["loss"]
    for answer in (*ours, *plain):
        assert 0 < answer["loss"] < 20
        assert facts["needed_flop"] / answer["matmul_peak"] < answer["seconds"]


def test_plain_computes_what_ours_computes_where_a_clip_lasts_30_seconds(benchmark, tmp_path):
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 30 * 16_000)
    soundfile.write(tmp_path / "long.wav", noise, 16_000)
    audio = {"path": str(tmp_path / "long.wav"), "bytes": None}
    clip = {"path": audio["path"], "audio": audio, "text": "up down", "duration": 30.0}
    job = benchmark.job("training", "ours") | {"clips": [clip], "batch_size": 1}
    ours, our_batches = worker.our_training(job)
    plain, plain_batches = worker.plain_training(job)
    ours.projector.linear1 = plain.projector[0]
    ours.projector.linear2 = plain.projector[3]
    ours.projector.norm = plain.projector[4]
    losses = [model(**batch).loss for model, [batch] in ((ours, our_batches), (plain, plain_batches))]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0)


def test_evaluation_writes_the_same_transcripts_both_ways(benchmark, tmp_path):
    checkpoint(benchmark, tmp_path)
    [(_, job)] = benchmark.evaluation()
    ours, plain = (answers(benchmark, "evaluation", job, side) for side in ("ours", "plain"))
    assert ours[0]["transcripts"] == ours[1]["transcripts"] == plain[0]["transcripts"]
    assert len(ours[0]["transcripts"]) == 3


def test_loading_is_measured_both_ways(benchmark, tmp_path):
    checkpoint(benchmark, tmp_path)
    [(_, job)] = benchmark.loading()
    for side in ("ours", "plain"):
        answers(benchmark, "loading", job, side)


def checkpoint(benchmark: harness.Benchmark, tmp_path: Path) -> None:
    directory = str(tmp_path / "checkpoint")
    next(worker.checkpoint(benchmark.job("checkpoint", "ours") | {"checkpoint": directory}))
    benchmark.arguments.checkpoint = directory


@pytest.mark.nightly
def test_the_whole_command_measures_another_checkout(flags, tmp_path):
    """This one as both sides: real processes, whose times differ by what this machine does meanwhile."""
    harness.main([*flags, "--parts", "loading", "--against", str(REPOSITORY), "--rounds", "5"])
    report = read(tmp_path)
    assert report["about"]["commit_before"] == report["about"]["commit"]
    assert [row["side"] for row in report["rows"]] == ["ours", "before", "plain"]
    results = harness.Results(tmp_path / "out", report["about"])
    assert 0.2 < results.figures(results.rows[1])["ratio_to_ours"] < 5
