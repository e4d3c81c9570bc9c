"""One checkpoint for any depth: each training batch is heard at a depth that is drawn for it.

    python train.py recipes/nl-medium.yaml --train_depths 24 22 20 18

Projector, CTC head and LoRA learn to read the encoder at all of them; `num_encoder_layers=N` then loads the
checkpoint at any. All depths come from one pass of the frozen encoder, through the cache of its output, in
the alignment stage too. Validation hears the deepest.
"""

import dataclasses
import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from modeling_slam import SlamAsrConfig
from modeling_slam.data.collator import CLIP_DIGEST, SpeechCollator
from modeling_slam.data.frame_store import FrameReader
from modeling_slam.training.arguments import RunArguments
from modeling_slam.training.augmentation import AugmentationArguments, TellsEpoch
from modeling_slam.training.feature_cache import FeatureCache

ANY_DEPTH = "any_depth"  # column of the training clips


@dataclass
class AnyDepthCollator(SpeechCollator):
    """Reads the frames of training clips at a depth that follows from seed, epoch and clips alone."""

    by_depth: dict[int, FrameReader] = field(default_factory=dict)
    seed: int = 0
    # In shared memory: workers that live on from epoch to epoch read it too.
    epoch: torch.Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.long).share_memory_())

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        if ANY_DEPTH not in rows[0]:
            return super().__call__(rows)
        frames = self.by_depth[self.depth(rows)]
        return SpeechCollator(self.processor, frames, self.vocabulary, hotwords=self.hotwords)(rows)

    def depth(self, rows: list[dict[str, Any]]) -> int:
        """Of a batch; all are drawn alike."""
        clips = hashlib.sha256("".join(row[CLIP_DIGEST] for row in rows).encode()).digest()
        generator = np.random.default_rng((self.seed, int(self.epoch), int.from_bytes(clips[:8], "big")))
        return int(generator.choice(sorted(self.by_depth)))


def check_any_depth(
    config: SlamAsrConfig, run_args: RunArguments, augment_args: AugmentationArguments
) -> None:
    """Refuse depths that the model does not have, and what goes with no cache of all of them.

    Raises:
        ValueError: the message names the flag.
    """
    depths = run_args.train_depths
    if not depths:
        return
    if min(depths) < 1 or max(depths) != config.num_encoder_layers or len(set(depths)) < len(depths):
        raise ValueError(
            f"`--train_depths` must be different numbers from 1 to {config.num_encoder_layers}, the layers "
            f"that are kept, that one among them; got {depths}."
        )
    if augment_args.groups or config.trains_encoder:
        raise ValueError(
            "`--train_depths` reads what the frozen encoder gives for the clips as they are: leave out "
            "`--augment`, `--encoder_lora_rank` and `--train_encoder_layers`."
        )


def hear_any_depth(
    run_args: RunArguments, cache: FeatureCache, collator: SpeechCollator, clips: Any
) -> tuple[SpeechCollator, Any, list[TrainerCallback]]:
    """Collator, training clips and callbacks of a run with `train_depths`; the cache has been filled."""
    readers = {depth: cache.store.reader(cache.spaces[depth]) for depth in run_args.train_depths}
    for reader in readers.values():
        reader.hold(clips[CLIP_DIGEST])
    parts = {part.name: getattr(collator, part.name) for part in dataclasses.fields(collator)}
    seed = run_args.seed if run_args.data_seed is None else run_args.data_seed
    drawing = AnyDepthCollator(**parts, by_depth=readers, seed=seed)
    return drawing, clips.add_column(ANY_DEPTH, [True] * len(clips)), [TellsEpoch(drawing.epoch)]
