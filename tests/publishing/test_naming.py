"""Names: proposed from the config, and never allowed to say something else than it."""

import pytest
from tiny_configs import tiny_audio_config, tiny_text_config

from modeling_slam import SlamAsrConfig
from modeling_slam.publishing.naming import check_name, name_parts


def config(d_model=1024, encoder_layers=24, keep=22, lora_rank=16, **changes) -> SlamAsrConfig:
    audio = tiny_audio_config(d_model=d_model, encoder_layers=encoder_layers, **changes)
    return SlamAsrConfig(
        audio_config=audio, text_config=tiny_text_config(), num_encoder_layers=keep, lora_rank=lora_rank
    )


@pytest.mark.parametrize(
    ("shape", "language", "name"),
    [
        ({}, "nl", "slam-medium-22L-lora-nl"),
        ({"lora_rank": 0}, "da", "slam-medium-22L-da"),
        ({"d_model": 768, "encoder_layers": 12, "keep": 12}, "en", "slam-small-12L-lora-en"),
        ({"d_model": 1280, "encoder_layers": 32, "keep": 30}, "da", "slam-large-30L-lora-da"),
        ({"d_model": 1280, "encoder_layers": 32, "num_mel_bins": 128}, "da", "slam-large-v3-22L-lora-da"),
        ({"d_model": 48, "encoder_layers": 3, "keep": 2}, "sv-SE", "slam-d48-2L-lora-sv"),
        ({}, None, "slam-medium-22L-lora"),
    ],
)
def test_the_name_follows_from_config_and_language(shape, language, name):
    assert str(name_parts(config(**shape), language)) == name
    assert check_name(f"me/{name}", config(**shape), language) is None


def test_large_v2_is_told_from_large_by_the_id_that_was_trained_on():
    large = config(d_model=1280, encoder_layers=32)
    large.audio_model_id = "openai/whisper-large-v2"
    assert str(name_parts(large, "da")) == "slam-large-v2-22L-lora-da"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("slam-small-22L-lora-nl", "size small, the encoder is medium"),
        ("slam-medium-24L-lora-nl", "24 layers, the encoder keeps 22"),
        ("slam-medium-22L-nl", "no LoRA, it has LoRA"),
        ("slam-medium-22L-lora-da", "language da, it was trained on nl"),
    ],
)
def test_a_name_that_contradicts_the_checkpoint_is_refused_with_the_reason_and_a_better_one(name, reason):
    with pytest.raises(ValueError, match=reason) as error:
        check_name(f"me/{name}", config(), "nl")
    assert "me/slam-medium-22L-lora-nl" in str(error.value)


def test_a_name_outside_the_scheme_is_allowed_and_told():
    assert "slam-medium-22L-lora-nl would be" in check_name("me/my-dutch-model", config(), "nl")


def test_an_id_without_an_owner_is_refused():
    with pytest.raises(ValueError, match="owner/name"):
        check_name("slam-medium-22L-lora-nl", config(), "nl")
