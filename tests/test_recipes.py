"""Recipes are parsed by the parser that `train.py` uses, and those of the paper hold the paper's values.

Expected values are written out here, not taken from the defaults under test. Source: sections 4.1 to 4.3 of
https://huggingface.co/papers/2603.27981; recipes/README.md for what the paper leaves open.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import get_scheduler

from modeling_slam.common import command_line
from modeling_slam.common.command_line import build_parser, parse_arguments
from modeling_slam.data import DataArguments
from modeling_slam.training.alignment import AlignmentArguments
from modeling_slam.training.arguments import LoraArguments, ModelArguments, RunArguments
from modeling_slam.training.augmentation import AugmentationArguments
from modeling_slam.training.run_settings import record

RECIPES = Path(__file__).parents[1] / "recipes"
TYPES = {
    "model": ModelArguments, "lora": LoraArguments, "data": DataArguments, "augment": AugmentationArguments,
    "align": AlignmentArguments, "run": RunArguments,
}  # fmt: skip
SIZES = ("small", "medium", "large-v2")
LORA = {"da": (8, 16), "nl": (16, 32), "en": (16, 32)}
EPOCHS = {"da": (15, 15, 10), "nl": (6, 6, 8), "en": (6, 6, 6)}
NINE = [f"{language}-{size}" for language in LORA for size in SIZES]
# Defaults that train.py does not have, of everything that the paper's results depend on.
OTHER_DEFAULTS: dict[str, Any] = {
    "llm": "Qwen/Qwen2.5-0.5B", "layer_choice": None, "final_layer_norm": "trained",
    "min_seconds": 1.0, "max_seconds": 20.0,
    "max_validation_clips": 10, "projector_type": "conv", "projector_stack": 4, "projector_tail": "drop",
    "projector_hidden_size": 512, "projector_dropout": 0.3, "projector_frame_dropout": 0.3,
    "projector_context": 7, "projector_scale": 0.5, "llm_input": "gated", "drop_blanks": 0.95,
    "align_epochs": 6.0, "ctc_weight": 0.3, "freeze_projector_steps": 100, "augment": ["masking"],
    "lora_rank": 4, "lora_alpha": 8, "lora_dropout": 0.0, "lora_target_modules": ["q_proj"],
    "optim": "adafactor", "learning_rate": 5e-4, "lr_scheduler_type": "cosine_warmup_with_min_lr",
    "lr_scheduler_kwargs": {"min_lr_rate": 0.5}, "warmup_steps": 10.0, "weight_decay": 0.1,
    "max_grad_norm": 10.0,
    "seed": 1, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2,
    "train_sampling_strategy": "random", "num_train_epochs": 3.0, "eval_strategy": "no",
    "predict_with_generate": False, "generation_num_beams": 4, "generation_max_new_tokens": 50,
    "save_strategy": "no", "load_best_model_at_end": False, "metric_for_best_model": "loss",
    "early_stopping_patience": 0,
}  # fmt: skip


def parse(name: str, *flags: str) -> dict[str, Any]:
    """The settings of a recipe, by the names of `TYPES`."""
    argv = [str(RECIPES / f"{name}.yaml"), *flags]
    return dict(zip(TYPES, parse_arguments(*TYPES.values(), description="", argv=argv), strict=True))


def names() -> list[str]:
    """All recipes. A file that begins with `_` is what others build on; accelerate has its own folder."""
    paths = [path.relative_to(RECIPES).with_suffix("") for path in RECIPES.rglob("*.yaml")]
    own = [path for path in paths if not path.name.startswith("_") and path.parts[0] != "accelerate"]
    return sorted(path.as_posix() for path in own)


@pytest.mark.parametrize("name", names())
def test_every_recipe_is_complete_and_writes_to_a_run_of_its_own(name):
    assert parse(name)["run"].output_dir == ("runs/demo/model" if name == "demo" else f"runs/{name}")


@pytest.mark.parametrize("name", NINE)
def test_a_recipe_of_the_nine_pairs_states_what_differs_from_the_defaults_and_no_more(name):
    settings = yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
    parser = build_parser(*TYPES.values(), description="")
    assert settings.pop("encoder") == f"openai/whisper-{name[3:]}"  # told even where it is the default
    for setting, value in settings.items():
        assert value != parser.get_default(setting), setting
    assert parse(name)["data"].language == name[:2]
    lora = parse(name)["lora"]
    assert (lora.lora_rank, lora.lora_alpha) == LORA[name[:2]]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("language", LORA)
def test_the_papers_recipes_hold_the_papers_values(language, size):
    model, lora, data, augment, align, run = parse(f"paper/{language}-{size}").values()
    assert (model.encoder, model.llm) == (f"openai/whisper-{size}", "Qwen/Qwen2.5-3B")
    assert model.keep_layers is None
    assert (model.projector_type, model.projector_stack) == ("stack_mlp", 5)
    assert model.projector_hidden_size == 2048
    assert (model.projector_dropout, model.projector_frame_dropout) == (0.1, 0.0)
    assert (model.projector_scale, model.projector_context) == (1.0, 1)
    assert (model.llm_input, model.drop_blanks) == ("projector", 1.0)  # no probability is above 1
    assert (align.align_epochs, run.ctc_weight, run.freeze_projector_steps) == (0.0, 0.0, 0)
    assert augment.augment == ["none"]
    assert (lora.lora_rank, lora.lora_alpha) == LORA[language]
    assert lora.lora_dropout == 0.1
    assert set(lora.lora_target_modules) == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert Path(data.dataset[0]).name == "cv-corpus-22.0-2025-06-20"
    assert data.language == language
    assert (data.min_seconds, data.max_seconds) == (0.5, 30.0)
    assert data.max_train_hours == (100 if language == "en" else None)
    assert run.per_device_train_batch_size * run.gradient_accumulation_steps == 4
    assert (run.learning_rate, run.weight_decay, run.max_grad_norm) == (1e-4, 0.01, 1.0)
    assert {run.rate_of(part) for part in ("projector", "ctc_head", "lora")} == {1e-4}
    assert run.optim.startswith("adamw")
    assert run.num_train_epochs == EPOCHS[language][SIZES.index(size)]
    assert (run.metric_for_best_model, run.greater_is_better, run.load_best_model_at_end) == (
        "wer",
        False,
        True,
    )
    assert run.early_stopping_patience == 3


@pytest.mark.parametrize("name", NINE)
def test_the_papers_recipes_stay_the_papers_whatever_the_defaults_are(name, monkeypatch):
    before = record(**parse(f"paper/{name}"))

    def with_other_defaults(*types: Any, **settings: Any) -> Any:
        parser = build_parser(*types, **settings)
        parser.set_defaults(**OTHER_DEFAULTS)
        return parser

    monkeypatch.setattr(command_line, "build_parser", with_other_defaults)
    assert record(**parse(f"paper/{name}")) == before
    assert record(**parse(name)) != before, "the defaults were not changed"


def test_the_learning_rate_climbs_for_5_percent_and_falls_to_10_percent_of_its_peak():
    run = parse("paper/nl-medium")["run"]
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
    for name in ("da-small", "paper/da-small"):
        settings = parse(name, "--keep_layers", "10", "--lora_rank", "0", "--output_dir", "runs/mine")
        model, lora, run = (settings[group] for group in ("model", "lora", "run"))
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
