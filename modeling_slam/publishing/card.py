"""The model card: metadata for the Hub and text for people, from `Evidence` and nothing else.

The words are in the template, `model_card.md.jinja` beside this file; the numbers are prepared here. Where
something was not measured the card says so.
"""

from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import (
    EvalResult,
    EvalResultEntry,
    ModelCard,
    ModelCardData,
    eval_result_entries_to_yaml,
)

from modeling_slam.common.hub_ids import is_hub_id
from modeling_slam.data.sources import hf_datasets
from modeling_slam.evaluation.metrics import ERROR_RATES, METRICS
from modeling_slam.evaluation.report import parts_of as scores_of_parts
from modeling_slam.model.processing_slam import LANGUAGE_SLOT
from modeling_slam.publishing.evidence import Evidence, Result, codes_of, is_control
from modeling_slam.publishing.naming import name_parts

TEMPLATE_NAME = "model_card.md.jinja"
TASK = "automatic-speech-recognition"
PERCENT_DIGITS = 2
# Settings of a run that its card shows, in this order, as the recipe names them.
SHOWN_SETTINGS = {
    "run": (
        "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm",
        "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps",
        "world_size", "bf16", "seed", "optim", "projector_learning_rate", "ctc_learning_rate",
        "lora_learning_rate", "encoder_lora_learning_rate", "encoder_learning_rate", "llm_learning_rate",
        "train_depths", "freeze_projector_steps", "ctc_weight", "init_from",
    ),
    "align": (
        "align_epochs", "align_learning_rate", "align_batch_size", "align_dropout", "align_frame_dropout",
    ),
    "augment": ("augment",),
    "data": ("dataset_weights", "dataset_temperature"),
    "model": (
        "projector_context", "projector_dropout", "projector_frame_dropout", "llm_input", "drop_blanks",
        "instruction", "text_style", "pad_to_seconds",
    ),
}  # fmt: skip


def template_path() -> Path:
    """The one template, beside this module, so that an installed package has it too."""
    return Path(__file__).with_name(TEMPLATE_NAME)


def render_card(
    evidence: Evidence,
    repo_id: str,
    full: bool = False,
    merged: bool = False,
    license: str | None = None,
    datasets: list[str] | None = None,
    base_models: list[str] | None = None,
    language: str | None = None,
    revision: str | None = None,
) -> ModelCard:
    """The card of a checkpoint as it will stand at `repo_id`; `revision` is the tag it gets, if any."""
    languages = [language] if language else evidence.languages
    language = languages[0] if len(languages) == 1 else None
    data = card_data(evidence, repo_id, full, license, datasets or [], base_models or [], languages)
    config = evidence.config
    return ModelCard.from_template(
        data,
        template_path=str(template_path()),
        repo_id=repo_id,
        name=repo_id.split("/")[-1],
        scheme_name=str(name_parts(config, language)),
        full=full,
        merged=merged,
        base_models=data.base_model or [],
        revision=revision,
        config=config,
        kept_layers=layer_words(config.kept_encoder_layers),
        kept_llm_layers=layer_words(config.kept_llm_layers),
        removed_llm_layers=config.text_config.num_hidden_layers - config.num_llm_layers,
        trained_layers=layer_words(
            [n for n in config.kept_encoder_layers if n in config.trained_encoder_layers]
        ),
        lora_rows=lora_rows(config, evidence.parameters),
        has_pipeline=bool(getattr(config, "custom_pipelines", None)),
        bases=[
            (config.audio_model_id, config.audio_model_revision),
            (config.text_model_id, config.text_model_revision),
        ],
        parameters=evidence.parameters,
        reports=evidence.data,
        title=report_title,
        codes_of=codes_of,
        languages=languages,
        names_language=LANGUAGE_SLOT in evidence.instruction,
        settings=shown_settings(evidence.run),
        run=evidence.run,
        steps=evidence.steps,
        train=evidence.train,
        validation=evidence.validation,
        results=[result_rows(result) for result in evidence.results],
        check=evidence.check,
        generation=evidence.generation,
        percent=percent,
    )


