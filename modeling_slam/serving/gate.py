"""What stands before the app: who may come in, how many at once, with how much, and until when.

A request is refused before its body is read where that is known by then. Its deadline goes on to the app as
`request.state.deadline`, by the event loop's clock.
"""

import asyncio
import hmac
import math

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modeling_slam.serving.arguments import ServeArguments
from modeling_slam.serving.engine import Engine
from modeling_slam.serving.errors import ApiError, error_response

TRANSCRIPTIONS = "/v1/audio/transcriptions"
FORM_BYTES = 100_000  # of an upload's other fields and its boundaries
CLIENT_GONE = 499  # as proxies count it; nobody reads it


class Gate:
    """ASGI middleware. Without `api_key` everybody may come in."""

    def __init__(self, app: ASGIApp, engine: Engine, arguments: ServeArguments, api_key: str | None):
        self.app, self.engine, self.arguments = app, engine, arguments
        self.api_key = api_key.encode() if api_key else None
        self.most_bytes = round(arguments.max_megabytes * 1e6) + FORM_BYTES
        self.open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        asks_for_work = scope["path"] == TRANSCRIPTIONS and scope["method"] == "POST"
        try:
            self.check_key(headers)
            if asks_for_work:
                self.check_room(headers)
        except ApiError as error:
            if asks_for_work:
                self.engine.metrics.answers.labels(error.status_code).inc()
            await error_response(error)(scope, receive, send)
            return
        if asks_for_work:
            await self.work(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def check_key(self, headers: Headers) -> None:
        given = headers.get("authorization", "").removeprefix("Bearer ").strip().encode()
        if self.api_key is not None and not hmac.compare_digest(given, self.api_key):
            message = "The API key is missing or wrong: send it as `Authorization: Bearer KEY`."
            raise ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})

    def check_room(self, headers: Headers) -> None:
        if not self.engine.works:
            raise ApiError(503, "The server hears nothing any more: it shuts down, or its device failed.")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.most_bytes:
            raise self.too_large()
        if self.open >= self.arguments.max_requests:
            seconds = min(max(math.ceil(self.engine.seconds_to_next_batch()), 1), 60)
            raise ApiError(
                429,
                f"{self.open} requests wait already, the most that this server takes (`--max_requests`). Try "
                f"again in {seconds} s.",
                code="rate_limit_exceeded",
                headers={"Retry-After": str(seconds)},
            )

    def too_large(self) -> ApiError:
        most = self.arguments.max_megabytes
        return ApiError(413, f"The upload is larger than {most:g} MB (`--max_megabytes`).", "file")

    async def work(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop, limit = asyncio.get_running_loop(), self.arguments.timeout_seconds
        begun, received, status = loop.time(), 0, CLIENT_GONE
        scope.setdefault("state", {})["deadline"] = begun + limit
        is_uploading = True

        async def limited_receive() -> Message:
            nonlocal received, is_uploading
            if not is_uploading:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), begun + limit - loop.time())
            except TimeoutError as error:
                message = f"The upload was not complete after {limit:g} s (`--timeout_seconds`)."
                raise ApiError(408, message, "file", headers={"Connection": "close"}) from error
            received += len(message.get("body", b""))
            if received > self.most_bytes:
                raise self.too_large()
            is_uploading = message.get("more_body", False)
            return message

        async def noting_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        metrics = self.engine.metrics
        self.open += 1
        metrics.open.inc()
        try:
            await self.app(scope, limited_receive, noting_send)
        except Exception:  # is answered further out
            status = 500
            raise
        finally:
            self.open -= 1
            metrics.open.dec()
            metrics.answers.labels(status).inc()
            if status == 200:
                metrics.latency.observe(loop.time() - begun)
