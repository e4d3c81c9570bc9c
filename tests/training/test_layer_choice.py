"""A choice of layers is a function and a row; what each keeps, by hand, and how it reaches the model."""

import itertools
import json

import numpy as np
import pytest
import torch
from tiny_run import flags

import train
from modeling_slam import SlamAsrForConditionalGeneration
from modeling_slam.common.command_line import parse_arguments
from modeling_slam.training import calibration
from modeling_slam.training.arguments import LoraArguments, ModelArguments
from modeling_slam.training.assembly import build_config
from modeling_slam.training.layer_choice import LAYER_CHOICES, Chosen, LayerChoice, Stack, choose_layers

WITHOUT_DATA = [name for name, choice in LAYER_CHOICES.items() if choice.needs == "nothing"]


class Numbers:
    """A calibration of given numbers."""

    def __init__(self, losses=None, **matrices):
        self.matrices, self.losses = matrices, losses

    def similarities(self):
        return {name: matrix.tolist() for name, matrix in self.matrices.items()}

    def losses_without(self, kept, candidates):
        return {layer: self.losses(kept, layer) for layer in candidates}


def random_matrix(layers, seed=0):
    return np.random.default_rng(seed).uniform(0.1, 0.9, size=(layers + 1, layers + 1))


@pytest.fixture
def never_read(monkeypatch):
    """Nobody may look at speech to choose layers."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("the calibration was asked for")

    monkeypatch.setattr(calibration, "draw", refuse)


def run(world, directory, **settings):
    train.main(flags(world, directory, max_steps=1, eval_strategy="no", **settings))
    model = SlamAsrForConditionalGeneration.from_pretrained(directory)
    return model, json.loads((directory / "run.json").read_text(encoding="utf-8"))


def assert_keeps(model, world, layers):
    """The kept layers are those of the Whisper, by every weight; merged ones the means."""
    whole = SlamAsrForConditionalGeneration.from_base_models(
        build_config(ModelArguments(encoder=str(world.encoder), llm=str(world.llm)), LoraArguments())
    )
    assert len(model.encoder.layers) == len(layers)
    for kept, layer in zip(model.encoder.layers, layers, strict=True):
        group = layer if isinstance(layer, list) else [layer]
        expected = [whole.encoder.layers[one].state_dict() for one in group]
        for name, tensor in kept.state_dict().items():
            mean = sum(state[name].double() for state in expected) / len(expected)
            torch.testing.assert_close(tensor.double(), mean, atol=1e-7, rtol=1e-6)


# ---------------------------------------------------------------------------------- what is kept


@pytest.mark.parametrize(
    ("name", "n", "kept"),
    [
        ("top_down", 4, [0, 1, 2, 3]),
        ("bottom_up", 4, [2, 3, 4, 5]),
        ("uniform", 4, [0, 2, 3, 5]),
        ("uniform", 3, [0, 3, 5]),
        ("uniform", 1, [0]),
        ("alternate", 5, [0, 1, 2, 3, 5]),
        ("alternate", 4, [0, 1, 3, 5]),
        ("alternate", 3, [1, 3, 5]),
        ("alternate", 2, [1, 5]),
        ("merged", 4, [0, [1, 2], 3, [4, 5]]),
        ("merged", 3, [[0, 1], [2, 3], [4, 5]]),
        ("merged", 1, [[0, 1, 2, 3, 4, 5]]),
    ],
)
def test_choices_without_data_keep_what_their_rule_says(name, n, kept):
    assert choose_layers(name, Stack(6), n).layers == kept


@pytest.mark.parametrize("name", LAYER_CHOICES)
@pytest.mark.parametrize("first_is_needed", [False, True])
def test_every_choice_keeps_every_number_of_layers_and_layer_0_where_all_need_it(name, first_is_needed):
    matrices = {key: random_matrix(7, 3) for key in ("angular", "cosine", "cka", "mutual_neighbours")}
    numbers = Numbers(lambda kept, layer: layer / 10, **matrices)
    for n in range(1, 8):
        chosen = choose_layers(name, Stack(7, first_is_needed, numbers), n)
        assert len(chosen.layers) == n
        first = chosen.layers[0]
        assert not first_is_needed or 0 in (first if isinstance(first, list) else [first])
    assert choose_layers(name, Stack(7, first_is_needed, numbers), 7).layers == [*range(7)]


@pytest.mark.parametrize(
    ("name", "measure", "sign"),
    [("angular", "angular", 1), ("cka", "cka", -1), ("mutual_neighbours", "mutual_neighbours", -1)],
)
@pytest.mark.parametrize("n", [1, 3, 5])
def test_the_block_whose_input_and_output_are_closest_is_dropped(name, measure, sign, n):
    matrix = random_matrix(6)
    chosen = choose_layers(name, Stack(6, calibration=Numbers(**{measure: matrix})), n)
    best, expected = None, None
    for first in range(6):
        for last in range(first, 6):  # drops first to last
            if last - first + 1 == 6 - n and (best is None or sign * matrix[first][last + 1] < best):
                best = sign * matrix[first][last + 1]
                expected = [layer for layer in range(6) if not first <= layer <= last]
    assert chosen.layers == expected
    scores = chosen.scores["block_dropped_from_layer"]
    assert min(scores.values()) == pytest.approx(best if sign == 1 else 1 + best)


def test_block_influence_drops_the_layers_that_turn_frames_least_neighbours_or_not():
    cosine = np.eye(6)
    for layer, value in enumerate([0.2, 0.99, 0.5, 0.6, 0.98]):
        cosine[layer][layer + 1] = value
    chosen = choose_layers("block_influence", Stack(5, calibration=Numbers(cosine=cosine)), 3)
    assert chosen.layers == [0, 2, 3]
    assert chosen.scores["influence"] == pytest.approx({0: 0.8, 1: 0.01, 2: 0.5, 3: 0.4, 4: 0.02})


def test_ctc_greedy_drops_one_layer_after_the_other_and_asks_anew_after_each():
    # Layer 3 costs least at first, and 1 least once it is gone, though 2 did cost less before.
    losses = {(0, 1, 2, 3): [5.0, 4.0, 3.0, 2.0], (0, 1, 2): [5.0, 3.0, 4.0]}
    numbers = Numbers(lambda kept, layer: losses[tuple(kept)][kept.index(layer)])
    chosen = choose_layers("ctc_greedy", Stack(4, calibration=numbers), 2)
    assert chosen.layers == [0, 2]
    assert [step["dropped"] for step in chosen.scores["steps"]] == [3, 1]
    assert chosen.scores["steps"][0]["loss_without_layer"] == {0: 5.0, 1: 4.0, 2: 3.0, 3: 2.0}


@pytest.mark.parametrize("kept", [[0], [1, 0], [0, 0], [0, 4], [0, 1, 2], [[0, 1], [1, 2]]])
def test_a_choice_that_does_not_return_n_layers_in_order_is_an_error(monkeypatch, kept):
    monkeypatch.setitem(LAYER_CHOICES, "wrong", LayerChoice(lambda stack, n: Chosen(kept)))
    with pytest.raises(RuntimeError, match="was to keep 2 of 4 layers"):
        choose_layers("wrong", Stack(4), 2)


# ---------------------------------------------------------------------------------- through the flags


def test_the_lowest_are_kept_unless_another_choice_is_named(world, tmp_path, never_read):
    model, recorded = run(world, tmp_path / "run", keep_layers=2)
    assert_keeps(model, world, [0, 1])
    assert recorded["model"]["layer_choice"] == "top_down"
    assert "calibration" not in recorded


def test_another_choice_is_a_row_and_reaches_the_model_through_the_flags(world, tmp_path, never_read):
    model, recorded = run(world, tmp_path / "run", keep_layers=2, layer_choice="uniform")
    assert_keeps(model, world, [0, 3])
    assert (recorded["model"]["layer_choice"], recorded["model"]["keep_layers"]) == ("uniform", 2)
    assert "layer_choice" not in model.config.to_dict()
    assert "uniform" not in (tmp_path / "run" / "config.json").read_text(encoding="utf-8")


def test_merged_layers_are_made_anew_from_the_base_model_and_not_stored(world, tmp_path, never_read):
    cache = str(tmp_path / "cache")
    model, _ = run(world, tmp_path / "run", keep_layers=2, layer_choice="merged", cache_features=cache)
    assert_keeps(model, world, [[0, 1], [2, 3]])
    assert model.config.kept_encoder_layers == [[0, 1], [2, 3]]
    assert not any("encoder" in name for name in stored_names(tmp_path / "run"))
    model.save_pretrained(tmp_path / "again")  # still those of the base model
    assert not any("encoder" in name for name in stored_names(tmp_path / "again"))
    fewer = SlamAsrForConditionalGeneration.from_pretrained(tmp_path / "again", num_encoder_layers=1)
    assert_keeps(fewer, world, [[0, 1]])


def stored_names(directory):
    from safetensors import safe_open

    with safe_open(directory / "model.safetensors", framework="pt") as file:
        return [*file.keys()]


def test_the_layers_can_be_named_instead(world, tmp_path, never_read):
    directory = tmp_path / "named"
    argv = flags(world, directory, max_steps=1, eval_strategy="no")
    argv = [flag for flag in argv if "keep_layers" not in flag]
    train.main([*argv, "--kept_encoder_layers", "1", "3"])
    assert_keeps(SlamAsrForConditionalGeneration.from_pretrained(directory), world, [1, 3])


def test_layers_named_beside_another_choice_are_refused(world):
    model = ModelArguments(
        encoder=str(world.encoder), llm=str(world.llm), layer_choice="uniform", kept_encoder_layers=[0, 1]
    )
    with pytest.raises(ValueError, match="`layer_choice` and `kept_encoder_layers`"):
        build_config(model, LoraArguments())


def test_a_choice_by_the_ctc_head_needs_a_projector_that_keeps_time(world):
    model = ModelArguments(
        encoder=str(world.encoder), llm=str(world.llm), layer_choice="ctc_greedy", projector_type="qformer"
    )
    with pytest.raises(ValueError, match="`--layer_choice ctc_greedy` reads a CTC head"):
        build_config(model, LoraArguments())


def test_the_flag_offers_the_rows_of_the_table(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(ModelArguments, description="", argv=["--layer_choice", "nonsense"])
    shown = capsys.readouterr().err
    assert all(f"'{name}'" in shown for name in LAYER_CHOICES)
    assert set(WITHOUT_DATA) == {"top_down", "bottom_up", "uniform", "alternate", "merged"}


def test_groups_of_a_merge_are_neighbours_and_cover_all_layers():
    for layers, n in itertools.product([4, 6, 24, 32], [1, 2, 3, 4]):
        kept = choose_layers("merged", Stack(layers), n).layers
        sizes = [len(group) if isinstance(group, list) else 1 for group in kept]
        assert sum(sizes) == layers
        assert max(sizes) - min(sizes) <= 1