def card_data(
    evidence: Evidence,
    repo_id: str,
    full: bool,
    license: str | None,
    datasets: list[str],
    base_models: list[str],
    languages: list[str],
) -> ModelCardData:
    config = evidence.config
    bases = base_models or [
        model_id
        for model_id in (config.audio_model_id, config.text_model_id)
        if model_id and is_hub_id(model_id)
    ]
    codes = list(dict.fromkeys(code.lower().split("-")[0] for code in languages))
    tags = ["speech", "whisper", "slam-asr", "custom_code", "layer-pruning"]
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=TASK,
        license=license,
        language=codes[0] if len(codes) == 1 else codes or None,
        base_model=bases or None,
        # A lean repository holds what is added to its bases; a full one is a model made from them.
        base_model_relation=("finetune" if full or config.train_llm else "adapter") if bases else None,
        datasets=datasets or training_datasets(evidence) or None,
        metrics=shown_rates([result.metrics for result in evidence.results]) or None,
        tags=[*tags, "lora"] if config.adds_lora else tags,
        model_name=repo_id.split("/")[-1] if evidence.results else None,
        eval_results=[entry for result in evidence.results for entry in eval_results(result.metrics)] or None,
    )


def training_datasets(evidence: Evidence) -> list[str]:
    read = parts_of(evidence.data["train"]) if "train" in evidence.data else []
    return [report["source"] for report in read if hub_dataset(report["source"], report["kind"])]


def eval_results(metrics: dict[str, Any]) -> list[EvalResult]:
    """The error rates of one metrics.json, in per cent, for the card's model-index."""
    settings, name = metrics["settings"], report_title(metrics["data"])
    place: dict[str, Any] = {
        "task_type": TASK,
        "task_name": "Speech recognition",
        "dataset_type": name,
        "dataset_name": name,
        "dataset_config": ", ".join(codes_of(settings["language"])) or None,
        "dataset_split": settings["split"],
    }
    return [
        EvalResult(
            metric_type=rate,
            metric_name=f"{settings['split'].capitalize()} {METRICS[rate].title}"
            + (f" ({metrics['whisper_rules']})" if rate == "whisper_wer" else ""),
            metric_value=in_percent(metrics[rate]),
            **place,
        )
        for rate in shown_rates([metrics])
    ]


def eval_results_file(evidence: Evidence, task_id: str) -> str:
    """A `.eval_results` YAML: WER in per cent on the one Hub dataset that was evaluated.

    Raises:
        ValueError: there is not exactly one result, or its dataset is not on the Hub.
    """
    found = [result.metrics for result in evidence.results]
    if len(found) != 1 or not hub_dataset(found[0]["data"]["source"], found[0]["data"]["kind"]):
        named = ", ".join(metrics["data"]["source"] for metrics in found) or "none"
        raise ValueError(f"`eval_task` needs the result of one benchmark dataset of the Hub, got {named}.")
    settings = found[0]["settings"]
    entry = EvalResultEntry(
        dataset_id=found[0]["data"]["source"],
        task_id=task_id,
        value=in_percent(found[0]["wer"]),
        notes=f"WER in per cent, split {settings['split']}, {settings['num_beams']} beams{joint(settings)}",
    )
    return yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)


def shown_rates(scores: list[dict[str, Any]]) -> list[str]:
    """The error rates that all of these have: an older metrics.json, or another style of text, lacks some."""
    rates = [name for name in ERROR_RATES if scores and all(name in metrics for metrics in scores)]
    if len({metrics.get("whisper_rules") for metrics in scores}) > 1:  # with and without the spellings
        rates.remove("whisper_wer")
    return rates


