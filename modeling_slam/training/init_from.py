"""`--init_from`: a new run begins with what another model has learned.

Another language, another depth, a shorter training: what a checkpoint has trained is taken where it fits,
tensor by tensor; the rest starts fresh. The LLM must be the same, because projector and head speak in its
embeddings. What belongs to a layer of encoder or LLM goes to the same layer of the same base model, if kept.
"""

import copy
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration
from modeling_slam.common.command_line import one_line
from modeling_slam.model.audio_encoders import encoder_layer_prefix, llm_layer_prefix, renumbered
from modeling_slam.model.checkpoints import base_digests, lazy_tensors, opened_bases
from modeling_slam.model.lora import LLM, PARTS, is_trained, part_of

logger = logging.getLogger("slam-asr")
TOKEN_IDS = "ctc_head.token_ids"  # of the new run's own texts


def read_start(source: str, config: SlamAsrConfig) -> dict[str, torch.Tensor]:
    """The trained weights of the checkpoint at a Hub id or directory, by the model's names.

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
    names = {name: name for name in tensors if is_trained(name, theirs) and name != TOKEN_IDS}
    # Layer 3 of theirs may be another one of the base model's than layer 3 of ours.
    if theirs.trains_encoder:
        numbers = {}
        if is_same_encoder(theirs, config):
            numbers = same_layers(theirs.kept_encoder_layers, config.kept_encoder_layers)
        names = renumbered_or_named(names, encoder_layer_prefix(config), numbers)
    if theirs.kept_llm_layers != config.kept_llm_layers:
        numbers = same_layers(theirs.kept_llm_layers, config.kept_llm_layers)
        names = renumbered_or_named(names, f"{LLM}.{llm_layer_prefix(config)}", numbers)
    return {own: tensors[name][...] for name, own in names.items()}


def is_same_encoder(theirs: SlamAsrConfig, config: SlamAsrConfig) -> bool:
    """Whether both models keep layers of one base encoder; told by its digest where the names differ."""
    if theirs.audio_model_id == config.audio_model_id or theirs.audio_model_digest is None:
        return True
    lowest = copy.deepcopy(config)  # the digest is that of the lowest layer they keep
    lowest.kept_encoder_layers = theirs.kept_encoder_layers[:1]
    return theirs.audio_model_digest == base_digests(lowest, opened_bases(lowest))[0]


def same_layers(theirs: list[Any], ours: list[Any]) -> dict[int, int]:
    """Number of a layer in their model -> its number in ours, if it is the same of the base model's."""
    return {number: ours.index(layer) for number, layer in enumerate(theirs) if layer in ours}


def renumbered_or_named(names: dict[str, str], layer_prefix: str, numbers: dict[int, int]) -> dict[str, str]:
    """As `renumbered`; what is of a layer that has no number gets a name that no weight has, for `report`."""
    dropped = {name: f"{own} (of no layer of this model)" for name, own in names.items()}
    return dropped | renumbered(names, layer_prefix, numbers)


def fitting(start: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those of the weights that this model has too, in the same shape."""
    return {name: start[name] for name in start.keys() & own.keys() if start[name].shape == own[name].shape}


def take_trained(model: SlamAsrForConditionalGeneration, start: Mapping[str, torch.Tensor]) -> list[str]:
    """Put what fits of encoder and LLM, LoRA or their own weights, into the model; returns the names."""
    own: dict[str, Any] = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if is_trained(name, model.config) and part_of(name) not in ("projector", "ctc_head")
    }
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
            counts = Counter(part_of(name) for name in names)
            shown = ", ".join(f"{counts[part]} of {part}" for part in PARTS if counts[part])
            logger.info("--init_from %s: %s: %s", source, title, shown)
