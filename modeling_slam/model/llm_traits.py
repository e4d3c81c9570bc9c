"""What training may rely on in an LLM, found out by asking it.

Most causal LMs of transformers tell clips packed in one row apart by their positions, and make their logits
by the output layer alone. Some do not (OPT, Bloom, Falcon, Mamba; Gemma 2, Cohere), without saying so.
"""

from typing import Any, NamedTuple

import torch


class LlmTraits(NamedTuple):
    keeps_clips_apart: bool  # packed in one row, where each clip's positions begin anew
    head_comes_last: bool  # logits are its output layer on its hidden states, not scaled or capped


@torch.no_grad()
def traits_of(language_model: Any) -> LlmTraits:
    """Three tokens behind three others, and alone; in evaluation mode, as dropout would set the two apart."""
    width = language_model.get_input_embeddings().weight.shape[1]
    tokens = torch.arange(6 * width, device=language_model.device).sin().view(1, 6, width)
    tokens = tokens.to(language_model.dtype)
    positions = torch.arange(3, device=language_model.device).repeat(2)[None]
    packed = {"inputs_embeds": tokens, "position_ids": positions, "use_cache": False}
    single = {"inputs_embeds": tokens[:, 3:], "position_ids": positions[:, 3:], "use_cache": False}
    hidden = language_model.base_model(**packed).last_hidden_state
    alone = language_model.base_model(**single).last_hidden_state.float()
    logits = language_model(**packed).logits
    tolerance = torch.finfo(hidden.dtype).eps ** 0.5  # rounding differs with the length of the row
    return LlmTraits(
        keeps_clips_apart=bool((hidden[:, 3:].float() - alone).norm() <= tolerance * alone.norm()),
        head_comes_last=torch.equal(language_model.get_output_embeddings()(hidden).float(), logits.float()),
    )
