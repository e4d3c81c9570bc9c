"""`--quantization`: a frozen LLM in 4 or 8 bits, really trained and evaluated on a CPU by bitsandbytes."""

import json
import sys

import pytest
import torch
from tiny_run import flags, logged
from tiny_world import TinyWorld

import eval
import train
from modeling_slam import SlamAsrForConditionalGeneration
from modeling_slam.common.quantization import check_quantization, loading_settings

CPU = torch.device("cpu")
EACH_STEP = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
load = SlamAsrForConditionalGeneration.from_pretrained


@pytest.mark.e2e
@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_a_packed_llm_trains_is_recorded_and_loads_as_such_or_in_full_precision(
    world: TinyWorld, tmp_path, caplog, bits
):
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="the extra `quantised` is not installed")
    run = tmp_path / "run"
    train.main(flags(world, run, quantization=bits, max_steps=3, **EACH_STEP))
    assert json.loads((run / "run.json").read_text())["model"]["quantization"] == bits
    config = json.loads((run / "config.json").read_text())
    assert config["quantization"] == bits
    assert "quantization_config" not in config
    # What serves a validation must not end the gradients of the steps behind it.
    alone = EACH_STEP | {"eval_strategy": "no"}
    train.main(flags(world, tmp_path / "other", quantization=bits, max_steps=3, **alone))
    losses = logged(run, "loss")
    assert losses == logged(tmp_path / "other", "loss")
    assert not any("missing keys" in record.message for record in caplog.records)

    again = {"resume_from_checkpoint": tmp_path / "other" / "checkpoint-2"}
    train.main(flags(world, tmp_path / "other", quantization=bits, max_steps=3, **alone | again))
    assert logged(tmp_path / "other", "loss") == losses

    assert not any(type(layer).__module__.startswith("bitsandbytes") for layer in load(run).modules())
    packed = load(run, **loading_settings(bits, torch.float32, CPU))
    kind = bitsandbytes.nn.Linear4bit if bits == "4bit" else bitsandbytes.nn.Linear8bitLt
    names = {name for name, layer in packed.named_modules() if isinstance(layer, kind)}
    assert names
    assert packed.parameter_counts() == load(run).parameter_counts()
    assert all(name.startswith("language_model.model.layers.") for name in names)

    command = ["--model", run, "--output_dir", tmp_path / "scores", "--quantization", bits]
    eval.main([*map(str, command), "--max_new_tokens", "4"])
    settings = json.loads((tmp_path / "scores" / "metrics.json").read_text())["settings"]
    assert settings["quantization"] == bits


def test_what_cannot_be_packed_is_refused_before_anything_is_read(world: TinyWorld, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r"error: `train_llm` trains .*`quantization` 4bit"):
        train.main(flags(world, tmp_path / "run", quantization="4bit", train_llm=True, lora_rank=0))
    with pytest.raises(ValueError, match=r"`--quantization 4bit`: bitsandbytes .* not compute on meta"):
        check_quantization("4bit", torch.device("meta"))
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs bitsandbytes.*slam-asr\[quantised\]"):
        check_quantization("8bit", CPU)
    check_quantization(None, torch.device("meta"))
