"""The alignment stage: projector and CTC head learn to listen before the LLM is loaded.

CTC between the projector's output and the LLM's own input embeddings, on cached encoder frames: no LLM runs,
so an epoch takes seconds where one with the LLM takes many minutes. It is a training run of its own in
`<output_dir>/alignment`, with checkpoints that it goes on from; its result stays there.
"""

import copy
import itertools
import json
import logging
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import SchedulerType, TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, IntervalStrategy, SaveStrategy
from transformers.utils import SAFE_WEIGHTS_NAME

from modeling_slam import SlamAsrConfig
from modeling_slam.common.files import read_json, write_json
from modeling_slam.common.numbers import check_numbers
from modeling_slam.data.collator import SpeechCollator
from modeling_slam.model.audio_lengths import SAMPLING_RATE
from modeling_slam.model.checkpoints import trained_parts
from modeling_slam.model.ctc_head import CtcVocabulary, ctc_loss, greedy_classes
from modeling_slam.model.projectors import audio_tokens_of
from modeling_slam.training.arguments import RunArguments
from modeling_slam.training.augmentation import on_cached_frames
from modeling_slam.training.by_projector import by_projector
from modeling_slam.training.cross_fitting import CrossFitted, without_fold
from modeling_slam.training.run_directory import ALIGNMENT, ALIGNMENT_FILE, find_checkpoint
from modeling_slam.training.run_health import readable
from modeling_slam.training.sharding import replicated
from modeling_slam.training.trained_parts import TrainedParts
from modeling_slam.training.trainer import SlamTrainer
from modeling_slam.training.validation import ValidationMetrics

logger = logging.getLogger("slam-asr")


@dataclass
class AlignmentArguments:
    """Alignment of the projector by CTC, before the LLM is loaded"""

    align_epochs: float | None = by_projector(
        "align_epochs", "Passes over the training data, or a part of one; 0 does not align."
    )
    align_learning_rate: float = field(default=1e-3, metadata={"help": "Peak rate of this stage."})
    align_batch_size: int = field(default=16, metadata={"help": "Clips per device and step of this stage."})
    align_dropout: float = field(default=0.3, metadata={"help": "Dropout inside the projector."})
    align_frame_dropout: float = field(
        default=0.3, metadata={"help": "Share of encoder frames hidden from the projector."}
    )

    align_augmented: bool = field(
        default=False,
        metadata={
            "help": "Hear in this stage too what --augment does to the sound; every epoch then encodes each "
            "training clip anew."
        },
    )
    align_folds: int = field(
        default=1,
        metadata={
            "help": "Above 1: while the projector is frozen, LoRA reads each clip by one that is aligned on "
            "the clips of the other folds."
        },
    )

    def __post_init__(self):
        check_numbers(self, ("align_epochs", "align_learning_rate"), at_least=0)
        check_numbers(self, ("align_batch_size", "align_folds"), at_least=1)
        check_numbers(self, ("align_dropout", "align_frame_dropout"), at_least=0, below=1)


class AlignmentModel(nn.Module):
    """Projector and CTC head of a SLAM-ASR model, under its names, with the embeddings of the used tokens."""

    accepts_loss_kwargs = True  # `num_items_in_batch`, as the whole model

    def __init__(
        self, config: SlamAsrConfig, parts: nn.ModuleDict, embeddings: torch.Tensor, encoder: Any = None
    ):
        super().__init__()
        self.config = config
        self._encoder = [encoder]  # in a list, so that it is none of the weights that are saved
        self.projector, self.ctc_head = parts["projector"], parts["ctc_head"]
        gate: Any = getattr(self.ctc_head, "gate", None)
        if gate is not None:
            gate.requires_grad_(False)  # no loss reaches it here, and DDP would wait for its gradient
        self.register_buffer("embeddings", embeddings, persistent=False)

    def forward(
        self,
        ctc_targets: torch.Tensor,
        encoder_frames: Any = None,
        encoder_frames_mask: Any = None,
        input_features: torch.Tensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **text: Any,
    ) -> dict[str, torch.Tensor]:
        """(B, T, D_enc) frames, (B, T) and (B, N) classes -> CTC loss, (B, A, 1 + V) logits, (B,) lengths.

        Without frames the encoder computes them from the features. What else a batch has is for the LLM.
        """
        if encoder_frames is None:
            with torch.no_grad():
                encoder_frames, encoder_frames_mask = self._encoder[0](input_features, input_features_mask)
        projected, counts = audio_tokens_of(self.config, self.projector, encoder_frames, encoder_frames_mask)
        logits = self.ctc_head(projected, self.embeddings)
        loss = ctc_loss(logits, counts, ctc_targets, num_items_in_batch)
        return {"loss": loss, "logits": logits, "audio_tokens": counts}


