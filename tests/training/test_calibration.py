"""Choices by speech and the refitted LayerNorm: drawn with a seed, computed once, recorded."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_layer_choice import assert_keeps
from tiny_configs import tiny_waveform_config
from tiny_run import flags
from transformers import AutoModel, Trainer, Wav2Vec2FeatureExtractor

import train
from modeling_slam import SlamAsrForConditionalGeneration
from modeling_slam.data import DataArguments, load_speech
from modeling_slam.data.text import in_style
from modeling_slam.training import calibration
from modeling_slam.training.alignment import AlignmentArguments
from modeling_slam.training.arguments import LoraArguments, ModelArguments, RunArguments
from modeling_slam.training.assembly import build_config, build_processor
from modeling_slam.training.calibration import ClipCalibration, calibrate, draw
from modeling_slam.training.feature_cache import CacheArguments, Encoding, FeatureCache
from modeling_slam.training.layer_choice import choose_layers
from modeling_slam.training.layer_similarity import layer_similarities, output_moments, pruned_encoder


@pytest.fixture
def waveform(world, tmp_path):
    """The world's speech and LLM, and a random waveform encoder of three layers on disk."""

    def make(kind):
        torch.manual_seed(0)
        directory = tmp_path / kind
        AutoModel.from_config(tiny_waveform_config(kind)).save_pretrained(directory)
        Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True).save_pretrained(directory)
        return world._replace(encoder=directory)

    return make


def calibration_of(world, output_dir, seed=0, **settings):
    """As train.py makes it, of a projector that can have a CTC head."""
    model = ModelArguments(
        encoder=str(world.encoder),
        llm=str(world.llm),
        calibration_seed=seed,
        projector_hidden_size=32,
        projector_stack=2,
        **settings,
    )
    config = build_config(model, LoraArguments(lora_rank=0))
    train_clips, _ = load_speech(DataArguments(str(world.dataset)), "train")
    train_clips = in_style(train_clips, "normalized")
    train_clips = train_clips.add_column("length", list(train_clips["duration"]))
    run_args = RunArguments(
        output_dir=str(output_dir), use_cpu=True, dataloader_num_workers=0, disable_tqdm=True
    )
    arguments = (model, AlignmentArguments(align_epochs=1), CacheArguments(), run_args, config)
    return ClipCalibration(*arguments, build_processor(model, config), train_clips)


def test_clips_are_drawn_with_a_seed_until_they_last_long_enough_and_leave_most_to_align_on():
    seconds = [2.0] * 100
    assert draw(seconds, 20, 0) == draw(seconds, 20, 0) != draw(seconds, 20, 1)
    assert len(draw(seconds, 20, 0)) == len(set(draw(seconds, 20, 0))) == 10
    assert len(draw(seconds, 21, 0)) == 11
    assert len(draw(seconds, 3600, 0)) == 20
    assert len(draw([1.0], 3600, 0)) == 1


@pytest.mark.e2e
def test_a_choice_by_speech_and_a_refitted_norm_reach_model_and_run_file_and_a_resumed_run_keeps_them(
    world, tmp_path, monkeypatch
):
    settings = {
        "keep_layers": 2, "layer_choice": "angular", "final_layer_norm": "refitted", "eval_strategy": "no",
        "num_train_epochs": 2,
    }  # fmt: skip
    train.main(flags(world, tmp_path / "run", **settings))
    model = SlamAsrForConditionalGeneration.from_pretrained(tmp_path / "run")
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())["calibration"]
    found = calibration_of(world, tmp_path / "other")
    by_hand = choose_layers("angular", found.stack, 2)
    assert recorded["clips"] == 9  # a fifth of 48
    assert recorded["layer_choice"] == json.loads(json.dumps({"name": "angular", **vars(by_hand)}))
    assert_keeps(model, world, by_hand.layers)
    assert_moments_of_full_depth(model, found)

    monkeypatch.setattr(calibration, "draw", None)  # cannot be called
    checkpoint = str(tmp_path / "run" / "checkpoint-12")
    train.main(flags(world, tmp_path / "run", resume_from_checkpoint=checkpoint, **settings))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["calibration"] == recorded
    resumed = SlamAsrForConditionalGeneration.from_pretrained(tmp_path / "run")
    assert resumed.config.kept_encoder_layers == by_hand.layers
    assert torch.equal(resumed.projector.frame_norm.weight, model.projector.frame_norm.weight)


