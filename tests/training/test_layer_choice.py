"""A choice of layers is a function and a row; what it does not use costs nothing."""

import itertools
import json

import pytest
import torch
from tiny_run import flags

import train
from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration
from modeling_slam.common.command_line import parse_arguments
from modeling_slam.training import layer_choice
from modeling_slam.training.arguments import LoraArguments, ModelArguments
from modeling_slam.training.assembly import build_config
from modeling_slam.training.layer_choice import LAYER_CHOICES, FullEncoder, LayerChoice, choose_layers


def evenly(encoder, clips, n):
    """From the lowest to the top one."""
    return [round(index * (encoder.num_layers - 1) / max(1, n - 1)) for index in range(n)]


def most_changing(encoder, clips, n):
    """The layers whose output differs most from their input, by angle, over the clips; in order."""
    depths = range(1, encoder.num_layers + 1)
    turned = torch.zeros(encoder.num_layers)
    for features, mask in clips:
        frames, real = encoder.module.at_depths(features, mask, list(depths))
        for layer, (below, above) in enumerate(itertools.pairwise(frames), start=1):
            turned[layer] += 1 - torch.cosine_similarity(below, above, dim=-1)[real].mean()
    return sorted(turned.topk(n).indices.tolist())


@pytest.fixture
def choices(monkeypatch) -> dict:
    """Another row each, registered as a part of the project would be."""
    monkeypatch.setitem(LAYER_CHOICES, "evenly", LayerChoice(evenly))
    monkeypatch.setitem(LAYER_CHOICES, "most_changing", LayerChoice(most_changing, needs_clips=True))
    return LAYER_CHOICES


@pytest.fixture
def never_read(monkeypatch):
    """Base weights of the encoder that nobody may read to choose layers."""

    def read(*_args, **_kwargs):
        raise AssertionError("the encoder's weights were read")

    monkeypatch.setattr(layer_choice, "lazy_tensors", read)


def run(world, directory, **settings):
    train.main(flags(world, directory, max_steps=1, eval_strategy="no", **settings))
    model = SlamAsrForConditionalGeneration.from_pretrained(directory)
    recorded = json.loads((directory / "run.json").read_text(encoding="utf-8"))
    return model, recorded["model"]


def assert_keeps(model, world, layers):
    """The kept layers are those of the Whisper, by every weight."""
    whole = SlamAsrForConditionalGeneration.from_base_models(
        build_config(ModelArguments(encoder=str(world.encoder), llm=str(world.llm)), LoraArguments())
    )
    assert len(model.encoder.layers) == len(layers)
    for kept, layer in zip(model.encoder.layers, layers, strict=True):
        expected = whole.encoder.layers[layer].state_dict()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in kept.state_dict().items())


def test_the_lowest_are_kept_unless_another_choice_is_named(world, tmp_path, never_read):
    model, recorded = run(world, tmp_path / "run", keep_layers=2)
    assert_keeps(model, world, [0, 1])
    assert recorded["layer_choice"] == "top_down"


def test_another_choice_is_a_row_and_reaches_the_model_through_the_flags(
    world, tmp_path, choices, never_read
):
    model, recorded = run(world, tmp_path / "run", keep_layers=2, layer_choice="evenly")
    assert_keeps(model, world, [0, 3])
    assert (recorded["layer_choice"], recorded["keep_layers"]) == ("evenly", 2)
    assert "layer_choice" not in model.config.to_dict()
    assert "evenly" not in (tmp_path / "run" / "config.json").read_text(encoding="utf-8")


def test_a_choice_by_clips_sees_the_training_data_and_the_whole_encoder(world, tmp_path, choices):
    model, recorded = run(world, tmp_path / "run", keep_layers=2, layer_choice="most_changing")
    kept = model.config.kept_encoder_layers
    assert 0 not in kept  # the choice cannot name it, so it was asked
    assert_keeps(model, world, kept)
    assert recorded["layer_choice"] == "most_changing"


def test_a_resumed_run_keeps_the_layers_that_were_chosen(world, tmp_path, choices, monkeypatch):
    settings = {"keep_layers": 2, "layer_choice": "evenly", "eval_strategy": "no", "num_train_epochs": 2}
    train.main(flags(world, tmp_path / "run", **settings))
    monkeypatch.setitem(LAYER_CHOICES, "evenly", LayerChoice(lambda encoder, clips, n: [1, 2]))
    checkpoint = str(tmp_path / "run" / "checkpoint-12")
    train.main(flags(world, tmp_path / "run", resume_from_checkpoint=checkpoint, **settings))
    assert SlamAsrConfig.from_pretrained(tmp_path / "run").kept_encoder_layers == [0, 3]


def test_the_layers_can_be_named_instead(world, tmp_path, never_read):
    directory = tmp_path / "named"
    argv = flags(world, directory, max_steps=1, eval_strategy="no")
    argv = [flag for flag in argv if "keep_layers" not in flag]
    train.main([*argv, "--kept_encoder_layers", "1", "3"])
    assert_keeps(SlamAsrForConditionalGeneration.from_pretrained(directory), world, [1, 3])


def test_layers_named_beside_another_choice_are_refused(world, choices):
    model = ModelArguments(
        encoder=str(world.encoder), llm=str(world.llm), layer_choice="evenly", kept_encoder_layers=[0, 1]
    )
    with pytest.raises(ValueError, match="`layer_choice` and `kept_encoder_layers`"):
        build_config(model, LoraArguments())


def test_the_flag_offers_the_rows_of_the_table(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(ModelArguments, description="", argv=["--layer_choice", "nonsense"])
    assert all(f"'{name}'" in capsys.readouterr().err for name in LAYER_CHOICES)


@pytest.mark.parametrize("kept", [[0], [1, 0], [0, 0], [0, 4], [0, 1, 2]])
def test_a_choice_that_does_not_return_n_layers_in_order_is_an_error(world, monkeypatch, kept):
    monkeypatch.setitem(LAYER_CHOICES, "wrong", LayerChoice(lambda encoder, clips, n: kept))
    encoder = FullEncoder(str(world.encoder), None, type("Config", (), {"num_hidden_layers": 4}))
    with pytest.raises(RuntimeError, match="was to keep 2 of 4 layers"):
        choose_layers("wrong", encoder, None, 2)
