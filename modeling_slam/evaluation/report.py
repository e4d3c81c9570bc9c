"""The report of a run: metrics.json and the summary on the terminal, both from predictions alone.

Nothing here needs the model, so a set is decoded once and scored as often as one likes.
"""

import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, cast

from modeling_slam.evaluation.metrics import SpeechErrorRate
from modeling_slam.evaluation.predictions import Prediction

PACKAGES = ("torch", "transformers", "peft", "datasets", "jiwer", "numpy", "soundfile", "soxr")
LOOP_REPEATS = 4
EXAMPLES = 5


def score(
    rows: Sequence[Prediction], token_limit: Callable[[float], int], batch_mean_size: int
) -> dict[str, Any]:
    """All figures of metrics.json that follow from the predictions."""
    rates = SpeechErrorRate(keep_in_memory=True).compute(
        references=[row.reference for row in rows],
        predictions=[row.prediction for row in rows],
        batch_mean_size=batch_mean_size,
    )
    audio_seconds = sum(row.duration for row in rows)
    # Of all processes together: two processes that take a minute each make two minutes.
    decode_seconds = sum(row.seconds for row in rows)
    return {
        **cast(dict, rates),  # `compute` gives None only where several processes share one metric
        "empty_predictions": sum(not row.prediction for row in rows),
        "truncated_predictions": sum(row.tokens >= token_limit(row.duration) for row in rows),
        "repetition_loops": sum(is_loop(row) for row in rows),
        "real_time_factor": decode_seconds / audio_seconds,
        "audio_seconds": audio_seconds,
        "decode_seconds": decode_seconds,
    }


def is_loop(row: Prediction) -> bool:
    """Whether words or a phrase come four or more times in a row, and not so in the reference."""
    return has_repeats(row.prediction.split()) and not has_repeats(row.reference.split())


def has_repeats(words: Sequence[str], repeats: int = LOOP_REPEATS) -> bool:
    """Whether some n-gram of any length stands `repeats` times in a row."""
    for size in range(1, len(words) // repeats + 1):
        same = 0  # how many words in a row equal the word one n-gram before
        for earlier, later in zip(words, words[size:], strict=False):
            same = same + 1 if earlier == later else 0
            if same == size * (repeats - 1):
                return True
    return False


def package_versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def summary(metrics: dict[str, Any], rows: Sequence[Prediction]) -> str:
    """The report for people."""
    lines = [
        f"WER  {percent(metrics['wer'])}   95 % interval {interval(metrics['wer_interval'])}",
        f"CER  {percent(metrics['cer'])}   95 % interval {interval(metrics['cer_interval'])}",
        f"mean WER of batches of {metrics['batch_mean_size']} (the authors' figure): "
        f"{percent(metrics['batch_mean_wer'])}",
        f"{metrics['reference_words']:,} reference words in {metrics['utterances']:,} utterances: "
        f"{metrics['substitutions']:,} substituted, {metrics['deletions']:,} deleted, "
        f"{metrics['insertions']:,} inserted",
        f"predictions: {metrics['empty_predictions']:,} empty, {metrics['truncated_predictions']:,} cut at "
        f"the token limit, {metrics['repetition_loops']:,} with a loop ({LOOP_REPEATS} or more repeats)",
        f"{metrics['audio_seconds']:,.0f} s of audio in {metrics['decode_seconds']:,.0f} s: "
        f"real-time factor {metrics['real_time_factor']:.3f}",
        "parameters: " + ", ".join(f"{name} {count:,}" for name, count in metrics["parameters"].items()),
        "",
    ]
    for row in rows[:: max(len(rows) // EXAMPLES, 1)][:EXAMPLES]:
        lines += [row.id, f"  reference:  {row.reference}", f"  prediction: {row.prediction}"]
    return "\n".join(lines)


def percent(rate: float) -> str:
    return f"{100 * rate:.2f} %"


def interval(bounds: Sequence[float]) -> str:
    return " to ".join(percent(bound) for bound in bounds)
