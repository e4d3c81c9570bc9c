"""Everything that can be wrong with the settings of a run shows before its data are read, by name."""

import contextlib
import json
import shutil

import pytest
import torch
from tiny_run import flags
from torch import nn
from transformers import SchedulerType, Trainer
from transformers.training_args import OptimizerNames

import train
from modeling_slam.common.command_line import parse_arguments
from modeling_slam.training.arguments import RunArguments
from modeling_slam.training.run_checks import check_installed

# What a schedule cannot do without; the others take none, or have defaults.
NEEDED = {"warmup_stable_decay": {"num_decay_steps": 4}}
TORCHS_OWN = ("adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop")


def run_arguments(tmp_path, **fields) -> RunArguments:
    return RunArguments(output_dir=str(tmp_path), use_cpu=True, **fields)


@pytest.mark.parametrize("kind", [kind.value for kind in SchedulerType])
def test_every_schedule_of_transformers_trains(tmp_path, kind):
    """As the trainer builds it and steps it, 20 steps on a tiny layer."""
    run = run_arguments(tmp_path, lr_scheduler_type=kind, lr_scheduler_kwargs=NEEDED.get(kind))
    layer = nn.Linear(2, 2)
    trainer = Trainer(model=layer, args=run, eval_dataset=[0])
    trainer.create_optimizer_and_scheduler(20)
    rates = []
    for step in range(20):
        layer(torch.ones(2)).sum().backward()
        trainer.optimizer.step()
        by_metric = kind in ("reduce_lr_on_plateau", "greedy")
        trainer.lr_scheduler.step(*((1 / (step + 1),) if by_metric else ()))
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert max(rates) > 0
    assert all(0 <= rate <= 1e-3 for rate in rates)


@pytest.mark.parametrize("kind", NEEDED)
def test_a_schedule_that_needs_settings_names_them(tmp_path, kind):
    with pytest.raises(
        ValueError, match=rf"`lr_scheduler_type` {kind} .*lr_scheduler_kwargs.*num_decay_steps"
    ):
        run_arguments(tmp_path, lr_scheduler_type=kind)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("linear", {"min_lr_rate": 0.1}),
        ("constant", {"min_lr_rate": 0.1}),
        ("constant_with_warmup", {"num_cycles": 2}),
        ("cosine_with_min_lr", {"min_lr_rate": float("nan")}),
        ("cosine_with_min_lr", {"min_lr": 1e-5, "min_lr_rate": 0.1}),
        ("polynomial", {"lr_end": 1.0}),
        ("cosine", "half"),
        ("cosine", "{num_cycles: 1"),
    ],
)
def test_settings_that_a_schedule_does_not_take_are_refused(tmp_path, kind, settings):
    with pytest.raises(ValueError, match="`lr_scheduler_kwargs`"):
        run_arguments(tmp_path, lr_scheduler_type=kind, lr_scheduler_kwargs=settings)


NONSENSE = {
    "learning_rate": ("nan", "inf", "-1e-4"),
    "weight_decay": ("nan", "-0.1", "inf"),
    "warmup_steps": ("nan", "-1", "inf"),
    "max_grad_norm": ("nan", "-1"),
    "adam_beta1": ("1", "-0.1", "nan"),
    "adam_beta2": ("1.5", "nan"),
    "adam_epsilon": ("nan", "-1"),
    "num_train_epochs": ("0", "-1", "nan", "inf"),
    "max_steps": ("0", "-2"),
    "gradient_accumulation_steps": ("0", "-1"),
    "per_device_train_batch_size": ("0", "-4"),
    "per_device_eval_batch_size": ("0",),
    "batch_seconds": ("0", "nan", "inf"),
    "save_steps": ("0", "nan", "-5"),
    "eval_steps": ("0", "nan"),
    "logging_steps": ("0", "nan"),
    "save_total_limit": ("0", "-1"),
    "generation_num_beams": ("0",),
    "generation_max_new_tokens": ("0",),
    "generation_max_tokens_per_second": ("0",),
    "dataloader_num_workers": ("-1",),
    "seed": ("-1", str(2**32)),
    "data_seed": ("-1",),
    "eval_delay": ("-1", "nan"),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in NONSENSE.items() for value in values]
)
def test_a_number_that_cannot_be_meant_is_refused_by_its_name(tmp_path, capsys, name, value):
    with pytest.raises(SystemExit) as ended:
        parse_arguments(RunArguments, description="", argv=[f"--output_dir={tmp_path}", f"--{name}={value}"])
    assert ended.value.code == 2
    assert f"`{name}` must be" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"metric_for_best_model": "bleu"}, ["`metric_for_best_model`", "wer, cer, ", "loss"]),
        ({"eval_strategy": "steps", "eval_steps": 10}, ["`eval_strategy`", "`save_strategy`"]),
        (
            {"eval_strategy": "steps", "eval_steps": 10, "save_strategy": "steps", "save_steps": 15},
            ["`save_steps`", "`eval_steps`"],
        ),
        ({"eval_strategy": "no", "save_strategy": "best"}, ["`save_strategy best`", "`eval_strategy`"]),
        ({"eval_strategy": "no", "lr_scheduler_type": "greedy"}, ["`lr_scheduler_type`", "`eval_strategy`"]),
        ({"predict_with_generate": False}, ["`predict_with_generate`", "`metric_for_best_model loss`"]),
        ({"max_steps": 10, "warmup_steps": 11}, ["`warmup_steps` 11", "10 steps"]),
        ({"batch_seconds": 5.0, "dataloader_drop_last": True}, ["`dataloader_drop_last`", "`batch_seconds`"]),
    ],
)
def test_settings_that_do_not_go_together_are_named_in_one_line(tmp_path, settings, names):
    with pytest.raises(ValueError, match="`") as error:
        run_arguments(tmp_path, **settings)
    assert all(name in str(error.value) for name in names)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"eval_strategy": "steps", "eval_steps": 0.1, "save_strategy": "steps", "save_steps": 0.3},
        {"save_strategy": "best"},
        {"eval_strategy": "no", "save_strategy": "steps", "save_steps": 7},
        {"predict_with_generate": False, "metric_for_best_model": "loss"},
        {"load_best_model_at_end": False, "eval_strategy": "steps", "eval_steps": 4},
    ],
)
def test_settings_that_go_together_pass(tmp_path, settings):
    assert not run_arguments(tmp_path, **settings).greater_is_better


