"""Speed of an evaluation: clips transcribed by beam search, ours against transformers' plain way.

`EVALUATIONS` holds the ways; all transcribe the same test clips, in turn, in one process with one model,
reading and preparing the audio included. Ours is what `eval.py` does after it has loaded. The plain way is
transformers' own beam search of the LLM on batches in dataset order. At equal padding both must write the
same transcripts, or the run stops.
"""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import datasets
import torch
from accelerate import PartialState
from tqdm import tqdm
from transformers import GenerationConfig, LogitsProcessorList

from benchmarks.arguments import OURS, BenchmarkArguments, add_ratios, check_known
from benchmarks.flops import transcribing_needs
from benchmarks.machine import MatmulPeak, read_bandwidth
from benchmarks.memory import give_back_freed_memory, in_fresh_process, peak_extra_bytes
from benchmarks.stages import TranscribingStages
from benchmarks.training import linear_layers
from modeling_slam.evaluation.arguments import EvaluationArguments
from modeling_slam.evaluation.decoding import SlamRecogniser, decode, read_transcripts
from modeling_slam.evaluation.predictions import PredictionStore
from modeling_slam.model.audio_io import load_audio
from modeling_slam.model.audio_lengths import SAMPLING_RATE, WHISPER_GEOMETRY
from modeling_slam.model.modeling_slam import TranscriptGuard

PLAIN_BATCH = 8


@dataclass(frozen=True)
class Way:
    """A way to evaluate; the default is ours."""

    plain: bool = False  # transformers' beam search, batches of 8 in dataset order
    pad_to_seconds: float | None = None

    @property
    def same_input(self) -> bool:
        return self.pad_to_seconds is None


EVALUATIONS = {
    OURS: Way(),
    "plain": Way(plain=True),
    "plain, 30 s": Way(plain=True, pad_to_seconds=30.0),
}