class AlignmentTrainer(SlamTrainer):
    """Validates by what the head reads greedily."""

    reads_head = True
    rate_flag = "--align_learning_rate"

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> tuple[Any, torch.Tensor, Any]:
        """Loss of a batch, its transcripts as classes (B, N), -100 behind each, and its labels likewise."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            output = model(**inputs)
        self.note_loss(output["loss"])
        rows = greedy_classes(output["logits"], output["audio_tokens"])
        device = output["loss"].device
        classes = [torch.tensor(row, dtype=torch.long, device=device) for row in rows]
        return output["loss"], pad_sequence(classes, True, -100), self.labelled(inputs["ctc_targets"])


def wants_head(config: SlamAsrConfig, arguments: AlignmentArguments, run_args: RunArguments) -> bool:
    """Whether a setting needs a CTC head.

    Raises:
        ValueError: one does, and the projector's tokens have no order in time; or folds or changed clips
            would do nothing. The message names it.
    """
    asked = {
        "align_epochs": bool(arguments.align_epochs),
        "ctc_weight": bool(run_args.ctc_weight),
        "llm_input": config.llm_input != "projector",
        "drop_blanks": config.drop_blanks is not None,
    }
    if arguments.align_folds > 1 and not (arguments.align_epochs and run_args.freeze_projector_steps):
        raise ValueError(
            f"`--align_folds {arguments.align_folds}` is for steps in which the projector is frozen, and for "
            "alignment: it needs `--freeze_projector_steps` and `--align_epochs`."
        )
    if arguments.align_folds > 1 and config.trains_encoder:
        raise ValueError(
            f"`--align_folds {arguments.align_folds}` reads frames of a frozen encoder, and "
            "`--encoder_lora_rank` or `--train_encoder_layers` trains it; leave one of them out."
        )
    if arguments.align_augmented and not arguments.align_epochs:
        raise ValueError("`--align_augmented` is for the alignment stage: it needs `--align_epochs`.")
    flags = [f"`--{name}`" for name, is_asked in asked.items() if is_asked]
    if flags and config.projector_queries is not None:
        raise ValueError(
            f"{', '.join(flags)} needs audio tokens in the order of time, and a {config.projector_type} "
            "projector has none; take another `--projector_type`, or leave it out."
        )
    return bool(flags)


def align(
    config: SlamAsrConfig,
    parts: TrainedParts,
    arguments: AlignmentArguments,
    run_args: RunArguments,
    data: dict[str, Any],
    collator: SpeechCollator,
    callbacks: list[TrainerCallback],
    encoder: Any = None,
    stage: str = "",
) -> dict[str, torch.Tensor]:
    """The weights of projector and CTC head after the stage, which goes on where it was stopped.

    Args:
        parts: with a head.
        collator: has its vocabulary, and a cache of encoder frames unless there is an `encoder`.
        encoder: the frozen one, on the run's device; for batches whose frames are not kept.
        stage: the directory below that of the alignment, of one that is not the run's own.
    """
    directory = Path(run_args.output_dir, ALIGNMENT, stage)
    if not (directory / ALIGNMENT_FILE).is_file():
        vocabulary: Any = parts.vocabulary
        embeddings: Any = parts.embeddings
        too_long = share_too_long(data["train"], config, vocabulary)
        regularised = copy.deepcopy(config)
        regularised.projector_dropout = arguments.align_dropout
        regularised.projector_frame_dropout = arguments.align_frame_dropout
        modules = trained_parts(regularised)
        modules.load_state_dict(dict(parts.weights or {}))
        with replicated():
            trainer = AlignmentTrainer(
                model=AlignmentModel(config, modules, embeddings, encoder),
                args=stage_arguments(run_args, arguments, directory),
                train_dataset=data["train"],
                eval_dataset=data.get("validation"),
                data_collator=collator if arguments.align_augmented else on_cached_frames(collator),
                processing_class=collator.processor,
                compute_metrics=ValidationMetrics(
                    lambda rows: [vocabulary.decode(row[row >= 0].tolist()) for row in rows],
                    data.get("validation", data["train"]),
                    config.text_style,
                ),
                callbacks=callbacks,
            )
            checkpoint = find_checkpoint(directory, "last") if directory.is_dir() else None
            started = time.monotonic()
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
            trainer.save_model()
            trainer.save_state()
        if PartialState().is_main_process:
            figures = stage_figures(trainer, data["train"], time.monotonic() - started)
            figures["too_long"] = round(too_long, 4)
            for left in directory.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
                shutil.rmtree(left)
            write_json(directory / ALIGNMENT_FILE, figures)
        PartialState().wait_for_everyone()
    logger.info("Alignment%s: %s", stage and f" {stage}", json.dumps(read_json(directory / ALIGNMENT_FILE)))
    with readable(directory):
        return load_file(directory / SAFE_WEIGHTS_NAME)


def align_folds(
    config: SlamAsrConfig,
    parts: TrainedParts,
    arguments: AlignmentArguments,
    run_args: RunArguments,
    data: dict[str, Any],
    *rest: Any,
) -> CrossFitted:
    """Projector and head of each fold, aligned on all others; takes what `align` takes."""
    weights = []
    for fold in range(arguments.align_folds):
        others = data | {"train": without_fold(data["train"], fold)}
        weights.append(align(config, parts, arguments, run_args, others, *rest, stage=f"fold-{fold}"))
    return CrossFitted(config, weights)


def stage_arguments(run_args: RunArguments, arguments: AlignmentArguments, directory: Path) -> RunArguments:
    """The run's arguments with those of this stage: one validation an epoch, and the best epoch is kept."""
    stage = copy.copy(run_args)
    changes: dict[str, Any] = {
        "output_dir": str(directory),
        "num_train_epochs": arguments.align_epochs,
        "max_steps": -1,
        "learning_rate": arguments.align_learning_rate,
        "projector_learning_rate": None,
        "ctc_learning_rate": None,
        "freeze_projector_steps": 0,
        "ctc_weight": 0.0,
        "per_device_train_batch_size": arguments.align_batch_size,
        "per_device_eval_batch_size": arguments.align_batch_size,
        "batch_seconds": None,
        "gradient_accumulation_steps": 1,
        "lr_scheduler_type": SchedulerType.COSINE_WITH_MIN_LR,
        "lr_scheduler_kwargs": {"min_lr_rate": 0.02},
        "warmup_steps": 0.05,
        "eval_strategy": IntervalStrategy.EPOCH if run_args.validates else IntervalStrategy.NO,
        "save_strategy": SaveStrategy.EPOCH,
        "save_total_limit": 1,
        "load_best_model_at_end": run_args.validates,
        "metric_for_best_model": "wer",
        # What is meant for the LLM.
        "fsdp": None,
        "fsdp_plugin_args": None,
        "deepspeed": None,
        "deepspeed_plugin": None,
        "eval_delay": 0,
        "neftune_noise_alpha": None,
        "activation_checkpointing": False,
        "gradient_checkpointing": False,
    }
    for name, value in changes.items():
        setattr(stage, name, value)
    return stage


