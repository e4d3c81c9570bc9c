"""Settings of a run: the paper's defaults, and what is refused when they are made.

Expected values are written out here. Source: https://huggingface.co/papers/2603.27981, sections 4.2 and 4.3.
The learning-rate curve that follows from them is checked in `test_recipes.py`.
"""

import pytest
import torch
from torch import nn
from transformers import Trainer

from modeling_slam.training.arguments import LoraArguments, RunArguments, bf16_is_native


def run_arguments(tmp_path, **fields) -> RunArguments:
    return RunArguments(**({"output_dir": str(tmp_path), "use_cpu": True} | fields))


def test_defaults_are_the_papers(tmp_path):
    run = run_arguments(tmp_path)
    assert (run.learning_rate, run.weight_decay, run.max_grad_norm) == (1e-4, 0.01, 1.0)
    assert (run.lr_scheduler_type, run.lr_scheduler_kwargs) == ("cosine_with_min_lr", {"min_lr_rate": 0.1})
    assert run.get_warmup_steps(1000) == 50
    assert run.per_device_train_batch_size == 4
    assert (run.metric_for_best_model, run.greater_is_better, run.load_best_model_at_end) == (
        "wer",
        False,
        True,
    )
    lora = LoraArguments()
    assert (lora.lora_rank, lora.lora_alpha, lora.lora_dropout) == (16, 32, 0.1)
    assert lora.lora_target_modules == ["q_proj", "k_proj", "v_proj", "o_proj"]


def test_the_optimizer_is_adamw_with_the_papers_values(tmp_path):
    """As the trainer builds it, not as the settings say."""
    optimizer = Trainer(
        model=nn.Linear(2, 2), args=run_arguments(tmp_path, eval_strategy="no")
    ).create_optimizer()
    assert isinstance(optimizer, torch.optim.AdamW)
    decayed, biases = optimizer.param_groups
    assert (decayed["lr"], decayed["weight_decay"], biases["weight_decay"]) == (1e-4, 0.01, 0.0)


def test_without_validation_no_best_model_is_looked_for(tmp_path):
    run = run_arguments(tmp_path, eval_strategy="no")
    assert not run.validates
    assert not run.load_best_model_at_end
    assert run_arguments(tmp_path).validates


def test_without_checkpoints_no_best_model_is_looked_for(tmp_path):
    assert not run_arguments(tmp_path, save_strategy="no").load_best_model_at_end


def test_bf16_is_off_on_a_cpu_unless_it_is_asked_for(tmp_path):
    assert not run_arguments(tmp_path).bf16
    assert run_arguments(tmp_path, bf16=True).bf16
    if not torch.accelerator.is_available():
        assert not bf16_is_native()
        assert not run_arguments(tmp_path, use_cpu=False).bf16
        assert run_arguments(tmp_path, use_cpu=False, bf16=True).use_cpu


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"output_dir": ""}, "`output_dir` is missing"),
        ({"early_stopping_patience": -1}, "`early_stopping_patience`.* -1"),
        ({"eval_strategy": "hourly", "save_strategy": "hourly"}, "hourly"),
    ],
)
def test_refuses_settings_that_cannot_work(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        run_arguments(tmp_path, **fields)
