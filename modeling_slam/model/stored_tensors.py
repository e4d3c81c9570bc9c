"""Tensors of safetensors files by name, opened and not yet read: of a checkpoint and of its base models.

A tensor is read by `[...]`; `[:1]` reads its first row alone.
"""

import contextlib
import hashlib
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file, get_checkpoint_shard_files

from .audio_encoders import ENCODERS
from .lora import LLM


def lazy_tensors(model_id: str, variant: str | None = None, **hub_kwargs: Any) -> dict[str, Any]:
    """Name -> unread tensor, to be read by `[...]`, of the checkpoint at a Hub id or directory.

    Raises:
        OSError: there is no such model, it cannot be fetched, it has no safetensors weights, or a file is
            damaged.
    """
    try:
        files = weight_files(model_id, variant, **hub_kwargs)
    except OSError:
        raise
    except Exception as error:  # of the library that speaks HTTP, which is another one from time to time
        raise OSError(
            f"The weights of {model_id} (revision {hub_kwargs.get('revision')}) cannot be fetched ({error}). "
            "Check the network and try again: what has arrived is not fetched twice."
        ) from error
    tensors = {}
    for path in files:
        try:
            file = safe_open(path, framework="pt", backend="mmap")
        except SafetensorError as error:
            raise OSError(f"{path} is truncated or no safetensors file ({error}). Fetch it again.") from error
        tensors |= {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    return tensors


def weight_files(model_id: str, variant: str | None, **hub_kwargs: Any) -> list[str]:
    """The safetensors files of a model, fetched if they are not here."""
    names = [SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME]
    if variant is not None:
        names = [f"{stem}.{variant}.{ending}" for stem, _, ending in (name.rpartition(".") for name in names)]
    try:
        return [str(cached_file(model_id, names[0], **hub_kwargs))]
    except OSError as error:
        with contextlib.suppress(OSError):
            index = cached_file(model_id, names[1], **hub_kwargs)
            return get_checkpoint_shard_files(model_id, index, **hub_kwargs)[0]
        raise OSError(
            f"{model_id} (revision {hub_kwargs.get('revision')}) has no {names[0]} and no index of shards "
            f"that could be read ({error}). Only safetensors weights are read; convert the model, or name "
            "another one."
        ) from error


def encoder_tensors(base: dict[str, Any], audio_config: Any, kept_layers: list[int]) -> dict[str, Any]:
    """The encoder's part of a base checkpoint under the model's names, kept layers alone, numbered anew."""
    names = ENCODERS[audio_config.model_type].checkpoint_names(base, kept_layers)
    return {f"encoder.{own}": base[name] for name, own in names.items()}


def without_layers(tensors: dict[str, Any], layers: range, config: Any) -> dict[str, Any]:
    """The model's `tensors` without these of its encoder layers."""
    prefix = f"encoder.{ENCODERS[config.audio_config.model_type].layer_prefix}"
    dropped = tuple(f"{prefix}{layer}." for layer in layers)
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(dropped)}


def base_tensors(config: Any, **hub_kwargs: Any) -> dict[str, Any]:
    """All frozen weights of a `SlamAsrConfig`, unread, under the names of the model without LoRA.

    Raises:
        RuntimeError: the config has a digest of a base model, and the weights found have another.
    """
    encoder = lazy_tensors(config.audio_model_id, revision=config.audio_model_revision, **hub_kwargs)
    llm = lazy_tensors(config.text_model_id, revision=config.text_model_revision, **hub_kwargs)
    tensors = encoder_tensors(encoder, config.audio_config, config.kept_encoder_layers)
    tensors |= {f"{LLM}.{name}": tensor for name, tensor in llm.items()}
    expected = {"audio": config.audio_model_digest, "text": config.text_model_digest}
    if any(expected.values()):
        for (part, wanted), found in zip(expected.items(), base_digests(config, tensors), strict=True):
            if wanted not in (None, found):
                raise RuntimeError(
                    f"The weights of {getattr(config, f'{part}_model_id')} (`{part}_model_id`) are not the "
                    f"base weights that this checkpoint was trained on: their digest is {found}, recorded is "
                    f"{wanted}. Put the original model back; `{part}_model_digest=None` takes these "
                    "instead, with whatever results."
                )
    return tensors


def base_digests(config: Any, tensors: dict[str, Any]) -> tuple[str, str]:
    """Digests of the encoder's and the LLM's part of `base_tensors`, of a thousandth of their bytes.

    They tell a model from another one of the same shape, e.g. a fine-tuned one: names, shapes and the first
    row of each tensor, as float32; vectors count whole. Of the encoder's layers only the lowest kept one
    counts, because `config` may keep fewer layers than the checkpoint was trained with.
    """
    tensors = without_layers(tensors, range(1, config.num_encoder_layers), config)
    digests = {"encoder": hashlib.sha256(), LLM: hashlib.sha256()}
    for name, tensor in sorted(tensors.items()):
        part, _, name_in_llm = name.partition(".")
        shape = list(tensor.get_shape())
        sample = tensor[:1] if len(shape) > 1 else tensor[...]
        digests[part].update(f"{name if part == 'encoder' else name_in_llm} {shape} ".encode())
        digests[part].update(sample.float().numpy().tobytes())
    return digests["encoder"].hexdigest(), digests[LLM].hexdigest()


def gives_back(stored: Any, tensor: torch.Tensor) -> bool:
    """Whether loading `stored`, in any of the usual dtypes, gives `tensor`.

    Tensors that are elsewhere (meta, of an offloaded module) or packed by quantisation cannot be compared.
    """
    if tensor.is_meta or not tensor.is_floating_point():
        return True
    if list(stored.get_shape()) != list(tensor.shape):
        return False
    original = stored[...].to(tensor.device)
    dtypes = (tensor.dtype, torch.bfloat16, torch.float16, torch.float32)
    return any(torch.equal(original.to(dtype).to(tensor.dtype), tensor) for dtype in dtypes)
