"""Layers of the LLM are chosen by the texts of the training data, and the run file says how."""

import copy
import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_run import flags
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

import train
from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration
from modeling_slam.training import llm_layers
from modeling_slam.training.arguments import LoraArguments, ModelArguments
from modeling_slam.training.assembly import build_config
from modeling_slam.training.init_from import read_start, take_trained
from modeling_slam.training.layer_choice import Stack
from modeling_slam.training.llm_layers import angular_distances, text_batches

LAYERS, QUIET = 5, (1, 2)  # the layers that change their input least
INSTRUCTION = "say it:\n"
TEXTS = [("north east", None), ("up", None), ("left right south west", None)] * 4
SHORT = {"max_steps": 1, "eval_strategy": "no", "keep_layers": 2}


@pytest.fixture(scope="module")
def deep(world, tmp_path_factory):
    """The miniature world with an LLM of five layers, of which two in the middle do next to nothing."""
    directory = tmp_path_factory.mktemp("deep") / "qwen2"
    shutil.copytree(world.llm, directory)
    torch.manual_seed(0)
    llm = Qwen2ForCausalLM(Qwen2Config(**json.loads((world.llm / "config.json").read_text()) | {
        "num_hidden_layers": LAYERS, "layer_types": None}))  # fmt: skip
    with torch.no_grad():
        for number in QUIET:
            layer = llm.model.layers[number]
            for writer in (layer.self_attn.o_proj, layer.mlp.down_proj):
                writer.weight.mul_(0.01)
    llm.save_pretrained(directory)
    return world._replace(llm=directory)


def llm_and_tokenizer(world):
    return AutoModelForCausalLM.from_pretrained(world.llm).eval(), AutoTokenizer.from_pretrained(world.llm)


def dot(x: list[float], y: list[float]) -> float:
    return math.fsum(a * b for a, b in zip(x, y, strict=True))


def distances_by_hand(llm, tokenizer) -> list[list[float]]:
    """Text by text and token by token, in float64, by transformers' own hidden states."""
    llm = copy.deepcopy(llm).double()
    llm.base_model.norm = torch.nn.Identity()  # which transformers applies to the last of them
    sums, tokens = [[0.0] * (LAYERS + 1) for _ in range(LAYERS + 1)], 0
    for text, _ in TEXTS:
        prompt, own = (tokenizer(part, add_special_tokens=False).input_ids for part in (INSTRUCTION, text))
        with torch.no_grad():
            states = llm(torch.tensor([prompt + own]), output_hidden_states=True).hidden_states
        for place in range(len(prompt), len(prompt) + len(own)):
            vectors = [state[0, place].tolist() for state in states]
            for k, x in enumerate(vectors):
                for n, y in enumerate(vectors):
                    cosine = dot(x, y) / math.sqrt(dot(x, x) * dot(y, y))
                    sums[k][n] += math.acos(min(1.0, cosine)) / math.pi
            tokens += 1
    return [[value / tokens for value in row] for row in sums]


def test_angular_distances_are_those_by_hand_whatever_the_batches(deep, monkeypatch):
    llm, tokenizer = llm_and_tokenizer(deep)
    expected = torch.tensor(distances_by_hand(llm, tokenizer))
    for batch in (1, 8):
        monkeypatch.setattr(llm_layers, "BATCH", batch)
        found = angular_distances(llm.double(), text_batches(tokenizer, INSTRUCTION, TEXTS))
        assert torch.allclose(torch.tensor(found), expected, atol=1e-6)  # acos near 0 loses half the digits
    single = torch.tensor(angular_distances(llm.float(), text_batches(tokenizer, INSTRUCTION, TEXTS)))
    assert torch.allclose(single, expected, atol=1e-4)
    assert not torch.allclose(expected[:-1, :-1], expected[1:, 1:], atol=0.01)


def test_no_hook_stays_on_the_llm(deep):
    llm, tokenizer = llm_and_tokenizer(deep)
    angular_distances(llm, text_batches(tokenizer, INSTRUCTION, TEXTS))
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in llm.model.layers)
    with pytest.raises(ValueError, match="no token"):
        angular_distances(llm, text_batches(tokenizer, INSTRUCTION, [("", None)]))


