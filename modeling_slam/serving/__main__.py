"""A model behind OpenAI's transcription API.

    slam-asr serve runs/nl-medium --port 8000

Ctrl-C or SIGTERM ends it: nothing new is taken, and what was begun is answered first. A second Ctrl-C ends it
at once. The environment's SLAM_ASR_API_KEY is what clients must send, if it is set.
"""

import ipaddress
import os
import signal
import socket
import sys
from typing import Any

import uvicorn

from modeling_slam.common.command_line import clear_errors, parse_arguments, program
from modeling_slam.common.stopping import EXIT_CODES, ends_in_one_line
from modeling_slam.serving.app import Service, create_app
from modeling_slam.serving.arguments import ServeArguments
from modeling_slam.serving.engine import Engine
from modeling_slam.serving.metrics import Metrics
from modeling_slam.transcription.__main__ import task_of
from modeling_slam.transcription.arguments import TranscribeArguments
from modeling_slam.transcription.hearing import call_arguments, load

DESCRIPTION = (
    "Serve a model over HTTP: OpenAI's /v1/audio/transcriptions and /v1/models, /health, and /metrics for "
    "Prometheus. SLAM_ASR_API_KEY in the environment is the key that clients must send, if it is set."
)
KEY = "SLAM_ASR_API_KEY"
KEEP_ALIVE_SECONDS = 75  # longer than what clients and proxies keep unused connections


def main(argv: list[str] | None = None) -> None:
    usage = f"{program('modeling_slam.serving')} MODEL [--flag value ...]"
    (arguments,) = parse_arguments(
        ServeArguments, description=DESCRIPTION, argv=argv, usage=usage, first="model"
    )
    with ends_in_one_line(lambda: "Nothing was begun."), clear_errors():
        listener = bound(arguments.host, arguments.port)
        service = service_of(arguments)
    api_key = os.environ.get(KEY)
    if not api_key and not is_loopback(arguments.host):
        print(
            f"warning: whoever reaches {arguments.host} may use the model; {KEY} is not set.", file=sys.stderr
        )
    server = Server(config_of(service, api_key), service, address_of(listener))
    # Uvicorn ends by the signal it got, once all is answered. That is no failure, so it finds these.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    server.run(sockets=[listener])
    if server.force_exit:
        raise SystemExit(EXIT_CODES[signal.SIGINT])
    print("All that was begun is answered.", flush=True)


def service_of(arguments: ServeArguments) -> Service:
    """The model, loaded, and all that answers for it.

    Raises:
        ValueError: a setting does not fit the model.
    """
    given = {name: getattr(arguments, name) for name in ("language", "num_beams", "ctc_weight", "dtype")}
    task = task_of(TranscribeArguments(arguments.model, [], **given))
    pipe = load(task)
    engine = Engine(pipe, call_arguments(pipe, task), arguments.batch_seconds, Metrics())
    return Service(engine, arguments, dict(task.settings)["language"], task.tells_times)


def config_of(service: Service, api_key: str | None) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(service, api_key),
        http="h11",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        server_header=False,
    )


class Server(uvicorn.Server):
    """Says where it is reached once it is."""

    def __init__(self, config: uvicorn.Config, service: Service, address: str):
        super().__init__(config)
        self.line = f"Serving {service.name} at {address}/v1"

    async def startup(self, *arguments: Any, **settings: Any) -> None:
        await super().startup(*arguments, **settings)
        if self.started:
            print(self.line, flush=True)


def bound(host: str, port: int) -> socket.socket:
    """A socket of the address. It does not listen yet: who comes before the model is there is refused.

    Raises:
        ValueError: the address cannot be had.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ValueError(
            f"`--host {host} --port {port}` cannot be listened at ({error.strerror}): take another port, or "
            "0 for a free one."
        ) from error
    return listener


def address_of(listener: socket.socket) -> str:
    host, port, *_ = listener.getsockname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    main()
