"""Weights of the base models, read lazily: only the kept encoder layers, never Whisper's decoder.

A lean checkpoint holds what was trained; the rest lies with the base models it names. Here safetensors files
are opened without being read, and their tensors are renamed to where they sit in
`SlamAsrForConditionalGeneration`. The loader of transformers then reads just the tensors it is handed.
"""

from typing import Any

from safetensors import safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file, get_checkpoint_shard_files


def lazy_tensors(model_id: str, revision: str | None = None, **hub_kwargs: Any) -> dict[str, Any]:
    """Name -> unread tensor (a safetensors slice) of the checkpoint at a Hub id or directory.

    Raises:
        OSError: there is no such model, or it has no safetensors weights.
    """
    hub_kwargs["revision"] = revision
    single = cached_file(
        model_id, SAFE_WEIGHTS_NAME, _raise_exceptions_for_missing_entries=False, **hub_kwargs
    )
    if single is not None:
        files = [single]
    else:
        index = cached_file(
            model_id, SAFE_WEIGHTS_INDEX_NAME, _raise_exceptions_for_missing_entries=False, **hub_kwargs
        )
        if index is None:
            raise OSError(
                f"{model_id} (revision {revision}) has no {SAFE_WEIGHTS_NAME} and no index of shards. "
                "Only safetensors weights are read; convert the model, or name another one."
            )
        files, _ = get_checkpoint_shard_files(model_id, index, **hub_kwargs)
    tensors = {}
    for file in files:
        handle = safe_open(file, framework="pt")
        tensors |= {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118 (not a dict)
    return tensors


def encoder_tensors(whisper: dict[str, Any], layers: list[int]) -> dict[str, Any]:
    """The encoder's part of a Whisper checkpoint, with layer `layers[i]` renamed to `encoder.layers.i`."""
    new_index = {str(old): str(new) for new, old in enumerate(layers)}
    kept = {}
    for name, tensor in whisper.items():
        _, found, rest = f".{name}".partition(".encoder.")
        if not found:
            continue
        if rest.startswith("layers."):
            _, old, rest = rest.split(".", 2)
            if old not in new_index:
                continue
            rest = f"layers.{new_index[old]}.{rest}"
        kept[f"encoder.{rest}"] = tensor
    return kept


def language_model_tensors(llm: dict[str, Any], lora_modules: list[str]) -> dict[str, Any]:
    """The LLM's checkpoint under `language_model.`; layers that LoRA wraps become `base_layer`."""
    renamed = {}
    for name, tensor in llm.items():
        module, _, leaf = f"language_model.{name}".rpartition(".")
        if any(module.endswith(f".{target}") for target in lora_modules):
            module += ".base_layer"
        renamed[f"{module}.{leaf}"] = tensor
    return renamed


def base_tensors(config: Any, **hub_kwargs: Any) -> dict[str, Any]:
    """All frozen weights of a `SlamAsrConfig`, unread, under the model's own names."""
    whisper = lazy_tensors(config.audio_model_id, config.audio_model_revision, **hub_kwargs)
    llm = lazy_tensors(config.text_model_id, config.text_model_revision, **hub_kwargs)
    lora_modules = config.lora_target_modules if config.adds_lora else []
    return encoder_tensors(whisper, config.encoder_layer_indices) | language_model_tensors(llm, lora_modules)
