"""What happens to a training clip follows from seed, epoch and row; validation clips stay as they are."""

import dataclasses
import shutil
from collections import Counter
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_run import flags, one_thread
from torch.utils.data import DataLoader
from transformers import TrainerState

import train
from modeling_slam.data import DataArguments, load_speech
from modeling_slam.data.collator import CLIP_IDS, SpeechCollator
from modeling_slam.model.audio_io import load_audio
from modeling_slam.model.audio_lengths import SAMPLING_RATE
from modeling_slam.model.ctc_head import CtcVocabulary, used_token_ids
from modeling_slam.training.arguments import RunArguments
from modeling_slam.training.augmentation import (
    AUGMENTATIONS,
    DRAW,
    AugmentationArguments,
    AugmentingCollator,
    TellsEpoch,
    augment,
)
from modeling_slam.training.trainer import prompts_of


@pytest.fixture(scope="module")
def clips(world) -> datasets.Dataset:
    return load_speech(DataArguments(dataset=str(world.dataset)), "train")[0]


@pytest.fixture
def prepared(clips, tiny_processor, tmp_path):
    """`prepared(*groups, seed=42)`: the collator and the training clips, as a run has them."""

    def prepare(*groups: str, seed: int = 42) -> tuple[AugmentingCollator, datasets.Dataset]:
        run_args = RunArguments(output_dir=str(tmp_path), use_cpu=True, seed=seed)
        vocabulary = CtcVocabulary(
            tiny_processor.tokenizer, used_token_ids(tiny_processor.tokenizer, clips["text"])
        )
        plain = SpeechCollator(tiny_processor, vocabulary=vocabulary)
        collator, numbered, _ = augment(AugmentationArguments(list(groups)), plain, clips, run_args)
        return collator, numbered

    return prepare


def heard_in(collator: AugmentingCollator, clips: datasets.Dataset, epochs: int) -> list[dict]:
    """Every clip as it is heard in each epoch."""
    rows = []
    for epoch in range(epochs):
        collator.epoch.fill_(epoch)
        rows += [collator.heard(row) for row in clips]
    return rows


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    names = one.keys() - {CLIP_IDS}
    same = one[CLIP_IDS] == other[CLIP_IDS] and one.keys() == other.keys()
    return same and all(torch.equal(one[name], other[name]) for name in names)


@pytest.mark.parametrize("group", ["speed", "noise", "edges"])
def test_a_clip_is_heard_as_seed_epoch_and_row_say(prepared, group):
    collator, clips = prepared(group)
    forth = heard_in(collator, clips, 2)
    np.random.seed(5)
    back = [collator.heard(row) for row in reversed(list(clips))]
    assert all(
        np.array_equal(one["audio"], other["audio"])
        for one, other in zip(forth[48:], reversed(back), strict=True)
    )
    changed = sum(
        not np.array_equal(one["audio"], two["audio"])
        for one, two in zip(forth[:48], forth[48:], strict=True)
    )
    assert changed > 20
    other_seed = heard_in(*prepared(group, seed=43), epochs=1)
    assert any(
        not np.array_equal(one["audio"], two["audio"])
        for one, two in zip(forth[:48], other_seed, strict=True)
    )


def test_a_group_more_changes_no_draw_of_the_others(prepared):
    alone, together = (
        [row["text"] for row in heard_in(*prepared(*groups), epochs=3)]
        for groups in (("edges",), ("speed", "noise", "edges", "masking"))
    )
    assert alone == together


def test_validation_clips_stay_as_they_are(prepared, clips):
    collator, _ = prepared(*AUGMENTATIONS)
    plain = SpeechCollator(collator.processor, vocabulary=collator.vocabulary)
    rows = [clips[0], clips[1]]
    assert equal(collator(rows), plain(rows))


def test_without_augmentation_nothing_is_put_on(prepared, clips):
    collator, same = prepared("none")
    assert type(collator) is SpeechCollator
    assert same is clips


@pytest.mark.parametrize("groups", [(), ("edges",)])
def test_hotwords_are_drawn_where_the_instruction_has_a_place_for_them(prepared, groups):
    """Of what is said in the clip as it is heard; the augmentation stays the same."""
    plain, _ = prepared(*(groups or ["none"]))
    assert plain.hotwords is None
    plain.processor.instruction = "words {hotwords} say:\n"
    collator, clips = prepared(*(groups or ["none"]))
    heard = [collator.heard(row) if groups else row for row in clips]
    batch, told = collator(list(clips)), set()
    for place, (row, ids) in enumerate(zip(heard, batch["input_ids"], strict=True)):
        words = collator.hotwords.for_training(place, row["text"])
        prompt = collator.processor.tokenizer.decode(ids, skip_special_tokens=True)
        expected = " ".join(["words", *words, "say:"]).split()  # its tokenizer knows no comma
        assert prompt.split()[: len(expected)] == expected
        told.add(tuple(words))
    assert len(told) > 10


