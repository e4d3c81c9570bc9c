"""Settings of a run: everything that decides what is decoded, known before any weight is loaded.

`PredictionStore` compares them on resume. A checkpoint is known by the content of its files and a dataset by
its clips and texts, so retraining into the same directory or editing a transcript is noticed. Settings that
cannot change a transcript (batch size, workers, number of processes) stay out.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
from transformers.utils import cached_file
from transformers.utils.hub import extract_commit_hash

from modeling_slam.common.files import read_json
from modeling_slam.data import DataArguments
from modeling_slam.evaluation.arguments import EvaluationArguments
from modeling_slam.evaluation.hotwords import HOTWORDS
from modeling_slam.model.configuration_slam import TextStyle

MODEL_TYPES = {"none": "slam_asr", "whisper": "whisper"}


def check_checkpoint(name: str, baseline: str, decoder: str = "llm", ctc_weight: float = 0.0) -> Path:
    """The config.json of a checkpoint of the right kind, or an error that says what `name` is instead."""
    directory = Path(name)
    if directory.is_dir() and not (directory / "config.json").is_file():
        inner = sorted(path.parent.name for path in directory.glob("*/config.json"))
        hint = f" It has the checkpoints {', '.join(inner)}: name one of them." if inner else ""
        raise ValueError(f"`--model {name}` is no checkpoint: it has no config.json.{hint}")
    try:
        path = Path(str(cached_file(name, "config.json")))
    except OSError as error:
        raise ValueError(
            f"`--model {name}` is neither a directory nor a model that can be fetched from the Hub ({error})."
        ) from error
    config = read_json(path)
    model_type = config.get("model_type")
    if model_type != MODEL_TYPES[baseline]:
        advice = {
            ("none", "whisper"): " To decode with Whisper's own decoder, add `--baseline whisper`.",
            ("whisper", "slam_asr"): " To evaluate it, leave out `--baseline`.",
        }.get((baseline, model_type), "")
        raise ValueError(
            f"`--model {name}` is a {model_type!r} checkpoint; expected {MODEL_TYPES[baseline]!r}.{advice}"
        )
    flag = "--decoder ctc" if decoder == "ctc" else f"--ctc_weight {ctc_weight:g}" if ctc_weight else None
    if flag and not config.get("ctc_vocab_size"):
        raise ValueError(f"`{flag}` needs a CTC head, and {name} has none: train one with `--align_epochs`.")
    return path


def text_style_of(config: Mapping[str, Any]) -> TextStyle:
    """How the model of this config.json writes; a Whisper writes case and punctuation."""
    if config["model_type"] == MODEL_TYPES["whisper"]:
        return "written"
    return config.get("text_style", "normalized")  # a checkpoint of an older version has none


def checkpoint_fingerprint(config_path: Path) -> str:
    """The Hub commit, or a hash over config and weights of a local directory."""
    commit = extract_commit_hash(str(config_path), None)
    if commit is not None:
        return commit
    digest = hashlib.sha256()
    directory = config_path.parent
    for path in sorted([*directory.glob("*config.json"), *directory.glob("*.safetensors")]):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def dataset_fingerprint(dataset: datasets.Dataset) -> str:
    """A hash over ids, texts and durations, in order."""
    return digest_of(dataset.select_columns(["id", "text", "raw_text", "duration"]))


def digest_of(rows: datasets.Dataset) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, ensure_ascii=False, sort_keys=True).encode("utf-8"))
    return digest.hexdigest()[:16]


def decoding_settings(
    arguments: EvaluationArguments,
    data: DataArguments,
    config_path: Path,
    dataset: datasets.Dataset,
    dtype: str,
) -> dict[str, Any]:
    settings = {
        "model": arguments.model,
        "checkpoint": checkpoint_fingerprint(config_path),
        "baseline": arguments.baseline,
        "num_beams": arguments.num_beams,
        "max_new_tokens": arguments.max_new_tokens,
        "dtype": dtype,
        "dataset": data.recorded_dataset,
        "split": arguments.split,
        "language": data.language,
        "utterances": len(dataset),
        "content": dataset_fingerprint(dataset),
    }
    if arguments.quantization:
        settings["quantization"] = arguments.quantization
    if arguments.baseline == "whisper":
        settings["suppress_numerals"] = arguments.suppress_numerals
    elif arguments.decoder == "ctc":
        settings["decoder"] = arguments.decoder
    else:
        settings["max_tokens_per_second"] = arguments.max_tokens_per_second
        if arguments.ctc_weight:
            settings["ctc_weight"] = arguments.ctc_weight
        if HOTWORDS in dataset.column_names:
            settings[HOTWORDS] = arguments.hotwords
            settings["hotwords_content"] = digest_of(dataset.select_columns(["id", HOTWORDS]))
    return settings
