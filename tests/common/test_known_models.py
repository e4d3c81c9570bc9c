"""Known base models: a configuration by its Hub id without network, and a size by its configuration."""

import pytest
from tiny_configs import tiny_audio_config, tiny_text_config

from modeling_slam.common.known_models import WHISPER_SIZES, base_config, whisper_config, whisper_size


@pytest.mark.parametrize("size", WHISPER_SIZES)
def test_a_size_of_whisper_is_known_by_its_shape(size):
    told = whisper_size(whisper_config(size), f"openai/whisper-{size}")
    assert told == {"large-v3-turbo": "large-v3"}.get(size, size)  # their encoders are of one shape


def test_large_is_large_unless_its_id_says_more():
    assert whisper_size(whisper_config("large-v2"), None) == "large"
    assert whisper_size(whisper_config("large-v3"), "openai/whisper-large-v2") == "large-v3"


def test_others_have_no_size():
    assert whisper_size(tiny_audio_config(), None) is None
    assert whisper_size(tiny_text_config(hidden_size=768, num_hidden_layers=12), None) is None


def test_qwen_is_known_with_and_without_instructions():
    plain, instructed = (base_config(f"Qwen/Qwen2.5-3B{suffix}") for suffix in ("", "-Instruct"))
    assert plain.to_dict() == instructed.to_dict()
