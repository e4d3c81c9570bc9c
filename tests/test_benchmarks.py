"""benchmarks: what they print follows from known recordings; figures of real models are not made here."""

import json
import sys
from pathlib import Path

import pytest
from tiny_configs import tiny_audio_config, tiny_lean_config, tiny_text_config
from tiny_world import build_tiny_world
from transformers import Qwen2ForCausalLM, WhisperForConditionalGeneration

from benchmarks import __main__ as harness
from benchmarks import curves, data_parallel, evaluation, loading, machine, peer, training
from benchmarks.job import evaluate, train
from modeling_slam import SlamAsrForConditionalGeneration


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="what is in the page cache is told on Linux")
@pytest.mark.parametrize("self_contained", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loading_reads_the_kept_weights_from_disk_once_and_no_others(tmp_path, self_contained, dtype):
    """Two of four encoder layers, beside a decoder as large; read-ahead is counted as well."""
    audio = tiny_audio_config(d_model=256, encoder_ffn_dim=1024, encoder_layers=4, decoder_layers=4)
    text = tiny_text_config(hidden_size=256, intermediate_size=1024, num_hidden_layers=4)
    WhisperForConditionalGeneration(audio).save_pretrained(tmp_path / "whisper")
    Qwen2ForCausalLM(text).save_pretrained(tmp_path / "llm")
    base_models = {"audio_model_id": str(tmp_path / "whisper"), "text_model_id": str(tmp_path / "llm")}
    config = tiny_lean_config(base_models, num_encoder_layers=2, lora_rank=8, self_contained=self_contained)
    config.audio_config, config.text_config = audio, text
    SlamAsrForConditionalGeneration.from_base_models(config).save_pretrained(tmp_path / "model")
    report = loading.measure_load(loading.load_ours, str(tmp_path / "model"), dtype, cold=True)
    assert 1 <= report["disk_ratio"] <= 1.02
    if not self_contained:
        assert report["bytes_in_files"] > 1.5 * report["bytes_stored_of_kept_weights"]


# ------------------------------------------------------------------ python -m benchmarks


@pytest.fixture
def flags(tmp_path, monkeypatch):
    """Arguments that measure on the tiny world, all in this process: fresh ones import for seconds each."""
    for module in (training, evaluation, loading, curves):
        monkeypatch.setattr(module, "in_fresh_process", lambda function, *arguments: function(*arguments))
    for module in (training, evaluation, curves):  # would slow down all that this process runs from then on
        monkeypatch.setattr(module, "give_back_freed_memory", lambda: None)
    monkeypatch.setattr(machine, "MATMUL_SIZES", (64,))
    monkeypatch.setattr(evaluation, "read_bandwidth", lambda: 1e9)
    world = build_tiny_world(tmp_path / "world")
    return [
        *("--encoder", str(world.encoder), "--llm", str(world.llm), "--dataset", str(world.dataset)),
        *("--output_dir", str(tmp_path / "results"), "--threads", "1", "--steps", "1"),
        *("--eval_clips", "4", "--eval_rounds", "1"),
    ]


def results(flags: list[str], name: str) -> dict:
    directory = Path(flags[flags.index("--output_dir") + 1])
    text = (directory / f"{name}.json").read_text()
    assert str(directory.parent) not in text, "no directory of this machine"
    return json.loads(text)


def test_training_settings_are_compared_at_equal_losses(flags, capsys):
    names = [
        name for name in training.SETTINGS if name != "plain, 30 s"
    ]  # that one takes as long as all others
    harness.main([*flags, "--parts", "training", "--lora_ranks", "2", "--settings", *names])
    report = results(flags, "training_lora_2")
    assert set(report["settings"]) == set(names)
    for name, figures in report["settings"].items():
        assert figures["peak_extra_bytes"] >= 0
        assert figures["ratio_to_ours"] == pytest.approx(
            figures["median_seconds"] / report["settings"]["ours"]["median_seconds"]
        )
        assert figures["share_of_limit"] == pytest.approx(
            figures["needed_flop"] / figures["matmul_peak"] / figures["median_seconds"]
        )
        assert len(figures["seconds"]) == 1, name
    stages = report["stages"]["seconds"]
    assert {"encoder", "LLM, forward", "LLM, backward", "clipping and optimizer"} <= set(stages)
    assert all(seconds > 0 for seconds in stages.values())
    assert "| plain, no checkpointing |" in capsys.readouterr().out


def test_a_setting_that_computes_something_else_is_found():
    losses = {"ours": {"losses": [1.0, 0.9]}, "padded rows": {"losses": [1.0, 0.95]}}
    with pytest.raises(RuntimeError, match="'padded rows' computes something else"):
        training.check_same_losses(losses)
    texts = {"ours": [("a", 1)], "plain": [("b", 1)]}
    with pytest.raises(RuntimeError, match="1 of 1 transcripts"):
        evaluation.check_same_transcripts(texts)
    evaluation.check_same_transcripts({"ours": [("a", 1)], "plain, 30 s": [("b", 1)]})


def test_evaluation_and_loading_measure_a_fresh_checkpoint(flags):
    harness.main([*flags, "--parts", "evaluation", "loading", "--keep_layers", "2"])
    report = results(flags, "evaluation")
    assert set(report["settings"]) == set(evaluation.EVALUATIONS)
    ours, plain = report["settings"]["ours"], report["settings"]["plain"]
    assert ours["transcripts"] == plain["transcripts"]
    assert ours["needed_flop"] == plain["needed_flop"]
    assert {"audio (in workers)", "encoder", "prefill", "decode"} <= set(report["stages"]["seconds"])
    assert report["stages"]["steps"] > 0
    loading_report = results(flags, "loading")
    assert loading_report["encoder_layers"] == [2, 4]
    assert loading_report["settings"]["ours, float32, cold"]["disk_ratio"] < 1.5
    assert loading_report["settings"]["plain, float32, cached"]["bytes_kept"] > 0


def test_curves_give_both_slopes(flags):
    harness.main([*flags, "--parts", "curves", "--curves", "kept layers"])
    report = results(flags, "curve_kept_layers")
    assert len(report["x"]) == len(report["seconds"]) == len(report["kept_bytes"]) > 2
    assert report["slopes"]["needed_seconds"] > 0
    assert report["slopes"]["needed_bytes"] > 0


def test_a_peer_is_told_the_job_and_answers_in_one_line(flags, tmp_path, monkeypatch):
    program = tmp_path / "peer.py"
    program.write_text(
        "import json, os\n"
        "job = json.load(open(os.environ['SLAM_BENCH_JOB']))\n"
        "steps = len(job['clips']) // job['batch_size'] - 1\n"
        "assert all(os.path.exists(clip['path']) for clip in job['clips'])\n"
        "print('loading ...')\n"
        "print(json.dumps({'seconds': [2.0] * steps}))\n"
        "print('bye')\n"
    )
    ours = tmp_path / "ours.py"
    ours.write_text("print('{\"clips_per_second\": 4.0}')\n")
    monkeypatch.setattr(peer, "OUR_COMMAND", [sys.executable, str(ours)])
    harness.main([*flags, "--parts", "peer", "--lora_ranks", "0", "--peer", f"{sys.executable} {program}"])
    sides = results(flags, "peer_training_0")["sides"]
    assert sides["ours"]["seconds"] == [1.0]
    assert sides["peer"]["seconds"] == [2.0]
    assert sides["peer"]["ratio_to_ours"] == 2.0
    assert sides["peer"]["peak_bytes"] > 2**20


def test_a_peer_that_states_no_time_is_compared_by_whole_processes():
    assert peer.read_answer("nothing\n{'seconds': 3}\n") is None
    assert peer.read_answer('{"seconds": [1]}\n{"other": 2}') == {"seconds": [1]}
    with pytest.raises(RuntimeError, match=r"failed with 3:\nwhat went wrong"):
        peer.run([sys.executable, "-c", "print('what went wrong'); raise SystemExit(3)"], {})


def test_our_side_runs_the_job(flags, tmp_path):
    bench_args, model_args, data_args = harness.parse(flags)
    rows = training.choose_clips(bench_args, data_args)
    job = peer.make_job("training", bench_args, model_args, lora_rank=2)
    job.write(rows, tmp_path)
    assert len(train(job, "ours")["seconds"]) == len(train(job, "plain")["seconds"]) == 1
    with harness.Benchmarks(bench_args, model_args, data_args).checkpoint() as checkpoint:
        job = peer.make_job("evaluation", bench_args, model_args, lora_rank=2)
        job.checkpoint, job.max_new_tokens = checkpoint, 4
        job.write(rows, tmp_path)
        assert evaluate(job, "ours")["transcripts"] == evaluate(job, "plain")["transcripts"]


@pytest.mark.slow
def test_two_processes_share_the_steps(flags):
    harness.main([*flags, "--steps", "3", "--parts", "data_parallel"])
    report = results(flags, "data_parallel")
    assert set(report["clips_per_second"]) == set(data_parallel.RUNS)
    assert 0 < report["efficiency"] < 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--parts", "everything"], "`parts` must be any of"),
        (["--parts", "peer"], "`parts` has peer"),
        (["--settings", "plain"], "`settings` must have 'ours'"),
        (["--steps", "0"], "`steps` must be at least 1"),
    ],
)
def test_wrong_settings_end_before_anything_runs(flags, capsys, wrong, message):
    with pytest.raises(SystemExit):
        harness.main([*flags, *wrong])
    assert message in capsys.readouterr().err
