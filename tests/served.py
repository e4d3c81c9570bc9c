"""A real server on a free port of this machine, in a thread; OpenAI's own client; and files to send."""

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from io import BytesIO

import httpx2
import numpy as np
import openai
import soundfile

from modeling_slam import SlamAsrPipeline
from modeling_slam.serving.__main__ import Server, address_of, bound, config_of
from modeling_slam.serving.app import Service
from modeling_slam.serving.arguments import ServeArguments
from modeling_slam.serving.engine import Engine
from modeling_slam.serving.metrics import Metrics

RATE = 16_000
KEY = "a key"


class HeldPipeline(SlamAsrPipeline):
    """Waits at every batch until it may go on, and remembers the seconds of its chunks."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.may_go, self.has_begun = threading.Event(), threading.Event()
        self.may_go.set()
        self.batches: list[list[float]] = []

    def _forward(self, chunks, **settings):
        self.batches.append([len(chunk.samples) / RATE for chunk in chunks])
        self.has_begun.set()
        assert self.may_go.wait(30)
        return super()._forward(chunks, **settings)


class Running:
    """A server that answers."""

    def __init__(self, server: Server, thread: threading.Thread, pipe: SlamAsrPipeline, address: str):
        self.server, self.thread, self.pipe, self.address = server, thread, pipe, address
        self.client = openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0, timeout=30)

    def transcribe(self, sound: bytes, name: str = "clip.wav", **fields):
        given = {"model": "tiny", "file": (name, sound)} | fields
        return self.client.audio.transcriptions.create(**given)

    def get(self, path: str) -> httpx2.Response:
        return httpx2.get(self.address + path)

    def gauge(self, name: str) -> float:
        """Of the metrics the one of this name, and label."""
        found = re.findall(rf"^{re.escape(name)} (\S+)$", self.get("/metrics").text, flags=re.MULTILINE)
        return float(found[0]) if found else 0.0

    def wait_for(self, name: str, least: float) -> None:
        """Until a metric is as large."""
        until = time.monotonic() + 30
        while self.gauge(name) < least:
            assert time.monotonic() < until, f"{name} stays below {least}"
            time.sleep(0.01)


@contextlib.contextmanager
def running(pipe: SlamAsrPipeline, tells_times: bool, api_key: str | None, **settings) -> Iterator[Running]:
    arguments = ServeArguments("tiny", **{"name": "tiny", "port": 0, **settings})
    call = {"return_timestamps": "word"} if tells_times else {}
    engine = Engine(pipe, call, arguments.batch_seconds, Metrics())
    service = Service(engine, arguments, arguments.language, tells_times)
    listener = bound(arguments.host, arguments.port)
    ready = threading.Event()

    class Told(Server):
        async def startup(self, *given, **named) -> None:
            await super().startup(*given, **named)
            ready.set()

    server = Told(config_of(service, api_key), service, address_of(listener))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    assert ready.wait(30)
    found = Running(server, thread, pipe, address_of(listener))
    try:
        yield found
    finally:
        pipe.may_go.set()
        found.client.close()
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def wav(samples: np.ndarray, **settings: str) -> bytes:
    file = BytesIO()
    soundfile.write(file, samples, RATE, **{"format": "WAV", "subtype": "FLOAT", **settings})
    return file.getvalue()
