"""The one thread that owns the model: chunks of all waiting recordings, decoded together.

Every recording is cut into chunks as the pipeline cuts it, and a batch takes a chunk of each in turn until
its sound, padding included, fills `batch_seconds`. So short requests that wait go together, and a long
recording has the whole batch while it is alone, and holds nobody up when it is not. What is heard does not
depend on it.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch

from modeling_slam import SlamAsrPipeline
from modeling_slam.model.audio_lengths import MAX_WORDS_PER_SECOND, SAMPLING_RATE, Chunk, Word
from modeling_slam.serving.metrics import Metrics

logger = logging.getLogger("uvicorn.error")  # which the server has set up

OF_A_JOB = ("language", "hotwords")
FIRST_GUESS = 0.2  # real-time factor before anything was heard


class EngineClosedError(RuntimeError):
    """The model can hear nothing any more: the server ends, or its device failed."""


@dataclass(eq=False)
class Job:
    """A recording that waits or is being heard.

    `result` gets what the pipeline gives. Whoever wants nothing any more cancels it.
    """

    sound: Any  # as the pipeline takes it
    seconds: float
    language: str | None
    hotwords: list[str] = field(default_factory=list)
    on_text: Callable[[str], object] | None = None  # gets the text as it grows, part by part
    result: Future[dict[str, Any]] = field(default_factory=Future)
    transcripts: list[tuple[Chunk, str, list[Word]]] = field(default_factory=list)
    heard_seconds: float = 0.0
    words_given: int = 0
    chunks: Iterator[Chunk] | None = None
    following: Chunk | None = None  # the next chunk; None when all are under way

    def open(self, pipe: SlamAsrPipeline) -> None:
        if self.chunks is None:
            self.chunks = iter(pipe.preprocess(self.sound))
            self.advance()

    def advance(self) -> None:
        assert self.chunks is not None
        self.following = next(self.chunks, None)

    def give_text(self, text: str, is_whole: bool) -> None:
        """Hand on what has come to the text and will not change any more."""
        if self.on_text is None:
            return
        words = text.split()
        # So many words at the end may still be joined with what the next chunk repeats of them.
        overlap = self.following.overlap if self.following is not None else 0.0
        certain = max(len(words) - math.ceil(overlap * MAX_WORDS_PER_SECOND), 0)
        new = words[self.words_given : certain]
        if is_whole and not self.words_given:
            self.on_text(text)
        elif new:
            self.on_text(" ".join(["", *new] if self.words_given else new))
        self.words_given += len(new)

    def finish(self, result: dict[str, Any]) -> None:
        if not self.result.done() and self.result.set_running_or_notify_cancel():
            self.result.set_result(result)

    def fail(self, error: Exception) -> None:
        if not self.result.done() and self.result.set_running_or_notify_cancel():
            self.result.set_exception(error)


class Engine(threading.Thread):
    """Hears jobs until it is closed; what it was given before that, it finishes."""

    def __init__(
        self,
        pipe: SlamAsrPipeline,
        arguments: Mapping[str, Any],
        batch_seconds: float,
        metrics: Metrics,
    ):
        """`arguments` are those of a call of the pipeline, but for what every job has of its own."""
        super().__init__(name="slam-asr-engine", daemon=True)
        self.pipe, self.metrics = pipe, metrics
        self.arguments = {name: value for name, value in arguments.items() if name not in OF_A_JOB}
        self.most_samples = round(batch_seconds * SAMPLING_RATE)
        self.jobs: deque[Job] = deque()
        self.changed = threading.Condition()
        self.is_closing = False
        self.busy_seconds, self.heard_seconds = 0.0, 0.0

    def submit(self, job: Job) -> None:
        """Raises: EngineClosedError."""
        with self.changed:
            if self.is_closing:
                raise EngineClosedError("The server is shutting down.")
            self.jobs.append(job)
            self.changed.notify()

    def close(self) -> None:
        """Take no more; `join` waits for the end."""
        with self.changed:
            self.is_closing = True
            self.changed.notify()

    @property
    def works(self) -> bool:
        return self.is_alive() and not self.is_closing

    def waiting_seconds(self) -> float:
        """Of sound that stands in line."""
        with self.changed:
            return sum(max(job.seconds - job.heard_seconds, 0.0) for job in self.jobs)

    def seconds_to_next_batch(self) -> float:
        """How long a batch takes of what waits, by what was heard so far: then there is room again."""
        factor = self.busy_seconds / self.heard_seconds if self.heard_seconds else FIRST_GUESS
        return min(self.waiting_seconds(), self.most_samples / SAMPLING_RATE) * factor

    def run(self) -> None:
        while self.wait():
            begun = time.monotonic()
            batch = self.next_batch()
            if batch:
                self.hear(batch)
                for job in dict.fromkeys(job for job, _ in batch):
                    self.hand_on(job)
                self.count(batch, time.monotonic() - begun)

    def wait(self) -> bool:
        """Until there is work; False if there will be none."""
        with self.changed:
            self.changed.wait_for(lambda: self.jobs or self.is_closing)
            return bool(self.jobs)

    def next_batch(self) -> list[tuple[Job, Chunk]]:
        """A chunk of each job in turn until the batch is full; a job with more goes to the line's end."""
        batch: list[tuple[Job, Chunk]] = []
        streaming: list[Job] = []  # are given one chunk of a batch, so that their text grows
        longest = 0
        while job := self.first():
            try:
                job.open(self.pipe)
                chunk = job.following
                if chunk is None:
                    raise RuntimeError("A recording gave no chunk.")
                longest = max(longest, len(chunk.samples))
                if batch and (len(batch) + 1) * longest > self.most_samples:
                    self.put_back(job, first=True)
                    break
                job.advance()
            except Exception as error:
                self.failed(job, error)
                continue
            batch.append((job, chunk))
            if job.following is not None:
                put_back = streaming.append if job.on_text is not None else self.put_back
                put_back(job)
        for job in streaming:
            self.put_back(job)
        return batch

    def first(self) -> Job | None:
        """Take the first in line that is still wanted."""
        with self.changed:
            while self.jobs:
                job = self.jobs.popleft()
                if not job.result.done():
                    return job
        return None

    def put_back(self, job: Job, first: bool = False) -> None:
        with self.changed:
            (self.jobs.appendleft if first else self.jobs.append)(job)

    def hear(self, batch: list[tuple[Job, Chunk]]) -> None:
        own = {name: [getattr(job, name) for job, _ in batch] for name in OF_A_JOB}
        try:
            heard = self.pipe.forward([chunk for _, chunk in batch], **own, **self.arguments)
        except Exception as error:
            if len(batch) == 1:
                self.failed(batch[0][0], error)
                return
            logger.warning("A batch of %d chunks failed (%s); each is heard alone.", len(batch), error)
            for job, chunk in batch:
                if not job.result.done():
                    self.hear([(job, chunk)])
            return
        for (job, chunk), (text, words) in zip(batch, heard, strict=True):
            job.transcripts.append((chunk, text, words))
            job.heard_seconds = chunk.start + len(chunk.samples) / SAMPLING_RATE

    def hand_on(self, job: Job) -> None:
        if job.result.done():
            return
        try:
            is_whole = job.transcripts[-1][0].is_last
            if is_whole or job.on_text is not None:
                result = self.pipe.postprocess(job.transcripts, self.arguments.get("return_timestamps"))
                job.give_text(result["text"], is_whole)
                if is_whole:
                    job.finish(result)
        except Exception as error:
            self.failed(job, error)

    def failed(self, job: Job, error: Exception) -> None:
        logger.error("A recording of %.1f s failed.", job.seconds, exc_info=error)
        job.fail(error)
        if isinstance(error, torch.AcceleratorError):  # the device answers nothing any more
            self.close()
            while waiting := self.first():
                waiting.fail(EngineClosedError(f"The device failed: {error}"))

    def count(self, batch: list[tuple[Job, Chunk]], seconds: float) -> None:
        heard = sum(len(chunk.samples) / SAMPLING_RATE - chunk.overlap for _, chunk in batch)
        self.busy_seconds += seconds
        self.heard_seconds += heard
        self.metrics.busy.inc(seconds)
        self.metrics.heard.inc(heard)
        self.metrics.batches.observe(len(batch))
