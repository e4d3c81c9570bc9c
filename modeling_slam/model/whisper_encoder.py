"""Whisper's encoder on the layers we keep and on the clip's own length.

transformers' `WhisperEncoder` insists on 30 s and ignores masks. Here a clip costs what its length costs:
behind the convolutions the real frames of a batch form one row, and only attention takes them apart again.
Padding is masked there and in the convolutions, so a clip's frames do not depend on what else is in its
batch. On 3000 mel frames with all layers it equals transformers' encoder. Weights keep Whisper's names; kept
layers are numbered anew.

Source: Whisper, https://huggingface.co/papers/2212.04356
"""

from typing import Any

import torch
from torch import nn
from transformers import WhisperConfig
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.whisper.modeling_whisper import (
    WhisperAttention,
    WhisperEncoderLayer,
    eager_attention_forward,
)

from .audio_lengths import ENCODER_STRIDE


class PackedWhisperAttention(WhisperAttention):
    """Whisper's self-attention on the N real frames of a batch in one row: each attends to its own clip's."""

    config: WhisperConfig

    def forward(  # ty: ignore[incompatible-method-override] (the layer passes `places` on)
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        places: torch.Tensor,
        padded_shape: torch.Size,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        """(1, N, D) -> (1, N, D).

        Args:
            attention_mask: of the padded rows, as transformers makes it for the attention in use.
            places: (N,) where in the flattened B x T padded frames the real ones stand.
            padded_shape: B and T.
        """
        query, key, value = (
            unpacked(states, places, padded_shape)
            .unflatten(-1, (self.num_heads, self.head_dim))
            .transpose(1, 2)
            for states in (
                self.q_proj(hidden_states) * self.scaling,
                self.k_proj(hidden_states),
                self.v_proj(hidden_states),
            )
        )
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        dropout = self.dropout if self.training else 0.0
        attended, _ = attend(self, query, key, value, attention_mask, dropout=dropout, scaling=1.0)
        attended = attended.reshape(-1, self.embed_dim)  # (B * T, D)
        return self.out_proj(attended.index_select(0, places)[None]), None


def unpacked(states: torch.Tensor, places: torch.Tensor, padded_shape: torch.Size) -> torch.Tensor:
    """(1, N, D) -> (B, T, D), zero where no real frame stands."""
    batch, length = padded_shape
    padded = states.new_zeros((batch * length, states.shape[-1]))
    return padded.index_copy(0, places, states[0]).view(batch, length, -1)


class PrunedWhisperEncoder(nn.Module):
    """Convolutions, `num_layers` transformer layers and the final LayerNorm of a Whisper encoder."""

    def __init__(self, config: WhisperConfig, num_layers: int):
        super().__init__()
        self.config = config
        width = config.d_model
        self.conv1 = nn.Conv1d(config.num_mel_bins, width, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(width, width, kernel_size=3, stride=ENCODER_STRIDE, padding=1)
        self.embed_positions = nn.Embedding(config.max_source_positions, width)
        self.layers = nn.ModuleList([WhisperEncoderLayer(config) for _ in range(num_layers)])
        self.layer_norm = nn.LayerNorm(width)
        for layer in self.layers:
            layer.self_attn.__class__ = PackedWhisperAttention  # the same weights, another forward

    def forward(
        self, input_features: torch.Tensor, input_features_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, M, F) log-mel and (B, F), True on real frames -> (B, T, D) frames and their (B, T) mask.

        Frames under a False mask are zero.
        """
        (frames,), frame_mask = self.at_depths(input_features, input_features_mask, [len(self.layers)])
        return frames, frame_mask

    def at_depths(
        self, input_features: torch.Tensor, input_features_mask: torch.Tensor | None, depths: list[int]
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """What encoders of the lowest `depths` layers would give, in one pass: frames each, and their mask.

        Raises:
            ValueError: mel bins other than the model's, or more frames than it has positions for (30 s).
        """
        batch, mel_bins, mel_frames = input_features.shape
        limit = self.config.max_source_positions * ENCODER_STRIDE
        if mel_bins != self.config.num_mel_bins or not 0 < mel_frames <= limit:
            raise ValueError(
                f"`input_features` has {mel_bins} mel bins and {mel_frames} frames; this encoder takes "
                f"{self.config.num_mel_bins} bins and 1 to {limit} frames of 10 ms. Use the checkpoint's own "
                "`SlamAsrProcessor`, and cut longer audio."
            )
        if input_features_mask is None:
            input_features_mask = input_features.new_ones((batch, mel_frames), dtype=torch.bool)
        mel_mask = input_features_mask.bool()
        frame_mask = mel_mask[:, ::ENCODER_STRIDE]

        # A convolution reaches one frame to each side: what lies past a clip's end must be zero, as its own
        # padding is.
        mel = input_features.to(self.conv1.weight.dtype) * mel_mask[:, None]
        hidden = nn.functional.gelu(self.conv1(mel)) * mel_mask[:, None]
        hidden = nn.functional.gelu(self.conv2(hidden)).transpose(1, 2)  # (B, T, D)
        hidden = hidden + self.embed_positions.weight[: hidden.shape[1]]

        attention_mask = create_bidirectional_mask(self.config, hidden, frame_mask)
        padded_shape = frame_mask.shape
        places = frame_mask.flatten().nonzero()[:, 0]
        hidden = hidden.flatten(0, 1).index_select(0, places)[None]  # (1, N, D)
        frames = {}
        for depth, layer in enumerate(self.layers[: max(depths)], start=1):
            hidden = layer(hidden, attention_mask, places=places, padded_shape=padded_shape)
            if depth in depths:
                frames[depth] = unpacked(self.layer_norm(hidden), places, padded_shape)
        return [frames[depth] for depth in depths], frame_mask