@dataclass
class EvaluationBench:
    """One checkpoint and its test clips. Holds no weights, so it can be sent to a fresh process."""

    bench_args: BenchmarkArguments
    checkpoint: str
    speech: datasets.Dataset
    max_new_tokens: int

    def recogniser(self) -> SlamRecogniser:
        torch.set_num_threads(self.bench_args.threads)
        arguments = EvaluationArguments(
            model=self.checkpoint,
            output_dir="",
            num_beams=self.bench_args.num_beams,
            max_new_tokens=self.max_new_tokens,
        )
        return SlamRecogniser(arguments, torch.device("cpu"))

    def time_in_turn(self) -> dict[str, Any]:
        """Seconds of every round of each way, what it wrote, and the stages of ours."""
        recogniser = self.recogniser()
        self._warm_up(recogniser)
        peak = MatmulPeak(recogniser.model.language_model.dtype)
        seconds: dict[str, list[float]] = {name: [] for name in self.bench_args.evaluations}
        written: dict[str, list[tuple[str, int]]] = {}
        for _ in tqdm(range(self.bench_args.eval_rounds), desc="transcribing", unit="round"):
            peak.measure()
            for name in seconds:
                start = time.perf_counter()
                written[name] = transcribe(recogniser, self.speech, EVALUATIONS[name])
                seconds[name].append(time.perf_counter() - start)
        check_same_transcripts(written)
        return {
            "settings": {
                name: self._summarise(recogniser, seconds[name], written[name], peak) for name in seconds
            },
            "stages": self._stages(recogniser) | {"matmul_peak": peak.best},
        }

    def _warm_up(self, recogniser: SlamRecogniser) -> None:
        few = self.speech.select(range(min(len(self.speech), PLAIN_BATCH)))
        for way in (
            EVALUATIONS[name] for name in self.bench_args.evaluations if EVALUATIONS[name].same_input
        ):
            transcribe(recogniser, few, way)

    def _summarise(
        self,
        recogniser: SlamRecogniser,
        seconds: list[float],
        written: list[tuple[str, int]],
        peak: MatmulPeak,
    ) -> dict[str, Any]:
        config, processor = recogniser.model.config, recogniser.processor
        mel_frames = [
            WHISPER_GEOMETRY.features_of_samples(round(s * SAMPLING_RATE)) for s in self.speech["duration"][:]
        ]
        prompts = [len(processor.prompt_ids(frames // 2)) for frames in mel_frames]
        tokens = [count for _, count in written]
        needs = transcribing_needs(config, mel_frames, prompts, tokens, self.bench_args.num_beams)
        needed = needs.total
        median, clips, audio = statistics.median(seconds), len(self.speech), sum(self.speech["duration"][:])
        return {
            "median_seconds": median,
            "clips_per_second": clips / median,
            "real_time_factor": median / audio,
            "tokens_per_clip": sum(tokens) / clips,
            "needed_flop": needed,
            "needed_by_stage": vars(needs),
            "limit_seconds": needed / peak.best,
            "share_of_limit": needed / peak.best / median,
            "matmul_peak": peak.best,
            "torch_mm_peak": peak.of_torch,
            "seconds": seconds,
            "matmul_peaks": peak.samples,
            "transcripts": [text for text, _ in written],
        }

    def peak_memory(self) -> dict[str, int | None]:
        """Bytes by which each way raises resident memory at its height; run in a fresh process.

        The longest clips are those that need most, so one largest batch of them will do.
        """
        give_back_freed_memory()
        recogniser = self.recogniser()
        for parameter in recogniser.model.parameters():
            parameter.sum()  # a memory-mapped weight enters memory when it is used
        longest = self.speech.sort("duration", reverse=True)
        longest = longest.select(range(min(len(longest), recogniser.arguments.batch_size)))
        return {
            name: peak_extra_bytes(lambda: transcribe(recogniser, longest, EVALUATIONS[name]))  # noqa: B023
            for name in self.bench_args.evaluations
        }

    def _stages(self, recogniser: SlamRecogniser) -> dict[str, Any]:
        """Seconds of ours for all clips by stage; audio and mel, the loader workers' part, by themselves."""
        preparing, bandwidth = self._preparation(recogniser), read_bandwidth()
        with TranscribingStages(recogniser.model) as stages:
            transcribe(recogniser, self.speech, EVALUATIONS[OURS])
            stages.mark("search")
        weights = sum(parameter.nbytes for parameter in recogniser.model.language_model.parameters())
        return {
            "seconds": preparing | stages.seconds,
            "steps": stages.calls["decode"],
            "weight_bytes_per_step": weights,
            "read_bandwidth": bandwidth,
            "read_seconds": stages.calls["decode"] * weights / bandwidth,
        }

    def _preparation(self, recogniser: SlamRecogniser) -> dict[str, float]:
        start = time.perf_counter()
        waves = [load_audio(row["audio"]) for row in self.speech]
        read = time.perf_counter()
        for wave in waves:
            recogniser.processor(wave)
        return {"audio (in workers)": read - start, "mel (in workers)": time.perf_counter() - read}


def transcribe(recogniser: SlamRecogniser, speech: datasets.Dataset, way: Way) -> list[tuple[str, int]]:
    """Text and token count of every clip, in dataset order."""
    if way.plain:
        return transcribe_plainly(recogniser, speech, way)
    with tempfile.TemporaryDirectory() as directory:
        store = PredictionStore(directory)
        store.start({})
        arguments = recogniser.arguments
        decode(
            recogniser,
            speech,
            store,
            PartialState(cpu=True),
            arguments.batch_size,
            arguments.num_workers,
            arguments.batch_seconds,
        )
        return [(row.raw_prediction, row.tokens) for row in store.finish(len(speech))]


@torch.inference_mode()
def transcribe_plainly(
    recogniser: SlamRecogniser, speech: datasets.Dataset, way: Way
) -> list[tuple[str, int]]:
    """transformers' `generate` of the LLM; each clip's own limit of tokens is kept, or texts would differ."""
    model, arguments = recogniser.model, recogniser.arguments
    processor = recogniser.processor
    settings = GenerationConfig.from_dict(model.generation_config.to_dict())
    settings.update(num_beams=arguments.num_beams, max_new_tokens=arguments.max_new_tokens, max_length=None)
    written = []
    with padded_to(processor, way.pad_to_seconds), linear_layers(torchs_own=True):
        for start in range(0, len(speech), PLAIN_BATCH):
            rows = [speech[i] for i in range(start, min(start + PLAIN_BATCH, len(speech)))]
            inputs = processor(audio=[load_audio(row["audio"]) for row in rows])
            frames = torch.tensor(
                [WHISPER_GEOMETRY.frames_of_samples(round(r["duration"] * SAMPLING_RATE)) for r in rows]
            )
            budgets = WHISPER_GEOMETRY.transcript_budget(frames, arguments.max_tokens_per_second)
            guard = TranscriptGuard(budgets, arguments.num_beams, settings.eos_token_id)
            generated = model.language_model.generate(
                inputs_embeds=model.prompt_embeddings(
                    input_ids=inputs["input_ids"],
                    input_features=inputs["input_features"],
                    input_features_mask=inputs["input_features_mask"],
                ),
                attention_mask=inputs["attention_mask"],
                generation_config=settings,
                logits_processor=LogitsProcessorList([guard]),
            )
            written += [
                (transcript.text, transcript.tokens)
                for transcript in read_transcripts(generated, processor, settings)
            ]
    return written


@contextlib.contextmanager
def padded_to(processor: Any, seconds: float | None) -> Generator[None]:
    """The processor pads clips to this length for a while."""
    before = processor.pad_to_seconds
    processor.pad_to_seconds = seconds or before
    try:
        yield
    finally:
        processor.pad_to_seconds = before


def check_same_transcripts(written: dict[str, list[tuple[str, int]]]) -> None:
    for name, texts in written.items():
        differing = sum(a != b for a, b in zip(texts, written[OURS], strict=True))
        if EVALUATIONS[name].same_input and differing:
            raise RuntimeError(
                f"{name!r} writes {differing} of {len(texts)} transcripts otherwise than ours."
            )


def measure(bench: EvaluationBench) -> dict[str, Any]:
    check_known("evaluations", bench.bench_args.evaluations, EVALUATIONS)
    measured = in_fresh_process(bench.time_in_turn)
    results = measured["settings"]
    add_ratios(results)
    if bench.bench_args.memory:
        for name, extra in in_fresh_process(bench.peak_memory).items():
            results[name]["peak_extra_bytes"] = extra
    return measured
