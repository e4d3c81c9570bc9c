"""What decoding is compared with: transformers' own `generate` on the LLM, clips in the order they come."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import LogitsProcessorList

from modeling_slam import SlamAsrForConditionalGeneration, SlamAsrProcessor
from modeling_slam.model.audio_lengths import MAX_TOKENS_PER_SECOND
from modeling_slam.model.modeling_slam import TranscriptGuard


@torch.no_grad()
def plain_generate(
    model: SlamAsrForConditionalGeneration,
    inputs: dict[str, torch.Tensor],
    max_tokens_per_second: int = MAX_TOKENS_PER_SECOND,
    **settings: Any,
) -> torch.Tensor:
    """The (B, N) tokens of transformers' search over the same embeddings, with the same limits."""
    mask = inputs["input_features_mask"]
    ends = settings.get("eos_token_id", model.generation_config.eos_token_id)
    geometry = model.config.audio_geometry
    budgets = geometry.transcript_budget(geometry.frames_of_features(mask.sum(dim=1)), max_tokens_per_second)
    guard = TranscriptGuard(budgets, ends)
    settings = {
        "eos_token_id": ends,
        "pad_token_id": model.generation_config.pad_token_id,
        "logits_processor": LogitsProcessorList([guard]),
    } | settings
    return model.language_model.generate(
        inputs_embeds=model.prompt_embeddings(inputs["input_ids"], inputs["input_features"], mask),
        attention_mask=inputs["attention_mask"],
        **settings,
    )


def plain_tokens(
    model: SlamAsrForConditionalGeneration,
    processor: SlamAsrProcessor,
    clips: Sequence[Any],
    batch_size: int = 8,
    **settings: Any,
) -> Iterator[list[int]]:
    """Tokens of each clip up to its end, from unsorted batches."""
    for first in range(0, len(clips), batch_size):
        rows = plain_generate(model, processor(list(clips[first : first + batch_size])), **settings)
        yield from (up_to_end(model, row) for row in rows.tolist())


def up_to_end(model: SlamAsrForConditionalGeneration, row: list[int]) -> list[int]:
    ends = model.generation_config.eos_token_id
    ends = {*(ends if isinstance(ends, list) else [ends]), model.generation_config.pad_token_id}
    return row[: next((place for place, token in enumerate(row) if token in ends), len(row))]
