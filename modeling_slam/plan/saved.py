"""How much memory autograd keeps of a forward pass, found on the meta device: shapes without values.

Every tensor that an operation saves for its backward pass is counted once, by its storage, and those that are
parameters not at all. So the numbers are those of the very modules that will run, and of no formula for
transformers in general.

Source: https://docs.pytorch.org/tutorials/intermediate/autograd_saved_tensors_hooks_tutorial.html
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration

META = torch.device("meta")


def saved_bytes(module: nn.Module, run: Callable[[], Any], length: int | None = None) -> int:
    """Bytes that stay until the backward pass after `run`, parameters of `module` left out.

    With the `length` of a row its square matrices are left out too: the scores of attention, which there is
    no fused kernel for on the meta device, and which no fused kernel keeps.
    """
    known = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # held, or another would get its place

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known and tensor.shape[-2:] != (length, length):
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = run()
    del result
    return sum(storage.nbytes() for storage in kept.values())


def on_meta(config: SlamAsrConfig, dtype: torch.dtype) -> Any:
    """The model without memory, ready to train, as autocast computes it: all in one type."""
    with META:
        model = SlamAsrForConditionalGeneration(config)
    model.to(dtype).freeze()
    return model.train()


def llm_saved(config: SlamAsrConfig, dtype: torch.dtype, batch: int, length: int) -> tuple[int, int]:
    """Bytes saved by one layer of the LLM, and by what is around its layers, the vocabulary left out.

    Args:
        batch, length: the shape of a padded batch in tokens.
    """
    shape = (dtype, batch, length)
    one, two = (_llm_saved(config, config.kept_llm_layers[:n], *shape) for n in (1, 2))
    text = config.text_config
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    output = batch * length * text.num_attention_heads * width * dtype.itemsize  # fused attention keeps it
    return two - one + output, one - (two - one)


def _llm_saved(config: SlamAsrConfig, kept: list[int], dtype: torch.dtype, batch: int, length: int) -> int:
    config = copy.deepcopy(config)
    config.kept_llm_layers, config.num_encoder_layers = list(kept), 1
    config.trained_encoder_layers = []
    model = on_meta(config, dtype)
    width = config.text_config.hidden_size
    states = torch.empty(batch, length, width, dtype=dtype, device=META, requires_grad=True)
    # A ready mask: what makes one looks at values, and there are none.
    mask = torch.ones(batch, 1, length, length, dtype=torch.bool, device=META)
    llm = model.language_model

    def run() -> Any:
        return llm(inputs_embeds=states * 1, attention_mask=mask, use_cache=False, logits_to_keep=1)

    return saved_bytes(llm, run, length)


def projector_saved(model: Any, dtype: torch.dtype, batch: int, frames: int) -> int:
    """Bytes saved by the projector, the frames that it reads among them."""
    width = model.config.audio_config.hidden_size
    heard = torch.empty(batch, frames, width, dtype=dtype, device=META)
    mask = torch.ones(batch, frames, dtype=torch.bool, device=META)
    return saved_bytes(model.projector, lambda: model.projector(heard, mask))


def encoder_layer_saved(audio_config: Any, dtype: torch.dtype, batch: int, frames: int) -> int:
    """Bytes saved by an encoder layer that gradients pass: of torch's own layer of the same widths."""
    width = audio_config.hidden_size
    inner = getattr(audio_config, "encoder_ffn_dim", None) or audio_config.intermediate_size
    layer = nn.TransformerEncoderLayer(
        width, 1, inner, dropout=0.0, activation="gelu", batch_first=True, device=META, dtype=dtype
    )
    states = torch.empty(batch, frames, width, dtype=dtype, device=META, requires_grad=True)
    return saved_bytes(layer, lambda: layer(states * 1), frames)
