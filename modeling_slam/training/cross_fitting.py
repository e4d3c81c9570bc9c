"""Cross-fitting: while LoRA learns to read the CTC head, each clip is read by a head that has not heard it.

A head reads the clips that it was aligned on nearly without errors, and new ones with many. LoRA that is
trained on the former learns to copy, and nothing about the errors that it will meet. So the training clips
are dealt out to folds, and for each fold a projector and a head are aligned on all the other clips. As long
as the model's own projector is frozen, those read the training batches; validation, and all that follows, is
the model's own, aligned on all clips.

Source: cross-fitting, https://arxiv.org/abs/1608.00060
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from modeling_slam import SlamAsrConfig
from modeling_slam.data.collator import FOLD
from modeling_slam.model.checkpoints import trained_parts
from modeling_slam.model.modeling_slam import AudioEmbeddings

AUDIO = ("input_features", "input_features_mask", "encoder_frames", "encoder_frames_mask")


def dealt(clips: Any, folds: int) -> Any:
    """The clips with the column that says to which fold each belongs."""
    return clips.add_column(FOLD, [row % folds for row in range(len(clips))])


def without_fold(clips: Any, fold: int) -> Any:
    """The clips of all other folds."""
    return clips.select([row for row, own in enumerate(clips[FOLD]) if own != fold])


class CrossFitted(nn.Module):
    """Projector and CTC head of each fold, frozen."""

    def __init__(self, config: SlamAsrConfig, weights: Sequence[dict[str, torch.Tensor]]):
        """`weights` of projector and head for each fold, aligned on all other clips."""
        super().__init__()
        self.folds: Any = nn.ModuleList(trained_parts(config) for _ in weights)
        for parts, of_fold in zip(self.folds, weights, strict=True):
            parts.load_state_dict(of_fold)
        self.requires_grad_(False)

    @torch.no_grad()
    def read(self, model: Any, fold: torch.Tensor, batch: dict[str, Any]) -> AudioEmbeddings:
        """What the LLM reads of a batch, each clip by the parts of its fold, (B,).

        `model` is the SLAM-ASR model, for its encoder and the LLM's embeddings.
        """
        frames, mask = model.get_encoder_frames(**{name: batch[name] for name in AUDIO if name in batch})
        read, *others = (
            model.read_frames(frames, mask, parts["projector"], parts["ctc_head"]) for parts in self.folds
        )
        for number, other in enumerate(others, 1):
            own = fold == number  # (B,)
            read.embeddings = torch.where(own[:, None, None], other.embeddings, read.embeddings)
            if read.is_kept is not None:
                read.is_kept = torch.where(own[:, None], other.is_kept, read.is_kept)
        read.ctc_logits = None  # no loss of the head: it is frozen
        return read
