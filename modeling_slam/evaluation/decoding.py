"""Decoding: every clip of a dataset through a recogniser, into the prediction store.

Longest clips come first, so that memory which does not suffice shows at once, and clips of one batch are
alike in length; how many they are follows from it. Reading audio and making features happens in loader
workers, off the critical path. Under `accelerate launch` each process decodes its share. To evaluate
something else, write another `Recogniser`.
"""

import functools
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import datasets
import numpy as np
import torch
from accelerate import PartialState
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import BatchFeature

from modeling_slam.common.cpu_products import use_onednn
from modeling_slam.common.quantization import loading_settings
from modeling_slam.data import normalize_text
from modeling_slam.evaluation.arguments import EvaluationArguments
from modeling_slam.evaluation.fast_search import transcribe
from modeling_slam.evaluation.hotwords import HOTWORDS
from modeling_slam.evaluation.predictions import Prediction, PredictionStore
from modeling_slam.model.audio_io import load_audio
from modeling_slam.model.ctc_head import CtcVocabulary, best_by_both, greedy_classes, vocabulary_of
from modeling_slam.model.modeling_slam import SlamAsrForConditionalGeneration
from modeling_slam.model.processing_slam import SlamAsrProcessor


@dataclass(frozen=True)
class Transcript:
    text: str  # as decoded, special tokens left out
    tokens: int  # generated tokens before end-of-text; equal to the limit only where the text was cut


class Recogniser(Protocol):
    """What `decode` needs of a model."""

    def prepare(self) -> Callable[..., BatchFeature]:
        """The function from `audio`, 16 kHz clips, and the `language` of each to features; for a SLAM-ASR
        model also from the `hotwords` of each.

        It runs in workers, so it must not hold the model.
        """
        ...

    def transcribe(self, inputs: BatchFeature) -> list[Transcript]: ...

    def heard_seconds(self, clip_seconds: float) -> float:
        """What is computed for a clip of this length, silence included that it is padded with."""
        ...

    def parameter_counts(self) -> dict[str, int]: ...


class SlamRecogniser:
    """A SLAM-ASR checkpoint."""

    def __init__(self, arguments: EvaluationArguments, device: torch.device):
        self.arguments = arguments
        self.processor = SlamAsrProcessor.from_pretrained(arguments.model)
        dtype = arguments.torch_dtype(device)
        packing = loading_settings(arguments.quantization, dtype, device)
        self.model = SlamAsrForConditionalGeneration.from_pretrained(arguments.model, dtype=dtype, **packing)
        if not packing:
            self.model.to(device)
        self.model.eval()
        use_onednn(self.model)

    def prepare(self) -> Callable[..., BatchFeature]:
        return self.processor

    def transcribe(self, inputs: BatchFeature) -> list[Transcript]:
        beams, weight = self.arguments.num_beams, self.arguments.ctc_weight
        inputs = inputs.to(self.model.device, self.model.dtype)
        if weight:
            inputs = self.model.encoded(inputs)
        generated = transcribe(
            self.model,
            **inputs,
            num_beams=beams,
            max_new_tokens=self.arguments.max_new_tokens,
            max_tokens_per_second=self.arguments.max_tokens_per_second,
            **({"num_return_sequences": beams} if weight else {}),
        )
        transcripts = read_transcripts(generated, self.processor, self.model.generation_config)
        if not weight:
            return transcripts
        texts = [transcript.text for transcript in transcripts]
        best = best_by_both(self.model, self.processor, self.vocabulary, inputs, texts, weight)
        return [Transcript(text, len(self.processor.transcript_ids(text)) - 1) for text in best]

    @functools.cached_property
    def vocabulary(self) -> CtcVocabulary:
        return vocabulary_of(self.model, self.processor)

    def heard_seconds(self, clip_seconds: float) -> float:
        return max(clip_seconds, self.processor.pad_to_seconds or 0.0)

    def parameter_counts(self) -> dict[str, int]:
        return self.model.parameter_counts()


class CtcRecogniser(SlamRecogniser):
    """What the CTC head of a checkpoint reads greedily; the LLM does not run."""

    def transcribe(self, inputs: BatchFeature) -> list[Transcript]:
        inputs = inputs.to(self.model.device, self.model.dtype)
        logits = self.model.get_ctc_logits(inputs["input_features"], inputs["input_features_mask"])
        return [Transcript(self.vocabulary.decode(row), len(row)) for row in greedy_classes(*logits)]


