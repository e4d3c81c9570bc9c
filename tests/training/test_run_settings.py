"""run.json holds every setting, and a resumed run may change none that its weights depend on."""

import copy
import dataclasses
import json
from pathlib import Path

import pytest

from modeling_slam.data import DataArguments
from modeling_slam.publishing.arguments import PushArguments
from modeling_slam.training.arguments import LoraArguments, ModelArguments, RunArguments
from modeling_slam.training.feature_cache import CacheArguments
from modeling_slam.training.run_settings import IGNORED, VALIDATION, changes, misfits, record

GROUPS = {
    "model": ModelArguments(),
    "lora": LoraArguments(),
    "data": DataArguments("speech"),
    "cache": CacheArguments(),
    "push": PushArguments(),
}


def settings(directory: Path, **fields):
    return record(**GROUPS, run=RunArguments(output_dir=str(directory), use_cpu=True, **fields))


def asked_for(group) -> set[str]:
    return {field.name for field in dataclasses.fields(group) if field.init}


def test_every_setting_that_can_be_given_is_recorded_and_no_other(tmp_path):
    recorded = settings(tmp_path)
    assert json.loads(json.dumps(recorded)) == recorded
    for name, group in GROUPS.items():
        assert set(recorded[name]) == asked_for(group)
    assert set(recorded["run"]) == asked_for(RunArguments) | {"world_size"}
    assert recorded["run"]["lr_scheduler_kwargs"] == {"min_lr_rate": 0.1}
    assert recorded["run"]["optim"] == "adamw_torch_fused"


def names_of(group: str, tmp_path) -> list[str]:
    return sorted(settings(tmp_path)[group])


@pytest.mark.parametrize("group", ["model", "lora", "data", "run"])
def test_any_setting_may_not_change_unless_it_is_listed(tmp_path, group):
    before = settings(tmp_path)
    for name in before[group]:
        now = copy.deepcopy(before)
        now[group][name] = "another value"
        assert (name in changes(before, now)) == (name not in IGNORED.get(group, ())), name


def test_what_is_listed_is_a_setting(tmp_path):
    recorded = settings(tmp_path)
    for listed in (IGNORED, VALIDATION):
        for group, names in listed.items():
            assert names <= set(recorded[group])


@pytest.mark.parametrize("group", ["cache", "push"])
def test_cache_and_pushes_may_change(tmp_path, group):
    before = settings(tmp_path)
    now = copy.deepcopy(before)
    now[group] = dict.fromkeys(now[group], "another value")
    assert changes(before, now) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"adam_beta2": 0.98}, {"adam_epsilon": 1e-6}, {"optim": "adafactor"}, {"optim_args": "a=1"},
        {"early_stopping_patience": 1}, {"load_best_model_at_end": False}, {"metric_for_best_model": "cer"},
        {"eval_delay": 1}, {"data_seed": 1}, {"average_tokens_across_devices": False},
        {"lr_scheduler_type": "linear"}, {"train_sampling_strategy": "random"},
    ],
)  # fmt: skip
def test_a_setting_of_the_trainer_that_decides_the_weights_may_not_change(tmp_path, change):
    assert changes(settings(tmp_path), settings(tmp_path, **change)).keys() >= change.keys()


@pytest.mark.parametrize(
    "change",
    [
        {"logging_steps": 1}, {"save_total_limit": 5}, {"dataloader_num_workers": 0}, {"resume_anyway": True},
        {"per_device_eval_batch_size": 1}, {"run_name": "x"}, {"activation_checkpointing": True},
        {"report_to": ["tensorboard"]}, {"disable_tqdm": True}, {"logging_strategy": "epoch"},
    ],
)  # fmt: skip
def test_how_a_run_is_carried_out_may_change(tmp_path, change):
    assert changes(settings(tmp_path), settings(tmp_path, **change)) == {}


def test_validation_may_change_where_no_weights_depend_on_it(tmp_path):
    last = {"load_best_model_at_end": False}
    change = {"eval_strategy": "steps", "eval_steps": 5, "save_strategy": "steps", "save_steps": 7}
    assert changes(settings(tmp_path, **last), settings(tmp_path, **last, **change)) == {}
    by_metric = last | {"lr_scheduler_type": "reduce_lr_on_plateau"}
    assert "eval_steps" in changes(settings(tmp_path, **by_metric), settings(tmp_path, **by_metric, **change))


def test_a_run_file_of_an_older_version_is_compared_by_what_it_has(tmp_path):
    """It lacks most settings and has one that bears another name now."""
    now = settings(tmp_path)
    old = {group: dict(now[group]) for group in ("model", "lora", "data")}
    old["model"]["kept_layer_indices"] = old["model"].pop("kept_encoder_layers")
    old["run"] = {name: now["run"][name] for name in ("learning_rate", "seed", "world_size", "bf16")}
    assert changes(old, now) == {}
    old["run"]["seed"] = 7
    assert changes(old, now) == {"seed": (7, 42)}


def test_what_makes_another_model_is_told_from_what_does_not():
    changed = [
        "encoder",
        "keep_layers",
        "kept_encoder_layers",
        "projector_stack",
        "lora_rank",
        "layer_choice",
        "keep_llm_layers",
        "kept_llm_layers",
        "llm_layer_choice",
        "calibration_minutes",
        "calibration_seed",
    ]
    assert (
        misfits(dict.fromkeys([*changed, "lora_dropout", "lora_alpha", "projector_dropout", "seed"]))
        == changed
    )


def test_a_slash_at_the_end_of_a_path_is_no_change():
    before, now = (record(data=DataArguments(name), model=ModelArguments(llm=llm))
                   for name, llm in (("speech", "models/qwen"), ("speech/", "models/qwen/")))  # fmt: skip
    assert changes(before | {"run": {}}, now | {"run": {}}) == {}
