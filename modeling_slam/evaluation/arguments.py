"""Evaluation arguments: which checkpoint is decoded, how, and where results go. Data: `DataArguments`."""

import sys
from dataclasses import dataclass, field
from typing import Literal

import torch

from modeling_slam.common.numbers import check_numbers
from modeling_slam.common.quantization import Quantization
from modeling_slam.model.audio_lengths import (
    MAX_TOKENS_PER_SECOND,
    SAMPLING_RATE,
    WHISPER_GEOMETRY,
)
from modeling_slam.model.configuration_slam import TextStyle
from modeling_slam.model.processing_slam import MAX_HOTWORDS


@dataclass
class EvaluationArguments:
    """What is evaluated, and how it decodes."""

    model: str = field(
        metadata={
            "help": "Checkpoint directory or Hub id; with `--baseline whisper` that of the Whisper itself."
        }
    )
    output_dir: str = field(
        metadata={
            "help": "Receives predictions.jsonl and metrics.json; an interrupted run continues from here."
        }
    )
    split: Literal["train", "validation", "test"] = field(
        default="test", metadata={"help": "Which split of the dataset is decoded."}
    )
    baseline: Literal["none", "whisper"] = field(
        default="none", metadata={"help": "whisper: decode with a Whisper and its own decoder instead."}
    )
    decoder: Literal["llm", "ctc"] = field(
        default="llm",
        metadata={"help": "ctc: what the CTC head reads, without the LLM; a control, at encoder speed."},
    )
    suppress_numerals: bool = field(
        default=False,
        metadata={
            "help": "Baseline only: forbid digits, so that numbers are written as words like the references."
        },
    )
    text_style: TextStyle | None = field(
        default=None,
        metadata={"help": "written: score case and punctuation too; by default as the model was trained."},
    )
    hotwords: str | None = field(
        default=None,
        metadata={
            "help": "File of words or phrases, one a line; or drawn for each clip: oracle (words of its "
            "reference), mixed (these among words of other clips), distractors."
        },
    )
    hotword_count: int = field(
        default=10, metadata={"help": "Hotwords of each clip where distractors are drawn."}
    )
    num_beams: int = field(default=2, metadata={"help": "Beams; 1 is greedy, faster and slightly worse."})
    ctc_weight: float = field(
        default=0.0,
        metadata={
            "help": "Above 0: of the beams, and of what the CTC head reads, the best by the LLM's "
            "log-probability plus this times the head's; 0.3 does well, with 4 beams."
        },
    )
    max_new_tokens: int = field(
        default=256, metadata={"help": "Longest transcript in tokens; transcripts that reach it are counted."}
    )
    max_tokens_per_second: int = field(
        default=MAX_TOKENS_PER_SECOND,
        metadata={"help": "Longest transcript per second of its clip: ends loops; not for the baseline."},
    )
    batch_size: int = field(default=32, metadata={"help": "Most clips decoded at once, of similar length."})
    batch_seconds: float = field(
        default=120.0,
        metadata={"help": "Most audio decoded at once, padding included; long clips make smaller batches."},
    )
    num_workers: int = field(
        default=1, metadata={"help": "Processes that read audio and make features; 0 for none of their own."}
    )
    dtype: Literal["auto", "float32", "bfloat16"] = field(
        default="auto", metadata={"help": "Weights; auto is bfloat16 on GPUs that have it, else float32."}
    )
    quantization: Quantization | None = field(
        default=None,
        metadata={
            "help": "Linear layers of the LLM in fewer bits, by bitsandbytes; a model that was trained so "
            "runs in full precision too."
        },
    )
    batch_mean_size: int = field(
        default=4,
        metadata={"help": "Batch size of the authors' WER, the mean over batches in dataset order."},
    )

    def __post_init__(self):
        sizes = ("num_beams", "max_new_tokens", "max_tokens_per_second", "batch_size", "batch_mean_size")
        check_numbers(self, sizes, at_least=1)
        check_numbers(self, ("batch_seconds",), above=0)
        check_numbers(self, ("num_workers",), at_least=0)
        if self.decoder == "ctc" and self.baseline == "whisper":
            raise ValueError("`decoder` belongs to a SLAM-ASR model; leave it out with `--baseline whisper`.")
        check_numbers(self, ("ctc_weight",), at_least=0)
        check_numbers(self, ("hotword_count",), at_least=1, below=MAX_HOTWORDS + 1)
        if self.hotwords and (self.decoder == "ctc" or self.baseline == "whisper"):
            raise ValueError("`hotwords` stand in the LLM's prompt; leave them out where there is no LLM.")
        if self.ctc_weight and (self.decoder == "ctc" or self.baseline == "whisper"):
            raise ValueError(
                "`ctc_weight` weighs the CTC head against the LLM; leave it out where there is no LLM."
            )
        if self.quantization and self.baseline == "whisper":
            raise ValueError("`quantization` belongs to a SLAM-ASR model; leave it out with the baseline.")
        if self.suppress_numerals and self.baseline != "whisper":
            raise ValueError("`suppress_numerals` belongs to `--baseline whisper`; leave it out.")

    def token_limit(self, clip_seconds: float) -> int:
        """Tokens at which the transcript of a clip is cut."""
        if self.baseline == "whisper":
            return self.max_new_tokens
        if self.decoder == "ctc":  # nothing is cut
            return sys.maxsize
        frames = WHISPER_GEOMETRY.frames_of_samples(round(clip_seconds * SAMPLING_RATE))
        budget = WHISPER_GEOMETRY.transcript_budget(frames, self.max_tokens_per_second)
        return min(self.max_new_tokens, budget)

    def torch_dtype(self, device: torch.device) -> torch.dtype:
        return weights_dtype(self.dtype, device)


def weights_dtype(name: str, device: torch.device) -> torch.dtype:
    """The type of the weights by its name; `auto` is bfloat16 on GPUs that have it, else float32."""
    if name != "auto":
        return getattr(torch, name)
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_bfloat16 else torch.float32
