"""From settings to a model and a processor: base models pinned, encoder pruned, projector and LoRA fresh.

A setting reaches the model by its name: a field of `ModelArguments` or `LoraArguments` that is one of
`SlamAsrConfig` too is handed on, so a new setting of the architecture needs no line here.
"""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import ResolvedRevision
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
)
from transformers.utils.hub import resolve_revision

from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration, SlamAsrProcessor
from modeling_slam.common.command_line import one_line
from modeling_slam.common.cpu_products import use_onednn
from modeling_slam.common.quantization import keep_trainable, loading_settings
from modeling_slam.model.audio_lengths import (
    MAX_CLIP_SECONDS,
    MIN_CHUNK_SECONDS,
    SAMPLING_RATE,
    audio_geometry,
)
from modeling_slam.model.configuration_slam import FIRST_LAYER_NEEDED_BY, PROJECTOR_QUERIES
from modeling_slam.model.processing_slam import in_language
from modeling_slam.training.arguments import LoraArguments, ModelArguments, RunArguments
from modeling_slam.training.feature_cache import Encoding, run_device
from modeling_slam.training.layer_choice import LAYER_CHOICES, Stack, choose_layers

PAUSES_SECONDS = 1.0  # before and behind a clip, where recordings are cut
# Flag -> field of the config, where they differ.
OTHER_NAMES = {
    "keep_layers": "num_encoder_layers",
    "keep_llm_layers": "num_llm_layers",
    "train_encoder_layers": "trained_encoder_layers",
}


def build_config(
    model_args: ModelArguments,
    lora_args: LoraArguments,
    checkpoint: str | None = None,
) -> SlamAsrConfig:
    """The architecture; reads the base models' configs and tokenizer, and no weights.

    A run that goes on from `checkpoint` keeps its layers, the scale and norm of its projector, and the
    revisions of its base models: what they follow from may have changed since. Where layers are chosen by
    speech or by text, the lowest are kept until there are data: see `layers_by_data.choose_by_data`.

    Raises:
        ValueError: a setting does not fit the base models. OSError: a base model cannot be found.
    """
    begun = None if checkpoint is None else SlamAsrConfig.from_pretrained(checkpoint)
    if begun is None:
        encoder_revision = pinned(model_args.encoder, model_args.encoder_revision)
        llm_revision = pinned(model_args.llm, model_args.llm_revision)
    else:
        encoder_revision, llm_revision = begun.audio_model_revision, begun.text_model_revision
    audio_config = base_config("encoder", model_args.encoder, encoder_revision)
    text_config = base_config("llm", model_args.llm, llm_revision)
    geometry = audio_geometry(audio_config)  # an encoder that is not supported shows here
    check_llm(model_args, text_config)
    check_layers(model_args, audio_config.num_hidden_layers)
    rest: dict[str, Any] = {
        "audio_model_id": absolute(model_args.encoder),
        "audio_model_revision": encoder_revision,
        "text_model_id": absolute(model_args.llm),
        "text_model_revision": llm_revision,
        # The id of the placeholder follows from the tokenizer alone.
        "audio_token_id": processor_of(
            model_args, encoder_revision, llm_revision, audio_geometry=geometry
        ).audio_token_id,
    }
    if begun is not None:
        rest["kept_encoder_layers"] = begun.kept_encoder_layers
        rest["kept_llm_layers"] = begun.kept_llm_layers
        rest["projector_norm"] = begun.projector_norm
        if model_args.projector_scale is None:
            rest["projector_scale"] = begun.projector_scale
    elif model_args.kept_encoder_layers is None:
        layers = audio_config.num_hidden_layers
        stack = Stack(layers, audio_config.model_type in FIRST_LAYER_NEEDED_BY)
        n = model_args.keep_layers or layers
        rest["kept_encoder_layers"] = choose_layers(model_args.layer_choice, stack, n).layers
    return architecture(model_args, lora_args, audio_config, text_config, **rest)