@pytest.mark.parametrize("name", [optimizer.value for optimizer in OptimizerNames])
def test_an_optimizer_that_is_not_here_or_not_meant_for_this_is_refused_by_its_flag(tmp_path, name):
    """What passes is what the trainer can build."""
    run = run_arguments(tmp_path, optim=name, eval_strategy="no")
    if name in TORCHS_OWN:
        check_installed(run)
    with contextlib.suppress(ValueError):
        check_installed(run)
        Trainer(model=nn.Linear(2, 2), args=run).create_optimizer()
        return
    with pytest.raises(ValueError, match=rf"^`optim` {name} [^\n]*$"):
        check_installed(run)


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"optim": "adamw_torch_8bit"}, "`optim`"),
        ({"report_to": "neptune"}, "`report_to`"),
        ({"fp16": True}, "`fp16`"),
        ({"fsdp": "full_shard"}, "`--fsdp`"),
        ({"projector_stack": 100_000}, "`--projector_stack`"),
        ({"attn_implementation": "flash_attention_2"}, "`attn_implementation`"),
        ({"attn_implementation": "nonsense"}, "`attn_implementation`"),
        ({"llm": "{encoder}"}, "`llm`"),
        ({"encoder": "{llm}"}, "`--encoder`"),
        ({"llm": "./nowhere"}, "`llm`"),
        ({"encoder": "./nowhere"}, "`encoder`"),
        ({"keep_layers": 0}, "`--keep_layers`"),
        ({"kept_encoder_layers": 4}, "`kept_encoder_layers`"),
        ({"lora_dropout": "nan"}, "`lora_dropout`"),
        ({"projector_dropout": 1.0}, "`projector_dropout`"),
        ({"lora_target_modules": "nonsense"}, "`lora_target_modules`"),
        ({"pad_to_seconds": "nan"}, "`pad_to_seconds`"),
        ({"output_dir": "{dataset}/train/metadata.csv/run"}, "`output_dir`"),
    ],
)
def test_what_does_not_fit_this_machine_or_the_base_models_shows_before_data_are_read(
    world, tmp_path, monkeypatch, changes, flag
):
    def read(*_):
        raise AssertionError("data were read")

    monkeypatch.setattr(train, "load_for_run", read)
    changes = {name: str(value).format(**world._asdict()) for name, value in changes.items()}
    output_dir = changes.pop("output_dir", tmp_path / "run")
    with pytest.raises(SystemExit, match=r"^error: ") as ended:
        train.main(flags(world, output_dir, **changes))
    assert flag in str(ended.value.code)
    assert "\n" not in str(ended.value.code)
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_only_model_is_no_llm(world, tmp_path):
    from transformers import BertConfig

    BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2).save_pretrained(tmp_path / "bert")
    with pytest.raises(SystemExit, match=r"`llm` .* is a bert"):
        train.main(flags(world, tmp_path / "run", llm=tmp_path / "bert"))


def test_a_warm_up_longer_than_the_run_is_refused_when_its_steps_are_known(world, tmp_path):
    with pytest.raises(SystemExit, match=r"^error: `warmup_steps` 13 must not be more than the 12 steps"):
        train.main(flags(world, tmp_path / "run", num_train_epochs=1, warmup_steps=13))


def test_a_corpus_that_mostly_cannot_be_read_starts_no_run_and_leaves_its_report(world, tmp_path):
    corpus = tmp_path / "speech"
    shutil.copytree(world.dataset, corpus)
    for clip in sorted((corpus / "train").glob("*.flac"))[:11]:
        clip.write_bytes(b"RIFF")
    with pytest.raises(SystemExit, match=r"^error: The audio of 11 of .*--max_dropped 0.1 allows") as ended:
        train.main(flags(world, tmp_path / "run", dataset=corpus))
    assert "data_train.json names each" in str(ended.value.code)
    report = json.loads((tmp_path / "run" / "data_train.json").read_text(encoding="utf-8"))
    assert report["reasons"]["unreadable"] == 11
