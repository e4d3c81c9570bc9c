"""Memory of a training and of decoding, part by part, from the configuration alone.

    training   weights + gradients + optimizer + a layer's backward pass + the larger of: the frozen encoder
               at work; what autograd keeps of projector, LLM and trained encoder layers, and the logits
    decoding   weights + keys and values of all beams + the larger of: the encoder at work; the prompts in a
               layer of the LLM; the logits

`B` clips of `seconds`, T encoder frames and A audio tokens each, L tokens in a row, V in the vocabulary:

    weights      elements of each type; a packed weight takes `PACKED_BYTES`
    gradients    4 bytes for what is trained; AdamW 8 more, 8-bit optimizers 2
    kept         measured on the meta device, operation by operation: see saved.py; with gradient
                 checkpointing the input of each LLM layer, and one layer whole
    logits       B * (words + 1) * V * 12 bytes: logits, log-probabilities and gradient in float32; and the
                 logits once more in the LLM's type where that is another. Of `--loss_positions` at most
    encoder      B * T * (6 D + 2 D_inner): what a layer holds at once; or its convolutions, if they are more
    keys, values B * beams * L * 2 * layers * key-value heads * head width

A layer's backward pass holds about as much again as the layer has saved. Gaps come on top: on a CPU 10 %,
near to what was measured with one model, on a GPU 5 % and CUDA's context, a convention.
How far off this is, measured: docs/plan.md.

Source: which states AdamW holds, https://huggingface.co/papers/1910.02054, section 3; packed weights,
https://huggingface.co/papers/2305.14314, section 3
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from modeling_slam import SlamAsrConfig
from modeling_slam.model.audio_lengths import SAMPLING_RATE
from modeling_slam.model.lora import part_of
from modeling_slam.plan.saved import encoder_layer_saved, llm_saved, on_meta, projector_saved
from modeling_slam.study.cost import PROMPT_TOKENS, TEXT_TOKENS_PER_SECOND

# A weight in NF4 with a byte for 64 of them and 4 bytes for 256 of those; in 8 bits beside 4 bytes a row.
PACKED_BYTES = {"4bit": 0.5 + 1 / 64 + 4 / (64 * 256), "8bit": 1.002}
CTC_TOKENS = 2000  # used tokens of a training text, which has not been read
CONTEXT_BYTES = 0.6 * 2**30
GPU_GAPS, CPU_GAPS = 0.05, 0.1
TRAINED_BYTES = 4  # what is trained is float32


@dataclass(frozen=True)
class Load:
    """What a batch is, and how it is computed."""

    clips: int
    seconds: float  # of the longest clip
    dtype: torch.dtype  # of the frozen weights and of products
    checkpointing: bool = False
    quantization: str | None = None
    optimizer: str = "adamw_torch_fused"
    on_gpu: bool = False
    loss_positions: int | None = None  # labels that have logits at once; all if not given


@dataclass(frozen=True)
class Shapes:
    """Lengths of one clip of a batch."""

    frames: int
    audio: int
    words: int

    @property
    def length(self) -> int:
        return self.audio + PROMPT_TOKENS + self.words


def shapes_of(config: SlamAsrConfig, seconds: float) -> Shapes:
    frames = int(config.audio_geometry.frames_of_samples(round(seconds * SAMPLING_RATE)))
    words = round(seconds * TEXT_TOKENS_PER_SECOND)
    return Shapes(frames, int(config.audio_tokens(frames)), words)


def training_memory(config: SlamAsrConfig, load: Load) -> dict[str, float]:
    """Part -> bytes; `total` is the peak of a step."""
    model = on_meta(config, load.dtype)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    shapes, size = shapes_of(config, load.seconds), load.dtype.itemsize
    layer, around = llm_saved(config, load.dtype, load.clips, shapes.length)
    layers = len(config.kept_llm_layers)
    inputs = load.clips * shapes.length * config.text_config.hidden_size * size
    llm = around + (layers * inputs + layer if load.checkpointing else layers * layer)
    labels = load.clips * (shapes.words + 1)
    logits = min(labels, load.loss_positions or labels) * config.text_config.vocab_size
    logits *= 12 + (size if size < 4 else 0)
    kept = projector_saved(model, load.dtype, load.clips, shapes.frames) + llm
    if config.has_ctc_head:
        kept += load.clips * shapes.audio * (CTC_TOKENS + 1) * 12
    if passed := layers_passed(config):
        kept += passed * encoder_layer_saved(config.audio_config, load.dtype, load.clips, shapes.frames)
    parts = {
        "weights": weight_bytes(model, load),
        "gradients": float(TRAINED_BYTES * trained),
        "optimizer": float(optimizer_bytes(load.optimizer) * trained),
        "kept for the backward pass": float(kept),
        "logits": float(logits),
    }
    at_work = encoder_bytes(config, load.clips, shapes.frames, load.seconds, size)
    parts["encoder at work"] = max(0.0, at_work - kept - logits)
    parts["a layer's backward pass"] = float(layer)
    return with_total(parts, load.on_gpu)


def decoding_memory(config: SlamAsrConfig, load: Load, beams: int) -> dict[str, float]:
    """Part -> bytes; `total` is the peak of a batch."""
    model = on_meta(config, load.dtype)
    shapes, size, text = shapes_of(config, load.seconds), load.dtype.itemsize, config.text_config
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    rows = load.clips * beams
    inner = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    prompts = load.clips * (shapes.audio + PROMPT_TOKENS) * (6 * text.hidden_size + 2 * inner) * size
    at_work = {
        "encoder at work": encoder_bytes(config, load.clips, shapes.frames, load.seconds, size),
        "prompts at work": float(prompts),
        "logits": float(rows * text.vocab_size * 12),
    }
    largest = max(at_work, key=lambda name: at_work[name])
    parts = {
        "weights": weight_bytes(model, load, trained_bytes=size),
        "keys and values": float(
            rows * shapes.length * 2 * len(config.kept_llm_layers) * heads * width * size
        ),
        largest: at_work[largest],
    }
    return with_total(parts, load.on_gpu)


def with_total(parts: dict[str, float], on_gpu: bool) -> dict[str, float]:
    total = sum(parts.values())
    reserve = CONTEXT_BYTES + GPU_GAPS * total if on_gpu else CPU_GAPS * total
    parts = parts | {"context and gaps": reserve}
    return parts | {"total": sum(parts.values())}


def weight_bytes(model: Any, load: Load, trained_bytes: int = TRAINED_BYTES) -> float:
    """Of all weights: packed, of the frozen type, or trained; a part that is trained itself has one type."""
    config = model.config
    whole = {"encoder": bool(config.trained_encoder_layers), "llm": config.train_llm}
    packed = set()
    if load.quantization:
        head = model.get_output_embeddings()
        packed = {
            id(module.weight)
            for module in model.language_model.modules()
            if type(module) is nn.Linear and module is not head
        }
    total = 0.0
    for name, weight in model.named_parameters():
        if weight.requires_grad or whole.get(part_of(name)):
            each: float = trained_bytes
        elif id(weight) in packed:
            each = PACKED_BYTES[str(load.quantization)]
        else:
            each = load.dtype.itemsize
        total += each * weight.numel()
    return total


def optimizer_bytes(name: str) -> float:
    """State of an optimizer for one trained weight."""
    if "8bit" in name:
        return 2
    return 0 if name in ("sgd", "adafactor") else 8


def layers_passed(config: SlamAsrConfig) -> int:
    """Encoder layers that gradients go through."""
    if config.encoder_lora_rank:
        return len(config.kept_encoder_layers)
    trained = config.trained_encoder_layers or []
    return len(config.kept_encoder_layers) - config.kept_encoder_layers.index(trained[0]) if trained else 0


def encoder_bytes(config: SlamAsrConfig, clips: int, frames: int, seconds: float, size: int) -> float:
    audio = config.audio_config
    width = audio.hidden_size
    inner = getattr(audio, "encoder_ffn_dim", None) or audio.intermediate_size
    layer = frames * (6 * width + 2 * inner)
    if getattr(audio, "conv_dim", None):  # of a waveform encoder, whose first convolution is the widest
        convolution = 2 * seconds * SAMPLING_RATE / audio.conv_stride[0] * audio.conv_dim[0]
    else:
        convolution = 4 * frames * width  # two mel frames for one
    return float(clips * max(layer, convolution) * size)
