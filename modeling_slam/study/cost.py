"""What a run will cost, estimated before it starts, so that a study can be planned and its end foreseen.

Floating-point operations, counting a multiplication with its addition as two; P are parameters that a token
passes, per second of speech 50 encoder frames (of Whisper), 50/k audio tokens and `TEXT_TOKENS_PER_SECOND`
tokens of text:

    training    encoder 2 P frames, 4 P with LoRA, 6 P of layers that are trained themselves; projector and
                LoRA 6 P tokens (of the encoder, frames); frozen LLM 4 P tokens (forward, and backward through
                activations alone), a trained one 6 P; vocabulary as much, of text tokens
    decoding    encoder and projector 2 P; LLM 2 P tokens for each beam, text at `DECODING_SLOWDOWN` times
                the time, because its tokens are written one by one

Attention scores, padding and start-up are left out. Hours follow from the rate that the device sustains.
"""

from dataclasses import dataclass

from modeling_slam import SlamAsrConfig
from modeling_slam.analysis.parameters import ParameterCounts, parameter_counts
from modeling_slam.evaluation.arguments import EvaluationArguments
from modeling_slam.model.audio_lengths import SAMPLING_RATE, audio_geometry
from modeling_slam.study.grid import PlannedRun
from modeling_slam.study.study_file import DataSize

TEXT_TOKENS_PER_SECOND = 4.0
PROMPT_TOKENS = 8  # of a clip: instruction and end of text
DECODING_SLOWDOWN = 10.0
WEIGHT_BYTES = 4  # what is trained is float32
TOKENIZER_BYTES = 12e6  # of a checkpoint
PREDICTION_BYTES = 500.0  # of a line of predictions.jsonl


@dataclass(frozen=True)
class Estimate:
    """Cost of one run; operations are `None` where the study file does not say how much speech there is."""

    counts: ParameterCounts
    flops: float | None
    model_bytes: float
    result_bytes: float

    def hours(self, teraflops: float | None) -> float | None:
        return None if self.flops is None or teraflops is None else self.flops / (teraflops * 1e12) / 3600


def estimate(planned: PlannedRun) -> Estimate:
    counts, size = parameter_counts(planned.config), planned.size
    trained = counts.projector + counts.lora + counts.encoder_trained + counts.llm_trained
    model_bytes = WEIGHT_BYTES * trained + TOKENIZER_BYTES
    if size is None:
        return Estimate(counts, None, model_bytes, 0.0)
    test_clips = planned.spec.eval_flags.get("max_test_clips") or size.test_clips
    test_share = min(1.0, test_clips / size.test_clips)
    rates = TokenRates(planned.config)
    flops = training_flops(
        counts, rates, clips_seen(planned, size), 3600 * size.train_hours / size.train_clips
    )
    beams = planned.spec.eval_flags.get("num_beams", EvaluationArguments.num_beams)
    flops += test_share * decoding_flops(counts, rates, size.test_clips, 3600 * size.test_hours, beams)
    return Estimate(counts, flops, model_bytes, PREDICTION_BYTES * test_share * size.test_clips)


class TokenRates:
    """What encoder and LLM read of a second of speech."""

    def __init__(self, config: SlamAsrConfig):
        self.frames = SAMPLING_RATE / audio_geometry(config.audio_config).frame_samples
        self.audio = self.frames / config.projector_stack
        self.text = TEXT_TOKENS_PER_SECOND


def clips_seen(planned: PlannedRun, size: DataSize) -> float:
    """Clips that a training goes through, repetitions included."""
    run, share = planned.run, 1.0
    if planned.data.max_train_hours:
        share = min(1.0, planned.data.max_train_hours / size.train_hours)
    if run.max_steps > 0:
        return run.max_steps * run.per_device_train_batch_size * run.gradient_accumulation_steps
    return run.num_train_epochs * share * size.train_clips


def training_flops(counts: ParameterCounts, rates: TokenRates, clips: float, clip_seconds: float) -> float:
    text = rates.text * clip_seconds
    tokens = rates.audio * clip_seconds + PROMPT_TOKENS + text
    encoder = (4 if counts.encoder_lora else 2) * counts.encoder
    encoder += 6 * counts.encoder_lora + 4 * counts.encoder_trained
    products = 6 if counts.llm_trained else 4
    per_clip = (
        encoder * rates.frames * clip_seconds
        + 6 * counts.projector * rates.audio * clip_seconds
        + (products * body(counts) + 6 * (counts.lora - counts.encoder_lora)) * tokens
        + products * counts.llm_embeddings * text
    )
    return clips * per_clip


def decoding_flops(
    counts: ParameterCounts, rates: TokenRates, clips: float, seconds: float, beams: int
) -> float:
    prompt = rates.audio * seconds + PROMPT_TOKENS * clips
    text = rates.text * seconds
    of_llm = body(counts) + counts.lora - counts.encoder_lora
    return (
        2 * (counts.encoder + counts.encoder_lora) * rates.frames * seconds
        + 2 * counts.projector * rates.audio * seconds
        + 2 * of_llm * beams * prompt
        + 2 * (of_llm + counts.llm_embeddings) * beams * text * DECODING_SLOWDOWN
    )


def body(counts: ParameterCounts) -> int:
    """The LLM without its table of embeddings, which is the vocabulary projection as well if tied."""
    return counts.llm - counts.llm_embeddings
