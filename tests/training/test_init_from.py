"""A run that begins with another model: what fits is taken, and the log says what was."""

import logging

import pytest
import torch
from safetensors.torch import load_file
from tiny_run import flags

import train
from modeling_slam import SlamAsrConfig

STILL = {"max_steps": 1, "learning_rate": 0.0, "eval_strategy": "no"}  # the model is saved as it was built


@pytest.fixture(scope="module")
def source(world, tmp_path_factory):
    """Three layers, LoRA of rank 4, a head on all texts, trained a little."""
    directory = tmp_path_factory.mktemp("source") / "run"
    train.main(flags(world, directory, align_epochs=1, max_steps=3, eval_strategy="no"))
    return directory


def weights(run) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def test_another_depth_begins_with_projector_head_and_lora(world, source, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="slam-asr")
    train.main(flags(world, tmp_path / "run", keep_layers=2, ctc_weight=0.1, init_from=source, **STILL))
    before, after = weights(source), weights(tmp_path / "run")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert "taken: 6 of projector, 3 of ctc_head, 16 of lora" in caplog.text


def test_what_does_not_fit_starts_fresh_and_is_named(world, source, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="slam-asr")
    train.main(flags(world, tmp_path / "run", lora_rank=2, projector_stack=4, init_from=source, **STILL))
    before, after = weights(source), weights(tmp_path / "run")
    assert torch.equal(before["projector.linear2.weight"], after["projector.linear2.weight"])
    assert before["projector.linear1.weight"].shape != after["projector.linear1.weight"].shape
    assert (
        "not taken, of another shape or not in this model: 1 of projector, 4 of ctc_head" not in caplog.text
    )
    assert (
        "not taken, of another shape or not in this model: 1 of projector, 3 of ctc_head, 16 of lora"
        in caplog.text
    )
    assert "fresh: 1 of projector, 16 of lora" in caplog.text


def test_alignment_goes_on_from_the_other_models_head(world, source, tmp_path):
    settings = {"align_epochs": 1, "align_learning_rate": 0.0, "init_from": source}
    train.main(flags(world, tmp_path / "run", **STILL | settings))
    before, after = weights(source), weights(tmp_path / "run")
    assert torch.equal(before["ctc_head.blank"], after["ctc_head.blank"])


def test_what_is_no_model_is_refused_before_any_data_are_read(world, tmp_path):
    with pytest.raises(SystemExit, match="--init_from"):
        train.main(flags(world, tmp_path / "run", init_from=tmp_path / "nowhere", dataset="nowhere", **STILL))


@pytest.mark.e2e
def test_a_resumed_run_keeps_the_scale_that_it_took(world, source, tmp_path):
    paper = tmp_path / "paper"
    train.main(flags(world, paper, projector_scale=1, max_steps=2, eval_strategy="no"))
    run = tmp_path / "run"
    settings = {"init_from": paper, "eval_strategy": "no", "save_strategy": "steps", "save_steps": 2}
    train.main(flags(world, run, max_steps=2, **settings))
    (run / "model.safetensors").unlink()
    train.main(flags(world, run, max_steps=2, resume_from_checkpoint="last", **settings))
    assert SlamAsrConfig.from_pretrained(run).projector_scale == 1.0
    assert SlamAsrConfig.from_pretrained(source).projector_scale < 1.0
