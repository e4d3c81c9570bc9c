"""Which layers of the encoder are kept: a choice is a function and a row of `LAYER_CHOICES`.

    (encoder, clips, n) -> the n layers to keep, ascending

The model's config stores the list and nothing of how it came about; the run file names the choice. What a
choice does not use costs nothing: the encoder's weights are read when they are first asked for, and clips are
prepared for a choice that `needs_clips`.
"""

import copy
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from accelerate.utils import broadcast_object_list

from modeling_slam import SlamAsrProcessor
from modeling_slam.model.audio_encoders import ENCODERS
from modeling_slam.model.checkpoints import encoder_tensors, lazy_tensors

CALIBRATION_CLIPS = 64
CALIBRATION_BATCH = 8

Clips = Iterable[tuple[torch.Tensor, torch.Tensor]]  # batches of features (B, M, F) and mask (B, F)


class FullEncoder:
    """The unpruned encoder of a base model."""

    def __init__(self, model_id: str, revision: str | None, config: Any):
        self.model_id, self.revision, self.config = model_id, revision, config

    @property
    def num_layers(self) -> int:
        return self.config.num_hidden_layers

    @functools.cached_property
    def module(self) -> Any:
        """With its weights, in float32; `module.at_depths` gives what several numbers of layers make."""
        with torch.device("meta"):
            encoder = ENCODERS[self.config.model_type](copy.deepcopy(self.config), self.num_layers)
        layers = list(range(self.num_layers))
        tensors = encoder_tensors(lazy_tensors(self.model_id, revision=self.revision), self.config, layers)
        weights = {name.removeprefix("encoder."): tensor[...] for name, tensor in tensors.items()}
        encoder.load_state_dict(
            {name: t.float() if t.is_floating_point() else t for name, t in weights.items()}, assign=True
        )
        return encoder.eval()


class LayerChoice(NamedTuple):
    """How the layers to keep are chosen."""

    choose: Callable[[FullEncoder, Clips, int], list[int]]
    needs_clips: bool = False  # if not, there are none


def lowest(encoder: FullEncoder, clips: Clips, n: int) -> list[int]:
    """The lowest n: what the paper cuts is the top."""
    return list(range(n))


LAYER_CHOICES = {"top_down": LayerChoice(lowest)}


def needs_clips(name: str) -> bool:
    return LAYER_CHOICES[name].needs_clips


def choose_layers(name: str, encoder: FullEncoder, clips: Clips | None, n: int) -> list[int]:
    """The layers that a choice keeps. Before there are clips a choice that needs them gets the lowest.

    Raises:
        RuntimeError: the choice's function does not return n layers of the encoder in order.
    """
    choice = LAYER_CHOICES[name]
    if choice.needs_clips and clips is None:
        return lowest(encoder, (), n)
    kept = [int(layer) for layer in choice.choose(encoder, clips or (), n)]
    if choice.needs_clips:
        kept = broadcast_object_list(kept)  # processes may round differently
    if kept != sorted(set(kept) & set(range(encoder.num_layers))) or len(kept) != n:
        raise RuntimeError(
            f"`layer_choice` {name} was to keep {n} of {encoder.num_layers} layers, got {kept}."
        )
    return kept


def calibration_clips(
    dataset: Any, processor: SlamAsrProcessor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Clips spread evenly over the training data, ready for the encoder."""
    count = min(CALIBRATION_CLIPS, len(dataset))
    rows = [index * len(dataset) // count for index in range(count)]
    for start in range(0, count, CALIBRATION_BATCH):
        clips = [dataset[row] for row in rows[start : start + CALIBRATION_BATCH]]
        batch = processor(
            audio=[clip["audio"] for clip in clips], language=[clip["language"] for clip in clips]
        )
        yield batch["input_features"], batch["input_features_mask"]
