"""The settings a run was started with, as run.json records them, and what a resumed run may change.

Everything is recorded. What decides the trained weights must stay; `IGNORED` lists what does not decide them.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from modeling_slam.common.differences import same_setting
from modeling_slam.data import DataArguments
from modeling_slam.training.arguments import LoraArguments, ModelArguments, RunArguments
from modeling_slam.training.assembly import config_settings
from modeling_slam.training.run_checks import BY_METRIC

Settings = dict[str, dict[str, Any]]  # group -> name -> value

IGNORED_GROUPS = ("cache", "push")  # the cache gives what the encoder would
# Where and how a run goes on, not what it computes.
IGNORED = {
    "data": {"test_split", "max_test_clips", "max_dropped"},
    "run": {
        "output_dir", "resume_from_checkpoint", "resume_anyway", "local_rank", "use_cpu",
        # what is logged
        "logging_strategy", "logging_steps", "logging_first_step",
        "log_on_each_node", "log_level", "log_level_replica", "disable_tqdm", "report_to", "run_name",
        "project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id",
        "include_num_input_tokens_seen", "skip_memory_metrics",
        # what is kept on disk
        "save_total_limit", "save_on_each_node",
        # how data come and where sums are kept; memory for time
        "dataloader_num_workers", "dataloader_persistent_workers", "dataloader_pin_memory",
        "dataloader_prefetch_factor", "dataloader_multiprocessing_context", "ddp_backend", "ddp_timeout",
        "per_device_eval_batch_size", "eval_accumulation_steps", "torch_empty_cache_steps", "eval_on_start",
        "activation_checkpointing", "activation_checkpointing_kwargs", "gradient_checkpointing",
        "gradient_checkpointing_kwargs", "loss_positions",
    },
}  # fmt: skip
# They decide which checkpoint a run ends with, or its learning rate, where validation does; else nothing.
VALIDATION = {
    "data": {"validation_split", "max_validation_clips"},
    "run": {
        "eval_strategy", "eval_steps", "eval_delay", "save_strategy", "save_steps", "metric_for_best_model",
        "early_stopping_patience", "predict_with_generate", "generation_num_beams",
        "generation_max_new_tokens", "generation_max_tokens_per_second",
    },
}  # fmt: skip
# Of the settings that make the config, those under which the checkpoint's weights still fit.
FITTING = {
    "lora_alpha",
    "lora_dropout",
    "encoder_lora_alpha",
    "encoder_lora_dropout",
    "projector_dropout",
    "projector_frame_dropout",
    "drop_blanks",
    "quantization",
}
BATCH = ("per_device_train_batch_size", "batch_seconds", "gradient_accumulation_steps", "world_size")


def record(**groups: Any) -> Settings:
    """What was asked for, group by group of the command line, as plain JSON."""
    settings = {}
    for name, group in groups.items():
        asked = {entry.name for entry in fields(group) if entry.init}
        settings[name] = {key: value for key, value in asdict(group).items() if key in asked}
        if isinstance(group, RunArguments):
            settings[name]["world_size"] = group.world_size
        if isinstance(group, DataArguments):
            settings[name]["dataset"] = group.recorded_dataset
    return json.loads(json.dumps(settings, default=str))


def changes(before: Settings, now: Settings) -> dict[str, tuple[Any, Any]]:
    """Name -> value before and now, of the settings that decide the weights and differ.

    Settings that an older version did not record, or that are none any more, are not compared.
    """
    by_validation = depends_on_validation(before) or depends_on_validation(now)
    found = {}
    for group in before.keys() & now.keys() - set(IGNORED_GROUPS):
        ignored = IGNORED.get(group, set()) | (set() if by_validation else VALIDATION.get(group, set()))
        for name in now[group]:
            if name not in before[group] or name in ignored:
                continue
            if not same_setting(name, before[group][name], now[group][name]):
                found[name] = (before[group][name], now[group][name])
    return found


def depends_on_validation(settings: Settings) -> bool:
    run = settings["run"]
    # A run.json of an older version has no `load_best_model_at_end`, and nothing to compare it by.
    return bool(run.get("load_best_model_at_end")) or run.get("lr_scheduler_type") in [
        k.value for k in BY_METRIC
    ]


def misfits(changed: Mapping[str, Any]) -> list[str]:
    """Those of the changed settings that make another model, whose weights are not the checkpoint's."""
    base = {"encoder", "llm", "encoder_revision", "llm_revision"}
    choices = {"layer_choice", "llm_layer_choice", "calibration_minutes", "calibration_seed"}
    shaping = base | choices | config_settings(ModelArguments, LoraArguments) - FITTING
    return [name for name in changed if name in shaping]


def in_checkpoints(changed: Mapping[str, tuple[Any, Any]], now: Settings) -> list[str]:
    """Those of the changed settings whose old value stands in the state that a checkpoint gives back.

    That of another optimizer does not fit. A rate that follows validations is part of the schedule's state.
    """
    schedules = {*changed.get("lr_scheduler_type", ()), now["run"].get("lr_scheduler_type")}
    by_metric = not schedules.isdisjoint(kind.value for kind in BY_METRIC)
    return [
        name
        for name in changed
        if name == "optim" or (by_metric and name in ("learning_rate", "lr_scheduler_type"))
    ]


def keep_global_batch(before: Settings, run: RunArguments) -> dict[str, Any]:
    """The settings under which as many clips make a step as before, though the number of processes changed.

    Raises:
        ValueError: they cannot be shared out evenly.
    """
    old = before["run"]
    size = "per_device_train_batch_size" if run.batch_seconds is None else "batch_seconds"
    whole = old[size] * old["gradient_accumulation_steps"] * old["world_size"]
    per_device, accumulated = getattr(run, size), run.gradient_accumulation_steps
    if math.isclose(per_device * accumulated * run.world_size, whole):
        return {}
    batches = whole / (per_device * run.world_size)  # of the same size, on each device
    if math.isclose(batches, round(batches)) and round(batches) >= 1:
        return {"gradient_accumulation_steps": round(batches)}
    smaller = whole / (accumulated * run.world_size)
    if size == "per_device_train_batch_size" and smaller >= 1 and smaller == int(smaller):
        return {size: int(smaller)}
    raise ValueError(
        f"The run was begun with {whole:g} {'clips' if run.batch_seconds is None else 'seconds'} a step, "
        f"which {run.world_size} processes cannot share evenly (`{size}` {per_device:g}, "
        f"`gradient_accumulation_steps` {accumulated}). Take another number of processes."
    )
