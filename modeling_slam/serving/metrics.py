"""What Prometheus reads at `/metrics`: names and meaning stand in docs/serve.md."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 600)
CHUNKS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Those of one server: each has a registry of its own."""

    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()
        self.answers = Counter(
            "slam_asr_requests", "Transcriptions asked for, by the answer's status.", ["code"], registry=own
        )
        self.latency = Histogram(
            "slam_asr_request_seconds", "From request to whole answer.", buckets=SECONDS, registry=own
        )
        self.open = Gauge("slam_asr_requests_open", "Requests that are not answered yet.", registry=own)
        self.waiting = Gauge("slam_asr_audio_seconds_waiting", "Seconds of sound in line.", registry=own)
        self.heard = Counter("slam_asr_audio_seconds", "Seconds of sound heard.", registry=own)
        self.busy = Counter("slam_asr_busy_seconds", "Seconds that the model worked.", registry=own)
        self.batches = Histogram(
            "slam_asr_batch_chunks", "Pieces of recordings decoded together.", buckets=CHUNKS, registry=own
        )

    def text(self) -> bytes:
        return generate_latest(self.registry)