@pytest.mark.parametrize(("name", "kept"), [("top_down", [0, 1, 2]), ("angular", [0, 3, 4])])
def test_the_choices_are_those_of_the_encoder(name, kept):
    distances = [[abs(k - n) * 0.1 for n in range(6)] for k in range(6)]
    distances[1][3] = distances[2][4] = 0.05
    choose = llm_layers.LLM_LAYER_CHOICES[name].choose
    chosen = choose(Stack(LAYERS), 3, distances)
    assert chosen.layers == kept
    if name == "angular":
        assert chosen.scores == {"block_dropped_from_layer": {0: 0.2, 1: 0.05, 2: 0.05, 3: 0.2}}
    assert choose(Stack(LAYERS), LAYERS, distances).layers == [0, 1, 2, 3, 4]


def run(world, directory, **settings):
    train.main(flags(world, directory, **SHORT | settings))
    return SlamAsrConfig.from_pretrained(directory), json.loads((directory / "run.json").read_text())


def test_a_run_drops_the_block_that_does_least_records_why_and_goes_on_with_it(deep, tmp_path, monkeypatch):
    settings = {"keep_llm_layers": 3, "llm_layer_choice": "angular", "max_steps": 2}
    settings |= {"save_strategy": "steps", "save_steps": 1, "layer_choice": "angular", "encoder_lora_rank": 2}
    config, recorded = run(deep, tmp_path / "run", **settings)
    assert config.kept_llm_layers == [0, 3, 4]
    of_encoder = recorded["calibration"]
    assert of_encoder["layer_choice"]["layers"] == config.kept_encoder_layers
    chosen = recorded["llm_layers"]
    assert (chosen["choice"], chosen["kept"], chosen["texts"]) == ("angular", [0, 3, 4], 48)
    assert min(chosen["scores"]["block_dropped_from_layer"].items(), key=lambda item: item[1])[0] == "1"
    assert len(chosen["angular_distances"]) == LAYERS + 1
    assert (recorded["model"]["keep_llm_layers"], recorded["model"]["llm_layer_choice"]) == (3, "angular")
    model = SlamAsrForConditionalGeneration.from_pretrained(tmp_path / "run")
    whole = AutoModelForCausalLM.from_pretrained(deep.llm)
    own = model.language_model.model.layers[1].mlp.up_proj.weight
    assert torch.equal(own, whole.model.layers[3].mlp.up_proj.weight)

    monkeypatch.setattr(llm_layers, "angular_distances", lambda *_: pytest.fail("it chose again"))
    checkpoint = str(tmp_path / "run" / "checkpoint-1")
    config, after = run(deep, tmp_path / "run", resume_from_checkpoint=checkpoint, **settings)
    assert (config.kept_llm_layers, after["llm_layers"]) == ([0, 3, 4], chosen)
    assert (config.kept_encoder_layers, after["calibration"]) == (
        of_encoder["layer_choice"]["layers"],
        of_encoder,
    )


def test_lora_of_another_depth_goes_to_the_layers_that_it_was_trained_on(deep, tmp_path):
    """From the whole LLM to layers 1, 3 and 4, and from these to 0 and 3."""

    def built(*kept, start=None):
        layers = {"kept_llm_layers": list(kept) or None}
        model_args = ModelArguments(encoder=str(deep.encoder), llm=str(deep.llm), keep_layers=2, **layers)
        config = build_config(model_args, LoraArguments(lora_rank=4))
        model = SlamAsrForConditionalGeneration.from_base_models(config)
        if start is not None:
            start = read_start(str(start), config)
            return model, start, take_trained(model, start)
        for name, weight in model.named_parameters():
            if ".lora_" in name:
                torch.nn.init.normal_(weight)
        return model

    def second_matrix(model, place):
        return model.language_model.model.layers[place].self_attn.q_proj.lora_B["default"].weight

    whole = built()
    whole.save_pretrained(tmp_path / "whole")
    cut, start, taken = built(1, 3, 4, start=tmp_path / "whole")
    for place, layer in enumerate((1, 3, 4)):
        assert torch.equal(second_matrix(cut, place), second_matrix(whole, layer))
    assert (len(taken), sum("lora_" in name for name in start.keys() - taken)) == (24, 16)
    cut.save_pretrained(tmp_path / "cut")
    again, _, taken = built(0, 3, start=tmp_path / "cut")
    assert torch.equal(second_matrix(again, 1), second_matrix(whole, 3))
    assert not second_matrix(again, 0).any()
    assert len(taken) == 8


