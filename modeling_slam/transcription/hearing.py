"""The model at work: recordings in, what was heard out.

`hear` is what a process does with some recordings. What spreads them over processes or machines
(`spreading.py`) calls it and changes no transcript.
"""

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from modeling_slam import SlamAsrForConditionalGeneration, SlamAsrPipeline, SlamAsrProcessor
from modeling_slam.common.cpu_products import use_onednn
from modeling_slam.data.collator import makes_tokens
from modeling_slam.evaluation.arguments import weights_dtype
from modeling_slam.evaluation.fast_search import is_covered, search
from modeling_slam.model.audio_io import AudioError
from modeling_slam.model.audio_lengths import SAMPLING_RATE
from modeling_slam.model.pipeline_slam import Chunk
from modeling_slam.transcription.journal import Heard, stamp
from modeling_slam.transcription.recordings import Recording, read


@dataclass(frozen=True)
class Task:
    """How recordings are heard; plain data, so that it travels."""

    model: str
    dtype: str
    batch_size: int
    settings: tuple[tuple[str, Any], ...]  # what transcripts depend on, as the journal records it
    tells_times: bool


class CountingPipeline(SlamAsrPipeline):
    """Tells how many seconds of the recordings were heard, piece by piece."""

    on_seconds: Callable[[float], object] = staticmethod(lambda seconds: None)
    position = 0.0

    def _forward(self, chunks: list[Chunk], *arguments: Any, **settings: Any) -> Any:
        result = super()._forward(chunks, *arguments, **settings)
        for chunk in chunks:
            before = self.position if chunk.start else 0.0
            self.position = chunk.start + len(chunk.samples) / SAMPLING_RATE
            self.on_seconds(self.position - before)
        return result


def load(task: Task) -> CountingPipeline:
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    processor = SlamAsrProcessor.from_pretrained(task.model)
    dtype = weights_dtype(task.dtype, device)
    model = SlamAsrForConditionalGeneration.from_pretrained(task.model, dtype=dtype).to(device)
    use_onednn(model)
    return CountingPipeline(model, processor, batch_size=task.batch_size, device=device)


def hear(pipe: CountingPipeline, task: Task, recordings: Iterable[Recording]) -> Iterator[Heard]:
    """What was heard in each recording, in order but for those that cannot be read, which come earlier."""
    settings = dict(task.settings)
    failed: deque[Heard] = deque()
    reading: deque[tuple[Recording, list[int], float]] = deque()

    def readable() -> Iterator[Any]:
        for recording in recordings:
            before = stamp(recording.path)  # of what is heard, whatever becomes of the file meanwhile
            try:
                sound, seconds = read(recording.path)
                if not makes_tokens(seconds, pipe.processor, settings["language"]):
                    raise AudioError(
                        f"{recording.path}: lasts {seconds:.3f} s, too short for a word.", "empty"
                    )
            except AudioError as error:
                failed.append(Heard.of(recording, before, settings, error=str(error)))
                continue
            reading.append((recording, before, seconds))
            yield sound

    for result in pipe(readable(), **call_arguments(pipe, task)):
        yield from (failed.popleft() for _ in range(len(failed)))
        recording, before, seconds = reading.popleft()
        found = {"text": result["text"], "words": result.get("chunks")}
        yield Heard.of(recording, before, settings, seconds=round(seconds, 3), **found)
    yield from failed


def call_arguments(pipe: CountingPipeline, task: Task) -> dict[str, Any]:
    """For the pipeline; our own search takes part where it gives transformers' tokens."""
    settings = dict(task.settings)
    given = {name: settings[name] for name in ("num_beams", "language") if settings[name] is not None}
    if settings["ctc_weight"]:
        given["ctc_weight"] = settings["ctc_weight"]
    if "hotwords" in settings:
        given["hotwords"] = settings["hotwords"].split("\n")
    if task.tells_times:
        given["return_timestamps"] = "word"
    generation = copy.deepcopy(pipe.model.generation_config)
    generation.update(num_beams=settings["num_beams"] or generation.num_beams)
    if is_covered(generation, {}):
        given["custom_generate"] = search
    return given
