"""Floating-point operations that training and transcribing need, from the configuration and the lengths.

Counted is what cannot be left out: the kept encoder layers on real mel frames; the projector; the LLM on real
tokens; in training the backward pass through activations and weight gradients of what is trained; the
vocabulary where a token is due, and nowhere else. Padding, recomputation and logits that nobody reads are
not needed, so code that computes them has a lower share of the limit.

A product of (m, k) and (k, n) is 2 m k n operations. Additions of biases, norms, activations, softmax and the
optimizer are left out, as is usual: well under 1 % of the whole. Attention is two products of every query
with the keys that it sees, all of the clip in the encoder, those up to its own in the LLM. Tests compare with
torch's `FlopCounterMode`.

`B` clips, `F` mel frames, `T` encoder frames, `A` audio tokens, `L` LLM positions of one clip.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from modeling_slam import SlamAsrConfig


@dataclass(frozen=True)
class Needed:
    """Operations by stage; those of a stage that does not run are 0."""

    encoder: float = 0.0
    projector: float = 0.0  # forward, and in training its weight gradients
    llm_forward: float = 0.0
    llm_backward: float = 0.0  # through activations, and LoRA's weight gradients
    vocabulary: float = 0.0  # forward, and in training backward to the hidden states
    decode: float = 0.0  # LLM and vocabulary on generated tokens

    @property
    def total(self) -> float:
        return sum(vars(self).values())

    def __add__(self, other: "Needed") -> "Needed":
        return Needed(**{stage: count + getattr(other, stage) for stage, count in vars(self).items()})


def training_needs(
    config: SlamAsrConfig, mel_frames: Sequence[int], positions: Sequence[int], labels: int
) -> Needed:
    """One step on B clips, each of `mel_frames` and `positions` real places in the LLM; `labels` in all."""
    total = Needed()
    for frames, length in zip(mel_frames, positions, strict=True):
        encoder_frames = config.audio_geometry.frames_of_features(frames)
        forward, weight_gradients, inner_gradients = projector_products(config, encoder_frames)
        linear, attention = llm_products(config, length, attended_pairs=length * (length + 1) / 2)
        lora = lora_products(config, length)
        total += Needed(
            encoder=encoder_products(config, frames),
            projector=forward + weight_gradients + inner_gradients,
            llm_forward=linear + lora + attention,
            # Frozen layers: one product back for one forward. Attention: two for each, and so LoRA, whose
            # weights have gradients.
            llm_backward=linear + 2 * lora + 2 * attention,
        )
    return total + Needed(vocabulary=2 * vocabulary_products(config, labels))


def transcribing_needs(
    config: SlamAsrConfig,
    mel_frames: Sequence[int],
    prompts: Sequence[int],
    new_tokens: Sequence[int],
    num_beams: int,
) -> Needed:
    """B clips of `mel_frames` and prompt lengths, each with `new_tokens` before its end-of-text.

    The prompt is read once a clip, whatever the number of beams; then every beam reads each new token to tell
    the next, end-of-text last.
    """
    total = Needed()
    for frames, prompt, tokens in zip(mel_frames, prompts, new_tokens, strict=True):
        projector, _, _ = projector_products(config, config.audio_geometry.frames_of_features(frames))
        linear, attention = llm_products(config, prompt, attended_pairs=prompt * (prompt + 1) / 2)
        seen = tokens * prompt + tokens * (tokens + 1) / 2
        new_linear, new_attention = llm_products(config, tokens, attended_pairs=seen)
        new = new_linear + new_attention + lora_products(config, tokens) + vocabulary_products(config, tokens)
        total += Needed(
            encoder=encoder_products(config, frames),
            projector=projector,
            llm_forward=linear + lora_products(config, prompt) + attention,
            vocabulary=vocabulary_products(config, 1),
            decode=num_beams * new,
        )
    return total


def encoder_products(config: SlamAsrConfig, mel_frames: int) -> float:
    """One clip through the convolutions and the kept layers."""
    audio = config.audio_config
    width, frames = audio.d_model, config.audio_geometry.frames_of_features(mel_frames)
    convolutions = 2 * 3 * width * (audio.num_mel_bins * mel_frames + width * frames)
    projections = 2 * frames * 4 * width * width  # query, key, value, output
    feed_forward = 2 * 2 * frames * width * audio.encoder_ffn_dim
    attention = 2 * 2 * frames * frames * width
    return convolutions + config.num_encoder_layers * (projections + feed_forward + attention)


def projector_products(config: SlamAsrConfig, encoder_frames: int) -> tuple[float, float, float]:
    """Forward, weight gradients, and gradients between the projector's own layers, for one clip.

    Raises:
        ValueError: there is no count for this type of projector.
    """
    width, hidden, out = (
        config.audio_config.d_model,
        config.projector_hidden_size,
        config.text_config.hidden_size,
    )
    tokens, stack = config.audio_tokens(encoder_frames), config.projector_stack
    if config.projector_type == "stack_mlp":
        layers = [stack * width * hidden, hidden * out]
    elif config.projector_type == "conv":
        layers = [stack * width * width, width * hidden, hidden * out]
    else:
        raise ValueError(
            f"Operations of a {config.projector_type!r} projector are not counted; add them to "
            "`projector_products`, or measure with stack_mlp or conv."
        )
    forward = 2.0 * tokens * sum(layers)
    return forward, forward, 2.0 * tokens * sum(layers[1:])


def llm_shapes(config: SlamAsrConfig) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of the linear layers of one LLM layer, for Qwen2's and Llama's kind."""
    text = config.text_config
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    queries, keys = text.num_attention_heads * head, text.num_key_value_heads * head
    return {
        "q_proj": (text.hidden_size, queries),
        "k_proj": (text.hidden_size, keys),
        "v_proj": (text.hidden_size, keys),
        "o_proj": (queries, text.hidden_size),
        "gate_proj": (text.hidden_size, text.intermediate_size),
        "up_proj": (text.hidden_size, text.intermediate_size),
        "down_proj": (text.intermediate_size, text.hidden_size),
    }


