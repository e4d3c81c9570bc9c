"""Whisper's encoder on the layers we keep and on the clip's own length.

transformers' `WhisperEncoder` insists on 30 s and ignores masks. Here a clip costs what its length costs, and
padding is masked in the convolutions and in attention, so a clip's frames do not depend on what else is in
its batch. On 3000 mel frames with all layers it equals transformers' encoder. Weights keep Whisper's names;
kept layers are numbered anew.

Source: Whisper, https://huggingface.co/papers/2212.04356
"""

import torch
from torch import nn
from transformers import WhisperConfig
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.whisper.modeling_whisper import WhisperEncoderLayer

from .audio_lengths import ENCODER_STRIDE


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

    def forward(
        self, input_features: torch.Tensor, input_features_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, M, F) log-mel and (B, F), True on real frames -> (B, T, D) frames and their (B, T) mask.

        Frames under a False mask are zero.

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
        for layer in self.layers:
            hidden = layer(hidden, attention_mask)
        return self.layer_norm(hidden) * frame_mask[..., None], frame_mask
