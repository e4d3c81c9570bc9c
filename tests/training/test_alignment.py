"""The alignment stage: it learns without the LLM, hands its weights on, and goes on where it was stopped."""

import json
import signal
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_run import flags, logged, one_thread, started

import eval
import train
from modeling_slam import SlamAsrForConditionalGeneration, SlamAsrProcessor
from modeling_slam.data import DataArguments, load_speech
from modeling_slam.model.ctc_head import doubt, head_log_probs
from modeling_slam.training.run_directory import how_to_go_on, is_complete

SETTINGS = {"align_epochs": 12, "align_learning_rate": 1e-2, "align_dropout": 0.0, "align_frame_dropout": 0.1}


def trained(directory) -> dict[str, torch.Tensor]:
    names = ("projector.", "ctc_head.")
    weights = load_file(directory / "model.safetensors")
    return {name: tensor for name, tensor in weights.items() if name.startswith(names)}


def test_the_head_learns_to_read_without_the_llm_and_the_model_begins_with_it(world, tmp_path):
    run = tmp_path / "run"
    # Steps at rate 0 leave the model as it was built.
    train.main(flags(world, run, max_steps=1, learning_rate=0.0, **SETTINGS))
    stage = run / "alignment"
    losses = list(logged(stage, "eval_loss").values())
    assert losses[-1] < 0.7 * losses[0]
    figures = json.loads((stage / "alignment.json").read_text())
    assert figures["clips"] == 48
    assert set(figures["best"]) == {"loss", "wer", "cer", "epoch"}
    aligned, result = trained(stage), trained(run)
    assert aligned.keys() == result.keys()
    assert all(torch.equal(aligned[name], result[name]) for name in aligned)
    assert not list(stage.glob("checkpoint-*"))
    assert not (run / "frames").exists()
    scores = [
        "--model",
        str(run),
        "--dataset",
        str(world.dataset),
        "--split",
        "validation",
        "--decoder",
        "ctc",
    ]
    eval.main([*scores, "--output_dir", str(tmp_path / "scores")])
    metrics = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert (metrics["wer"], metrics["cer"]) == (figures["best"]["wer"], figures["best"]["cer"])
    model = SlamAsrForConditionalGeneration.from_pretrained(run)
    assert model.config.ctc_vocab_size == len(model.ctc_head.token_ids) > 0
    processor = SlamAsrProcessor.from_pretrained(run)
    clips, _ = load_speech(DataArguments(dataset=str(world.dataset)), "validation")
    doubts = [doubt(head_log_probs(model.eval(), processor(clip["audio"]))[0]) for clip in clips]
    limit = min(1.3 * np.quantile(doubts, 0.98), 1.1 * max(doubts))
    assert processor.max_doubt == pytest.approx(limit, rel=1e-3)


