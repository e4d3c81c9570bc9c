"""From settings to a model and a processor: base models pinned, encoder pruned, projector and LoRA fresh."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import ResolvedRevision
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
)
from transformers.utils.hub import resolve_revision

from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration, SlamAsrProcessor
from modeling_slam.common.cpu_products import use_onednn
from modeling_slam.model.audio_lengths import MAX_CLIP_SECONDS, MIN_CHUNK_SECONDS
from modeling_slam.training.arguments import LoraArguments, ModelArguments


def build_config(
    model_args: ModelArguments, lora_args: LoraArguments, checkpoint: str | None = None
) -> SlamAsrConfig:
    """The architecture; reads the base models' configs and no weights.

    A run that goes on from `checkpoint` keeps the revisions of its base models: they may have changed since.

    Raises:
        ValueError: a setting does not fit the base models. OSError: a base model cannot be found.
    """
    if checkpoint is None:
        encoder_revision = pinned(model_args.encoder, model_args.encoder_revision)
        llm_revision = pinned(model_args.llm, model_args.llm_revision)
    else:
        begun = SlamAsrConfig.from_pretrained(checkpoint)
        encoder_revision, llm_revision = begun.audio_model_revision, begun.text_model_revision
    audio_config = AutoConfig.from_pretrained(model_args.encoder, revision=encoder_revision)
    text_config = AutoConfig.from_pretrained(model_args.llm, revision=llm_revision)
    config = architecture(model_args, lora_args, audio_config, text_config)
    config.audio_model_id, config.audio_model_revision = absolute(model_args.encoder), encoder_revision
    config.text_model_id, config.text_model_revision = absolute(model_args.llm), llm_revision
    return config


def architecture(
    model_args: ModelArguments,
    lora_args: LoraArguments,
    audio_config: PreTrainedConfig,
    text_config: PreTrainedConfig,
) -> SlamAsrConfig:
    """What the settings make of these base models, checked; says nothing of where their weights are."""
    return SlamAsrConfig(
        audio_config=audio_config,
        text_config=text_config,
        num_encoder_layers=model_args.keep_layers,  # ty: ignore[unknown-argument] (a property)
        kept_encoder_layers=model_args.kept_layer_indices,
        projector_type=model_args.projector_type,
        projector_stack=model_args.projector_stack,
        projector_tail=model_args.projector_tail,
        projector_hidden_size=model_args.projector_hidden_size,
        projector_dropout=model_args.projector_dropout,
        projector_queries=model_args.projector_queries,
        projector_layers=model_args.projector_layers,
        lora_rank=lora_args.lora_rank,
        lora_alpha=lora_args.lora_alpha,
        lora_dropout=lora_args.lora_dropout,
        lora_target_modules=lora_args.lora_target_modules,
    )


def build_processor(model_args: ModelArguments, config: SlamAsrConfig) -> SlamAsrProcessor:
    """The processor that belongs to `config`; sets the config's placeholder id to the processor's."""
    processor = SlamAsrProcessor(
        AutoFeatureExtractor.from_pretrained(model_args.encoder, revision=config.audio_model_revision),
        AutoTokenizer.from_pretrained(model_args.llm, revision=config.text_model_revision),
        instruction=model_args.instruction,
        projector_stack=config.projector_stack,
        projector_tail=config.projector_tail,
        projector_queries=config.projector_queries,
        pad_to_seconds=model_args.pad_to_seconds,
        audio_geometry=config.audio_geometry,
    )
    config.audio_token_id = processor.audio_token_id
    return processor


def usual_length(clip_seconds: Sequence[float]) -> float:
    """What 95 % of the clips stay below, within the lengths that the pipeline can cut recordings into."""
    seconds = float(np.percentile(clip_seconds, 95))
    return round(min(max(seconds, MIN_CHUNK_SECONDS), MAX_CLIP_SECONDS), 1)


def build_model(
    config: SlamAsrConfig, processor: SlamAsrProcessor, model_args: ModelArguments, bf16: bool
) -> SlamAsrForConditionalGeneration:
    """Base weights, fresh projector and LoRA; what learns is float32, whatever the frozen weights are."""
    model = SlamAsrForConditionalGeneration.from_base_models(
        config,
        dtype=frozen_dtype(model_args, bf16),
        attn_implementation=model_args.attn_implementation,
    )
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    use_onednn(model)
    model.generation_config = GenerationConfig(
        num_beams=2,
        max_new_tokens=200,
        eos_token_id=processor.eos_token_id,
        pad_token_id=processor.pad_token_id,
    )
    return model


def frozen_dtype(model_args: ModelArguments, bf16: bool) -> torch.dtype:
    automatic = "bfloat16" if bf16 else "float32"
    return getattr(torch, automatic if model_args.frozen_dtype == "auto" else model_args.frozen_dtype)


def pinned(model_id: str, revision: str | None) -> str | None:
    """The commit that a Hub model's revision names now: a checkpoint must find the weights it grew on."""
    resolved = resolve_revision(model_id, revision)
    return resolved.resolved if isinstance(resolved, ResolvedRevision) else revision


def absolute(model_id: str) -> str:
    """A directory by its full path, so that a checkpoint finds it from anywhere; a Hub id as it is."""
    return str(Path(model_id).resolve()) if Path(model_id).is_dir() else model_id
