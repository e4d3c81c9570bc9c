"""Projectors: encoder frames in, LLM-sized audio tokens out.

The projector is the part of SLAM-ASR that is trained from scratch, so most experiments happen here. `B`
clips, `T` encoder frames, `A` audio tokens, `k` frames per token (`projector_stack`). Each projector takes
frames (B, T, D_enc), zero where `frame_mask` (B, T) is False, and returns (B, A, D_llm). To add one: a
subclass of `Projector`, its name in `PROJECTORS`, and its width in `PROJECTOR_WIDTHS` of
configuration_slam.py, which imports no torch.

Source: SLAM-ASR, https://huggingface.co/papers/2402.08846
"""

from typing import Any, ClassVar

import torch
from torch import nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from .audio_lengths import audio_token_count


class FrameNorm(nn.Module):
    """Scale and shift of the encoder's final LayerNorm, made new for the layers that are kept.

    Frames come with those that the full encoder has, `gain * z + shift`. `weight * frames + bias` is then the
    LayerNorm of gain `weight * gain` and shift `weight * shift + bias`: any other one. The encoder and what
    is cached of it stay as they are. Frames of zeros (padding, hidden ones) stay zeros.
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, width: int, is_trained: bool):
        super().__init__()
        for name, value in (("weight", torch.ones(width)), ("bias", torch.zeros(width))):
            if is_trained:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """(B, T, D_enc) -> the same shape."""
        is_heard = (frames != 0).any(dim=-1, keepdim=True)
        return (frames * self.weight + self.bias) * is_heard


class Projector(nn.Module):
    """What all have in common: the LayerNorm's new scale, and while training a share of frames is hidden."""

    def __init__(self, config: Any):
        super().__init__()
        self.frame_norm = None
        if config.final_layer_norm != "as_is":
            is_trained = config.final_layer_norm == "trained"
            self.frame_norm = FrameNorm(config.audio_config.hidden_size, is_trained)
        self.stack, self.tail = config.projector_stack, config.projector_tail
        self.frame_dropout = config.projector_frame_dropout

    def forward(self, frames: torch.Tensor, frame_mask: torch.Tensor) -> torch.Tensor:
        """(B, T, D_enc) and (B, T) -> (B, A, D_llm)."""
        if self.frame_norm is not None:
            frames = self.frame_norm(frames)
        if self.training and self.frame_dropout:
            heard = torch.rand(frames.shape[:2], device=frames.device) >= self.frame_dropout
            frames = frames * heard[..., None]
        return self.project(frames, frame_mask)

    def project(self, frames: torch.Tensor, frame_mask: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class StackMLPProjector(Projector):
    """Stack k frames, two linear layers with ReLU and dropout, LayerNorm: the pruning paper's projector.

    With `projector_context` above 1 a depthwise convolution behind the first layer lets each audio token see
    so many positions around it; the paper's projector sees its own k frames alone.
    """

    def __init__(self, config: Any):
        super().__init__(config)
        width = config.projector_hidden_size
        self.linear1 = nn.Linear(config.audio_config.hidden_size * self.stack, width)
        self.context = None
        if (positions := config.projector_context) > 1:
            self.context = nn.Conv1d(width, width, positions, padding=positions // 2, groups=width)
        self.dropout = nn.Dropout(config.projector_dropout)
        self.linear2 = nn.Linear(width, config.text_config.hidden_size)
        self.norm = nn.LayerNorm(config.text_config.hidden_size)

    def project(self, frames: torch.Tensor, frame_mask: torch.Tensor) -> torch.Tensor:
        """(B, T, D_enc) -> (B, A, D_llm), with A = ceil(T / k), or floor where the tail is dropped."""
        frames = whole_tokens(frames, self.stack, self.tail)
        batch, length, dim = frames.shape
        stacked = frames.reshape(batch, length // self.stack, dim * self.stack)  # (B, A, k * D_enc)
        hidden = nn.functional.relu(self.linear1(stacked))
        if self.context is not None:
            counts = audio_token_count(frame_mask.sum(dim=1), self.stack, self.tail, None)
            is_real = torch.arange(hidden.shape[1], device=hidden.device) < counts[:, None]
            hidden = hidden * is_real[..., None]  # or a token would see how far its batch is padded
            hidden = hidden + self.context(hidden.transpose(1, 2)).transpose(1, 2)
        return self.norm(self.linear2(self.dropout(hidden)))


class ConvProjector(Projector):
    """A convolution of width and stride k, two linear layers with ReLU, LayerNorm (old checkpoints: none)."""

    def __init__(self, config: Any):
        super().__init__(config)
        width = config.audio_config.hidden_size
        self.conv = nn.Conv1d(width, width, kernel_size=self.stack, stride=self.stack)
        self.linear1 = nn.Linear(width, config.projector_hidden_size)
        self.dropout = nn.Dropout(config.projector_dropout)
        self.linear2 = nn.Linear(config.projector_hidden_size, config.text_config.hidden_size)
        self.norm = nn.LayerNorm(config.text_config.hidden_size) if config.projector_norm else nn.Identity()

    def project(self, frames: torch.Tensor, frame_mask: torch.Tensor) -> torch.Tensor:
        """(B, T, D_enc) -> (B, A, D_llm), with A = ceil(T / k), or floor where the tail is dropped."""
        frames = whole_tokens(frames, self.stack, self.tail)
        tokens = nn.functional.relu(self.conv(frames.transpose(1, 2)).transpose(1, 2))  # (B, A, D_enc)
        return self.norm(self.linear2(self.dropout(nn.functional.relu(self.linear1(tokens)))))


class QFormerProjector(Projector):
    """Learned queries attend to the clip's frames; as many tokens for a word as for a minute.

    Its tokens have no order in time, so there is no CTC head behind it.

    Source: BLIP-2, https://huggingface.co/papers/2301.12597
    """

    head_width: ClassVar[int] = 64

    def __init__(self, config: Any):
        super().__init__(config)
        hidden = config.projector_hidden_size
        if hidden % self.head_width:
            raise ValueError(
                f"`projector_hidden_size` must be a multiple of {self.head_width} for a qformer projector, "
                f"got {hidden}. Leave it out for the projector's own."
            )
        qformer = Blip2QFormerConfig(
            hidden_size=hidden,
            intermediate_size=4 * hidden,
            num_hidden_layers=config.projector_layers,
            num_attention_heads=hidden // self.head_width,
            encoder_hidden_size=config.audio_config.hidden_size,
            hidden_dropout_prob=config.projector_dropout,
            attention_probs_dropout_prob=config.projector_dropout,
        )
        self.queries = nn.Parameter(torch.randn(1, config.projector_queries, hidden))
        self.qformer = Blip2QFormerModel(qformer)
        self.linear = nn.Linear(hidden, config.text_config.hidden_size)
        self.norm = nn.LayerNorm(config.text_config.hidden_size)

    def project(self, frames: torch.Tensor, frame_mask: torch.Tensor) -> torch.Tensor:
        """(B, T, D_enc) -> (B, A, D_llm), with A = `projector_queries`."""
        queries = self.queries.expand(frames.shape[0], -1, -1)
        hidden = self.qformer(
            query_embeds=queries, encoder_hidden_states=frames, encoder_attention_mask=frame_mask
        ).last_hidden_state
        return self.norm(self.linear(hidden))


PROJECTORS: dict[str, Any] = {
    "stack_mlp": StackMLPProjector,
    "conv": ConvProjector,
    "qformer": QFormerProjector,
}


def audio_tokens_of(
    config: Any, projector: nn.Module, frames: torch.Tensor, frame_mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T, D_enc) frames and (B, T) mask -> scaled output (B, A, D_llm), (B,) number of real tokens."""
    # The trained weights may be kept in another dtype than the frozen ones.
    frames = frames.to(next(projector.parameters(), frames).dtype)
    projected = projector(frames, frame_mask) * (config.projector_scale or 1.0)
    return projected, config.audio_tokens(frame_mask.sum(dim=1))


def whole_tokens(frames: torch.Tensor, stack: int, tail: str) -> torch.Tensor:
    """(B, T, D) -> (B, A * stack, D): by default the tail is padded, as it often holds the last phoneme."""
    remainder = frames.shape[1] % stack
    if tail == "drop":
        return frames[:, : frames.shape[1] - remainder]
    return nn.functional.pad(frames, (0, 0, 0, -frames.shape[1] % stack))
