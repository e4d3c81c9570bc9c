"""Training the upper part of the encoder: what lies below the lowest layer that changes is still cached.

A run that trains the encoder, by LoRA or itself, has other frames after every step, so it cannot keep them.
But what the frozen layers below hand up stays the same: this is kept in their place, and the encoder goes on
from there (`enters_at`). The alignment stage comes before all that, on the frames of the encoder as it was.
"""

import dataclasses
from collections.abc import Collection
from typing import Any

import torch

from modeling_slam import SlamAsrConfig
from modeling_slam.data.collator import SpeechCollator
from modeling_slam.data.frame_store import FrameReader
from modeling_slam.model.audio_encoders import ENCODERS


def frozen_layers(config: SlamAsrConfig) -> int:
    """How many of the lowest kept layers come before anything that is trained."""
    encoder_class = ENCODERS[config.audio_config.model_type]
    kept = config.kept_encoder_layers
    trained = [kept.index(layer) for layer in config.trained_encoder_layers if layer in kept]
    if config.encoder_lora_rank:
        with torch.device("meta"):
            encoder = encoder_class(config.audio_config, config.num_encoder_layers)
        ends = tuple(f".{target}" for target in config.encoder_lora_target_modules)
        adapted = [name for name, _ in encoder.named_modules() if f".{name}".endswith(ends)]
        prefix = encoder_class.layer_prefix
        trained += [
            int(name.removeprefix(prefix).split(".")[0]) if name.startswith(prefix) else 0 for name in adapted
        ]
    return min(trained, default=len(kept))


def layers_to_skip(
    config: SlamAsrConfig, cache_features: str | None, aligns: bool, augmentations: Collection[str]
) -> int:
    """The depth whose states are kept, from which the trained layers go on; 0 is none.

    Raises:
        ValueError: a cache is asked for, and the run would read nothing of it.
    """
    depth = frozen_layers(config) if config.trains_encoder else 0
    can_enter = hasattr(ENCODERS[config.audio_config.model_type], "states")
    # Masking hides what the encoder hears; states have it in all their frames.
    depth = depth if can_enter and not augmentations else 0
    if config.trains_encoder and cache_features is not None and not (aligns or depth):
        trained = "encoder_lora_rank" if config.encoder_lora_rank else "train_encoder_layers"
        raise ValueError(
            f"`--cache_features` would keep nothing: `--{trained}` changes the encoder from its lowest layer "
            "on, or it is none that can go on from kept states, or `--augment` changes what it hears. Leave "
            "`--cache_features` out, or train upper layers only (`--encoder_lora_target_modules`)."
        )
    return depth


def read_states(
    model: Any, collator: SpeechCollator, states: FrameReader | None, depth: int
) -> SpeechCollator:
    """The collator of a run that trains the encoder: its batches have the kept states, or the sound."""
    model.encoder.enters_at = 0 if states is None else depth
    return dataclasses.replace(collator, cache=states, cached_name="input_features")