def share_too_long(clips: Any, config: SlamAsrConfig, vocabulary: CtcVocabulary) -> float:
    """Share of the clips that have more tokens than audio tokens, which CTC cannot align; it is logged."""
    too_long = 0
    for seconds, text in zip(clips["duration"], clips["text"], strict=True):
        classes = vocabulary.encode(text)
        repeated = sum(one == other for one, other in itertools.pairwise(classes))
        frames = config.audio_geometry.frames_of_samples(round(seconds * SAMPLING_RATE))
        too_long += len(classes) + repeated > config.audio_tokens(frames)
    share = too_long / len(clips)
    log = logger.warning if share > 0.01 else logger.info
    advice = " A smaller `--projector_stack` gives more." if share > 0.01 else ""
    log("%.1f %% of the clips have more tokens than audio tokens and do not align.%s", 100 * share, advice)
    return share


def stage_figures(trainer: SlamTrainer, clips: Any, seconds: float) -> dict[str, Any]:
    """What the stage came to: clips, hours, seconds, and the best validation."""
    state = trainer.state
    validations = [entry for entry in state.log_history if "eval_wer" in entry]
    best = min(validations, key=lambda entry: entry["eval_wer"], default={})
    figures = {
        name.removeprefix("eval_"): best[name]
        for name in ("eval_loss", "eval_wer", "eval_cer", "epoch")
        if name in best
    }
    return {
        "clips": len(clips),
        "hours": round(sum(clips["duration"]) / 3600, 3),
        "epochs": state.epoch,
        "steps": state.global_step,
        "seconds": round(seconds, 1),
        "best": figures,
    }
