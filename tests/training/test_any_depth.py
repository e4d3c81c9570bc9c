"""A depth drawn for each training batch: by the seed, the same after a resume; any of them can be loaded."""

from collections import Counter

import pytest
import torch
from safetensors.torch import load_file
from tiny_run import flags, one_thread

import train
from modeling_slam import SlamAsrForConditionalGeneration
from modeling_slam.data.collator import CLIP_DIGEST, DRAW, SpeechCollator
from modeling_slam.data.hotwords import HotwordDraws
from modeling_slam.training import any_depth
from modeling_slam.training.any_depth import ANY_DEPTH, AnyDepthCollator

DEPTHS = ("--train_depths", "3", "2", "1")


def rows(number: int) -> list[dict]:
    return [{CLIP_DIGEST: f"{number}-{clip}", ANY_DEPTH: True} for clip in range(4)]


def test_depths_are_drawn_alike_by_seed_epoch_and_clips_alone(tiny_processor):
    readers = dict.fromkeys((3, 2, 1))
    collator = AnyDepthCollator(tiny_processor, by_depth=readers, seed=1)
    drawn = [collator.depth(rows(number)) for number in range(300)]
    assert drawn == [
        AnyDepthCollator(tiny_processor, by_depth=readers, seed=1).depth(rows(n)) for n in range(300)
    ]
    assert all(abs(count - 100) < 40 for count in Counter(drawn).values())
    collator.epoch.fill_(1)
    assert drawn != [collator.depth(rows(number)) for number in range(300)]
    other = AnyDepthCollator(tiny_processor, by_depth=readers, seed=2)
    assert drawn != [other.depth(rows(number)) for number in range(300)]


def test_hotwords_are_drawn_at_every_depth(tiny_processor):
    tiny_processor.instruction = "{hotwords} say:"
    draws = HotwordDraws(["a b", "c d", "e f", "g h"], [None] * 4, 4)
    clips = [row | {"text": draws.texts[n], DRAW: n} for n, row in enumerate(rows(0))]
    frames = {clip[CLIP_DIGEST]: torch.zeros(8, 16) for clip in clips}
    deep = AnyDepthCollator(tiny_processor, hotwords=draws, by_depth=dict.fromkeys((2, 1), frames))(clips)
    told = [draws.for_training(n, text) for n, text in enumerate(draws.texts)]
    expected = tiny_processor.text_features([8] * 4, draws.texts, hotwords=told)
    assert torch.equal(deep["input_ids"], expected["input_ids"])
    assert any(told)


@pytest.mark.e2e
def test_a_batch_has_the_frames_of_its_depth_and_validation_those_of_the_deepest(
    world, tmp_path, monkeypatch
):
    """In the alignment stage as in the training with the LLM, as the encoder cut to that depth gives them."""
    seen, plain = [], AnyDepthCollator.__call__

    def watched(self, clips):
        batch = plain(self, clips)
        depth = self.depth(clips) if ANY_DEPTH in clips[0] else 3
        sound = SpeechCollator(self.processor)(clips)
        seen.append((depth, ANY_DEPTH in clips[0], batch, sound))
        return batch

    monkeypatch.setattr(any_depth.AnyDepthCollator, "__call__", watched)
    settings = {
        "align_epochs": 1,
        "max_steps": 6,
        "save_strategy": "no",
        "eval_strategy": "steps",
        "eval_steps": 6,
    }
    train.main([*flags(world, tmp_path / "run", **settings, ctc_weight=0.1), *DEPTHS])
    assert {depth for depth, is_training, *_ in seen if is_training} == {3, 2, 1}
    assert not all(is_training for _, is_training, *_ in seen)
    for depth, _, batch, sound in seen[::4]:
        model = SlamAsrForConditionalGeneration.from_pretrained(tmp_path / "run", num_encoder_layers=depth)
        with torch.no_grad():
            frames, _ = model.encoder(sound["input_features"], sound["input_features_mask"])
        assert torch.allclose(batch["encoder_frames"], frames, atol=1e-5)
    assert not (tmp_path / "run/frames").exists()


@pytest.mark.e2e
@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_run_ends_with_the_same_weights(world, tmp_path, workers):
    run = tmp_path / "run"
    settings = {"eval_strategy": "no", "save_strategy": "steps", "save_steps": 13, "max_steps": 26}
    settings |= {"dataloader_num_workers": workers, "cache_features": tmp_path / "cache"}
    with one_thread():
        train.main([*flags(world, run, **settings), *DEPTHS])
        whole = load_file(run / "model.safetensors")
        (run / "model.safetensors").unlink()
        for path in (run / "checkpoint-26").iterdir():  # as if it had been killed before step 26
            path.unlink() if path.is_file() else None
        train.main([*flags(world, run, **settings, resume_from_checkpoint="last"), *DEPTHS])
    again = load_file(run / "model.safetensors")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


@pytest.mark.parametrize(
    ("changes", "depths", "message"),
    [
        ({}, "2 1", "--train_depths.*from 1 to 3.*that one among them"),
        ({}, "3 0", "--train_depths.*from 1 to 3"),
        ({}, "3 3", "--train_depths.*different"),
        ({"augment": "masking"}, "3 2", "--augment"),
        ({"encoder_lora_rank": 2}, "3 2", "--encoder_lora_rank"),
    ],
    ids=str,
)
def test_depths_that_cannot_be_drawn_are_refused(world, tmp_path, changes, depths, message):
    arguments = flags(world, tmp_path / "run", **changes | {"dataset": "nowhere"})
    with pytest.raises(SystemExit, match=message):
        train.main([*arguments, "--train_depths", *depths.split()])