def test_workers_that_live_on_give_the_batches_of_this_process(prepared):
    collator, clips = prepared(*AUGMENTATIONS)
    epochs = {}
    for workers in (0, 2):
        loader = DataLoader(
            clips, 8, collate_fn=collator, num_workers=workers, persistent_workers=workers > 0
        )
        epochs[workers] = []
        for epoch in (0.0, 1.0, 2.25):
            TellsEpoch(collator.epoch).on_epoch_begin(None, TrainerState(epoch=epoch), None)
            epochs[workers].append(list(loader))
    for here, there in zip(epochs[0], epochs[2], strict=True):
        assert all(equal(one, other) for one, other in zip(here, there, strict=True))
    assert not equal(epochs[2][0][0], epochs[2][1][0])


def test_clips_stay_within_the_lengths_of_data_and_encoder(prepared):
    collator, clips = prepared("speed", "noise", "edges")
    collator.processor.audio_geometry = dataclasses.replace(
        collator.processor.audio_geometry, max_seconds=max(clips["duration"]) + 0.2
    )
    collator = dataclasses.replace(collator)
    seconds = [len(row["audio"]) / SAMPLING_RATE for row in heard_in(collator, clips, 10)]
    assert min(seconds) >= collator.shortest - 1 / SAMPLING_RATE
    assert max(seconds) <= collator.longest
    assert max(seconds) > collator.longest - 0.1


@pytest.mark.e2e
def test_some_clips_are_two_and_some_are_nothing_but_noise(prepared):
    collator, clips = prepared("edges")
    texts = {row["text"] for row in clips}
    pairs = {f"{one} {other}" for one in texts for other in texts}
    rows = heard_in(collator, clips, 20)
    kinds = Counter("empty" if not row["text"] else "one" if row["text"] in texts else "two" for row in rows)
    assert all(row["text"] in pairs for row in rows if row["text"] and row["text"] not in texts)
    assert kinds["empty"] / len(rows) == pytest.approx(0.03, abs=0.015)
    assert kinds["two"] / len(rows) == pytest.approx(0.15, abs=0.04)


def test_a_clip_of_two_is_of_one_language(prepared):
    collator, clips = prepared("edges")
    collator.languages = ["en" if row % 3 else "nl" for row in range(len(clips))]
    texts = [row["text"] for row in clips]
    languages = {
        text: {collator.languages[n] for n, one in enumerate(texts) if one == text} for text in texts
    }
    pairs = {f"{one} {two}" for one in texts for two in texts if languages[one] & languages[two]}
    joined = [row["text"] for row in heard_in(collator, clips, 20) if row["text"] not in {"", *texts}]
    assert joined
    assert pairs.issuperset(joined)
    assert len(pairs) < len(set(texts)) ** 2


def test_a_clip_of_two_holds_the_sound_of_both(prepared, clips):
    collator, numbered = prepared("edges")
    sounds = {row["text"]: load_audio(row["audio"]) for row in clips}
    generator = collator.generator(0, "edges")
    first = numbered[0]
    for _ in range(200):
        wave, text = collator.joined(sounds[first["text"]], first["text"], 0, generator)
        if text != first["text"]:
            second = sounds[text.removeprefix(first["text"]).strip()]
            assert np.array_equal(wave[: len(sounds[first["text"]])], sounds[first["text"]])
            assert np.array_equal(wave[-len(second) :], second)
            return
    pytest.fail("no clip was joined")


def test_a_clip_without_words_teaches_end_of_text_and_blanks(prepared, tiny_model, two_clips):
    collator, _ = prepared("edges")
    processor = collator.processor
    batch = SpeechCollator(processor, vocabulary=collator.vocabulary)(
        [{"audio": wave, "text": text} for wave, text in zip(two_clips, ("", "no"), strict=True)]
    )
    assert next(row[row != -100].tolist() for row in batch["labels"]) == [processor.eos_token_id]
    assert (batch["ctc_targets"][0] == -100).all()
    prompts = prompts_of(batch, processor.pad_token_id)
    expected = processor(two_clips)
    assert all(torch.equal(prompts[name], expected[name]) for name in expected)
    del batch["ctc_targets"]
    assert torch.isfinite(tiny_model(**batch).loss)


