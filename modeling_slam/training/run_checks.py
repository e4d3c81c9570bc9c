"""What can be wrong with the settings of a run beside their types, found before any data are read.

Numbers, schedule and validation are checked where `RunArguments` are made; what must be installed on this
machine is checked by `train.py`, because a study is planned on another one.
"""

import contextlib
import json
import math
from typing import Any

import torch
from torch import nn
from transformers import SchedulerType, Trainer, get_scheduler
from transformers.integrations import get_available_reporting_integrations

from modeling_slam.common.command_line import one_line
from modeling_slam.common.numbers import check_numbers
from modeling_slam.evaluation.metrics import METRICS
from modeling_slam.training.run_health import RunError

# Error rates, which follow from transcripts alone: what a validation has beside its loss.
RATES = [name for name, metric in METRICS.items() if metric.counts is not None and not metric.needs_rows]
VALIDATION_METRICS = [*RATES, "loss"]
FLOOR = {"min_lr_rate": 0.1}  # the paper's code
SCHEDULE_DEFAULTS = {
    SchedulerType.COSINE_WITH_MIN_LR: FLOOR,
    SchedulerType.COSINE_WARMUP_WITH_MIN_LR: FLOOR,
}
WITHOUT_SETTINGS = (SchedulerType.CONSTANT, SchedulerType.CONSTANT_WITH_WARMUP)
BY_METRIC = (SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY)
TRIED_STEPS = 40
# They change the gradients of whole matrices or step while the backward pass runs.
UNSUPPORTED_OPTIMIZERS = ("galore", "apollo", "lomo")


def check_run_numbers(run: Any) -> None:
    """Refuse numbers that cannot be meant; a share of all steps may stand for a number of them."""
    check_numbers(run, ("num_train_epochs", "batch_seconds"), above=0)
    own = ("projector", "ctc", "lora", "encoder_lora", "encoder", "llm")
    rates = ("learning_rate", *(f"{part}_learning_rate" for part in own))
    check_numbers(run, rates, at_least=0)  # 0 saves the model as it was built
    check_numbers(run, ("ctc_weight", "freeze_projector_steps"), at_least=0)
    check_numbers(run, ("logging_steps", "save_steps", "eval_steps"), above=0)
    check_numbers(run, ("weight_decay", "max_grad_norm", "warmup_steps", "eval_delay"), at_least=0)
    check_numbers(run, ("neftune_noise_alpha",), at_least=0)
    check_numbers(run, ("adam_beta1", "adam_beta2"), at_least=0, below=1)
    check_numbers(run, ("adam_epsilon", "early_stopping_patience", "dataloader_num_workers"), at_least=0)
    check_numbers(
        run,
        (
            "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps",
            "eval_accumulation_steps", "save_total_limit", "dataloader_prefetch_factor", "ddp_timeout",
            "generation_num_beams", "generation_max_new_tokens", "generation_max_tokens_per_second",
            "loss_positions",
        ),
        at_least=1,
    )  # fmt: skip
    check_numbers(run, ("seed", "data_seed"), at_least=0, below=2**32)
    if run.max_steps != -1:
        check_numbers(run, ("max_steps",), at_least=1)
        check_warmup(run, run.max_steps)
    if run.batch_seconds is not None and run.dataloader_drop_last:
        raise ValueError("`dataloader_drop_last` does nothing beside `batch_seconds`; leave one out.")


def check_warmup(run: Any, steps: int) -> None:
    """Refuse a warm-up that lasts longer than the run of `steps` steps: its rate would never come up."""
    if run.get_warmup_steps(steps) > steps:
        raise RunError(
            f"`warmup_steps` {run.warmup_steps:g} must not be more than the {steps} steps of the run; a "
            "number below 1 is a share of them."
        )


def check_validation(run: Any) -> None:
    """When to validate, when to save, and by what the best checkpoint is told."""
    if run.metric_for_best_model not in VALIDATION_METRICS:
        raise ValueError(
            f"`metric_for_best_model` must be one of {', '.join(VALIDATION_METRICS)}, got "
            f"{run.metric_for_best_model!r}."
        )
    validates = run.eval_strategy != "no"
    if not validates and run.save_strategy == "best":
        raise ValueError("`save_strategy best` needs a validation: set `eval_strategy` to steps or epoch.")
    if validates and not run.predict_with_generate and run.metric_for_best_model in RATES:
        raise ValueError("Without `predict_with_generate` there is no WER; set `metric_for_best_model loss`.")
    both = validates and run.save_strategy in ("steps", "epoch")
    if run.load_best_model_at_end and both:
        if run.eval_strategy != run.save_strategy:
            raise ValueError(
                f"`load_best_model_at_end` needs a checkpoint wherever it validates: `eval_strategy` is "
                f"{run.eval_strategy} and `save_strategy` {run.save_strategy}; set both alike, or "
                "`save_strategy best`."
            )
        # Of steps that are not given, transformers takes those of the log.
        every = run.eval_steps or run.logging_steps
        times = run.save_steps / every
        if run.eval_strategy == "steps" and abs(times - round(times)) > 1e-6:
            raise ValueError(
                f"`load_best_model_at_end` needs a checkpoint wherever it validates: `save_steps` "
                f"{run.save_steps:g} is no multiple of `eval_steps` {every:g}."
            )


