"""Each measure of similarity between layers against a computation by hand, in loops of float64."""

import itertools
import math

import numpy as np
import pytest
import torch
from tiny_configs import tiny_audio_config, tiny_waveform_config

from modeling_slam.model.audio_encoders import ENCODERS
from modeling_slam.training import layer_similarity
from modeling_slam.training.layer_similarity import (
    hsic_between,
    layer_similarities,
    layer_states,
    output_moments,
    refitted_norm,
    shared_neighbours,
)

KINDS = ["whisper", "wav2vec2", "hubert", "wavlm"]


def encoder_of(kind):
    torch.manual_seed(0)
    config = tiny_audio_config(init_std=0.3) if kind == "whisper" else tiny_waveform_config(kind)
    return ENCODERS[kind](config, 3).eval()


def clips_of(kind, lengths=(1.0, 0.6, 1.7)):
    """One after the other, each longer than its mask says."""
    generator = torch.Generator().manual_seed(1)
    for seconds in lengths:
        real = round(seconds * (100 if kind == "whisper" else 16_000))
        shape = (1, 8, real + 4) if kind == "whisper" else (1, real + 640)
        mask = torch.zeros(1, real + (4 if kind == "whisper" else 640), dtype=torch.bool)
        mask[:, :real] = True
        yield torch.randn(shape, generator=generator) * mask, mask


@torch.no_grad()
def states_by_hand(kind, encoder, features, mask):
    """(L + 1, T, D), in numpy, of the real part of a clip alone, without hooks and without this project."""
    real = features[..., : int(mask.sum())]
    if kind == "whisper":
        hidden = torch.nn.functional.gelu(encoder.conv1(real))
        hidden = torch.nn.functional.gelu(encoder.conv2(hidden)).transpose(1, 2)
        hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
        states = [hidden]
        for layer in encoder.layers:
            states.append(layer(states[-1], None))
    else:
        states = encoder.model(real, output_hidden_states=True).hidden_states
    return np.stack([state[0].double().numpy() for state in states])


def cosine(x, y):
    dot = sum(a * b for a, b in zip(x, y, strict=True))
    return dot / math.sqrt(sum(a * a for a in x)) / math.sqrt(sum(b * b for b in y))


def hsic_by_hand(x, y):
    """Over all ordered quadruples of different frames: K_ij (L_ij + L_qr - 2 L_iq), the U-statistic."""
    k = [[float(np.dot(one, other)) for other in x] for one in x]
    el = [[float(np.dot(one, other)) for other in y] for one in y]
    terms = [
        k[i][j] * (el[i][j] + el[q][r] - 2 * el[i][q])
        for i, j, q, r in itertools.permutations(range(len(x)), 4)
    ]
    return sum(terms) / len(terms)


def neighbours_by_hand(x, place, count):
    others = [other for other in range(len(x)) if other != place]
    return set(sorted(others, key=lambda other: -cosine(x[place], x[other]))[:count])


@pytest.mark.parametrize("kind", KINDS)
def test_states_are_those_between_the_layers_of_the_clip_alone(kind):
    encoder = encoder_of(kind)
    for features, mask in clips_of(kind):
        expected = states_by_hand(kind, encoder, features, mask)
        np.testing.assert_allclose(layer_states(encoder, features, mask), expected, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_cosine_and_angle_are_means_over_every_real_frame_of_every_clip(kind):
    encoder = encoder_of(kind)
    found = layer_similarities(encoder, clips_of(kind))
    clips = [states_by_hand(kind, encoder, *clip) for clip in clips_of(kind)]
    assert found["frames"] == sum(clip.shape[1] for clip in clips)
    for one, other in itertools.product(range(4), repeat=2):
        cosines = [cosine(*pair) for clip in clips for pair in zip(clip[one], clip[other], strict=True)]
        angles = [math.acos(max(-1.0, min(1.0, value))) / math.pi for value in cosines]
        assert found["cosine"][one][other] == pytest.approx(sum(cosines) / len(cosines), abs=1e-5)
        assert found["angular"][one][other] == pytest.approx(sum(angles) / len(angles), abs=1e-5)


def test_hsic_is_the_unbiased_statistic_over_quadruples_of_frames():
    states = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 7, 4)))
    found = hsic_between(states)
    for one, other in itertools.product(range(3), repeat=2):
        expected = hsic_by_hand(states[one].numpy(), states[other].numpy())
        assert found[one, other].item() == pytest.approx(expected, rel=1e-10)


