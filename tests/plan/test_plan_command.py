"""`slam-asr plan`: from configurations alone, and what it proposes fits by its own estimate."""

import dataclasses
import re
import shutil
from pathlib import Path

import pytest
import torch
from fake_hub import FakeHub
from tiny_configs import tiny_audio_config, tiny_text_config

from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration
from modeling_slam.common.known_models import base_config
from modeling_slam.plan.__main__ import bytes_of, main
from modeling_slam.plan.costs import download_bytes
from modeling_slam.plan.fit import fit, flags_of, tried
from modeling_slam.plan.memory import Load, decoding_memory, training_memory
from modeling_slam.plan.saved import encoder_layer_saved
from modeling_slam.training.arguments import RunArguments

LOAD = Load(clips=8, seconds=4.0, dtype=torch.float32)


@pytest.fixture
def bases(tmp_path) -> list[str]:
    """Directories that hold a config.json and nothing else."""
    tiny_audio_config().save_pretrained(tmp_path / "whisper")
    tiny_text_config().save_pretrained(tmp_path / "llm")
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"config.json"}
    return ["--encoder", str(tmp_path / "whisper"), "--llm", str(tmp_path / "llm"), "--dataset", "absent"]


@pytest.fixture
def config(tiny_config) -> SlamAsrConfig:
    tiny_config.lora_rank = 4
    return tiny_config


def test_configurations_are_all_that_is_read(bases, capsys):
    main([*bases, "--gpu", "24GB", "--train_hours", "10", "--clips_per_second", "2", "--keep_layers", "2"])
    shown = capsys.readouterr().out
    for part in ("Parameters", "encoder removed", "LoRA", "Training: batches of 4", "fits in 24 GiB", "Disk"):
        assert part in shown
    assert "Time: 43,200 clips of 5 s in all, 6.0 hours at 2 clips a second, as stated" in shown


def test_of_a_model_on_the_hub_no_weight_file_is_asked_for(tmp_path, bases, capsys, monkeypatch):
    from huggingface_hub import constants

    with FakeHub() as hub:
        for name, flag in (("whisper", 1), ("llm", 3)):
            directory = tmp_path / f"on-hub-{name}"
            shutil.copytree(bases[flag], directory)
            (directory / "model.safetensors").write_bytes(b"weights")
            hub.add_directory(f"org/{name}", directory)
        # What the environment says is read when huggingface_hub is imported.
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        main(["--encoder", "org/whisper", "--llm", "org/llm", "--dataset", "absent"])
        assert hub.count("GET", r"config\.json") == 2
        assert hub.count("GET", "safetensors") == hub.count("HEAD", "safetensors") == 0
    assert "download org/whisper" in capsys.readouterr().out


def test_weights_gradients_and_states_are_those_of_the_model(config):
    model = SlamAsrForConditionalGeneration(config)
    model.freeze()
    memory = training_memory(config, LOAD)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert memory["weights"] == 4 * sum(weight.numel() for weight in model.parameters())
    assert (memory["gradients"], memory["optimizer"]) == (4 * trained, 8 * trained)
    parts = {name: size for name, size in memory.items() if name != "total"}
    assert memory["total"] == sum(parts.values())
    half = training_memory(config, dataclasses.replace(LOAD, dtype=torch.bfloat16))
    assert half["weights"] == memory["weights"] / 2 + 2 * trained


def test_each_way_to_save_memory_saves_some(config):
    whole = training_memory(config, LOAD)["total"]
    kept = "kept for the backward pass"
    changes = ({"clips": 4}, {"seconds": 2.0}, {"checkpointing": True}, {"quantization": "4bit"})
    for change in (*changes, {"loss_positions": 8}):
        assert training_memory(config, dataclasses.replace(LOAD, **change))["total"] < whole
    by_bits = [
        training_memory(config, dataclasses.replace(LOAD, quantization=bits))["weights"]
        for bits in (None, "8bit", "4bit")
    ]
    assert by_bits == sorted(by_bits, reverse=True)
    config.encoder_lora_rank = 2
    with_encoder = training_memory(config, LOAD)
    config.encoder_lora_rank = 0
    layer = encoder_layer_saved(config.audio_config, torch.float32, 8, 200)
    assert with_encoder[kept] - training_memory(config, LOAD)[kept] == pytest.approx(3 * layer, rel=0.01)


def test_keys_and_values_grow_with_beams_and_clips(config):
    one, more = (decoding_memory(config, LOAD, beams)["keys and values"] for beams in (1, 3))
    # 40 audio tokens, 8 of the prompt and 16 of text; 2 layers of 2 heads of 8, keys and values of 4 bytes.
    assert one == 8 * (40 + 8 + 16) * 2 * 2 * 2 * 8 * 4
    assert more == 3 * one


def test_what_is_proposed_fits_and_keeps_the_clips_of_a_step(config):
    run = RunArguments(output_dir="-", gradient_accumulation_steps=2, use_cpu=True)
    totals = [training_memory(config, load)["total"] for load in tried(LOAD, may_pack=True)]
    for room in (max(totals), sorted(totals)[len(totals) // 2], min(totals)):
        chosen, memory, fits = fit(config, LOAD, room)
        assert fits
        assert memory["total"] <= room
        flags = flags_of(LOAD, chosen, run)
        given = dict(zip(flags[::2], flags[1::2], strict=True))
        clips = int(given.get("--per_device_train_batch_size", 8))
        assert clips * int(given.get("--gradient_accumulation_steps", 2)) == 16
    assert flags_of(LOAD, fit(config, LOAD, max(totals))[0], run) == []
    assert fit(config, LOAD, 1.0)[2] is False


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--fit", "true"], r"`--fit` needs `--gpu`"),
        (["--gpu", "lots"], r"`--gpu` must be memory such as 24GB, got 'lots'"),
        (["--clips_per_second", "1", "--throughput", "x"], "leave one out"),
        (["--keep_layers", "9"], r"`--keep_layers` must be between 1 and 3"),
        (["--llm", "absent/llm"], r"`llm` absent/llm cannot be read"),
        (
            ["--throughput", "pyproject.toml", "--train_hours", "1"],
            r"`--throughput .*` must be the benchmark",
        ),
    ],
)
def test_what_is_wrong_is_named(bases, flags, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*bases, *flags])
    shown = f"{ended.value}{capsys.readouterr().err}"
    assert re.search(message, shown), shown


def test_memory_is_read_as_it_is_written():
    assert bytes_of("24GB") == bytes_of("24 GiB") == bytes_of("24") == 24 * 2**30


def test_a_benchmark_says_how_fast_it_is(bases, capsys):
    file = Path(__file__).parents[2] / "results" / "performance" / "benchmark.json"
    main([*bases, "--train_hours", "1", "--throughput", str(file)])
    assert "GFLOP/s, measured on AMD EPYC, 2 cores" in capsys.readouterr().out


def test_known_whispers_are_fetched_with_their_decoder():
    for size, millions in {"tiny": 39, "base": 74, "small": 244, "medium": 769, "large-v2": 1550}.items():
        whole = download_bytes(f"openai/whisper-{size}", base_config(f"openai/whisper-{size}"), False)
        assert whole / 4e6 == pytest.approx(millions, rel=0.04)  # table 1 of the paper