def check_best(run: Any, text_style: str) -> None:
    """What the best checkpoint is told by must be there in a validation of this style."""
    metric = METRICS.get(run.metric_for_best_model)
    if metric is not None and metric.needs_written and text_style != "written":
        raise ValueError(
            f"`metric_for_best_model` {run.metric_for_best_model} is of models that write case and "
            "punctuation: add `--text_style written`, or take another metric."
        )


def schedule_settings(run: Any) -> dict[str, Any]:
    """The settings of the learning-rate schedule, defaults filled in, tried on a tiny optimizer.

    Raises:
        ValueError: the schedule does not take them, needs others, or makes a rate that is no number.
    """
    kind, settings = SchedulerType(run.lr_scheduler_type), run.lr_scheduler_kwargs
    if settings is None:
        settings = dict(SCHEDULE_DEFAULTS.get(kind, {}))
    if isinstance(settings, str):
        with contextlib.suppress(json.JSONDecodeError):
            settings = json.loads(settings)
    if not isinstance(settings, dict):
        raise ValueError(f'`lr_scheduler_kwargs` must be like {{"min_lr_rate": 0.1}}, got {settings!r}.')
    if any(isinstance(value, float) and not math.isfinite(value) for value in settings.values()):
        raise ValueError(f"`lr_scheduler_kwargs` must be finite, got {settings}.")
    if settings and kind in WITHOUT_SETTINGS:
        raise ValueError(f"`lr_scheduler_type` {kind.value} takes no `lr_scheduler_kwargs`, got {settings}.")
    if kind in BY_METRIC and run.freeze_projector_steps:
        raise ValueError(
            f"`freeze_projector_steps` does not work with `lr_scheduler_type` {kind.value}; leave one out."
        )
    if kind in BY_METRIC and run.eval_strategy == "no":
        raise ValueError(
            f"`lr_scheduler_type` {kind.value} follows the validation: set `eval_strategy` to steps or epoch."
        )
    try:
        rates = rates_of(kind, settings, run.learning_rate, run.get_warmup_steps(TRIED_STEPS))
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(
            f"`lr_scheduler_type` {kind.value} does not work with `lr_scheduler_kwargs` {settings}: "
            f"{one_line(error)}."
        ) from error
    wrong = [rate for rate in rates if not 0 <= rate < float("inf")]
    if wrong:
        raise ValueError(
            f"`lr_scheduler_type` {kind.value} with `lr_scheduler_kwargs` {settings} makes the rate "
            f"{wrong[0]}."
        )
    return settings


def rates_of(kind: SchedulerType, settings: dict[str, Any], peak: float, warmup: int) -> list[float]:
    """The learning rates of a short training."""
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=peak)
    schedule: Any = get_scheduler(kind, optimizer, min(warmup, TRIED_STEPS), TRIED_STEPS, settings)
    rates = []
    for step in range(TRIED_STEPS):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        schedule.step(*((1.0 / (step + 1),) if kind in BY_METRIC else ()))
    return rates


def check_installed(run: Any) -> None:
    """Optimizer and trackers must be there on this machine.

    Raises:
        ValueError: one is not, or the optimizer does not take its settings.
    """
    name = run.optim.value
    if any(word in name for word in UNSUPPORTED_OPTIMIZERS):
        raise ValueError(f"`optim` {name} is not supported: it is made for training whole LLMs.")
    try:
        optimizer, settings = Trainer.get_optimizer_cls_and_kwargs(run)
        optimizer([nn.Parameter(torch.zeros(1))], **settings)
    except (ImportError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"`optim` {name} cannot be used here: {one_line(error)}") from error
    available = get_available_reporting_integrations()
    missing = [tracker for tracker in run.report_to if tracker not in available]
    if missing:
        raise ValueError(
            f"`report_to` names {', '.join(missing)}, which is not installed here, or unknown to "
            f"transformers. Installed: {', '.join(available) or 'none'}."
        )
    if run.fp16 and not torch.cuda.is_available():
        raise ValueError("`fp16` needs a GPU; leave it out, or take `bf16`.")