def test_shared_neighbours_are_counted_among_the_ten_nearest_by_cosine():
    states = np.random.default_rng(1).normal(size=(3, 25, 4))
    found = shared_neighbours(torch.from_numpy(states))
    for one, other in itertools.product(range(3), repeat=2):
        common = [
            len(neighbours_by_hand(states[one], place, 10) & neighbours_by_hand(states[other], place, 10))
            for place in range(25)
        ]
        assert found[one, other].item() == sum(common)


@pytest.mark.parametrize("kind", ["whisper", "wavlm"])
def test_cka_and_neighbours_add_up_over_blocks_of_every_fourth_frame(kind, monkeypatch):
    monkeypatch.setattr(layer_similarity, "BLOCK_FRAMES", 18)
    monkeypatch.setattr(layer_similarity, "LEAST_FRAMES", 8)
    encoder = encoder_of(kind)
    lengths = (1.0, 0.6, 1.7, 0.8, 0.2)  # blocks of clips 1 and 2, of clip 3, of clip 4 and the last
    found = layer_similarities(encoder, clips_of(kind, lengths))
    clips = [states_by_hand(kind, encoder, *clip)[:, ::4] for clip in clips_of(kind, lengths)]
    blocks = [np.concatenate(clips[:2], axis=1), clips[2], np.concatenate(clips[3:], axis=1)]
    assert [block.shape[1] >= 8 for block in blocks] == [True] * 3
    hsic = sum(hsic_between(torch.from_numpy(block)) for block in blocks).numpy()
    shared = sum(shared_neighbours(torch.from_numpy(block)) for block in blocks).numpy()
    compared = sum(block.shape[1] * min(10, block.shape[1] - 1) for block in blocks)
    for one, other in itertools.product(range(4), repeat=2):
        cka = hsic[one, other] / math.sqrt(hsic[one, one] * hsic[other, other])
        assert found["cka"][one][other] == pytest.approx(cka, abs=1e-4)
        assert found["mutual_neighbours"][one][other] == pytest.approx(
            shared[one, other] / compared, abs=0.02
        )


def test_a_last_block_of_few_frames_is_left_out_but_not_the_only_one():
    encoder = encoder_of("whisper")
    few = layer_similarities(encoder, clips_of("whisper", (0.4,)))
    assert all(math.isfinite(value) for row in few["cka"] for value in row)
    assert few["mutual_neighbours"][0][0] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_refitted_norm_gives_the_moments_of_the_full_encoder(kind):
    full, lowest = encoder_of(kind), encoder_of(kind)
    del lowest.layers[2:]
    clips = [*clips_of(kind)]
    fitted = refitted_norm(output_moments(lowest, clips), output_moments(full, clips))

    def real_frames(encode):
        with torch.no_grad():
            return np.concatenate(
                [out[mask].double().numpy() for out, mask in (encode(*clip) for clip in clips)]
            )

    frames = real_frames(lowest) * fitted["weight"].numpy() + fitted["bias"].numpy()
    wanted = real_frames(full)
    for dimension in range(frames.shape[1]):
        one, other = frames[:, dimension].tolist(), wanted[:, dimension].tolist()
        means = [sum(values) / len(values) for values in (one, other)]
        variances = [
            sum((value - mean) ** 2 for value in values) / len(values)
            for values, mean in zip((one, other), means, strict=True)
        ]
        assert means[0] == pytest.approx(means[1], abs=1e-5)
        assert variances[0] == pytest.approx(variances[1], rel=1e-3)


def test_a_dimension_that_never_varies_keeps_its_scale():
    flat = (torch.tensor([1.0, 2.0]).double(), torch.tensor([0.0, 2.0]).double())
    wanted = (torch.tensor([5.0, 5.0]).double(), torch.tensor([3.0, 3.0]).double())
    fitted = refitted_norm(flat, wanted)
    assert fitted["weight"].tolist() == [1.0, 1.5]
    assert fitted["bias"].tolist() == [4.0, 2.0]
