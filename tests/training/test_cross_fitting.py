"""Cross-fitting: LoRA learns on clips as a head reads them that has not heard them."""

import copy
import shutil

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from test_alignment import SETTINGS, trained
from tiny_configs import tiny_lean_config
from tiny_run import flags, one_thread

import train
from modeling_slam import SlamAsrForConditionalGeneration
from modeling_slam.model.checkpoints import trained_parts
from modeling_slam.training.cross_fitting import CrossFitted, dealt, without_fold

FOLDS = SETTINGS | {
    "align_epochs": 1, "align_folds": 2, "freeze_projector_steps": 4, "llm_input": "expected", "max_steps": 6,
    "save_strategy": "steps", "save_steps": 2, "eval_strategy": "no", "save_total_limit": 5,
}  # fmt: skip


def test_each_clip_is_in_one_fold_and_not_among_the_others():
    clips = dealt(Dataset.from_dict({"id": list("abcdefg")}), 3)
    without = [without_fold(clips, fold)["id"] for fold in range(3)]
    assert [len(ids) for ids in without] == [4, 5, 5]
    assert all(sum(name in ids for ids in without) == 2 for name in "abcdefg")


@pytest.mark.parametrize("drop_blanks", [None, 0.3])
def test_a_clip_is_read_by_the_parts_of_its_fold(base_models, drop_blanks):
    config = tiny_lean_config(
        base_models, num_encoder_layers=2, ctc_vocab_size=4, llm_input="expected", drop_blanks=drop_blanks
    )
    weights = []
    for seed in range(2):
        torch.manual_seed(seed)
        parts = trained_parts(config)
        parts["ctc_head"].begin([3, 5, 9, 12], 1.0, 1.0)
        torch.nn.init.normal_(parts["ctc_head"].blank)
        weights.append(parts.state_dict())
    model = SlamAsrForConditionalGeneration.from_base_models(config, copy.deepcopy(weights[0])).eval()
    fitted = CrossFitted(config, weights).eval()
    batch = {
        "encoder_frames": torch.randn(3, 20, config.audio_config.hidden_size),
        "encoder_frames_mask": torch.ones(3, 20, dtype=torch.bool),
        "labels": torch.zeros(3, 1),
    }
    fold = torch.tensor([1, 0, 1])
    together = fitted.read(model, fold, batch)
    for clip, own in enumerate(fold.tolist()):
        model.load_state_dict(weights[own], strict=False)
        alone = model.get_audio_embeddings(encoder_frames=batch["encoder_frames"])
        assert torch.equal(together.embeddings[clip], alone.embeddings[clip])
        if drop_blanks is not None:
            assert torch.equal(together.is_kept[clip], alone.is_kept[clip])
    assert not any(parameter.requires_grad for parameter in fitted.parameters())


@pytest.mark.e2e
def test_lora_learns_on_folds_while_the_projector_waits_and_a_run_goes_on_as_it_was(world, tmp_path):
    whole = tmp_path / "whole"
    with one_thread():
        train.main(flags(world, whole, **FOLDS))
        aligned, early, late = trained(whole / "alignment"), trained(whole / "checkpoint-4"), trained(whole)
        folds = [trained(whole / "alignment" / f"fold-{fold}") for fold in range(2)]
        name = "projector.linear1.weight"
        assert torch.equal(aligned[name], early[name]), "the projector was frozen"
        assert not torch.equal(aligned[name], late[name])
        assert len({float(parts[name].sum()) for parts in (aligned, *folds)}) == 3

        for later in ("checkpoint-4", "checkpoint-6"):
            shutil.rmtree(whole / later)
        train.main(flags(world, whole, **FOLDS, resume_from_checkpoint=whole / "checkpoint-2"))
        again = trained(whole)
        assert all(torch.equal(again[name], late[name]) for name in late)
    plain = tmp_path / "plain"
    train.main(flags(world, plain, **FOLDS | {"align_folds": 1, "max_steps": 2}))
    first = [load_file(run / "checkpoint-2" / "model.safetensors") for run in (whole, plain)]
    assert any(not torch.equal(first[0][name], first[1][name]) for name in first[0] if "lora_" in name)


def test_folds_without_frozen_steps_are_refused(world, tmp_path):
    with pytest.raises(SystemExit, match=r"--align_folds 2.*--freeze_projector_steps"):
        train.main(flags(world, tmp_path / "run", align_epochs=1, align_folds=2))