def test_the_stage_is_the_same_whoever_trains_after_it(world, tmp_path):
    """Its weights depend on its own settings and the seed alone."""
    weights = []
    for name, changes in {"lora": {"lora_rank": 4}, "plain": {"lora_rank": 0, "learning_rate": 1e-4}}.items():
        run = tmp_path / name
        settings = SETTINGS | {"align_epochs": 0.5} | changes
        train.main(flags(world, run, max_steps=1, eval_strategy="no", **settings))
        weights.append(load_file(run / "alignment" / "model.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.e2e
@pytest.mark.parametrize("llm_input", ["projector", "expected", "gated"])
def test_every_input_of_the_llm_trains_with_the_head_as_second_loss(world, tmp_path, llm_input):
    run = tmp_path / "run"
    settings = SETTINGS | {"align_epochs": 1, "llm_input": llm_input, "ctc_weight": 0.3}
    settings |= {
        "projector_context": 3,
        "freeze_projector_steps": 4,
        "max_steps": 6,
        "save_strategy": "steps",
    }
    settings |= {"save_steps": 2, "eval_strategy": "no", "save_total_limit": 5}
    train.main(flags(world, run, **settings))
    aligned, early, late = trained(run / "alignment"), trained(run / "checkpoint-4"), trained(run)
    assert all(torch.equal(aligned[name], early[name]) for name in aligned), "the projector was frozen"
    moved = [name for name in aligned if not torch.equal(aligned[name], late[name])]
    assert "projector.linear1.weight" in moved
    assert "ctc_head.blank" in moved
    lora = [load_file(run / at / "model.safetensors") for at in ("checkpoint-2", "checkpoint-4")]
    assert any(not torch.equal(lora[0][name], lora[1][name]) for name in lora[0] if "lora_B" in name)


def test_a_projector_without_order_in_time_cannot_be_aligned(world, tmp_path):
    with pytest.raises(SystemExit, match=r"--align_epochs.*qformer"):
        train.main(flags(world, tmp_path / "run", projector_type="qformer", **SETTINGS))


@pytest.mark.e2e
def test_a_run_killed_while_it_aligns_ends_with_the_weights_of_one_that_was_not(world, tmp_path):
    whole, killed, log = tmp_path / "whole", tmp_path / "killed", tmp_path / "log"
    settings = SETTINGS | {"align_epochs": 30, "max_steps": 3, "eval_strategy": "epoch"}
    with started(log, "train.py", *flags(world, killed, **settings)) as process, one_thread():
        while not is_complete(killed / "alignment" / "checkpoint-6"):
            assert process.poll() is None, log.read_text()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (killed / "alignment" / "alignment.json").exists(), "it was killed too late"
        assert "--resume_from_checkpoint last" in how_to_go_on(str(killed))
        train.main(flags(world, whole, **settings))
        train.main(flags(world, killed, resume_from_checkpoint="last", **settings))
    for part in ("alignment", "."):
        one, other = (load_file(run / part / "model.safetensors") for run in (whole, killed))
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_is_meant_for_the_llm_does_not_reach_the_stage(world, tmp_path):
    settings = SETTINGS | {"align_epochs": 1, "max_steps": 2, "llm_input": "expected", "ctc_weight": 0.3}
    settings |= {"neftune_noise_alpha": 5.0, "gradient_checkpointing": True, "eval_delay": 50}
    train.main(flags(world, tmp_path / "run", **settings))
    assert logged(tmp_path / "run" / "alignment", "eval_wer")


def test_a_run_goes_on_with_the_tokens_that_its_head_began_with(world, tmp_path):
    run = tmp_path / "run"
    settings = {"ctc_weight": 0.3, "eval_strategy": "no", "save_strategy": "steps", "save_steps": 2}
    train.main(flags(world, run, max_steps=2, **settings))
    began = trained(run)["ctc_head.token_ids"]
    fewer = {"max_train_hours": 0.002, "resume_anyway": True, "resume_from_checkpoint": "last"}
    train.main(flags(world, run, max_steps=4, **settings, **fewer))
    assert torch.equal(trained(run)["ctc_head.token_ids"], began)


def test_a_finished_stage_cannot_be_given_other_settings(world, tmp_path):
    run = tmp_path / "run"
    settings = {"max_steps": 2, "eval_strategy": "no", "save_strategy": "steps", "save_steps": 1}
    train.main(flags(world, run, align_epochs=1, **settings))
    again = {"resume_anyway": True, "resume_from_checkpoint": run / "checkpoint-1"}
    with pytest.raises(SystemExit, match="is aligned"):
        train.main(flags(world, run, align_epochs=2, **settings, **again))


@pytest.mark.parametrize("by_part", [True, False])
def test_gradients_are_clipped_by_part_or_together(world, tmp_path, by_part, monkeypatch):
    limits = []
    clip = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(
        torch.nn.utils, "clip_grad_norm_", lambda p, *rest, **k: limits.append(1) or clip(p, *rest, **k)
    )
    settings = {"max_steps": 2, "eval_strategy": "no", "ctc_weight": 0.3, "clip_by_part": by_part}
    train.main(flags(world, tmp_path / "run", **settings))
    assert len(limits) == 2 * (3 if by_part else 1)  # projector, head and LoRA