def architecture(
    model_args: ModelArguments,
    lora_args: LoraArguments,
    audio_config: PreTrainedConfig,
    text_config: PreTrainedConfig,
    **rest: Any,
) -> SlamAsrConfig:
    """What the settings make of these base models, checked; `rest` are further fields of the config."""
    check_layers(model_args, audio_config.num_hidden_layers)
    check_llm_layers(model_args)
    settings = {**vars(model_args), **vars(lora_args)}
    fields = {OTHER_NAMES.get(name, name): settings[name] for name in config_settings(model_args, lora_args)}
    fields |= {"projector_norm": True} | rest
    kept = fields["kept_encoder_layers"] or list(range(audio_config.num_hidden_layers))
    kept = kept[: fields["num_encoder_layers"]]
    fields["trained_encoder_layers"] = topmost(kept, lora_args.train_encoder_layers)
    # What is trained is float32, whatever the frozen weights are.
    return SlamAsrConfig(
        audio_config=audio_config, text_config=text_config, trained_in_float32=True, **fields
    )


def topmost(kept: list[Any], count: int) -> list[Any]:
    """So many of the kept layers that are trained themselves (`--train_encoder_layers`)."""
    if not 0 <= count <= len(kept):
        raise ValueError(
            f"`--train_encoder_layers` must be between 0 and {len(kept)}, the layers that are kept, got "
            f"{count}."
        )
    return kept[len(kept) - count :]


def config_settings(*groups: Any) -> set[str]:
    """Names of the settings in these groups that are handed to the config."""
    names = {setting.name for group in groups for setting in dataclasses.fields(group)}
    known = {setting.name for setting in dataclasses.fields(SlamAsrConfig)}
    return {name for name in names if name in known or name in OTHER_NAMES}


def check_layers(model_args: ModelArguments, available: int) -> None:
    n = model_args.keep_layers
    if model_args.kept_encoder_layers is not None and model_args.layer_choice != "top_down":
        raise ValueError(
            "`layer_choice` and `kept_encoder_layers` both say which layers are kept; leave one out."
        )
    by_text = LAYER_CHOICES[model_args.layer_choice].needs == "text"
    if by_text and model_args.projector_type in PROJECTOR_QUERIES:
        raise ValueError(
            f"`--layer_choice {model_args.layer_choice}` reads a CTC head, and a {model_args.projector_type} "
            "projector, whose tokens have no order in time, cannot have one; take another choice."
        )
    if n is not None and not 1 <= n <= available:
        raise ValueError(
            f"`--keep_layers` must be between 1 and {available}, the layers of the encoder, got {n}."
        )


def check_llm_layers(model_args: ModelArguments) -> None:
    asked = [
        f"`{flag}`"
        for flag, is_given in {
            "keep_llm_layers": model_args.keep_llm_layers is not None,
            "llm_layer_choice": model_args.llm_layer_choice != "top_down",
        }.items()
        if is_given
    ]
    if model_args.kept_llm_layers is not None and asked:
        raise ValueError(
            f"{asked[0]} and `kept_llm_layers` both say which layers of the LLM are kept; leave one out."
        )
    if asked == ["`llm_layer_choice`"]:
        raise ValueError(
            f"`--llm_layer_choice {model_args.llm_layer_choice}` must be told how many layers of the LLM to "
            "keep: add `--keep_llm_layers`."
        )


