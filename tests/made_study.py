"""A small study as the engine leaves it on disk, with predictions made up by rule.

No model runs here: what is tested is what the analysis makes of predictions, so they are ours to choose.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modeling_slam.evaluation.predictions import Prediction, to_lines
from modeling_slam.evaluation.report import score
from modeling_slam.study.axes import AXES

WORDS = {
    "en": ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "zero"],
    "nl": ["een", "twee", "drie", "vier", "vijf", "zes", "zeven", "acht", "negen", "nul"],
}
DEPTHS = (6, 4, 2)
ERROR_RATE = {6: 0.05, 4: 0.12, 2: 0.45}  # share of words that go wrong without LoRA; with it half as many


def spec_of(
    layers: int,
    mode: str,
    language: str,
    seed: int = 42,
    encoder: str = "base",
    hours: float | None = None,
    llm_layers: int | None = None,
) -> dict[str, Any]:
    lora = mode == "lora"
    further = "" if hours is None else f"{hours:g}h-"
    depth = "" if llm_layers is None else f"llm{llm_layers}-"
    axes = {"max_train_hours": hours, "keep_llm_layers": llm_layers}
    axes = {name: value for name, value in axes.items() if value is not None}
    return {
        "name": f"{encoder}-{layers}L-{depth}{mode}-{language}-{further}s{seed}",
        "encoder": f"openai/whisper-{encoder}",
        "encoder_name": encoder,
        "encoder_layers": 6,
        "keep_layers": layers,
        "llm": "Qwen/Qwen2.5-0.5B",
        "dataset": f"data/digits-{language}",
        "language": language,
        "mode": mode,
        "lora_rank": 16 if lora else 0,
        "lora_alpha": 32 if lora else 0,
        "seed": seed,
        "train_flags": {},
        "eval_flags": {},
        "axes": axes,
    }


def row(
    index: int, reference: str, prediction: str, language: str = "en", speaker: str | None = None, **more: Any
) -> Prediction:
    return Prediction(
        **{
            "id": f"{language}/clip-{index:04}",
            "index": index,
            "reference": reference,
            "prediction": prediction,
            "raw_reference": reference,
            "raw_prediction": prediction,
            "duration": 0.5 + 0.5 * len(reference.split()),
            "seconds": 0.1,
            "tokens": len(prediction.split()),
            "speaker": speaker,
            "language": language,
        }
        | more
    )


def predictions_of(layers: int, mode: str, language: str, utterances: int, seed: int) -> list[Prediction]:
    """References are the same for every run; errors depend on the run."""
    texts, noise = random.Random(language), random.Random(f"{layers} {mode} {language} {seed}")
    rate = ERROR_RATE[layers] / (2 if mode == "lora" else 1)
    rows = []
    for index in range(utterances):
        reference = [texts.choice(WORDS[language]) for _ in range(texts.randint(2, 7))]
        heard = []
        for word in reference:
            drawn = noise.random()
            if drawn < rate / 3:
                continue
            heard.append(noise.choice(WORDS[language]) if drawn < rate else word)
        if noise.random() < rate / 10:
            heard = [heard[0] if heard else reference[0]] * 12
        speaker = f"speaker {index % 5}"
        rows.append(row(index, " ".join(reference), " ".join(heard), language, speaker))
    return rows


def write_results(directory: Path, rows: Sequence[Prediction], parameters: dict[str, int]) -> None:
    """predictions.jsonl and metrics.json as eval.py writes them."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "predictions.jsonl").write_text(to_lines(rows), encoding="utf-8")
    metrics = score(rows, lambda seconds: 256, batch_mean_size=4) | {
        "parameters": parameters,
        "settings": {"split": "test", "baseline": "none"},
    }
    (directory / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")


def write_run(study: Path, spec: dict[str, Any], rows: Sequence[Prediction]) -> None:
    directory = study / "runs" / spec["name"]
    kept = spec["keep_layers"] * 1000 + 500
    llm = 200 * spec["axes"].get("keep_llm_layers", 25)
    parameters = {
        "encoder_kept": kept,
        "encoder_removed": 6500 - kept,
        "projector": 700,
        "lora": 100 if spec["mode"] == "lora" else 0,
        "llm": llm,
        "total": kept + llm + 800,
    }
    write_results(directory, rows, parameters)
    record = {
        "spec": spec,
        "commit": "0123abc",
        "versions": {},
        "host": "here",
        "threads": 1,
        "started": "2026-01-01T00:00:00Z",
        "finished": "2026-01-01T00:10:00Z",
        "attempts": 1,
        "train_seconds": 500.0,
        "evaluate_seconds": 60.0,
    }
    (directory / "run.json").write_text(json.dumps(record), encoding="utf-8")


def write_study(study: Path, runs: Sequence[tuple[dict[str, Any], Sequence[Prediction]]]) -> Path:
    for spec, rows in runs:
        write_run(study, spec, rows)
    axes = {name: AXES[name].title for spec, _ in runs for name in spec["axes"]}
    content = {"name": "made", "axes": axes, "specs": [spec for spec, _ in runs]}
    (study / "study.json").write_text(json.dumps(content), encoding="utf-8")
    return study


def make_study(
    study: Path, languages: Sequence[str] = ("en", "nl"), utterances: int = 30, seeds: Sequence[int] = (42,)
) -> Path:
    """Depths 6, 4, 2, with and without LoRA."""
    runs = [
        (spec_of(layers, mode, language, seed), predictions_of(layers, mode, language, utterances, seed))
        for layers in DEPTHS
        for mode in ("projector", "lora")
        for language in languages
        for seed in seeds
    ]
    return write_study(study, runs)
