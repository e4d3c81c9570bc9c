"""What a validation measures of transcripts: error rates of all clips, and of each dataset and language."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from transformers import EvalPrediction

from modeling_slam.data.text import normalize_text, written_text
from modeling_slam.evaluation.metrics import METRICS, Scored
from modeling_slam.model.configuration_slam import TextStyle
from modeling_slam.model.ctc_head import doubt, head_log_probs
from modeling_slam.model.processing_slam import SlamAsrProcessor
from modeling_slam.training.run_checks import RATES
from modeling_slam.training.run_health import show_clips

RATES_OF_GROUPS = ("wer", "cer")  # of each dataset and language
# Between words lost and babble heard: `python -m benchmarks.ctc_head silence`.
DOUBT_QUANTILE, MARGIN_OF_QUANTILE = 0.98, 1.3  # of a few odd clips nothing shall hang,
MARGIN_OF_GREATEST = 1.1  # and few clips shall not make it lax


class ValidationMetrics:
    """`compute_metrics` for the trainer: the error rates of `METRICS`, of all transcripts together.

    Where the clips are of several datasets or languages, each has its WER and CER too: `wer_NAME` and
    `wer_language_CODE`.
    """

    def __init__(
        self,
        decode: Callable[[Any], list[str]],
        clips: Any,
        text_style: TextStyle = "normalized",
    ):
        """`decode` makes texts of (B, N) ids, among which those below 0 are padding; of these `clips`."""
        self.decode = decode
        self.languages = list(clips["language"])
        self.groups = groups_of(clips)
        self.text_style = text_style

    def __call__(self, output: EvalPrediction) -> dict[str, float]:
        labels: Any = output.label_ids
        rows = range(len(output.predictions))
        if isinstance(labels, tuple):  # as `labelled` makes them; else in the order of the clips
            labels, rows = labels[0], labels[1].ravel().tolist()
        decoded = self.decode(labels), self.decode(output.predictions)
        references, predictions = (
            [normalize_text(text, self.languages[row]) for text, row in zip(side, rows, strict=True)]
            for side in decoded
        )
        written = None
        if self.text_style == "written":
            written = [*map(written_text, decoded[0])], [*map(written_text, decoded[1])]
        show_clips(*(written or (references, predictions)))
        scored = Scored(references, predictions, written=written)
        wrong = [text for text, reference in zip(predictions, references, strict=True) if text != reference]
        return {
            **{name: METRICS[name].value(scored) for name in RATES if METRICS[name].follows_from(scored)},
            **self.rates_of_groups(rows, references, predictions),
            "clips": len(predictions),
            "empty": sum(not prediction for prediction in predictions) / len(predictions),
            # of the wrong transcript that most clips got
            "same": max(Counter(wrong).values(), default=0) / len(predictions),
        }

    def rates_of_groups(
        self, rows: Sequence[int], references: list[str], predictions: list[str]
    ) -> dict[str, float]:
        rates = {}
        for group, members in self.groups.items():
            places = [place for place, row in enumerate(rows) if row in members]
            if places:
                scored = Scored([references[p] for p in places], [predictions[p] for p in places])
                rates |= {f"{name}_{group}": METRICS[name].value(scored) for name in RATES_OF_GROUPS}
        return rates


def groups_of(clips: Any) -> dict[str, set[int]]:
    """The rows of each dataset, by its name, and language, by `language_CODE`, where there are several."""
    groups: dict[str, set[int]] = {}
    for column, prefix in (("dataset", ""), ("language", "language_")):
        values = list(clips[column]) if column in clips.column_names else []
        if len(set(values)) > 1:
            for row, value in enumerate(values):
                groups.setdefault(f"{prefix}{value}", set()).add(row)
    return groups


def decode_tokens(processor: SlamAsrProcessor, ids: Any) -> list[str]:
    """Texts of (B, N) tokens of the LLM."""
    return processor.batch_decode(np.where(ids < 0, processor.pad_token_id, ids), skip_special_tokens=True)


def allowed_doubt(doubts: Iterable[float]) -> float:
    """In nats, by clips with speech, none of them trained on: above what nearly all of them have."""
    values = [*doubts]
    usual = MARGIN_OF_QUANTILE * np.quantile(values, DOUBT_QUANTILE)
    return round(float(min(usual, MARGIN_OF_GREATEST * max(values))), 4)


def find_allowed_doubt(trainer: Any) -> float | None:
    """By the validation clips, what `pipeline` may doubt of a chunk with speech; None without a CTC head.

    Nor is there one limit for a model of several depths: with fewer layers the head doubts more.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    if model.ctc_head is None or trainer.eval_dataset is None or trainer.args.train_depths:
        return None
    doubts: list[float] = []
    model.eval()
    for batch in trainer.get_eval_dataloader():
        with torch.no_grad(), trainer.compute_loss_context_manager():
            doubts += map(doubt, head_log_probs(model, trainer._prepare_inputs(batch)))
    return allowed_doubt(gather_object(doubts))