def start_of(world, start=None, lora_rank=0, **settings):
    """A model that begins with the one at `start`, and what it took of it."""
    model_args = {name: settings.pop(name) for name in [*settings] if name.startswith("kept_")}
    model_args = ModelArguments(encoder=str(world.encoder), llm=str(world.llm), **model_args)
    config = build_config(model_args, LoraArguments(lora_rank=lora_rank, **settings))
    model = SlamAsrForConditionalGeneration.from_base_models(config)
    taken = [] if start is None else take_trained(model, read_start(str(start), config))
    return model, {(name.split(".layers.")[-1].split(".")[0]) for name in taken if ".layers." in name}


def test_a_trained_llm_goes_layer_by_layer_to_a_run_that_trains_the_same_layers(deep, tmp_path):
    theirs, _ = start_of(deep, train_llm=True, kept_llm_layers=[1, 3, 4])
    with torch.no_grad():
        for layer in theirs.language_model.model.layers:
            layer.mlp.up_proj.weight.normal_()
    theirs.save_pretrained(tmp_path / "theirs")
    ours, taken = start_of(deep, tmp_path / "theirs", train_llm=True, kept_llm_layers=[0, 4])
    assert taken == {"1"}
    base = AutoModelForCausalLM.from_pretrained(deep.llm).model.layers
    found = [layer.mlp.up_proj.weight for layer in ours.language_model.model.layers]
    assert torch.equal(found[0], base[0].mlp.up_proj.weight)
    assert torch.equal(found[1], theirs.language_model.model.layers[2].mlp.up_proj.weight)
    assert start_of(deep, tmp_path / "theirs", lora_rank=2, kept_llm_layers=[1, 3])[1] == set()


def test_lora_and_trained_layers_of_the_encoder_go_to_the_same_layers_of_the_base(deep, tmp_path):
    for name, trained in (("lora", {"encoder_lora_rank": 2}), ("own", {"train_encoder_layers": 2})):
        theirs, _ = start_of(deep, kept_encoder_layers=[0, 2], **trained)
        theirs.save_pretrained(tmp_path / name)
        assert start_of(deep, tmp_path / name, kept_encoder_layers=[1, 2], **trained)[1] == {"1"}
        assert start_of(deep, tmp_path / name, kept_encoder_layers=[0, 2], **trained)[1] == {"0", "1"}
        assert start_of(deep, tmp_path / name, kept_encoder_layers=[[0, 1], 2])[1] == set()
        moved = deep._replace(encoder=shutil.copytree(deep.encoder, tmp_path / f"{name}-moved"))
        assert start_of(moved, tmp_path / name, kept_encoder_layers=[1, 2], **trained)[1] == {"1"}
        file = moved.encoder / "model.safetensors"
        save_file({n: t + 0.1 for n, t in load_file(file).items()}, file, metadata={"format": "pt"})
        assert start_of(moved, tmp_path / name, kept_encoder_layers=[1, 2], **trained)[1] == set()


def test_the_lowest_are_kept_unless_told_otherwise_and_no_llm_is_read(world, monkeypatch):
    monkeypatch.setattr(llm_layers, "loaded", lambda *_: pytest.fail("the LLM was read"))
    model = ModelArguments(encoder=str(world.encoder), llm=str(world.llm), keep_llm_layers=1)
    assert build_config(model, LoraArguments()).kept_llm_layers == [0]
    assert AutoConfig.from_pretrained(world.llm).num_hidden_layers == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep_llm_layers": 3}, "`--keep_llm_layers`.*between 1 and 2"),
        ({"keep_llm_layers": 0}, "`--keep_llm_layers`.*between 1 and 2"),
        ({"keep_llm_layers": 1, "kept_llm_layers": [0]}, "`keep_llm_layers` and `kept_llm_layers`"),
        ({"llm_layer_choice": "angular", "kept_llm_layers": [0]}, "`llm_layer_choice` and `kept_llm_layers`"),
        ({"llm_layer_choice": "angular"}, "add `--keep_llm_layers`"),
    ],
)
def test_settings_that_do_not_say_what_is_kept_are_refused(world, settings, message):
    model = ModelArguments(encoder=str(world.encoder), llm=str(world.llm), **settings)
    with pytest.raises(ValueError, match=message):
        build_config(model, LoraArguments())
