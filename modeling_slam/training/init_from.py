"""`--init_from`: a new run begins with what another model has learned.

Another language, another depth, a shorter training: projector, CTC head and LoRA of a checkpoint are taken
where they fit, tensor by tensor; the rest starts fresh. The LLM must be the same, because projector and head
speak in its embeddings. LoRA goes to the LLM's layers that it was trained on, where this model keeps them.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration
from modeling_slam.common.command_line import one_line
from modeling_slam.model.audio_encoders import llm_layer_prefix, llm_layers, places, renumbered
from modeling_slam.model.checkpoints import base_digests, lazy_tensors, opened_bases
from modeling_slam.model.lora import LLM, OWN_LORA_WEIGHT, is_trained

logger = logging.getLogger("slam-asr")
TOKEN_IDS = "ctc_head.token_ids"  # of the new run's own texts


def read_start(source: str, config: SlamAsrConfig) -> dict[str, torch.Tensor]:
    """The trained weights of the checkpoint at a Hub id or directory, by the model's names.

    LoRA has the numbers that its layers have in the whole LLM.

    Sets `config.projector_scale` where it is `None`: the weights were trained behind that of their model.

    Raises:
        ValueError: it is no SLAM-ASR checkpoint, or its LLM is another one.
    """
    try:
        theirs = SlamAsrConfig.from_pretrained(source)
        tensors = lazy_tensors(source)
    except (OSError, ValueError) as error:
        raise ValueError(f"`--init_from {source}` cannot be read: {one_line(error)}") from error
    same = theirs.text_model_id is not None and theirs.text_model_id == config.text_model_id
    if not same and theirs.text_model_digest not in (None, base_digests(config, opened_bases(config))[1]):
        raise ValueError(
            f"`--init_from {source}` was trained with the LLM {theirs.text_model_id}, whose embeddings its "
            f"projector speaks in, and `--llm` is {config.text_model_id}. Take the same LLM."
        )
    if config.projector_scale is None:
        config.projector_scale = theirs.projector_scale
    names = {name: name for name in tensors if is_trained(name) and name != TOKEN_IDS}
    if theirs.prunes_llm:
        prefix = f"{LLM}.{llm_layer_prefix(theirs)}"
        names = renumbered(names, prefix, dict(enumerate(theirs.kept_llm_layers)))
    return {own: tensors[name][...] for name, own in names.items()}


def of_kept_layers(
    start: Mapping[str, torch.Tensor], model: SlamAsrForConditionalGeneration
) -> dict[str, torch.Tensor]:
    """What `read_start` gives, LoRA under the numbers that the layers have in this model.

    That of layers which it does not keep comes under names that it does not have.
    """
    prefix = f"{LLM}.{llm_layers(model.language_model)[0]}."
    names = renumbered({name: name for name in start}, prefix, places(model.config.kept_llm_layers))
    return {names.get(name, f"{name} (of a layer not kept)"): tensor for name, tensor in start.items()}


def fitting(start: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those of the weights that this model has too, in the same shape."""
    return {name: start[name] for name in start.keys() & own.keys() if start[name].shape == own[name].shape}


def take_lora(model: SlamAsrForConditionalGeneration, start: Mapping[str, torch.Tensor]) -> list[str]:
    """Put the LoRA weights that fit into the model; returns their names."""
    own: dict[str, Any] = {n: t for n, t in model.state_dict().items() if OWN_LORA_WEIGHT.search(n)}
    taken = fitting(start, own)
    with torch.no_grad():
        for name, tensor in taken.items():
            own[name].copy_(tensor)
    return [*taken]


def report(source: str, start: Mapping[str, Any], taken: Iterable[str], model: Any) -> None:
    """Say which weights came from the other model, which of them did not fit, and what starts fresh."""
    taken = set(taken)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    parts = {
        "taken": taken,
        "not taken, of another shape or not in this model": start.keys() - taken,
        "fresh": trained - taken,
    }
    for title, names in parts.items():
        if names:
            counts = {
                part: sum(part in name for name in names) for part in ("projector.", "ctc_head.", "lora_")
            }
            shown = ", ".join(f"{count} of {part.strip('._')}" for part, count in counts.items() if count)
            logger.info("--init_from %s: %s: %s", source, title, shown)
