"""The model at work: recordings in, what was heard out, in one process or in several.

`hear` is what a process does with some recordings. Whatever spreads them over processes or machines calls it
and changes no transcript.
"""

import copy
import functools
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
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

GROUP_SECONDS = 300.0  # of sound that a process is given at a time


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
    if is_covered(generation, {}, pipe.model.language_model):
        given["custom_generate"] = search
    return given


def hear_in_processes(
    task: Task, recordings: list[tuple[Recording, float]], processes: int
) -> Iterator[Heard]:
    """As `hear`, in several processes of this machine; recordings come with the seconds that they state.

    Raises:
        ValueError: a process died.
    """
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    place = context.Value("i", 0)
    with ProcessPoolExecutor(processes, context, take_place, (place, processes)) as pool:
        futures = [pool.submit(hear_group, task, group) for group in groups_of(recordings)]
        try:
            for future in as_completed(futures):
                yield from future.result()
        except BrokenProcessPool as error:
            raise ValueError(
                "A process died, as the system ends one when memory is short. The same command goes on: with "
                "fewer `--num_processes`, or a smaller `--batch_size`."
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def groups_of(recordings: list[tuple[Recording, float]]) -> list[list[Recording]]:
    """Groups of some minutes, which a process hears in batches."""
    groups: list[list[Recording]] = []
    room = 0.0
    for recording, seconds in recordings:
        if room <= 0:
            groups.append([])
            room = GROUP_SECONDS
        groups[-1].append(recording)
        room -= max(seconds, 1.0)
    return groups


def take_place(place: Any, processes: int) -> None:
    """In a new process: its share of the cores, and of the GPUs the next in turn."""
    with place.get_lock():
        number, place.value = place.value, place.value + 1
    torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())


@functools.lru_cache(maxsize=1)
def loaded(task: Task) -> CountingPipeline:
    """The pipeline of this process, which stays for its next group."""
    return load(task)


def hear_group(task: Task, group: list[Recording]) -> list[Heard]:
    return list(hear(loaded(task), task, group))
