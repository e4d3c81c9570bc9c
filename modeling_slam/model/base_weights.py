"""Weights of checkpoints and base models, read lazily: only the kept encoder layers, never Whisper's decoder.

A lean checkpoint holds what was trained; the rest lies with the base models it names. Here their tensors are
found and renamed to where they sit in `SlamAsrForConditionalGeneration`, without being read
(`stored_tensors.py`). The loader of transformers then reads just those it is handed.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file, get_checkpoint_shard_files

from .stored_tensors import StoredTensor, stored_tensors


def lazy_tensors(model_id: str, revision: str | None = None, **hub_kwargs: Any) -> dict[str, StoredTensor]:
    """Name -> unread tensor of the checkpoint at a Hub id or directory.

    Raises:
        OSError: there is no such model, it cannot be fetched, it has no safetensors weights, or a file is
            damaged.
    """
    try:
        files = weight_files(model_id, revision=revision, **hub_kwargs)
    except OSError:
        raise
    except Exception as error:  # of the library that speaks HTTP, which is another one from time to time
        raise OSError(
            f"The weights of {model_id} (revision {revision}) cannot be fetched ({error}). Check the network "
            "and try again: what has arrived is not fetched twice."
        ) from error
    return {name: tensor for file in files for name, tensor in stored_tensors(file).items()}


def weight_files(model_id: str, **hub_kwargs: Any) -> list[str]:
    """The safetensors files of a model, fetched if they are not here."""
    may_be_missing = {"_raise_exceptions_for_missing_entries": False, **hub_kwargs}
    single = cached_file(model_id, SAFE_WEIGHTS_NAME, **may_be_missing)
    if single is not None:
        return [single]
    index = cached_file(model_id, SAFE_WEIGHTS_INDEX_NAME, **may_be_missing)
    if index is None:
        raise OSError(
            f"{model_id} (revision {hub_kwargs['revision']}) has no {SAFE_WEIGHTS_NAME} and no index of "
            "shards. Only safetensors weights are read; convert the model, or name another one."
        )
    return get_checkpoint_shard_files(model_id, index, **hub_kwargs)[0]


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


def without_layers(tensors: dict[str, Any], layers: Iterable[int]) -> dict[str, Any]:
    """The model's `tensors` without these of its encoder layers."""
    dropped = tuple(f"encoder.layers.{layer}." for layer in layers)
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(dropped)}


def base_tensors(config: Any, **hub_kwargs: Any) -> dict[str, Any]:
    """All frozen weights of a `SlamAsrConfig`, unread, under the model's own names.

    Raises:
        RuntimeError: the config has a digest of a base model, and the weights found have another.
    """
    encoder, llm = _open_base_models(config, **hub_kwargs)
    expected = (config.audio_model_digest, config.text_model_digest)
    if any(expected):
        found = _digests(config, encoder, llm)
        for part, wanted, got in zip(("audio", "text"), expected, found, strict=True):
            if wanted not in (None, got):
                raise RuntimeError(
                    f"The weights of {getattr(config, f'{part}_model_id')} (`{part}_model_id`) are not the "
                    f"base weights that this checkpoint was trained on: their digest is {got}, recorded is "
                    f"{wanted}. Put the original model back; `{part}_model_digest=None` takes these "
                    "instead, with whatever results."
                )
    return encoder | language_model_tensors(llm, config.lora_target_modules if config.adds_lora else [])


def base_digests(config: Any, **hub_kwargs: Any) -> tuple[str, str]:
    """Digests of Whisper's weights and of the LLM's, of a thousandth of their bytes.

    They tell a model from another one of the same shape, e.g. a fine-tuned one: names, shapes and the first
    row of each tensor, as float32. Of the encoder's layers only the lowest kept one counts, because `config`
    may keep fewer layers than the checkpoint was trained with.
    """
    return _digests(config, *_open_base_models(config, **hub_kwargs))


def _digests(config: Any, encoder: dict[str, StoredTensor], llm: dict[str, StoredTensor]) -> tuple[str, str]:
    return digest(without_layers(encoder, range(1, config.num_encoder_layers))), digest(llm)


def digest(tensors: dict[str, StoredTensor]) -> str:
    """SHA-256 of names, shapes and first rows; vectors count whole."""
    result = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sample = tensor[:1] if len(tensor.shape) > 1 else tensor[...]
        result.update(f"{name} {list(tensor.shape)} ".encode())
        result.update(sample.float().numpy().tobytes())
    return result.hexdigest()


def _open_base_models(config: Any, **hub_kwargs: Any) -> tuple[dict, dict]:
    """The kept encoder layers under the model's names, and the LLM under its own."""
    whisper = lazy_tensors(config.audio_model_id, config.audio_model_revision, **hub_kwargs)
    llm = lazy_tensors(config.text_model_id, config.text_model_revision, **hub_kwargs)
    return encoder_tensors(whisper, config.encoder_layer_indices), llm
