"""The encoders against transformers' own models, a clip against itself in a batch, and against offloading."""

import copy

import numpy as np
import pytest
import torch
from accelerate import cpu_offload, disk_offload
from safetensors.torch import load_file
from tiny_configs import tiny_audio_config, tiny_text_config, tiny_waveform_config
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCTC,
    HubertForCTC,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForPreTraining,
    WavLMModel,
    WhisperModel,
)

from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration, SlamAsrProcessor
from modeling_slam.model.audio_encoders import ENCODERS, PrunedWhisperEncoder, WaveformEncoder
from modeling_slam.model.audio_lengths import GEOMETRIES

WAVEFORM_TYPES = ["wav2vec2", "hubert", "wavlm"]


def whisper_pair(layers: list[int], **changes) -> tuple[WhisperModel, PrunedWhisperEncoder]:
    """transformers' Whisper with only `layers` left, and ours with the same weights."""
    torch.manual_seed(0)
    whisper = WhisperModel(tiny_audio_config(**changes)).eval()
    nn.init.normal_(whisper.encoder.embed_positions.weight)
    ours = PrunedWhisperEncoder(whisper.config, len(layers)).eval()
    fill(ours, whisper.state_dict(), layers)
    whisper.encoder.layers = nn.ModuleList([whisper.encoder.layers[index] for index in layers])
    return whisper, ours


def fill(encoder: nn.Module, weights: dict[str, torch.Tensor], layers: list[int]) -> None:
    """Into `encoder` what it takes of a checkpoint's weights: all that it has."""
    names = type(encoder).checkpoint_names(weights, layers)
    encoder.load_state_dict({own: weights[name] for name, own in names.items()})


def test_each_encoder_has_a_geometry():
    assert set(ENCODERS) == set(GEOMETRIES)


# ---------------------------------------------------------------- Whisper