def llm_products(config: SlamAsrConfig, positions: float, attended_pairs: float) -> tuple[float, float]:
    """Linear layers and attention of the LLM's layers, forward."""
    shapes = llm_shapes(config)
    queries = shapes["q_proj"][1]
    linear = 2.0 * positions * sum(inputs * outputs for inputs, outputs in shapes.values())
    layers = config.text_config.num_hidden_layers
    return layers * linear, layers * 2 * 2.0 * attended_pairs * queries


def lora_products(config: SlamAsrConfig, positions: float) -> float:
    """LoRA's two small products beside each adapted layer, forward."""
    if not config.adds_lora:
        return 0.0
    shapes = llm_shapes(config)
    unknown = sorted(set(config.lora_target_modules) - shapes.keys())
    if unknown:
        raise ValueError(f"Operations of LoRA on {unknown} are not counted; {sorted(shapes)} are.")
    width = sum(sum(shapes[name]) for name in config.lora_target_modules)
    return config.text_config.num_hidden_layers * 2.0 * positions * config.lora_rank * width


def vocabulary_products(config: SlamAsrConfig, positions: float) -> float:
    return 2.0 * positions * config.text_config.hidden_size * config.text_config.vocab_size


def batch_needs(config: SlamAsrConfig, batch: dict[str, torch.Tensor]) -> Needed:
    """`training_needs` of a batch of `SpeechCollator`."""
    return training_needs(
        config,
        batch["input_features_mask"].sum(dim=1).tolist(),
        batch["attention_mask"].sum(dim=1).tolist(),
        int((batch["labels"] != -100).sum()),
    )


def padding_shares(batches: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Shares of the batches' mel frames, or cached encoder frames, and tokens that are padding."""
    masks = {
        "input_features_mask": "mel_frames",
        "encoder_frames_mask": "encoder_frames",
        "attention_mask": "tokens",
    }
    shares = {}
    for mask in masks.keys() & batches[0].keys():
        places = sum(batch[mask].numel() for batch in batches)
        shares[masks[mask]] = 1 - sum(int(batch[mask].sum()) for batch in batches) / places
    return shares
