"""Recipes are parsed by the parser that `train.py` uses, and the paper's nine hold the paper's values.

Expected values are written out here, not taken from the defaults under test. Source: sections 4.1 to 4.3 of
https://huggingface.co/papers/2603.27981; recipes/README.md for what the paper leaves open.
"""

from pathlib import Path

import pytest
import torch
from transformers import get_scheduler

from modeling_slam.common.command_line import parse_arguments
from modeling_slam.data import DataArguments
from modeling_slam.training.arguments import LoraArguments, ModelArguments, RunArguments

RECIPES = Path(__file__).parents[1] / "recipes"
SIZES = ("small", "medium", "large-v2")
LORA = {"da": (8, 16), "nl": (16, 32), "en": (16, 32)}
EPOCHS = {"da": (15, 15, 10), "nl": (6, 6, 8), "en": (6, 6, 6)}


def parse(name: str, *flags: str) -> tuple[ModelArguments, LoraArguments, DataArguments, RunArguments]:
    types = (ModelArguments, LoraArguments, DataArguments, RunArguments)
    return parse_arguments(*types, description="", argv=[str(RECIPES / f"{name}.yaml"), *flags])


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_complete_and_writes_to_a_run_of_its_own(path):
    *_, run = parse(path.stem)
    assert run.output_dir == ("runs/demo/model" if path.stem == "demo" else f"runs/{path.stem}")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("language", LORA)
def test_the_papers_nine_recipes_hold_the_papers_values(language, size):
    model, lora, data, run = parse(f"{language}-{size}")
    assert (model.encoder, model.llm) == (f"openai/whisper-{size}", "Qwen/Qwen2.5-3B")
    assert model.keep_layers is None
    assert (model.projector_type, model.projector_stack) == ("stack_mlp", 5)
    assert (model.projector_hidden_size, model.projector_dropout) == (None, 0.1)  # the projector's own width
    assert (lora.lora_rank, lora.lora_alpha) == LORA[language]
    assert lora.lora_dropout == 0.1
    assert set(lora.lora_target_modules) == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert Path(data.dataset[0]).name == "cv-corpus-22.0-2025-06-20"
    assert data.language == language
    assert (data.min_seconds, data.max_seconds) == (0.5, 30.0)
    assert data.max_train_hours == (100 if language == "en" else None)
    assert run.per_device_train_batch_size * run.gradient_accumulation_steps == 4
    assert (run.learning_rate, run.weight_decay, run.max_grad_norm) == (1e-4, 0.01, 1.0)
    assert run.optim.startswith("adamw")
    assert run.num_train_epochs == EPOCHS[language][SIZES.index(size)]
    assert (run.metric_for_best_model, run.greater_is_better, run.load_best_model_at_end) == (
        "wer",
        False,
        True,
    )
    assert run.early_stopping_patience > 0


def test_the_learning_rate_climbs_for_5_percent_and_falls_to_10_percent_of_its_peak():
    *_, run = parse("nl-medium")
    assert isinstance(run.lr_scheduler_kwargs, dict)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=run.learning_rate)
    schedule = get_scheduler(
        run.lr_scheduler_type,
        optimizer,
        num_warmup_steps=run.get_warmup_steps(1000),
        num_training_steps=1000,
        scheduler_specific_kwargs=run.lr_scheduler_kwargs,
    )
    rates = []
    for _ in range(1001):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[25] == pytest.approx(0.5e-4)
    assert max(rates) == rates[50] == pytest.approx(1e-4)
    assert rates[525] == pytest.approx(0.55e-4)  # half way down a cosine between peak and floor
    assert rates[1000] == pytest.approx(1e-5)


def test_a_flag_on_the_command_line_wins_over_the_recipe():
    model, lora, _, run = parse(
        "da-small", "--keep_layers", "10", "--lora_rank", "0", "--output_dir", "runs/mine"
    )
    assert (model.keep_layers, lora.lora_rank, run.output_dir) == (10, 0, "runs/mine")
    assert run.num_train_epochs == 15


def test_a_misspelt_setting_in_a_recipe_ends_with_its_name(tmp_path, capsys):
    (tmp_path / "typo.yaml").write_text("output_dir: runs/x\ndataset: speech\nkeep_layer: 4\n")
    with pytest.raises(SystemExit) as ended:
        parse_arguments(
            ModelArguments, DataArguments, RunArguments, description="", argv=[str(tmp_path / "typo.yaml")]
        )
    assert ended.value.code == 2
    assert "settings that do not exist: keep_layer." in capsys.readouterr().err
