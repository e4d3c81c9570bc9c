"""How large a model will be, before any weight is there: the model itself is built on the meta device."""

import dataclasses
import functools
import json
from dataclasses import dataclass

import torch

from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of a model by part."""

    encoder: int  # kept
    encoder_full: int
    projector: int
    lora: int  # of LLM and encoder
    llm: int
    llm_embeddings: int  # of the LLM's input embeddings, which a token looks up and does not multiply
    encoder_lora: int = 0
    encoder_trained: int = 0  # of its own, beside LoRA
    llm_trained: int = 0

    @property
    def total(self) -> int:
        return self.encoder + self.projector + self.lora + self.llm

    @property
    def reduction(self) -> float:
        """Share of the encoder's parameters that pruning removes, as a fraction."""
        return 1 - self.encoder / self.encoder_full


def parameter_counts(config: SlamAsrConfig) -> ParameterCounts:
    """The counts of the model that `config` describes.

    A study asks for hundreds of models that differ in depth and LoRA. Placing LoRA takes most of the time, so
    each depth is built without it, and LoRA on the LLM alone is counted beside one encoder layer.
    """
    if any(rank for field, rank in config.lora_ranks().items() if field != "lora_rank"):
        return counts_without_weights(as_json(config))
    counts = counts_without_weights(as_json(config.without_lora()))
    if not config.adds_lora:
        return counts
    shallow = as_json(config, num_encoder_layers=1, kept_encoder_layers=[0])
    return dataclasses.replace(counts, lora=counts_without_weights(shallow).lora)


def as_json(config: SlamAsrConfig, **changes: object) -> str:
    """The configuration with these changes, as JSON, which can be compared."""
    return json.dumps(config.to_dict() | changes, sort_keys=True)


@functools.lru_cache(maxsize=512)
def counts_without_weights(config_json: str) -> ParameterCounts:
    with torch.device("meta"):
        model = SlamAsrForConditionalGeneration(SlamAsrConfig.from_dict(json.loads(config_json)))
    counts = model.parameter_counts()
    return ParameterCounts(
        encoder=counts["encoder_kept"],
        encoder_full=counts["encoder_kept"] + counts["encoder_removed"],
        projector=counts["projector"],
        lora=counts["lora"],
        llm=counts["llm"],
        **{name: counts[name] for name in ("encoder_lora", "encoder_trained", "llm_trained")},
        llm_embeddings=sum(weight.numel() for weight in model.get_input_embeddings().parameters()),
    )
