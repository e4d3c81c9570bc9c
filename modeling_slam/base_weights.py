"""Weights of checkpoints and base models, read lazily: only the kept encoder layers, never Whisper's decoder.

A lean checkpoint holds what was trained; the rest lies with the base models it names. Here safetensors files
are opened without being read, and their tensors are renamed to where they sit in
`SlamAsrForConditionalGeneration`. The loader of transformers then reads just the tensors it is handed.

Tensors are read (`pread`), not mapped: a mapped file stays in memory beside the converted copy of its tensors
until the last of them is loaded, and must not be written to for as long as the model lives.
"""

import hashlib
from collections.abc import Iterable
from typing import Any, Literal

from safetensors import SafetensorError, safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file, get_checkpoint_shard_files

Backend = Literal["pread", "mmap"]


def lazy_tensors(
    model_id: str, revision: str | None = None, backend: Backend = "pread", **hub_kwargs: Any
) -> dict[str, Any]:
    """Name -> unread tensor (a safetensors slice) of the checkpoint at a Hub id or directory.

    With `"mmap"` a part of a tensor can be read without the rest of it.

    Raises:
        OSError: there is no such model, it has no safetensors weights, or a file of them is damaged.
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
        try:
            handle = safe_open(file, framework="pt", backend=backend)
        except SafetensorError as error:
            raise OSError(
                f"{file} is truncated or no safetensors file ({error}). Fetch or save it again."
            ) from error
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


def without_layers(tensors: dict[str, Any], layers: Iterable[int]) -> dict[str, Any]:
    """The model's `tensors` without these of its encoder layers."""
    dropped = tuple(f"encoder.layers.{layer}." for layer in layers)
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(dropped)}


def base_tensors(config: Any, **hub_kwargs: Any) -> dict[str, Any]:
    """All frozen weights of a `SlamAsrConfig`, unread, under the model's own names.

    Raises:
        RuntimeError: the config has a digest of a base model, and the weights found have another.
    """
    expected = (config.audio_model_digest, config.text_model_digest)
    if any(expected):
        found = base_digests(config, **hub_kwargs)
        for part, wanted, got in zip(("audio", "text"), expected, found, strict=True):
            if wanted not in (None, got):
                raise RuntimeError(
                    f"The weights of {getattr(config, f'{part}_model_id')} (`{part}_model_id`) are not the "
                    f"base weights that this checkpoint was trained on: their digest is {got}, recorded is "
                    f"{wanted}. Put the original model back; `{part}_model_digest=None` takes these "
                    "instead, with whatever results."
                )
    encoder, llm = _open_base_models(config, "pread", **hub_kwargs)
    return encoder | language_model_tensors(llm, config.lora_target_modules if config.adds_lora else [])


def base_digests(config: Any, **hub_kwargs: Any) -> tuple[str, str]:
    """Digests of Whisper's weights and of the LLM's, of a thousandth of their bytes.

    They tell a model from another one of the same shape, e.g. a fine-tuned one: names, shapes and the first
    row of each tensor, as float32. Of the encoder's layers only the lowest kept one counts, because `config`
    may keep fewer layers than the checkpoint was trained with.
    """
    encoder, llm = _open_base_models(config, "mmap", **hub_kwargs)
    return digest(without_layers(encoder, range(1, config.num_encoder_layers))), digest(llm)


def digest(tensors: dict[str, Any]) -> str:
    """SHA-256 of names, shapes and first rows; vectors count whole."""
    result = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        shape = tensor.get_shape()
        sample = tensor[:1] if len(shape) > 1 else tensor[...]
        result.update(f"{name} {shape} ".encode())
        result.update(sample.float().numpy().tobytes())
    return result.hexdigest()


def _open_base_models(config: Any, backend: Backend, **hub_kwargs: Any) -> tuple[dict, dict]:
    """The kept encoder layers under the model's names, and the LLM under its own."""
    whisper = lazy_tensors(config.audio_model_id, config.audio_model_revision, backend, **hub_kwargs)
    llm = lazy_tensors(config.text_model_id, config.text_model_revision, backend, **hub_kwargs)
    return encoder_tensors(whisper, config.encoder_layer_indices), llm
