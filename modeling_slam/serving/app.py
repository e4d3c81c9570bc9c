"""The endpoints: what OpenAI's clients ask for, `/health`, and `/metrics` for Prometheus."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import Future
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Form, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

import modeling_slam
from modeling_slam.data.collator import makes_tokens
from modeling_slam.data.hotwords import as_model_writes
from modeling_slam.model.audio_io import AudioError
from modeling_slam.model.processing_slam import in_language
from modeling_slam.serving.answers import ANSWERS, delta_event, done_event, event
from modeling_slam.serving.arguments import ServeArguments
from modeling_slam.serving.engine import Engine, EngineClosedError, Job
from modeling_slam.serving.errors import ApiError, error_body, error_response
from modeling_slam.serving.gate import CLIENT_GONE, TRANSCRIPTIONS, Gate
from modeling_slam.transcription.formats import Transcript
from modeling_slam.transcription.recordings import TooLongError, read


class TranscriptionForm(BaseModel):
    """Fields of a request; what is not among them is refused."""

    model_config = ConfigDict(extra="forbid")

    file: UploadFile
    model: str
    language: str | None = None
    prompt: str = ""
    response_format: Literal["json", "text", "srt", "vtt", "verbose_json"] = "json"
    temperature: float = 0.0
    stream: bool = False
    timestamp_granularities: list[Literal["word", "segment"]] = Field(
        default_factory=list, alias="timestamp_granularities[]"
    )
    chunking_strategy: Literal["auto"] = "auto"


class Service:
    """One model: checks a request, has it heard, and answers."""

    def __init__(self, engine: Engine, arguments: ServeArguments, language: str | None, tells_times: bool):
        """`language` is that of requests that name none."""
        self.engine, self.arguments = engine, arguments
        self.language, self.tells_times = language, tells_times
        self.name, self.created = arguments.served_name, int(time.time())

    def card(self) -> dict[str, Any]:
        return {"id": self.name, "object": "model", "created": self.created, "owned_by": "slam-asr"}

    def check_name(self, name: str) -> None:
        if name != self.name:
            message = f"The model {name!r} does not exist here; this server has {self.name!r}."
            raise ApiError(404, message, "model", "model_not_found")

    def check(self, form: TranscriptionForm) -> None:
        """Refuse what this model cannot do, rather than leave it undone. Raises: ApiError."""
        self.check_name(form.model)
        if ANSWERS[form.response_format].needs_times and not self.tells_times:
            raise ApiError(
                400,
                f"`response_format` {form.response_format} needs the times of words, which a CTC head tells, "
                f"and {self.name} has none: ask for json or text.",
                "response_format",
            )
        if form.timestamp_granularities and form.response_format != "verbose_json":
            message = "`timestamp_granularities[]` goes with `response_format` verbose_json alone."
            raise ApiError(400, message, "timestamp_granularities[]")
        if form.stream and form.response_format not in ("json", "text"):
            message = "A stream holds text: ask for `response_format` json, or leave `stream` out."
            raise ApiError(400, message, "response_format")
        if form.temperature != 0:
            message = "This server does not sample: leave `temperature` out, or give 0."
            raise ApiError(400, message, "temperature")
        processor = self.engine.pipe.processor
        try:
            in_language(processor.instruction, form.language or self.language)
        except ValueError as error:
            raise ApiError(400, str(error), "language") from error
        try:
            processor.checked_hotwords(self.hotwords(form))
        except ValueError as error:
            raise ApiError(400, f"`prompt` holds hotwords, parted by commas. {error}", "prompt") from error

    def hotwords(self, form: TranscriptionForm) -> list[str]:
        """Words and phrases of the prompt, as the model writes them."""
        style, language = self.engine.pipe.model.config.text_style, form.language or self.language
        phrases = re.split(r"[,;\n]", form.prompt)
        return list(filter(None, (as_model_writes(phrase, style, language) for phrase in phrases)))

    async def transcribe(self, form: TranscriptionForm, request: Request) -> Response:
        self.check(form)
        job = await self.job_of(form)
        if form.stream:
            events = self.events(job, form, request.state.deadline)
            return StreamingResponse(events, media_type="text/event-stream")
        gone = asyncio.ensure_future(wait_for_disconnect(request))
        try:
            self.submit(job)
            result = asyncio.wrap_future(job.result)
            await asyncio.wait(
                {result, gone}, timeout=left(request.state.deadline), return_when=asyncio.FIRST_COMPLETED
            )
            if result.done():
                transcript = self.transcript(job, form, result)
                return ANSWERS[form.response_format].write(
                    transcript, form.timestamp_granularities or ["segment"]
                )
            if gone.done():
                return Response(status_code=CLIENT_GONE)
            raise self.too_late()
        finally:
            gone.cancel()
            job.result.cancel()

    async def job_of(self, form: TranscriptionForm) -> Job:
        """The upload, read to its end. Raises: ApiError."""
        name, encoded = form.file.filename or "audio", await form.file.read()
        language = form.language or self.language
        try:
            sound, seconds = await run_in_threadpool(
                read, {"bytes": encoded, "path": name}, self.arguments.max_seconds
            )
        except TooLongError as error:
            message = f"{error} That is the most that this server takes (`--max_seconds`)."
            raise ApiError(413, message, "file") from error
        except AudioError as error:
            raise ApiError(400, str(error), "file", error.reason.replace(" ", "_")) from error
        if not makes_tokens(seconds, self.engine.pipe.processor, language):
            raise ApiError(400, f"{name}: lasts {seconds:.3f} s, too short for a word.", "file", "empty")
        return Job(sound, seconds, language, self.hotwords(form))

    def submit(self, job: Job) -> None:
        try:
            self.engine.submit(job)
        except EngineClosedError as error:
            raise ApiError(503, str(error)) from error

    def transcript(
        self, job: Job, form: TranscriptionForm, heard: asyncio.Future[Any] | Future[Any]
    ) -> Transcript:
        """Of what was heard in a job that is done. Raises: ApiError."""
        try:
            result = heard.result()
        except EngineClosedError as error:
            raise ApiError(503, str(error)) from error
        except Exception as error:
            raise ApiError(500, f"The model failed: {type(error).__name__}: {error}") from error
        name = form.file.filename or "audio"
        return Transcript(name, job.seconds, job.language, result["text"], result.get("chunks"))

    def too_late(self) -> ApiError:
        limit = self.arguments.timeout_seconds
        return ApiError(504, f"The transcript was not ready after {limit:g} s (`--timeout_seconds`).")

    async def events(self, job: Job, form: TranscriptionForm, deadline: float) -> AsyncIterator[str]:
        """Server-sent events; what goes wrong after the first byte is one as well."""
        loop, parts = asyncio.get_running_loop(), asyncio.Queue[str | None]()

        def put(part: str | None) -> None:
            loop.call_soon_threadsafe(parts.put_nowait, part)

        job.on_text = put
        job.result.add_done_callback(lambda _: put(None))
        try:
            self.submit(job)
            while (part := await asyncio.wait_for(parts.get(), left(deadline))) is not None:
                yield delta_event(part)
            yield done_event(self.transcript(job, form, job.result))
        except (TimeoutError, ApiError) as error:
            told = error if isinstance(error, ApiError) else self.too_late()
            yield event(error_body(told.status_code, told.detail))
        finally:
            job.result.cancel()


def left(deadline: float) -> float:
    return max(deadline - asyncio.get_running_loop().time(), 0.0)


async def wait_for_disconnect(request: Request) -> None:
    """The body has been read, so what comes next is the client's leaving."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def create_app(service: Service, api_key: str | None) -> FastAPI:
    engine = service.engine

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        engine.start()
        yield
        engine.close()
        await run_in_threadpool(engine.join)

    app = FastAPI(title="slam-asr", version=modeling_slam.__version__, lifespan=lifespan)
    app.add_middleware(Gate, engine=engine, arguments=service.arguments, api_key=api_key)

    @app.post(TRANSCRIPTIONS)
    async def transcriptions(form: Annotated[TranscriptionForm, Form()], request: Request) -> Response:
        return await service.transcribe(form, request)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [service.card()]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        service.check_name(name)
        return service.card()

    @app.get("/health")
    async def health() -> JSONResponse:
        return JSONResponse({"status": "ok"}) if engine.works else JSONResponse({"status": "failed"}, 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        engine.metrics.waiting.set(engine.waiting_seconds())
        return Response(engine.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    add_error_handlers(app)
    return app


def add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(HTTPException)
    async def refused(_request: Request, error: HTTPException) -> Response:
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def misread(_request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][1:])
        return error_response(ApiError(400, f"`{name}`: {first['msg']}.", name))

    @app.exception_handler(Exception)
    async def failed(_request: Request, error: Exception) -> Response:
        return error_response(ApiError(500, f"The server failed: {type(error).__name__}: {error}"))