def read_transcripts(generated: torch.Tensor, processor: Any, generation_config: Any) -> list[Transcript]:
    """(B, N) generated ids, each row ended by end-of-text or padding or cut at the limit -> B transcripts."""
    ends = generation_config.eos_token_id
    ends = {*(ends if isinstance(ends, list) else [ends]), generation_config.pad_token_id}
    rows = [row.tolist() for row in generated]
    lengths = [next((place for place, token in enumerate(row) if token in ends), len(row)) for row in rows]
    texts = processor.batch_decode(
        [row[:n] for row, n in zip(rows, lengths, strict=True)], skip_special_tokens=True
    )
    return [Transcript(text, length) for text, length in zip(texts, lengths, strict=True)]


@dataclass(frozen=True)
class Collator:
    """Rows of a dataset -> the rows and their features."""

    prepare: Callable[..., BatchFeature]

    def __call__(self, rows: list[dict]) -> tuple[list[dict], BatchFeature]:
        given = {name: [row[name] for row in rows] for name in ("language", HOTWORDS) if name in rows[0]}
        return rows, self.prepare(audio=[load_audio(row["audio"]) for row in rows], **given)


def batches_of(seconds: Iterable[float], batch_size: int, batch_seconds: float) -> list[list[int]]:
    """Places 0, 1, ... of clips from the longest to the shortest -> those of each batch.

    A batch holds at most `batch_size` clips and `batch_seconds` of audio, counted as it is computed: each
    clip as long as the batch's first. A clip that is longer than that is a batch by itself.
    """
    batches: list[list[int]] = []
    room = 0
    for place, length in enumerate(seconds):
        if not room:
            batches.append([])
            room = max(1, int(min(batch_size, batch_seconds / length)))
        batches[-1].append(place)
        room -= 1
    return batches


def decode(
    recogniser: Recogniser,
    dataset: datasets.Dataset,
    store: PredictionStore,
    state: PartialState,
    batch_size: int,
    num_workers: int,
    batch_seconds: float = math.inf,
) -> None:
    """Decode what the store does not hold yet, batch by batch into this process's part of it.

    The clock of a clip runs over all of its batch: waiting for audio and features, generating, writing.
    """
    decoded = {row.id for row in store.read()}
    state.wait_for_everyone()  # every process must have read before one of them appends
    ids, durations = dataset["id"][:], np.asarray(dataset["duration"][:])
    pending = [index for index in np.argsort(-durations, kind="stable") if ids[index] not in decoded]
    share = dataset.add_column("index", range(len(dataset))).select(
        pending[state.process_index :: state.num_processes]
    )
    heard = [recogniser.heard_seconds(seconds) for seconds in share["duration"]]
    loader = DataLoader(
        share,
        batch_sampler=batches_of(heard, batch_size, batch_seconds),
        collate_fn=Collator(recogniser.prepare()),
        num_workers=num_workers,
    )
    progress = tqdm(total=len(share), unit="clip", desc="decoding", disable=not state.is_local_main_process)
    with store.open_part(state.process_index) as part, progress, torch.inference_mode():
        started = time.perf_counter()
        for rows, inputs in loader:
            transcripts = recogniser.transcribe(inputs)
            now = time.perf_counter()
            seconds, started = (now - started) / len(rows), now
            part.append(to_prediction(*pair, seconds) for pair in zip(rows, transcripts, strict=True))
            progress.update(len(rows))
    state.wait_for_everyone()


def to_prediction(row: dict, transcript: Transcript, seconds: float) -> Prediction:
    return Prediction(
        id=row["id"],
        index=row["index"],
        reference=row["text"],
        prediction=normalize_text(transcript.text, row["language"]),
        raw_reference=row["raw_text"],
        raw_prediction=transcript.text,
        duration=row["duration"],
        seconds=seconds,
        tokens=transcript.tokens,
        speaker=row["speaker"],
        language=row["language"],
        dataset=row.get("dataset"),
        hotwords=row.get(HOTWORDS),
    )
