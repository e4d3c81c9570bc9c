"""The pruned encoder against transformers' own Whisper, and a clip against itself in a batch."""

import numpy as np
import pytest
import torch
from tiny_configs import tiny_audio_config
from transformers import WhisperModel

from modeling_slam.model.whisper_encoder import PrunedWhisperEncoder


def pair(layers: list[int], **changes) -> tuple[WhisperModel, PrunedWhisperEncoder]:
    """transformers' Whisper with only `layers` left, and ours with the same weights."""
    torch.manual_seed(0)
    config = tiny_audio_config(**changes)
    config._attn_implementation = "sdpa"
    whisper = WhisperModel(config).eval()
    torch.nn.init.normal_(whisper.encoder.embed_positions.weight)
    whisper.encoder.layers = torch.nn.ModuleList([whisper.encoder.layers[index] for index in layers])
    ours = PrunedWhisperEncoder(config, len(layers)).eval()
    ours.load_state_dict(whisper.encoder.state_dict())
    return whisper, ours


@pytest.mark.parametrize("mel_bins", [80, 128])
@pytest.mark.parametrize("layers", [[0, 1, 2], [0, 1], [0], [0, 2]])
def test_equals_transformers_whisper_on_30_seconds(layers, mel_bins):
    whisper, ours = pair(layers, num_mel_bins=mel_bins)
    mel = torch.randn(2, mel_bins, 3000)
    with torch.no_grad():
        frames, mask = ours(mel)
        expected = whisper.encoder(mel).last_hidden_state
    assert mask.all()
    torch.testing.assert_close(frames, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_clip_has_the_same_frames_alone_and_in_a_padded_batch(attention):
    _, ours = pair([0, 1, 2])
    ours.config._attn_implementation = attention
    mel, mask = torch.randn(3, 8, 400), torch.ones(3, 400, dtype=torch.bool)
    lengths = [400, 62, 230]
    for row, length in enumerate(lengths):
        mask[row, length:] = False
    with torch.no_grad():
        together, frame_mask = ours(mel, mask)
        for row, length in enumerate(lengths):
            alone, _ = ours(mel[row : row + 1, :, :length])
            torch.testing.assert_close(together[row, : length // 2], alone[0], atol=1e-5, rtol=0)
            assert frame_mask[row].sum() == length // 2
            assert not together[row, length // 2 :].any()


@pytest.mark.parametrize("shape", [(1, 9, 100), (1, 8, 3001), (1, 8, 0)])
def test_refuses_features_it_was_not_made_for(shape):
    _, ours = pair([0])
    with pytest.raises(ValueError, match="8 bins and 1 to 3000 frames"):
        ours(torch.zeros(shape))


@pytest.mark.slow
@pytest.mark.parametrize("layers", [6, 4])
def test_real_whisper_pruned_equals_transformers_whisper_pruned_by_hand(real_models, layers):
    whisper = WhisperModel.from_pretrained(real_models / "whisper-base").eval()
    ours = PrunedWhisperEncoder(whisper.config, layers).eval()
    whisper.encoder.layers = whisper.encoder.layers[:layers]
    ours.load_state_dict(whisper.encoder.state_dict())
    mel = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 80, 3000), dtype=np.float32))
    with torch.no_grad():
        torch.testing.assert_close(ours(mel)[0], whisper.encoder(mel).last_hidden_state, atol=1e-3, rtol=0)
