"""Every projector of the table: as many tokens as promised, and nothing from padding."""

import pytest
import torch
from tiny_configs import tiny_audio_config, tiny_text_config

from modeling_slam import SlamAsrConfig
from modeling_slam.model.projectors import PROJECTORS


def build(name: str, tail: str = "pad", **settings):
    torch.manual_seed(0)
    config = SlamAsrConfig(
        **settings,
        audio_config=tiny_audio_config(),
        text_config=tiny_text_config(),
        projector_type=name,
        projector_tail=tail,
        projector_hidden_size=64,
        projector_layers=2,
    )
    return config, PROJECTORS[name](config).eval()


@pytest.mark.parametrize("tail", ["pad", "drop"])
@pytest.mark.parametrize("name", PROJECTORS)
@pytest.mark.parametrize("length", [5, 7, 50])
def test_makes_as_many_tokens_as_the_config_promises(name, tail, length):
    config, projector = build(name, tail)
    tokens = projector(torch.randn(2, length, 16), torch.ones(2, length, dtype=torch.bool))
    assert tokens.shape == (2, config.audio_tokens(length), config.text_config.hidden_size)


@pytest.mark.parametrize("tail", ["pad", "drop"])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *((name, {}) for name in PROJECTORS),
        *((name, {"final_layer_norm": "trained"}) for name in PROJECTORS),
        ("stack_mlp", {"projector_context": 5}),
    ],
)
def test_a_clip_gives_the_same_tokens_alone_and_beside_a_longer_one(name, settings, tail):
    config, projector = build(name, tail, **settings)
    if projector.frame_norm is not None:
        torch.nn.init.normal_(projector.frame_norm.bias)  # padding stays zero all the same
    frames = torch.randn(2, 33, 16)
    mask = torch.ones(2, 33, dtype=torch.bool)
    mask[0, 12:] = False
    frames = frames * mask[..., None]
    together = projector(frames, mask)
    alone = projector(frames[:1, :12], mask[:1, :12])
    count = config.audio_tokens(12)
    torch.testing.assert_close(together[:1, :count], alone, atol=1e-5, rtol=0)


def test_stack_mlp_is_the_papers_projector():
    """Five frames side by side, linear, ReLU, linear, LayerNorm: computed by hand in float64."""
    _, projector = build("stack_mlp")
    projector.double()
    frames = torch.randn(1, 10, 16, dtype=torch.float64)
    weights = projector.state_dict()
    stacked = torch.stack([torch.cat(list(frames[0, start : start + 5])) for start in (0, 5)])
    hidden = (stacked @ weights["linear1.weight"].T + weights["linear1.bias"]).clamp(min=0)
    output = hidden @ weights["linear2.weight"].T + weights["linear2.bias"]
    centred = output - output.mean(dim=1, keepdim=True)
    expected = centred / (centred.pow(2).mean(dim=1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(projector(frames, torch.ones(1, 10, dtype=torch.bool))[0], expected)


def test_context_is_a_depthwise_convolution_behind_the_first_layer():
    """Each audio token sees one on each side: computed by hand in float64."""
    _, projector = build("stack_mlp", projector_context=3)
    projector.double()
    frames = torch.randn(1, 15, 16, dtype=torch.float64)
    weights = projector.state_dict()
    hidden = torch.relu(frames.reshape(3, 80) @ weights["linear1.weight"].T + weights["linear1.bias"])
    kernel, padded = weights["context.weight"][:, 0], torch.zeros(5, 64, dtype=torch.float64)
    padded[1:4] = hidden
    seen = torch.stack([(padded[at : at + 3] * kernel.T).sum(0) for at in range(3)])
    output = (hidden + seen + weights["context.bias"]) @ weights["linear2.weight"].T + weights["linear2.bias"]
    expected = torch.nn.functional.layer_norm(output, [32])
    torch.testing.assert_close(projector(frames, torch.ones(1, 15, dtype=torch.bool))[0], expected)


@pytest.mark.parametrize("name", PROJECTORS)
def test_a_share_of_the_frames_is_hidden_while_training_alone(name):
    _, projector = build(name, projector_frame_dropout=0.5, projector_dropout=0.0)
    seen = []
    projector.project = lambda frames, mask: seen.append(frames) or frames
    frames = torch.ones(8, 100, 16)
    mask = torch.ones(8, 100, dtype=torch.bool)
    projector(frames, mask)
    projector.train()(frames, mask)
    assert seen[0] is frames
    kept = seen[1].mean(dim=2)
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert 0.4 < float(kept.mean()) < 0.6


def test_a_conv_projector_ends_in_a_norm_but_in_old_checkpoints():
    frames, mask = 10 * torch.randn(1, 50, 16), torch.ones(1, 50, dtype=torch.bool)
    assert build("conv", projector_norm=True)[1](frames, mask).detach().std() == pytest.approx(1, abs=0.05)
    assert not any("norm" in name for name in build("conv")[1].state_dict())


def test_qformer_refuses_a_width_that_does_not_split_into_heads():
    config, _ = build("qformer")
    config.projector_hidden_size = 100
    with pytest.raises(ValueError, match="multiple of 64"):
        PROJECTORS["qformer"](config)


def test_the_frames_norm_makes_any_other_layer_norm_of_the_encoders():
    """Weight and bias on frames that have passed a LayerNorm: that of gain w g and shift w b + c."""
    torch.manual_seed(0)
    hidden = torch.randn(2, 9, 16)
    gain, shift, weight, bias = torch.randn(4, 16)
    _, projector = build("stack_mlp", final_layer_norm="trained")
    projector.frame_norm.load_state_dict({"weight": weight, "bias": bias})
    found = projector.frame_norm(torch.nn.functional.layer_norm(hidden, (16,), gain, shift))
    expected = torch.nn.functional.layer_norm(hidden, (16,), weight * gain, weight * shift + bias)
    torch.testing.assert_close(found, expected)


def test_hidden_frames_stay_hidden_behind_the_norm():
    _, projector = build("stack_mlp", final_layer_norm="refitted")
    projector.frame_norm.bias.fill_(3.0)
    frames = torch.randn(1, 6, 16)
    frames[0, 2:4] = 0
    normed = projector.frame_norm(frames)
    assert normed.any(dim=-1).tolist() == [[True, True, False, False, True, True]]
    assert not [*projector.frame_norm.parameters()]