def check_llm(model_args: ModelArguments, text_config: Any) -> None:
    decodes = getattr(text_config, "is_decoder", True)  # False where it must be asked for, as by BERT
    if text_config.is_encoder_decoder or not decodes or type(text_config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(
            f"`llm` must be a causal LM such as Qwen/Qwen2.5-3B, {model_args.llm} is a "
            f"{text_config.model_type}."
        )


def check_model(config: SlamAsrConfig, model_args: ModelArguments) -> None:
    """Build the model without memory for its weights: what would end in an error does so now.

    Raises:
        ValueError: the attention is not there, LoRA finds no layer of its names, layers of the LLM cannot be
            left out, or an audio token is longer than a clip can be.
    """
    geometry = config.audio_geometry
    frames = geometry.frames_of_samples(round((geometry.max_seconds or MAX_CLIP_SECONDS) * SAMPLING_RATE))
    if config.projector_stack > frames:
        raise ValueError(
            f"`--projector_stack` must be at most {frames}, the encoder frames of the longest clip that it "
            f"hears, got {config.projector_stack}."
        )
    attention = model_args.attn_implementation
    try:
        with torch.device("meta"):
            AutoModel.from_config(config, attn_implementation=attention)
    except (ImportError, ValueError) as error:
        if "target_modules`" in str(error) or "_llm_layers`" in str(error):
            raise
        raise ValueError(f"`attn_implementation` {attention}: {one_line(error)}") from error


def base_config(
    flag: str,
    model_id: str,
    revision: str | None,
    read: Callable[..., PreTrainedConfig] = AutoConfig.from_pretrained,
) -> PreTrainedConfig:
    try:
        return read(model_id, revision=revision)
    except (OSError, ValueError) as error:
        raise ValueError(f"`{flag}` {model_id} cannot be read: {one_line(error)}") from error


def build_processor(
    model_args: ModelArguments,
    config: SlamAsrConfig,
    chunk_seconds: float | None = None,
    languages: Collection[str | None] = (),
) -> SlamAsrProcessor:
    """The processor that belongs to `config`.

    Where the instruction names the language and all clips are in one, of `languages`, that is filled in.
    """
    instruction = model_args.instruction
    if len(set(languages)) == 1:
        instruction = in_language(instruction, next(iter(languages)))
    return processor_of(
        model_args,
        config.audio_model_revision,
        config.text_model_revision,
        instruction=instruction,
        projector_stack=config.projector_stack,
        projector_tail=config.projector_tail,
        projector_queries=config.projector_queries,
        pad_to_seconds=model_args.pad_to_seconds,
        chunk_seconds=chunk_seconds,
        audio_geometry=config.audio_geometry,
    )


def processor_of(
    model_args: ModelArguments, encoder_revision: str | None, llm_revision: str | None, **settings: Any
) -> SlamAsrProcessor:
    return SlamAsrProcessor(
        AutoFeatureExtractor.from_pretrained(model_args.encoder, revision=encoder_revision),
        AutoTokenizer.from_pretrained(model_args.llm, revision=llm_revision),
        **settings,
    )


def usual_length(clip_seconds: Sequence[float]) -> float:
    """How long the pieces of a recording may be: 99 % of the clips and the pauses around them fit.

    Within the lengths that the pipeline can cut recordings into. Shorter pieces would cut sentences in two.
    """
    seconds = float(np.percentile(clip_seconds, 99)) + PAUSES_SECONDS
    return round(min(max(seconds, MIN_CHUNK_SECONDS), MAX_CLIP_SECONDS), 1)


def build_model(
    config: SlamAsrConfig,
    processor: SlamAsrProcessor,
    model_args: ModelArguments,
    bf16: bool,
    trained: dict[str, torch.Tensor] | None = None,
) -> SlamAsrForConditionalGeneration:
    """Base weights, and projector, CTC head and LoRA, which are float32 whatever the frozen weights are.

    `trained` are weights of projector and head to begin with; they are fresh by default, as LoRA is.
    """
    dtype = frozen_dtype(model_args, bf16)
    model = SlamAsrForConditionalGeneration.from_base_models(
        config,
        trained,
        dtype=dtype,
        attn_implementation=model_args.attn_implementation,
        generation_config=GenerationConfig(
            num_beams=2,
            max_new_tokens=200,
            eos_token_id=processor.eos_token_id,
            pad_token_id=processor.pad_token_id,
        ),
        **loading_settings(model_args.quantization, dtype, run_device()),
    )
    keep_trainable(model)
    use_onednn(model)
    return model


def encoding_of(model_args: ModelArguments, run_args: RunArguments, config: SlamAsrConfig) -> Encoding:
    """How the encoder of a run computes, before it is trained; where its own weights are, in float32."""
    bf16 = bool(run_args.bf16)
    dtype = torch.float32 if config.trained_encoder_layers else frozen_dtype(model_args, bf16)
    return Encoding(dtype, bf16, model_args.attn_implementation)


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
