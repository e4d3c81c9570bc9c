"""Ingredients of speed, each put on a model or a batch by one call, to be measured on and off.

What pays on a GPU becomes a setting of `train.py` or `eval.py`; docs/performance.md has the table of all.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers.utils import is_flash_attn_2_available

from benchmarks.gpu.device import Device
from modeling_slam import SlamAsrProcessor
from modeling_slam.model.audio_lengths import SAMPLING_RATE
from modeling_slam.training.label_loss import use_loss_positions

# Of transformers, beside sdpa, where they are installed.
ATTENTIONS = ["flash_attention_2"] if is_flash_attn_2_available() else []
LOSS_POSITIONS = 256
COMPILED, PACKED = "compiled", "packed rows"
LOSS_IN_PARTS, RECOMPUTED = f"loss of {LOSS_POSITIONS} labels at once", "gradient checkpointing"
# Of a training step. Only attention by sequence lengths leaves out what clips in one row do not see.
TRAININGS = [
    *ATTENTIONS,
    *(f"{PACKED}, {kind}" for kind in ATTENTIONS),
    *(PACKED, LOSS_IN_PARTS, RECOMPUTED, COMPILED),
]


def attention_of(variant: str) -> dict[str, str]:
    """Options of `from_config`."""
    kind = next((kind for kind in ATTENTIONS if variant.endswith(kind)), None)
    return {} if kind is None else {"attn_implementation": kind}


def put_on(model: Any, variant: str, device: Device) -> None:
    """What a variant of a training changes of a model that is built."""
    changes: dict[str, Callable[[], Any]] = {
        COMPILED: lambda: compile_layers(model, device),
        LOSS_IN_PARTS: lambda: use_loss_positions(model, LOSS_POSITIONS),
        RECOMPUTED: lambda: model.gradient_checkpointing_enable(),
    }
    if variant.startswith(PACKED):
        model.language_model.register_forward_pre_hook(in_one_row, with_kwargs=True)
    elif variant in changes:
        changes[variant]()


def compile_layers(model: Any, device: Device) -> None:
    """Each layer of encoder and LLM by itself: they are alike, so few are compiled. On a CPU none is."""
    backend = "inductor" if device.module else "eager"
    for layer in (*model.encoder.layers, *model.language_model.model.layers):
        layer.compile(dynamic=True, backend=backend)


def in_one_row(_llm: Any, args: tuple, inputs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
    """A training batch (B, L) as one row (1, real positions): clips one behind the other, without padding.

    Positions begin anew with each clip. By that, and as there is no mask, transformers lets a clip attend to
    itself alone: by sequence lengths in flash attention, by a block-diagonal mask in others.
    """
    due, mask = inputs.get("logits_to_keep"), inputs.get("attention_mask")
    if mask is None or not isinstance(due, torch.Tensor):  # no labels
        return None
    real = mask.bool()
    rows = {name: inputs[name][real][None] for name in ("inputs_embeds", "position_ids", "logits_to_keep")}
    return args, inputs | rows | {"attention_mask": None}


def mel_in_loader(prepare: SlamAsrProcessor, waves: list[np.ndarray]) -> torch.Tensor:
    """(n,) each at 16 kHz -> (B, F, M) log-mel, zeros behind each clip; one by one, as loader workers do."""
    return pad_sequence([prepare.audio_features(wave) for wave in waves], batch_first=True)


def mel_on_device(prepare: SlamAsrProcessor, waves: list[np.ndarray], device: torch.device) -> torch.Tensor:
    """The same by the extractor's transform on the device, all clips at once.

    The extractor gives arrays, so the features come back to the CPU on their way.
    """
    extractor = prepare.feature_extractor
    frames = [prepare.audio_geometry.features_of_samples(len(wave)) for wave in waves]
    longest = max(frames) * extractor.hop_length + extractor.n_fft
    rows = [np.pad(wave, (0, longest - len(wave))) for wave in waves]
    settings = {"padding": False, "truncation": False, "return_tensors": "pt", "device": str(device)}
    mel = extractor(rows, sampling_rate=SAMPLING_RATE, **settings)["input_features"].to(device)
    is_real = torch.arange(max(frames), device=device) < torch.tensor(frames, device=device)[:, None]
    return mel[:, :, : max(frames)].transpose(1, 2) * is_real[..., None]
