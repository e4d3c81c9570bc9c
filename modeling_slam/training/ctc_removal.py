"""What the removal of a layer costs, told by the CTC head: the loss of an aligned encoder without the layer.

Projector and head are aligned on the frames of the layers that are kept (`alignment.py`), for a short time;
then each layer is left out in turn and the loss is taken on clips that were not aligned on. Nothing is
aligned to the encoder without the layer: that would take an alignment for each layer of each step.
"""

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from transformers import set_seed

from modeling_slam import SlamAsrConfig, SlamAsrProcessor
from modeling_slam.data.collator import SpeechCollator
from modeling_slam.model.checkpoints import trained_parts
from modeling_slam.training.alignment import AlignmentArguments, AlignmentModel, align
from modeling_slam.training.arguments import RunArguments
from modeling_slam.training.feature_cache import CacheArguments, Encoding, FeatureCache, run_device
from modeling_slam.training.layer_similarity import pruned_encoder
from modeling_slam.training.run_directory import CALIBRATION
from modeling_slam.training.trained_parts import TrainedParts, trained_parts_of

ALIGN_MINUTES = 20.0
ALIGN_EPOCHS = 6.0
BATCH = 8


class CtcRemoval:
    """Alignment on 20 minutes of the clips `others` of the training data, scores on the clips `scored`.

    The final LayerNorm is left as it is, whatever the run does with it.
    """

    def __init__(
        self,
        config: SlamAsrConfig,
        processor: SlamAsrProcessor,
        align_args: AlignmentArguments,
        run_args: RunArguments,
        dataset: Any,
        others: list[int],
        scored: Any,
    ):
        self.config = copy.deepcopy(config)
        self.config.final_layer_norm, self.config.llm_input = "as_is", "projector"
        self.processor, self.run_args, self.scored = processor, run_args, scored
        self.align_args = copy.copy(align_args)
        self.align_args.align_epochs = ALIGN_EPOCHS
        self.align_args.align_augmented, self.align_args.align_folds = False, 1
        self.texts = dataset["text"]
        order = np.random.default_rng(run_args.seed).permutation(others or range(len(dataset)))
        seconds = np.cumsum(np.asarray(dataset["duration"])[order])
        rows = order[: int(np.searchsorted(seconds, 60 * ALIGN_MINUTES)) + 1]
        self.aligned_on = dataset.select(sorted(rows.tolist()))

    def losses_without(self, kept: list[int], candidates: list[int]) -> dict[int, float]:
        """CTC loss a token on the scored clips without each of the `candidates`, aligned on `kept`."""
        directory = Path(self.run_args.output_dir, CALIBRATION, "-".join(map(str, kept)))
        self._clear(directory)  # a start that was stopped may have had other settings
        config, parts = self._aligned(kept, directory)
        losses = {
            layer: self._loss(config, parts, [other for other in kept if other != layer])
            for layer in candidates
        }
        self._clear(directory)
        return losses

    def _clear(self, directory: Path) -> None:
        PartialState().wait_for_everyone()
        if PartialState().is_main_process:
            shutil.rmtree(directory, ignore_errors=True)
        PartialState().wait_for_everyone()

    def _aligned(self, kept: list[int], directory: Path) -> tuple[SlamAsrConfig, TrainedParts]:
        """Projector and head of a config that keeps these layers, after a short alignment."""
        config, run = copy.deepcopy(self.config), copy.copy(self.run_args)
        config.kept_encoder_layers = kept
        run.output_dir, run.eval_strategy = str(directory), "no"
        set_seed(run.seed)
        parts = trained_parts_of(config, self.processor.tokenizer, self.texts, True, {})
        encoding = Encoding(torch.float32, autocast=False)
        cache = FeatureCache(CacheArguments(str(directory / "frames")), config, self.processor, encoding)
        data, frames = cache.fill({"train": self.aligned_on}, run.dataloader_num_workers)
        collator = SpeechCollator(self.processor, frames, parts.vocabulary)
        parts.weights = align(config, parts, self.align_args, run, data, collator, [])
        return config, parts

    @torch.no_grad()
    def _loss(self, config: SlamAsrConfig, parts: TrainedParts, layers: list[int]) -> float:
        modules = trained_parts(config)
        modules.load_state_dict(dict(parts.weights or {}))
        embeddings: Any = parts.embeddings
        encoder = pruned_encoder(config, layers)
        model = AlignmentModel(config, modules, embeddings, encoder).eval().to(run_device())
        collator = SpeechCollator(self.processor, None, parts.vocabulary)
        total, tokens = 0.0, 0
        for start in range(0, len(self.scored), BATCH):
            rows = self.scored.select(range(start, min(start + BATCH, len(self.scored))))
            batch = collator([*rows])
            on_device = {n: t.to(run_device()) for n, t in batch.items() if torch.is_tensor(t)}
            total += float(model(**on_device, num_items_in_batch=1)["loss"])
            tokens += int((batch["ctc_targets"] != -100).sum())
        return total / max(1, tokens)