def assert_moments_of_full_depth(model, found):
    """The frames of the calibration's clips have them behind the refitted norm."""

    def normed(*clip):
        frames, mask = model.encoder(*clip)
        return model.projector.frame_norm(frames), mask

    wanted = output_moments(pruned_encoder(found.config, [0, 1, 2, 3]), found.features())
    for one, other in zip(output_moments(normed, found.features()), wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["angular", "block_influence", "cka", "mutual_neighbours"])
def test_the_config_gets_what_a_choice_keeps_and_the_record_its_scores(world, tmp_path, name):
    found = calibration_of(world, tmp_path, keep_layers=2, layer_choice=name)
    assert found.config.kept_encoder_layers == [0, 1]  # until there are clips
    found.config.trained_encoder_layers = [1]  # the topmost
    settings = ModelArguments(layer_choice=name)
    fitted, record = calibrate(found, settings, found.config)
    chosen = choose_layers(name, found.stack, 2)
    assert (fitted, found.config.kept_encoder_layers) == ({}, chosen.layers)
    assert found.config.trained_encoder_layers == chosen.layers[-1:]
    assert record["layer_choice"] == {"name": name, "layers": chosen.layers, "scores": chosen.scores}
    assert chosen.scores
    assert record["computed_in_seconds"]["similarities"] >= 0


def test_similarities_are_computed_once_for_the_runs_that_share_a_directory(world, tmp_path, monkeypatch):
    first = calibration_of(world, tmp_path).similarities()
    monkeypatch.setattr(calibration, "layer_similarities", None)  # cannot be called
    assert calibration_of(world, tmp_path, keep_layers=1).similarities() == first
    with pytest.raises(TypeError):  # of other clips
        calibration_of(world, tmp_path, seed=1).similarities()


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wavlm"])
def test_waveform_encoders_go_through_every_choice_by_speech(waveform, tmp_path, kind):
    world = waveform(kind)
    stack = calibration_of(world, tmp_path / "run").stack
    assert stack.first_is_needed == (kind == "wavlm")
    for name in (
        "angular",
        "block_influence",
        "cka",
        "mutual_neighbours",
        "uniform",
        "alternate",
        "bottom_up",
    ):
        kept = choose_layers(name, stack, 2).layers
        config = build_config(
            ModelArguments(encoder=str(world.encoder), llm=str(world.llm), kept_encoder_layers=kept),
            LoraArguments(lora_rank=0),
        )
        assert len(pruned_encoder(config, kept).layers) == 2


@pytest.mark.parametrize("kind", ["wav2vec2", "wavlm"])
def test_layers_of_a_waveform_encoder_can_be_merged(waveform, kind):
    world = waveform(kind)
    model = ModelArguments(
        encoder=str(world.encoder), llm=str(world.llm), layer_choice="merged", keep_layers=2
    )
    config = build_config(model, LoraArguments(lora_rank=0))
    merged = SlamAsrForConditionalGeneration.from_base_models(config).encoder.layers
    whole = AutoModel.from_pretrained(world.encoder).encoder.layers
    assert config.kept_encoder_layers == [0, [1, 2]]
    for name, tensor in merged[1].state_dict().items():
        parts = [layer.state_dict()[name] for layer in whole[1:]]
        torch.testing.assert_close(tensor, (parts[0] + parts[1]) / 2)


