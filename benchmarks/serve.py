"""The server under load: requests one at a time, then many clients at once, of the same recordings.

    python -m benchmarks.serve --model RUN --recordings DIR [--clients 32] [--seconds 120] [--out FILE.json]

Starts `slam-asr serve` as a program of its own, asks it with OpenAI's client, and ends it by SIGTERM. Counted
are errors of any kind, and recordings whose text under load is another than alone. Flags that are not its own
are the server's. What both sides compute, they compute on this machine.
"""

import argparse
import asyncio
import itertools
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai

from benchmarks.sides import REPOSITORY
from modeling_slam.common.files import write_json
from modeling_slam.transcription.recordings import find_recordings, read

MOST_RECORDINGS = 200


@dataclass
class Load:
    """What came of some time of asking."""

    clients: int
    latencies: list[float] = field(default_factory=list)  # seconds, of what was answered
    audio_seconds: float = 0.0
    wall_seconds: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    texts: dict[Path, set[str]] = field(default_factory=dict)

    def figures(self) -> dict[str, Any]:
        middle, late = np.quantile(self.latencies, [0.5, 0.95]) if self.latencies else (0.0, 0.0)
        return {
            "clients": self.clients,
            "requests": len(self.latencies),
            "errors": dict(self.errors),
            "seconds": round(self.wall_seconds, 1),
            "audio_seconds_per_second": round(self.audio_seconds / self.wall_seconds, 2),
            "median_latency": round(float(middle), 2),
            "latency_of_95_percent": round(float(late), 2),
        }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="checkpoint directory or Hub id")
    parser.add_argument("--recordings", required=True, nargs="+", help="files, or folders of them")
    parser.add_argument("--clients", type=int, default=32, help="at once, in the second part")
    parser.add_argument("--seconds", type=float, default=120.0, help="that they ask for")
    parser.add_argument("--alone_seconds", type=float, default=30.0, help="of the first part: one at a time")
    parser.add_argument("--out", help="a JSON file for the figures")
    arguments, flags = parser.parse_known_args(argv)
    paths = [each.path for each in find_recordings(arguments.recordings, recursive=True)][:MOST_RECORDINGS]
    sounds = {path: read(path)[1] for path in paths}
    command = [sys.executable, "-m", "slam_asr", "serve", arguments.model, "--name", "model", "--port", "0"]
    command += ["--max_requests", str(max(2 * arguments.clients, 64)), *flags]
    server = subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert server.stdout is not None
        address = next((line.split()[-1] for line in server.stdout if line.startswith("Serving ")), None)
        if address is None:
            raise SystemExit(f"error: the server did not start: {' '.join(command)}")
        parts = []
        for clients, seconds in ((1, arguments.alone_seconds), (arguments.clients, arguments.seconds)):
            before = batches(address)
            load = asyncio.run(asked(address, sounds, clients, seconds))
            chunks, count = (after - early for after, early in zip(batches(address), before, strict=True))
            parts.append((load, load.figures() | {"chunks_per_batch": round(chunks / max(count, 1), 2)}))
        server.send_signal(signal.SIGTERM)
        exit_code = server.wait(60)
    finally:
        server.kill()
    alone, crowd = (load.texts for load, _ in parts)
    differing = sum(texts != alone[path] for path, texts in crowd.items() if path in alone)
    figures = {
        "parts": [row for _, row in parts],
        "compared_recordings": len(alone.keys() & crowd.keys()),
        "differing_recordings": differing + sum(len(texts) > 1 for texts in crowd.values()),
        "exit_code": exit_code,
    }
    print(as_table(figures))
    if arguments.out:
        write_json(Path(arguments.out), figures)
    if differing or exit_code or any(row["errors"] for _, row in parts):
        raise SystemExit(1)


async def asked(address: str, sounds: dict[Path, float], clients: int, seconds: float) -> Load:
    """Some clients, each with a request under way all the time; the last ones are waited for."""
    load, turns, begun = Load(clients), itertools.cycle(sounds), time.monotonic()
    async with openai.AsyncOpenAI(base_url=address, api_key="none", max_retries=0, timeout=600) as client:
        until = begun + seconds
        await asyncio.gather(*(ask(client, sounds, turns, until, load) for _ in range(clients)))
    load.wall_seconds = time.monotonic() - begun
    return load


async def ask(
    client: openai.AsyncOpenAI, sounds: dict[Path, float], turns: Iterator[Path], until: float, load: Load
) -> None:
    while time.monotonic() < until:
        path, begun = next(turns), time.monotonic()
        try:
            answer = await client.audio.transcriptions.create(model="model", file=path)
        except openai.OpenAIError as error:
            load.errors[f"{type(error).__name__}: {error}"] += 1
            continue
        load.latencies.append(time.monotonic() - begun)
        load.audio_seconds += sounds[path]
        load.texts.setdefault(path, set()).add(answer.text)


def batches(address: str) -> tuple[float, float]:
    """Chunks decoded so far, and batches."""
    text = httpx2.get(address.removesuffix("/v1") + "/metrics").text
    names = ("slam_asr_batch_chunks_sum", "slam_asr_batch_chunks_count")
    found = [re.findall(rf"^{name} (\S+)$", text, flags=re.MULTILINE) for name in names]
    return float(found[0][0]), float(found[1][0])


def as_table(figures: dict[str, Any]) -> str:
    lines = [
        "| clients | requests | errors | sound heard per second | chunks per batch | median latency | 95 % |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in figures["parts"]:
        lines.append(
            f"| {row['clients']} | {row['requests']} | {sum(row['errors'].values())} | "
            f"{row['audio_seconds_per_second']:.2f} s | {row['chunks_per_batch']:.2f} | "
            f"{row['median_latency']:.2f} s | {row['latency_of_95_percent']:.2f} s |"
        )
    lines += ["", f"Of {figures['compared_recordings']} recordings {figures['differing_recordings']} differ."]
    lines += [f"{count} x {error}" for row in figures["parts"] for error, count in row["errors"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
