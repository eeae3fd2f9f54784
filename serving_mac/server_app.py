"""The app: which paths a server answers, and the way of a request from its head to its answer."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from processing_mac import AudioCaptioningPipeline
from processing_mac.free_cores_mac import FreeCores

from .server_answers import format_answer, stream_answer
from .server_batches import Batcher
from .server_captions import Answer, Job, caption_jobs
from .server_errors import ApiError, add_error_handlers
from .server_metrics import ServerMetrics
from .server_options import ServerOptions
from .server_uploads import LimitedBody, Question, check_token, decode, find_file, open_form, read_question


LOG = logging.getLogger("uvicorn.error")
GONE = 499  # as nginx counts a client that went away; nobody reads it
DECODERS = 2  # threads


class CaptionService:
    """
    Takes requests in, within the limits, and answers them.

    Args:
        captioner: Pipeline of the model.
        options: Limits and habits.

    Attributes:
        submit: Gets the answer to a job; Ray's batching takes the place of the batcher's here.
    """

    def __init__(self, captioner: AudioCaptioningPipeline, options: ServerOptions):
        self.captioner = captioner
        self.options = options
        self.metrics = ServerMetrics()
        self.decoders = ThreadPoolExecutor(DECODERS, "decode")
        self.inside = 0
        self.started = int(time.time())
        self.free_cores = FreeCores()
        self.batcher = Batcher(
            self.caption_batch,
            options.max_batch,
            options.batch_wait_ms / 1000,
            self.metrics.count_batch,
        )
        self.submit: Callable[[Job], Awaitable[Answer]] = self.batcher.submit

    def caption_batch(self, jobs: Sequence[Job]) -> list[Answer]:
        """Caption a batch, on a CPU with as many threads as other programs leave cores free; in the model's thread."""
        if self.captioner.device.type == "cpu" and not self.captioner.is_compiled:
            self.free_cores.take()
        return caption_jobs(self.captioner, jobs, self.options.num_beams)

    async def transcribe(self, request: Request) -> Response:
        """Answer a request for a caption, and count it."""
        start = time.perf_counter()
        body = LimitedBody(request, round(self.options.max_megabytes * 1e6))
        status = 500
        try:
            check_token(request, self.options.token)
            response = await self.admit(body, start)
            status = response.status_code
            return response
        except ApiError as error:
            status = error.status
            await body.drain()
            raise
        finally:
            self.metrics.requests.labels(status).inc()
            self.metrics.seconds.observe(time.perf_counter() - start)

    async def admit(self, body: LimitedBody, start: float) -> Response:
        """Let a request in if there is room; a stream keeps its place until its last event."""
        if self.inside >= self.options.max_requests:
            seconds = self.batcher.seconds_until_free(self.inside)
            told = f"{self.inside} requests are inside, which is the limit; try again in {seconds} s"
            raise ApiError(429, told, "too_many_requests", headers={"Retry-After": str(seconds)})
        self.enter(1)
        stream = None
        try:
            request = body.limited()
            job, question = await self.read(request)
            if question.stream:
                stream = EventStream(self.write_stream(job, start), leave=lambda: self.enter(-1))
                return stream
            return await self.answer(request, job, question, start)
        finally:
            if stream is None:
                self.enter(-1)

    def enter(self, change: int) -> None:
        """Count a request in (1) or out (-1)."""
        self.inside += change
        self.metrics.inside.set(self.inside)

    async def read(self, request: Request) -> tuple[Job, Question]:
        """Read a request and decode its recording."""
        try:
            async with asyncio.timeout(self.options.timeout_seconds), open_form(request) as form:
                question = read_question(form, self.options)
                task = (self.captioner.processor, *find_file(form), question, self.options.max_seconds)
                return await asyncio.get_running_loop().run_in_executor(self.decoders, decode, *task), question
        except TimeoutError as error:
            told = f"the recording did not come within {self.options.timeout_seconds:g} s"
            raise ApiError(408, told, "upload_timeout") from error
        except ClientDisconnect as error:
            raise ApiError(GONE, "the client went away", "client_gone") from error

    async def answer(self, request: Request, job: Job, question: Question, start: float) -> Response:
        """Wait for the caption, but no longer than the client does."""
        waiting = asyncio.create_task(self.caption(job, start))
        leaving = asyncio.create_task(disconnected(request))
        try:
            await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return format_answer(waiting.result(), question, self.options.language)
            raise ApiError(GONE, "the client went away", "client_gone")
        finally:
            for task in (waiting, leaving):
                task.cancel()
            await asyncio.gather(waiting, leaving, return_exceptions=True)

    async def caption(self, job: Job, start: float) -> Answer:
        """Get the answer to a job within the time that is left to its request."""
        try:
            async with asyncio.timeout(self.options.timeout_seconds - (time.perf_counter() - start)):
                answer = await self.submit(job)
        except TimeoutError as error:
            told = f"no answer within {self.options.timeout_seconds:g} s"
            raise ApiError(504, told, "timeout") from error
        except Exception as error:
            LOG.exception("the model failed")
            told = "the model failed at this recording; the server's log says why"
            raise ApiError(500, told, "internal_error") from error
        self.metrics.audio.inc(answer.seconds)
        return answer

    async def write_stream(self, job: Job, start: float) -> AsyncGenerator[str | Answer | ApiError, None]:
        """Give the caption so far as it grows, at last the answer or an error."""
        loop = asyncio.get_running_loop()
        texts: asyncio.Queue[str | None] = asyncio.Queue()

        def tell(text: str) -> None:
            loop.call_soon_threadsafe(texts.put_nowait, text)

        job.on_text = tell
        waiting = asyncio.create_task(self.caption(job, start))
        waiting.add_done_callback(lambda task: texts.put_nowait(None))
        try:
            while (text := await texts.get()) is not None:
                yield text
            try:
                yield waiting.result()
            except ApiError as error:
                yield error
        finally:
            waiting.cancel()


class EventStream(StreamingResponse):
    """
    Sends server-sent events, and says when it is over, however that comes.

    Args:
        pieces: What `stream_answer` takes.
        leave: Called at the end: after the last event, or when the client has gone away.
    """

    def __init__(self, pieces: AsyncGenerator[str | Answer | ApiError, None], leave: Callable[[], None]):
        super().__init__(stream_answer(pieces), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self.pieces, self.leave = pieces, leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.leave()
            await self.pieces.aclose()


async def disconnected(request: Request) -> None:
    """Return when the client has gone away; its body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def make_app(service: CaptionService) -> FastAPI:
    """Make the app around a service."""

    @asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        worker = asyncio.create_task(service.batcher.run())
        yield
        worker.cancel()
        with suppress(asyncio.CancelledError):
            await worker

    app = FastAPI(title="MAC", docs_url=None, redoc_url=None, lifespan=live)
    add_error_handlers(app)
    options = service.options

    @app.post("/v1/audio/transcriptions")
    async def transcriptions(request: Request) -> Response:
        return await service.transcribe(request)

    def describe_model() -> dict[str, Any]:
        return {"id": options.name, "object": "model", "created": service.started, "owned_by": "mac"}

    @app.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        check_token(request, options.token)
        return {"object": "list", "data": [describe_model()]}

    @app.get("/v1/models/{name:path}")
    async def model(request: Request, name: str) -> dict[str, Any]:
        check_token(request, options.token)
        if name != options.name:
            raise ApiError(404, f"there is no model {name[:100]!r} here; expected {options.name!r}", "model_not_found")
        return describe_model()

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "model": options.name, "requests_inside": service.inside}

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        check_token(request, options.token)
        return PlainTextResponse(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app
