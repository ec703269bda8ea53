"""The HTTP doors: continuations, classification and the list of models."""

import asyncio
import base64
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from audiofoundation.audio.encode import AudioFormat
from audiofoundation.errors import AudioFoundationError, Cancelled
from audiofoundation.inference.delivery import Delivery
from audiofoundation.inference.reading import Recording
from audiofoundation.inference.streaming import RunningContinuation
from audiofoundation.ingestion.fetch import FetchBudget, fetch_to_file
from services.infer import converters
from services.infer.schemas import (
    AudioDelta,
    ClassificationBody,
    ClassificationForm,
    ContinuationForm,
    ModelListBody,
)
from services.infer.slow_clients import ClientTooSlow, patient
from services.infer.wiring import InferContainer

_DISCONNECT_POLL_S = 0.1
_FETCH_S = 60.0
_log = structlog.get_logger(__name__)
_AUDIO_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The continuation as it is made, or server-sent events (audio.delta, audio.done, audio.error)",
        "content": {
            **{fmt.content_type: {"schema": {"type": "string", "format": "binary"}} for fmt in AudioFormat},
            "text/event-stream": {"schema": {"type": "string"}},
        },
        "headers": {
            "X-Model-Version": {"description": "Name and hash of the weights", "schema": {"type": "string"}},
            "X-Seam-Score": {
                "description": "0 to 1, how smoothly it joins the prompt; absent when the prompt is too short",
                "schema": {"type": "number"},
            },
            "X-Sample-Rate": {"description": "Samples per second", "schema": {"type": "integer"}},
            "X-Input-Damage": {
                "description": "A sentence, when the recording was damaged and only what decodes was used",
                "schema": {"type": "string"},
            },
        },
    }
}


def create_rest_router(container: InferContainer) -> APIRouter:
    """Return the routes over this container."""
    router = APIRouter(prefix="/v1", tags=["inference"])

    @router.post(
        "/audio/continuations",
        summary="Continue a recording",
        response_class=StreamingResponse,
        responses=_AUDIO_ANSWER,
    )
    async def continuations(
        request: Request, form: Annotated[ContinuationForm, Form(media_type="multipart/form-data")]
    ) -> Response:
        return await _continue(container, request, form)

    @router.post("/audio/classification", summary="Say what a recording holds")
    async def classification(
        form: Annotated[ClassificationForm, Form(media_type="multipart/form-data")],
    ) -> ClassificationBody:
        recording = await container.reader.read_stream(form.file.file, rate_hz=container.rate_hz)
        result = await container.classifier.classify(
            recording.waveform, model=form.model, top_k=form.top_k, threshold=form.threshold
        )
        return converters.to_classification_body(result, recording)

    @router.get("/models", summary="List the models that requests may name")
    async def models(
        task: Annotated[str | None, Query(description="Only of this task: continuation, classification")] = None,
    ) -> ModelListBody:
        found = await container.list_models(task)
        return ModelListBody(
            data=[converters.to_model_body(model, is_default=is_default) for model, is_default in found]
        )

    return router


async def _continue(container: InferContainer, request: Request, form: ContinuationForm) -> Response:
    converters.check_form(form)
    container.runner.admission.check()
    recording = await _read_prompt(container, form)
    if form.stream_format == "sse":
        events = _events(container, request, form, recording)
        first = await anext(events)  # an error before it is an HTTP answer
        return EventsResponse(first, events)
    fmt = AudioFormat(form.response_format)
    running = container.runner.start(converters.to_request(form, recording.waveform, seed=form.seed))
    delivery = Delivery(running, fmt)
    await _begin_unless_gone(delivery, running, request)
    headers = converters.to_headers(running, recording, sample_rate_hz=delivery.sample_rate_hz)
    return ContinuationResponse(delivery.chunks(), running, media_type=fmt.content_type, headers=headers)


class ContinuationResponse(StreamingResponse):
    """An answer that stops its computation when it ends, however it ends."""

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        running: RunningContinuation,
        *,
        media_type: str,
        headers: dict[str, str],
    ) -> None:
        super().__init__(chunks, media_type=media_type, headers=headers)
        self._running = running

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, patient(send))
        except ClientTooSlow:
            _log.info("http_client_too_slow")  # the answer ends here, short of what it promised
        finally:
            self._running.cancel()


class EventsResponse(StreamingResponse):
    """Server-sent events that stop the computation behind them when the answer ends, however it ends."""

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes, None]) -> None:
        super().__init__(_chain(first, rest), media_type="text/event-stream")
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, patient(send))
        except ClientTooSlow:
            _log.info("http_client_too_slow")
        finally:
            await self._rest.aclose()


async def _read_prompt(container: InferContainer, form: ContinuationForm) -> Recording:
    if form.file is not None:
        return await container.reader.read_stream(form.file.file, rate_hz=container.rate_hz)
    assert form.url is not None
    with tempfile.TemporaryDirectory(prefix="fetch-") as folder:
        path = Path(folder) / "prompt"
        budget = FetchBudget(max_bytes=container.max_prompt_bytes, wall_s=_FETCH_S)
        await container.fetching.run(partial(fetch_to_file, form.url, path, settings=container.fetch, budget=budget))
        return await container.reader.read_file(path, rate_hz=container.rate_hz)


async def _begin_unless_gone(delivery: Delivery, running: RunningContinuation, request: Request) -> None:
    """Wait for the first audio, but not for a client that has left."""
    begin = asyncio.ensure_future(delivery.begin())
    try:
        while not begin.done():
            await asyncio.wait([begin], timeout=_DISCONNECT_POLL_S)
            if not begin.done() and await request.is_disconnected():
                raise Cancelled("the client left")
        await begin
    except BaseException:
        begin.cancel()
        running.cancel()
        raise


async def _events(
    container: InferContainer, request: Request, form: ContinuationForm, recording: Recording
) -> AsyncGenerator[bytes, None]:
    """Yield the events of n continuations, one after the other. An error after the first event is an event."""
    is_begun = False
    for index in range(form.n):
        seed = form.seed + index
        try:
            running = container.runner.start(converters.to_request(form, recording.waveform, seed=seed))
            delivery = Delivery(running, AudioFormat(form.response_format))
            try:
                if index == 0:  # later the answer itself is watched
                    await _begin_unless_gone(delivery, running, request)
                else:
                    await delivery.begin()
                async for chunk in delivery.chunks():
                    is_begun = True
                    delta = AudioDelta(index=index, audio=base64.b64encode(chunk).decode())
                    yield converters.to_event(delta.type, delta.model_dump_json())
            finally:
                running.cancel()
        except AudioFoundationError as error:
            if not is_begun:
                raise
            yield converters.to_error_event(error.message, error.code.value)
            return
        done = converters.to_done_event(running, delivery, recording, index=index, seed=seed)
        yield converters.to_event(done.type, done.model_dump_json())


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for item in rest:
        yield item