@pytest.mark.parametrize("mel_bins", [80, 128])
@pytest.mark.parametrize("layers", [[0, 1, 2], [0, 1], [0], [0, 2]])
def test_equals_transformers_whisper_on_30_seconds(layers, mel_bins):
    whisper, ours = whisper_pair(layers, num_mel_bins=mel_bins)
    mel = torch.randn(2, mel_bins, 3000)
    with torch.no_grad():
        frames, mask = ours(mel)
        expected = whisper.encoder(mel).last_hidden_state
    assert mask.all()
    torch.testing.assert_close(frames, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_clip_has_the_same_frames_alone_and_in_a_padded_batch(attention):
    _, ours = whisper_pair([0, 1, 2])
    ours.set_attn_implementation(attention)
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
    _, ours = whisper_pair([0])
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


# ---------------------------------------------------------------- waveforms


def waveform_pair(model_type: str, layers: list[int], **changes) -> tuple[nn.Module, WaveformEncoder]:
    """transformers' model with only `layers` left, and ours with the same weights."""
    torch.manual_seed(0)
    theirs = AutoModel.from_config(tiny_waveform_config(model_type, **changes)).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    ours = WaveformEncoder(copy.deepcopy(theirs.config), len(layers)).eval()
    fill(ours, theirs.state_dict(), layers)
    theirs.encoder.layers = nn.ModuleList([theirs.encoder.layers[index] for index in layers])
    return theirs, ours


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("stable", [True, False])
@pytest.mark.parametrize("layers", [[0, 1, 2], [0, 1], [0, 2]])
@pytest.mark.parametrize("model_type", WAVEFORM_TYPES)
def test_equals_transformers_model_pruned_by_hand(model_type, layers, stable, norm):
    changes = {"do_stable_layer_norm": stable, "feat_extract_norm": norm}
    theirs, ours = waveform_pair(model_type, layers, **changes)
    samples = torch.randn(1, 8_000)
    with torch.no_grad():
        frames, mask = ours(samples)
        expected = theirs(samples).last_hidden_state
    assert mask.all()
    torch.testing.assert_close(frames, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("model_type", WAVEFORM_TYPES)
def test_a_waveform_has_the_same_frames_alone_and_in_a_padded_batch(model_type, norm):
    _, ours = waveform_pair(model_type, [0, 1, 2], feat_extract_norm=norm)
    lengths = [8_000, 1_234, 5_001]
    samples = torch.zeros(3, 8_500)
    mask = torch.arange(8_500) < torch.tensor(lengths)[:, None]
    samples[mask] = torch.randn(sum(lengths))
    with torch.no_grad():
        together, frame_mask = ours(samples, mask)
        assert frame_mask.sum(dim=1).tolist() == [ours.geometry.frames_of_samples(n) for n in lengths]
        for row, length in enumerate(lengths):
            alone, _ = ours(samples[row : row + 1, :length])
            frames = alone.shape[1]
            torch.testing.assert_close(together[row, :frames], alone[0], atol=1e-5, rtol=0)
            assert not together[row, frames:].any()


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_a_clip_without_a_frame_is_refused(norm):
    _, ours = waveform_pair("wav2vec2", [0], feat_extract_norm=norm)
    mask = torch.ones(2, 1_000, dtype=torch.bool)
    mask[1, 399:] = False
    with pytest.raises(ValueError, match="399 samples"):
        ours(torch.randn(2, 1_000), mask)


def test_checkpoints_with_a_head_a_prefix_and_old_names_of_weight_norm_fit():
    """What of a checkpoint is not the encoder's stays out, and all that is the encoder's comes in."""
    torch.manual_seed(0)
    config = tiny_waveform_config("wav2vec2", num_codevectors_per_group=4, codevector_dim=4)
    with_heads = Wav2Vec2ForPreTraining(config)
    without = HubertForCTC(tiny_waveform_config("hubert", conv_pos_batch_norm=True, mask_time_prob=0.0))
    old = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in WavLMModel(tiny_waveform_config("wavlm")).state_dict().items()
    }
    assert any(name.endswith("weight_g") for name in old)
    for model_type, weights in (
        ("wav2vec2", with_heads.state_dict()),
        ("hubert", without.state_dict()),
        ("wavlm", old),
    ):
        changes = {"conv_pos_batch_norm": True} if model_type == "hubert" else {}
        fill(WaveformEncoder(tiny_waveform_config(model_type, **changes), 2), weights, [0, 2])


# ---------------------------------------------------------------- all


def any_pair(model_type: str, layers: list[int]) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """An encoder of random weights, a batch of two clips and its mask."""
    if model_type == "whisper":
        _, encoder = whisper_pair(layers)
        features = torch.randn(2, 8, 200)
    else:
        _, encoder = waveform_pair(model_type, layers, do_stable_layer_norm=model_type == "hubert")
        features = torch.randn(2, 8_000)
    mask = torch.ones(2, features.shape[-1], dtype=torch.bool)
    mask[1, features.shape[-1] // 2 :] = False
    return encoder, features, mask


@pytest.mark.parametrize("model_type", ENCODERS)
def test_depths_in_one_pass_are_what_encoders_of_these_depths_give(model_type):
    deep, features, mask = any_pair(model_type, [0, 1, 2])
    for name, parameter in deep.named_parameters():
        if "layer_norm" in name:  # a norm of ones could be applied twice unseen
            nn.init.normal_(parameter)
    with torch.no_grad():
        frames, frame_mask = deep.at_depths(features, mask, [1, 3])
        for depth, at_depth in zip([1, 3], frames, strict=True):
            shallow = ENCODERS[model_type](deep.config, depth).eval()
            shallow.load_state_dict(deep.state_dict(), strict=False)
            expected, expected_mask = shallow(features, mask)
            torch.testing.assert_close(at_depth, expected, atol=1e-6, rtol=0)
            assert torch.equal(frame_mask, expected_mask)


@pytest.mark.parametrize("model_type", ENCODERS)
def test_frames_come_in_the_dtype_of_the_weights(model_type):
    encoder, features, mask = any_pair(model_type, [0, 1])
    with torch.no_grad():
        expected, _ = encoder(features, mask)
        frames, _ = encoder.bfloat16()(features, mask)
    assert frames.dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(frames.float(), expected, dim=-1)[0].min() > 0.98


@pytest.mark.parametrize("model_type", ENCODERS)
def test_frozen_layers_are_plain_linear_layers(model_type):
    """Only those are quantised by bitsandbytes, torchao and torch itself."""
    encoder, _, _ = any_pair(model_type, [0])
    linears = [module for module in encoder.modules() if isinstance(module, nn.Linear)]
    assert linears
    assert all(type(module) is nn.Linear for module in linears)


@pytest.mark.parametrize(
    "model_type", ["whisper", "wav2vec2", "hubert"]
)  # WavLM reads weights past its layers
@pytest.mark.parametrize("offload", [cpu_offload, disk_offload])
def test_offloaded_weights_give_the_same_frames(model_type, offload, tmp_path):
    encoder, features, mask = any_pair(model_type, [0, 1])
    with torch.no_grad():
        expected, _ = encoder(features, mask)
        place = {} if offload is cpu_offload else {"offload_dir": str(tmp_path)}
        frames, _ = offload(encoder, execution_device=torch.device("cpu"), **place)(features, mask)
    assert torch.equal(frames, expected)


# ---------------------------------------------------------------- in the model


@pytest.mark.parametrize(
    ("model_type", "norm"), [("wav2vec2", "group"), ("hubert", "layer"), ("wavlm", "layer")]
)
def test_a_model_on_a_waveform_encoder_trains_saves_and_transcribes(
    model_type, norm, base_models, tiny_tokenizer, two_clips, tmp_path
):
    torch.manual_seed(0)
    config = tiny_waveform_config(model_type, feat_extract_norm=norm)
    AutoModelForCTC.from_config(config).save_pretrained(tmp_path / "encoder")
    base_models["audio_model_id"] = str(tmp_path / "encoder")
    config = SlamAsrConfig(
        audio_config=config,
        text_config=tiny_text_config(),
        projector_hidden_size=64,
        kept_encoder_layers=[0, 2],
        **base_models,
    )
    processor = SlamAsrProcessor(
        Wav2Vec2FeatureExtractor(), tiny_tokenizer, audio_geometry=config.audio_geometry
    )
    config.audio_token_id = processor.audio_token_id
    model = SlamAsrForConditionalGeneration.from_base_models(config)
    theirs = AutoModel.from_pretrained(tmp_path / "encoder").eval()
    del theirs.encoder.layers[1]
    inputs = processor(two_clips[0])
    with torch.no_grad():
        frames, _ = model.eval().encoder(inputs["input_features"])
        torch.testing.assert_close(
            frames, theirs(inputs["input_features"]).last_hidden_state, atol=1e-5, rtol=0
        )

    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for _ in range(2):
        loss = model(**processor(two_clips, text=["a cat", "it is"])).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]
    assert all(p.grad is None for p in model.encoder.parameters())

    model.eval().save_pretrained(tmp_path / "lean")
    processor.save_pretrained(tmp_path / "lean")
    assert all(name.startswith("projector.") for name in load_file(tmp_path / "lean/model.safetensors"))
    loaded = SlamAsrForConditionalGeneration.from_pretrained(tmp_path / "lean").eval()
    again = SlamAsrProcessor.from_pretrained(tmp_path / "lean")
    settings = {"max_new_tokens": 8, "num_beams": 2, "eos_token_id": 1, "pad_token_id": 0}
    together = loaded.generate(**again(two_clips), **settings)
    assert torch.equal(together, model.generate(**processor(two_clips), **settings))
    with torch.no_grad():
        alone = loaded(**again(two_clips[0])).logits
        batch = again(two_clips)
        torch.testing.assert_close(loaded(**batch).logits[:1, -alone.shape[1] :], alone, atol=1e-4, rtol=0)
    fewer = SlamAsrForConditionalGeneration.from_pretrained(tmp_path / "lean", num_encoder_layers=1)
    assert (len(fewer.encoder.layers), fewer.config.kept_encoder_layers) == (1, [0])
