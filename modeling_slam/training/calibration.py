"""What layer choices and the final LayerNorm look at: some minutes of the training data, drawn with a seed.

What comes out is kept as JSON, in the directory of the feature cache where there is one, else in the run's; a
file is named by the digest of all that its numbers depend on, so the runs of a study compute them once.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from modeling_slam import SlamAsrConfig, SlamAsrProcessor
from modeling_slam.common.files import read_json, write_json
from modeling_slam.data.frame_store import clip_digests
from modeling_slam.model.checkpoints import base_digests, encoder_tensors, lazy_tensors, opened_bases
from modeling_slam.model.configuration_slam import FIRST_LAYER_NEEDED_BY
from modeling_slam.training import layer_similarity
from modeling_slam.training.alignment import AlignmentArguments
from modeling_slam.training.arguments import ModelArguments, RunArguments
from modeling_slam.training.assembly import topmost
from modeling_slam.training.ctc_removal import CtcRemoval
from modeling_slam.training.feature_cache import CacheArguments, frame_settings, tensor_digest
from modeling_slam.training.layer_choice import Stack, choose_layers, needs_speech
from modeling_slam.training.layer_similarity import (
    layer_similarities,
    output_moments,
    pruned_encoder,
    refitted_norm,
)
from modeling_slam.training.run_directory import CALIBRATION

logger = logging.getLogger("slam-asr")
LARGEST_SHARE = 0.2  # of the training clips; the others are there to align on
FRAME_NORM = "projector.frame_norm."
# What an alignment takes from the run's own arguments.
OF_ALIGNMENT = (
    "seed", "data_seed", "world_size", "bf16", "fp16", "optim", "weight_decay", "adam_beta1", "adam_beta2",
    "adam_epsilon", "max_grad_norm", "clip_by_part", "train_sampling_strategy",
)  # fmt: skip


class ClipCalibration:
    """The calibration of one run: its clips, and what is made of them when it is first asked for.

    `config` may keep any layers and stays as it is. `seconds` says how long each thing that was asked for
    took to compute, now or in the run that did it.
    """

    def __init__(
        self,
        model_args: ModelArguments,
        align_args: AlignmentArguments,
        cache_args: CacheArguments,
        run_args: RunArguments,
        config: SlamAsrConfig,
        processor: SlamAsrProcessor,
        dataset: Any,
    ):
        self.config, self.processor, self.dataset = config.without_lora(), processor, dataset
        self.align_args, self.run_args, self.cache_args = align_args, run_args, cache_args
        self.seed = model_args.calibration_seed
        rows = draw(dataset["duration"], 60 * model_args.calibration_minutes, self.seed)
        self.clips = dataset.select(rows)
        self.others = sorted({*range(len(dataset))} - {*rows})
        self.directory = Path(cache_args.cache_features or run_args.output_dir, CALIBRATION)
        self.seconds: dict[str, float] = {}

    @property
    def stack(self) -> Stack:
        audio = self.config.audio_config
        return Stack(audio.num_hidden_layers, audio.model_type in FIRST_LAYER_NEEDED_BY, self)

    def similarities(self) -> dict[str, Any]:
        """A matrix for each of the measures of layer_similarity.py."""
        constants = [
            getattr(layer_similarity, name) for name in ("FRAME_STEP", "BLOCK_FRAMES", "LEAST_FRAMES")
        ]
        return self._kept(
            "similarities",
            [constants, layer_similarity.NEIGHBOURS],
            lambda: layer_similarities(pruned_encoder(self.config, self._all_layers()), self.features()),
        )

    def losses_without(self, kept: list[int], candidates: list[int]) -> dict[int, float]:
        """CTC loss a token of the encoder of the layers `kept`, aligned, without each of `candidates`."""
        losses = self._kept(
            f"ctc-{len(kept)}-layers",
            [kept, candidates, self._text_settings],
            lambda: self._removal.losses_without(kept, candidates),
        )
        return {int(layer): loss for layer, loss in losses.items()}

    def moments(self, kept: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation (D,) of the output of the encoder of these layers."""
        found = self._kept(
            f"moments-{len(kept)}-layers",
            kept,
            lambda: [
                values.tolist()
                for values in output_moments(pruned_encoder(self.config, kept), self.features())
            ],
        )
        mean, deviation = (torch.tensor(values, dtype=torch.float64) for values in found)
        return mean, deviation

    def features(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Features (1, ..., F) and mask (1, F) of one clip after the other."""
        for clip in self.clips:
            batch = self.processor(audio=[clip["audio"]], language=[clip["language"]])
            yield batch["input_features"], batch["input_features_mask"]

    def describe(self) -> dict[str, Any]:
        """For run.json: which clips, and what they cost."""
        return {
            "clips": len(self.clips),
            "speech_seconds": round(sum(self.clips["duration"]), 1),
            "seed": self.seed,
            "computed_in_seconds": self.seconds,
        }

    def _all_layers(self) -> list[int]:
        return [*range(self.config.audio_config.num_hidden_layers)]

    def _kept(self, name: str, settings: Any, compute: Callable[[], Any]) -> Any:
        """What an earlier run has computed of the same, or what is computed now."""
        text = json.dumps([self._speech_settings, settings], sort_keys=True, default=str)
        file = self.directory / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
        # The main process looks: all compute, or none does.
        found = broadcast_object_list([read_json(file) if file.is_file() else None])[0]
        if found is None:
            logger.info("Calibration: %s of %d clips", name, len(self.clips))
            began = time.monotonic()
            # Those of the main process: processes may round differently, and go on by what they find.
            values = broadcast_object_list([compute()])[0]
            found = {"values": values, "seconds": round(time.monotonic() - began, 1)}
            if PartialState().is_main_process:
                file.parent.mkdir(parents=True, exist_ok=True)
                write_json(file, found)
        self.seconds[name] = found["seconds"]
        return found["values"]

    @functools.cached_property
    def _speech_settings(self) -> list[Any]:
        """All that the unpruned encoder's states depend on."""
        base = lazy_tensors(str(self.config.audio_model_id), revision=self.config.audio_model_revision)
        tensors = encoder_tensors(base, self.config.audio_config, self._all_layers())
        return [
            {name: tensor_digest(tensor) for name, tensor in sorted(tensors.items())},
            frame_settings(self.config, self.processor),
            [*clip_digests(self.clips)],
        ]

    @functools.cached_property
    def _removal(self) -> CtcRemoval:
        return CtcRemoval(
            self.config, self.processor, self.align_args, self.run_args, self.dataset, self.others, self.clips
        )

    @functools.cached_property
    def _text_settings(self) -> list[Any]:
        """What the alignment depends on beside the speech to calibrate on."""
        fields = self.config.to_dict()
        return [
            {name: value for name, value in fields.items() if name.startswith("projector_")},
            base_digests(self.config, opened_bases(self.config))[1],
            dataclasses.asdict(self._removal.align_args),
            {name: getattr(self.run_args, name) for name in OF_ALIGNMENT},
            [*clip_digests(self._removal.aligned_on)],
            [*self.dataset["text"]],  # all: what `datasets` gives for a column is cut short in JSON
        ]


def draw(seconds: list[float], wanted: float, seed: int) -> list[int]:
    """Rows of clips in random order that last `wanted` seconds together, of no more than a fifth of all."""
    order = np.random.default_rng(seed).permutation(len(seconds))
    most = max(1, int(LARGEST_SHARE * len(order)))
    enough = int(np.searchsorted(np.cumsum(np.asarray(seconds)[order]), wanted)) + 1
    return order[: min(most, enough)].tolist()


def needs_calibration(model_args: ModelArguments) -> bool:
    return is_by_speech(model_args) or model_args.final_layer_norm == "refitted"


def is_by_speech(model_args: ModelArguments) -> bool:
    """Whether speech says which layers are kept."""
    return model_args.kept_encoder_layers is None and needs_speech(model_args.layer_choice)


def calibrate(
    calibration: ClipCalibration, model_args: ModelArguments, config: SlamAsrConfig
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Set the layers that `config` keeps; returns weights that are fitted before training, and the record.

    The weights are those of the projector's `frame_norm`, by the model's names; there are none unless the
    final LayerNorm is to be refitted.
    """
    record: dict[str, Any] = {}
    if is_by_speech(model_args):
        chosen = choose_layers(model_args.layer_choice, calibration.stack, config.num_encoder_layers)
        config.kept_encoder_layers = chosen.layers
        config.trained_encoder_layers = topmost(chosen.layers, len(config.trained_encoder_layers))
        record["layer_choice"] = {"name": model_args.layer_choice, **dataclasses.asdict(chosen)}
        logger.info("Encoder layers kept by %s: %s", model_args.layer_choice, chosen.layers)
    weights = refitted(calibration, config)
    return weights, record | calibration.describe()


def refitted(calibration: ClipCalibration, config: SlamAsrConfig) -> dict[str, torch.Tensor]:
    """The weights of the projector's `frame_norm` for the layers of `config`, where it is to be refitted."""
    if config.final_layer_norm != "refitted":
        return {}
    full = calibration.moments([*range(config.audio_config.num_hidden_layers)])
    fitted = refitted_norm(calibration.moments(config.kept_encoder_layers), full)
    return {FRAME_NORM + name: tensor for name, tensor in fitted.items()}