@pytest.mark.parametrize("kind", ["encoder_frames", "mel", "samples"])
def test_masks_hide_a_tenth_of_the_time_and_bands_of_mel(prepared, kind):
    collator, _ = prepared("masking")
    length, width = 3000, {"encoder_frames": 16, "mel": 80, "samples": 1}[kind]
    if kind == "samples":
        length *= 160
        collator.processor.audio_geometry = dataclasses.replace(collator.processor.audio_geometry, hop=1)
    whole = torch.ones(4, length, width)
    name = "encoder_frames" if kind == "encoder_frames" else "input_features"
    features = {"encoder_frames": whole, "mel": whole.transpose(1, 2), "samples": whole[..., 0]}[kind]
    mask = torch.ones(4, length, dtype=torch.bool)
    mask[3, length // 2 :] = False
    collator.mask({name: features, f"{name}_mask": mask}, [0, 1, 2, 3])
    time = (whole == 0).all(dim=2).float()
    assert (time[:3].mean(dim=1) - 0.1).abs().max() < 0.05
    assert time[3, length // 2 :].sum() == 0
    bands = (whole == 0).all(dim=1).float().mean(dim=1)
    assert ((bands > 0).sum() >= 3) == (kind == "mel")
    assert bands.max() <= 0.3


def test_what_changes_the_sound_and_a_feature_cache_are_refused_by_name(world, tmp_path):
    argv = [
        *flags(world, tmp_path / "run", cache_features=tmp_path / "cache"),
        "--augment",
        "speed",
        "masking",
    ]
    with pytest.raises(SystemExit, match=r"--cache_features.*--augment speed`.*leave one of them out"):
        train.main(argv)
    AugmentationArguments(["masking"]).check_cache("cache")
    with pytest.raises(ValueError, match="none or some of"):
        AugmentationArguments(["none", "speed"])


@pytest.mark.e2e
def test_a_resumed_run_ends_with_the_weights_of_one_that_was_not_stopped(world, tmp_path):
    """In the middle of the second epoch of 12 steps, with another number of workers, hotwords among it."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    settings = {"max_steps": 26, "eval_strategy": "no", "save_strategy": "steps", "save_steps": 15}
    settings |= {"align_epochs": 2, "ctc_weight": 0.3, "instruction": "{hotwords} say:"}
    with one_thread():
        train.main([*flags(world, whole, **settings), "--augment", *AUGMENTATIONS])
        shutil.copytree(whole, resumed)
        shutil.rmtree(resumed / "checkpoint-26")
        (resumed / "model.safetensors").unlink()
        settings |= {"resume_from_checkpoint": "last", "dataloader_num_workers": 2}
        train.main([*flags(world, resumed, **settings), "--augment", *AUGMENTATIONS])
    one, other = (load_file(run / "model.safetensors") for run in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    start = load_file(whole / "checkpoint-15" / "model.safetensors")
    assert any(not torch.equal(one[name], start[name]) for name in one)


@pytest.mark.e2e
def test_alignment_and_validation_read_the_cache_and_training_hears_the_changed_clips(world, tmp_path):
    seen = []

    class Watching(train.SlamTrainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            seen.append("frames" if "encoder_frames" in inputs else "sound")
            return super().compute_loss(model, inputs, *args, **kwargs)

        def prediction_step(self, model, inputs, *args, **kwargs):
            seen.append("validation of frames" if "encoder_frames" in inputs else "validation of sound")
            return super().prediction_step(model, inputs, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "SlamTrainer", Watching)
        settings = {"align_epochs": 1, "max_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
        settings |= {"save_strategy": "steps", "save_steps": 2}
        train.main([*flags(world, tmp_path / "run", **settings), "--augment", "noise", "masking"])
    assert set(seen) == {"sound", "validation of frames"}
    assert DRAW not in load_speech(DataArguments(dataset=str(world.dataset)), "validation")[0].column_names


@pytest.mark.e2e
def test_the_alignment_hears_the_changed_clips_where_that_is_asked_for(world, tmp_path):
    settings = {"align_epochs": 2, "max_steps": 1, "eval_strategy": "no"}

    def aligned(name: str, *augment: str, **others) -> dict[str, torch.Tensor]:
        train.main([*flags(world, tmp_path / name, **settings | others), *augment])
        return load_file(tmp_path / name / "alignment" / "model.safetensors")

    with one_thread():
        plain = aligned("plain")
        deaf = aligned("deaf", "--augment", "speed")
        heard = aligned("heard", "--augment", "speed", align_augmented=True)
        workers = aligned("workers", "--augment", "speed", align_augmented=True, dataloader_num_workers=2)
    moved = [name for name in plain if not torch.equal(plain[name], heard[name])]
    assert {name.partition(".")[0] for name in moved} == {"projector", "ctc_head"}
    assert all(torch.equal(plain[name], deaf[name]) for name in plain)
    assert all(torch.equal(workers[name], heard[name]) for name in plain)
    with pytest.raises(SystemExit, match=r"`--align_augmented` is for what `--augment speed noise edges`"):
        aligned("nothing", align_augmented=True)