@pytest.mark.e2e
@pytest.mark.parametrize("kind", ["whisper", "wavlm"])
def test_ctc_greedy_drops_the_layer_whose_removal_costs_least_loss(world, waveform, tmp_path, kind):
    world = world if kind == "whisper" else waveform(kind)
    found = calibration_of(world, tmp_path / "run")
    layers = found.config.audio_config.num_hidden_layers
    # Of a start with other settings, which was stopped when it had aligned.
    stale = tmp_path / "run" / "calibration" / "-".join(map(str, range(layers))) / "alignment"
    stale.mkdir(parents=True)
    (stale / "alignment.json").write_text("{}")
    chosen = choose_layers("ctc_greedy", found.stack, layers - 1)
    (step,) = chosen.scores["steps"]
    losses = step["loss_without_layer"]
    assert sorted(losses) == [*range(kind == "wavlm", layers)]
    assert all(np.isfinite(value) and value > 0 for value in losses.values())
    assert step["dropped"] == min(losses, key=losses.get)
    assert [*(tmp_path / "run" / "calibration").glob("ctc-*.json")]
    assert not [*(tmp_path / "run" / "calibration").glob("0-*")]  # the alignment's own files are gone
    again = calibration_of(world, tmp_path / "run")
    assert choose_layers("ctc_greedy", again.stack, layers - 1) == chosen


def test_losses_of_other_texts_or_another_training_are_not_taken_for_this_runs(world, tmp_path):
    found = calibration_of(world, tmp_path)
    files = []
    for change in ("none", "text", "rate"):
        if change == "text":
            texts = [*found.dataset["text"]]
            found.dataset = found.dataset.remove_columns("text").add_column("text", [*texts[:-1], "other"])
        if change == "rate":
            found.run_args.weight_decay = 0.5
        vars(found).pop("_text_settings", None)
        vars(found)["_removal"] = SimpleNamespace(
            losses_without=lambda kept, candidates: {0: 1.0},
            align_args=found.align_args,
            aligned_on=found.clips,
        )
        found.losses_without([0, 1], [0])
        files.append({*(tmp_path / "calibration").glob("ctc-*.json")})
    assert [len(some) for some in files] == [1, 2, 3]


@pytest.mark.parametrize("way", ["as_is", "refitted", "trained"])
def test_the_final_layer_norm_is_stored_with_the_projector_and_frozen_unless_it_is_trained(
    world, tmp_path, way
):
    settings = ModelArguments(encoder=str(world.encoder), llm=str(world.llm), final_layer_norm=way)
    model = SlamAsrForConditionalGeneration.from_base_models(
        build_config(settings, LoraArguments(lora_rank=0))
    )
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    names = {"projector.frame_norm.weight", "projector.frame_norm.bias"}
    assert names & trained == (names if way == "trained" else set())
    decayed = Trainer.get_decay_parameter_names(None, model)  # ty: ignore[invalid-argument-type]
    assert not names & {*decayed}
    if way == "as_is":
        return
    torch.nn.init.normal_(model.projector.frame_norm.weight)
    model.save_pretrained(tmp_path / "saved")
    loaded = SlamAsrForConditionalGeneration.from_pretrained(tmp_path / "saved")
    assert torch.equal(loaded.projector.frame_norm.weight, model.projector.frame_norm.weight)


def test_the_cache_of_frames_is_the_same_whatever_becomes_of_the_layer_norm(world, tmp_path):
    spaces = []
    for way in ("as_is", "trained", "refitted"):
        found = calibration_of(world, tmp_path, keep_layers=2, final_layer_norm=way)
        arguments = CacheArguments(cache_features=str(tmp_path))
        spaces.append(
            FeatureCache(arguments, found.config, found.processor, Encoding(torch.float32, False)).spaces
        )
    assert spaces[0] == spaces[1] == spaces[2]


def test_similarities_do_not_depend_on_the_layers_that_the_run_keeps(world, tmp_path):
    one = calibration_of(world, tmp_path / "one", keep_layers=1).similarities()
    found = calibration_of(world, tmp_path / "all")
    assert one == layer_similarities(pruned_encoder(found.config, [0, 1, 2, 3]), found.features())
