"""Base models whose shapes are known here, so that a study can be planned without network.

To add a size, add its row. Other models are read from their directory or the Hub.

Source: Whisper, https://huggingface.co/papers/2212.04356, table 1; Qwen2.5,
https://huggingface.co/papers/2412.15115, and the models' config.json
"""

import re
from pathlib import Path
from typing import Any

from transformers import AutoConfig, Qwen2Config, WhisperConfig

# Size -> layers, width, heads, mel bins of the encoder.
WHISPER_SIZES = {
    "tiny": (4, 384, 6, 80),
    "base": (6, 512, 8, 80),
    "small": (12, 768, 12, 80),
    "medium": (24, 1024, 16, 80),
    "large": (32, 1280, 20, 80),
    "large-v2": (32, 1280, 20, 80),
    "large-v3": (32, 1280, 20, 128),
    "large-v3-turbo": (32, 1280, 20, 128),
}
# Size -> layers, width, heads, key and value heads, feed-forward width, vocabulary, tied embeddings.
QWEN_SIZES = {
    "0.5B": (24, 896, 14, 2, 4864, 151_936, True),
    "1.5B": (28, 1536, 12, 2, 8960, 151_936, True),
    "3B": (36, 2048, 16, 2, 11_008, 151_936, True),
    "7B": (28, 3584, 28, 4, 18_944, 152_064, False),
}


def base_config(model: str, revision: str | None = None) -> Any:
    """The configuration of a base model: a directory's, a known one, or the Hub's.

    Raises:
        OSError: it is none of these.
    """
    owner, _, name = model.rpartition("/")
    if not Path(model).is_dir():
        if owner == "openai" and (size := name.removeprefix("whisper-")) in WHISPER_SIZES:
            return whisper_config(size)
        if (
            owner == "Qwen"
            and (size := name.removeprefix("Qwen2.5-").removesuffix("-Instruct")) in QWEN_SIZES
        ):
            return qwen_config(size)
    return AutoConfig.from_pretrained(model, revision=revision)


def whisper_config(size: str) -> WhisperConfig:
    layers, width, heads, mel_bins = WHISPER_SIZES[size]
    return WhisperConfig(
        encoder_layers=layers, d_model=width, encoder_attention_heads=heads, encoder_ffn_dim=4 * width,
        num_mel_bins=mel_bins, max_source_positions=1500,
        # The decoder is never built, but fetched: it is in the same file.
        decoder_layers=4 if size.endswith("turbo") else layers, decoder_attention_heads=heads,
        decoder_ffn_dim=4 * width,
    )  # fmt: skip


def whisper_size(config: Any, model_id: str | None) -> str | None:
    """`medium` for the configuration of Whisper medium; None for an encoder of no known size.

    large and large-v2 have one shape; only the id tells them apart.
    """
    shape = (config.num_hidden_layers, config.hidden_size)
    if config.model_type != "whisper" or shape not in {row[:2] for row in WHISPER_SIZES.values()}:
        return None
    sizes = {size: row[3] for size, row in WHISPER_SIZES.items() if row[:2] == shape}
    fitting = [size for size, bins in sizes.items() if bins == config.num_mel_bins] or list(sizes)
    told = re.search(r"large-v\d", model_id or "")
    return told[0] if told and told[0] in fitting else fitting[0]


def qwen_config(size: str) -> Qwen2Config:
    layers, width, heads, key_value_heads, feed_forward, vocabulary, tied = QWEN_SIZES[size]
    return Qwen2Config(
        num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads,
        num_key_value_heads=key_value_heads, intermediate_size=feed_forward, vocab_size=vocabulary,
        tie_word_embeddings=tied,
    )  # fmt: skip
