"""The plain side: what one puts together from transformers' and PEFT's parts alone.

As `PlainModel` in benchmarks/worker.py, which must run beside checkouts that have no such module, but with
random weights: Whisper's own encoder hears 30 s, whatever the clip's length; its frames are cut to the clip.
The vocabulary is projected at every position, as an LLM's own loss does. Batches are not grouped by length.
"""

from typing import Any

import peft
import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.models.whisper.modeling_whisper import WhisperEncoder


class PlainModel(nn.Module):
    """Of a `SlamAsrConfig`."""

    def __init__(self, config: Any, device: torch.device, dtype: torch.dtype):
        super().__init__()
        torch.manual_seed(0)
        with torch.device(device):
            self.encoder = WhisperEncoder._from_config(config.audio_config, dtype=dtype)
            self.encoder.layers = self.encoder.layers[: config.num_encoder_layers]
            llm = AutoModelForCausalLM.from_config(config.text_config, dtype=dtype)
            self.requires_grad_(False)
            lora = peft.LoraConfig(
                r=config.lora_rank,
                lora_alpha=config.lora_alpha,
                lora_dropout=config.lora_dropout,
                target_modules=config.lora_target_modules,
            )
            self.llm = peft.get_peft_model(llm, lora)  # which freezes the rest
            self.stack, self.audio_token_id = config.projector_stack, config.audio_token_id
            width, hidden = config.text_config.hidden_size, config.projector_hidden_size
            self.projector = nn.Sequential(
                nn.Linear(config.audio_config.d_model * self.stack, hidden),
                nn.ReLU(),
                nn.Dropout(config.projector_dropout),
                nn.Linear(hidden, width),
                nn.LayerNorm(width),
            )

    def forward(self, input_features: torch.Tensor, input_ids: torch.Tensor, **text: torch.Tensor) -> Any:
        """(B, M, 3000) mel and (B, L) ids, mask and labels -> the LLM's own output."""
        frames = self.encoder(input_features).last_hidden_state  # (B, 1500, D_enc)
        batch, length, width = frames.shape
        stacked = frames.reshape(batch, length // self.stack, width * self.stack)
        tokens = self.projector(stacked.to(self.projector[0].weight.dtype))  # (B, 300, D_llm)
        is_audio = input_ids.eq(self.audio_token_id)
        kept = torch.arange(tokens.shape[1], device=tokens.device).lt(is_audio.sum(dim=1, keepdim=True))
        embeddings = self.llm.get_input_embeddings()(input_ids.masked_fill(is_audio, 0))
        embeddings = embeddings.masked_scatter(is_audio[..., None], tokens[kept].to(embeddings.dtype))
        return self.llm(inputs_embeds=embeddings, **text)
