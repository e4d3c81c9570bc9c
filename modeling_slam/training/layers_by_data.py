"""What a run settles by its training data before the model is built: layers of encoder and LLM, LayerNorm."""

import logging
from typing import Any

import torch

from modeling_slam import SlamAsrConfig, SlamAsrProcessor
from modeling_slam.training.alignment import AlignmentArguments
from modeling_slam.training.arguments import ModelArguments, RunArguments
from modeling_slam.training.calibration import ClipCalibration, calibrate, needs_calibration
from modeling_slam.training.feature_cache import CacheArguments
from modeling_slam.training.llm_layers import choose_by_text, is_by_text
from modeling_slam.training.run_directory import CALIBRATION, LLM_LAYERS

logger = logging.getLogger("slam-asr")


def choose_by_data(
    model_args: ModelArguments,
    align_args: AlignmentArguments,
    cache_args: CacheArguments,
    run_args: RunArguments,
    config: SlamAsrConfig,
    processor: SlamAsrProcessor,
    dataset: Any,
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Set the layers that `config` keeps, where clips or texts of the training data say which.

    Returns: weights that are fitted before training, by the model's names, and the entries of run.json; both
    are empty where nothing depends on data.
    """
    fitted, chosen = {}, {}
    if needs_calibration(model_args):
        calibration = ClipCalibration(
            model_args, align_args, cache_args, run_args, config, processor, dataset
        )
        fitted, chosen[CALIBRATION] = calibrate(calibration, model_args, config)
    if is_by_text(model_args.llm_layer_choice):
        chosen[LLM_LAYERS] = choose_by_text(
            model_args.llm_layer_choice, config, processor, dataset, run_args.device
        )
        logger.info("Layers of the LLM that are kept: %s", config.kept_llm_layers)
    return fitted, chosen
