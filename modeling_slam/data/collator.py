"""Rows of `load_speech` in, batches for the model out; runs in the data loader's workers.

Audio is decoded here and not before, so memory holds only the batches at hand. Loss is asked for on the
transcript alone: the processor labels prompt, audio and padding with -100.
"""

from dataclasses import dataclass
from typing import Any

import torch

from modeling_slam.processing_slam import SlamAsrProcessor


@dataclass
class SpeechCollator:
    """Decodes and prepares a batch to train on."""

    processor: SlamAsrProcessor

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = self.processor(audio=[row["audio"] for row in rows], text=[row["text"] for row in rows])
        return dict(batch)