def result_rows(result: Result) -> dict[str, Any]:
    """One evaluation for the template: the model's line first, then those of its baselines."""
    scores = [result.metrics, *result.baselines]
    failures = [
        name for name, metric in METRICS.items() if metric.unit == "utterances" and metric.lower_is_better
    ]
    return {
        "rates": {name: METRICS[name] for name in shown_rates(scores)},
        "failures": {name: METRICS[name] for name in failures if all(name in metrics for metrics in scores)},
        "parts": scores_of_parts(result.metrics),
        "settings": result.metrics["settings"],
        "dataset": report_title(result.metrics["data"]),
        "metrics": result.metrics,
        "rows": [
            (f"this model{joint(result.metrics['settings'])}", result.metrics),
            *((baseline_name(b), b) for b in result.baselines),
        ],
    }


def joint(settings: dict[str, Any]) -> str:
    """What a figure of the joint score says beside its name; how to ask the pipeline for the same."""
    return f" with `ctc_weight={settings['ctc_weight']:g}`" if settings.get("ctc_weight") else ""


def baseline_name(metrics: dict[str, Any]) -> str:
    settings = metrics["settings"]
    if is_control(metrics):
        return "its CTC head alone, without the LLM"
    numerals = ", numerals suppressed" if settings.get("suppress_numerals") else ""
    model = settings["model"]
    shown = Path(model).name if Path(model).is_absolute() else model
    return f"{shown} with its own decoder{numerals}"


def shown_settings(run: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Name and value of the settings that are shown; unset ones are left out."""
    if run is None:
        return []
    overridden = "num_train_epochs" if run["run"]["max_steps"] > 0 else "max_steps"
    rows = [(name, run.get(group, {}).get(name)) for group, names in SHOWN_SETTINGS.items() for name in names]
    rows = [(name, value) for name, value in rows if value is not None and name != overridden]
    return [(name, repr(value) if isinstance(value, str) else str(value)) for name, value in rows]


def hub_dataset(dataset: str, kind: str) -> bool:
    """Whether a data report's source is an id of the Hub; a relative path can look like one."""
    return kind == hf_datasets.KIND and is_hub_id(dataset) and not Path(dataset).exists()


def parts_of(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The data reports of the single datasets that a report is about."""
    return report.get("parts") or [report]


def report_title(report: dict[str, Any]) -> str:
    """What a data report is about, for people."""
    return " + ".join(dataset_title(part["source"], part["kind"]) for part in parts_of(report))


def dataset_title(dataset: str, kind: str) -> str:
    """A Hub or Data Collective id as it is; a path by its last part: the rest says where it lay."""
    if hub_dataset(dataset, kind) or dataset.startswith("mdc:"):
        return dataset
    parts = Path(dataset).parts
    # Common Voice: cv-corpus-22.0-2025-06-20/nl
    count = 2 if len(parts) > 1 and len(parts[-1]) <= 3 else 1
    return "/".join(part for part in parts[-count:] if part != "/")


def lora_rows(config: Any, parameters: dict[str, int]) -> list[tuple[str, int, dict[str, Any]]]:
    """Name, parameters and settings of the LoRA of each part that has one."""
    of_encoder = parameters.get("encoder_lora", 0)
    rows = [
        ("LoRA", parameters["lora"] - of_encoder, config.lora_settings("language_model")),
        ("LoRA of the encoder", of_encoder, config.lora_settings("encoder")),
    ]
    return [row for row in rows if row[2]["rank"]]


def layer_words(indices: list[Any]) -> str:
    """`0 to 21` for consecutive layers, else each; `mean of 0 and 1` for merged ones."""
    if any(isinstance(layers, list) for layers in indices):
        groups = [layers if isinstance(layers, list) else [layers] for layers in indices]
        words = [" and ".join(map(str, group)) for group in groups]
        return ", ".join(f"mean of {word}" if " and " in word else word for word in words)
    if indices and indices == list(range(indices[0], indices[-1] + 1)) and len(indices) > 1:
        return f"{indices[0]} to {indices[-1]}"
    return ", ".join(map(str, indices))


def in_percent(rate: float) -> float:
    return round(100 * rate, PERCENT_DIGITS)


def percent(rate: float) -> str:
    return f"{100 * rate:.{PERCENT_DIGITS}f} %"
