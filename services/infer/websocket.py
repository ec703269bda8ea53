"""The WebSocket door: configuration, prompt in, continuation out as it is made.

Client: `session.config` (sticky: later ones change single fields), binary frames with the prompt, `input.done`;
`response.cancel` at any time. Server: `audio.start`, binary frames, `audio.done`; `error` for a request that
failed, after which the next may follow, or for a text frame that is wrong, after which a `session.config` must that
is right: nothing is made by another configuration than the one asked for. The socket is closed on overload (1013), for
clients that do not read (1013) and for prompts over the limit (1009). Where all places for sessions are taken there is
a 503 instead.
"""

import asyncio
import json
from collections.abc import Awaitable, Mapping
from contextlib import suppress

import structlog
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import ValidationError
from starlette.websockets import WebSocketState

from audiofoundation.errors import (
    AudioFoundationError,
    Cancelled,
    Conflict,
    InvalidRequest,
    Overloaded,
    PayloadTooLarge,
)
from audiofoundation.inference.delivery import Delivery
from audiofoundation.inference.reading import PcmLayout, Recording
from audiofoundation.inference.sessions import HeldBytes
from audiofoundation.inference.streaming import RunningContinuation
from audiofoundation.transport.websocket import authenticate, refuse
from services.infer import converters
from services.infer.schemas import SessionConfig
from services.infer.slow_clients import ClientTooSlow
from services.infer.wiring import InferContainer

_SEND_TIMEOUT_S = 5.0
_CLOSE_TIMEOUT_S = 1.0
_TRY_AGAIN_LATER, _INTERNAL_ERROR = 1013, 1011

_log = structlog.get_logger(__name__)


def create_websocket_router(container: InferContainer) -> APIRouter:
    """Return the WebSocket route over this container."""
    router = APIRouter()

    @router.websocket("/v1/audio/continuations/stream")
    async def stream(websocket: WebSocket) -> None:
        subprotocol = await authenticate(websocket)
        with container.sessions.place() as held:
            await websocket.accept(subprotocol=subprotocol)
            await Session(websocket, container, held).run()

    return router


class Session:
    """One socket: a sticky configuration and at most one continuation under way."""

    def __init__(self, websocket: WebSocket, container: InferContainer, held: HeldBytes) -> None:
        self._websocket, self._container, self._held = websocket, container, held
        self._config = SessionConfig()
        self._is_refused = False
        self._prompt = bytearray()
        self._answering: asyncio.Task[None] | None = None
        self._running: RunningContinuation | None = None
        self._is_cancelled = False

    async def run(self) -> None:
        """Serve until the client leaves or has to be sent away."""
        try:
            await self._listen()
        except ClientTooSlow:
            await self._send_away()
        except WebSocketDisconnect:
            return
        finally:
            await self._stop()

    async def _listen(self) -> None:
        while (message := await self._websocket.receive())["type"] != "websocket.disconnect":
            await self._take(message.get("text"), message.get("bytes"))

    async def _take(self, text: str | None, data: bytes | None) -> None:
        try:
            if data is not None:
                self._add_prompt(data)
            elif text is not None:
                self._obey(text)
        except (PayloadTooLarge, Overloaded) as error:
            await self._send(refuse(self._websocket, error))
            raise WebSocketDisconnect from error
        except AudioFoundationError as error:
            await self._send_error(error)

    def _add_prompt(self, data: bytes) -> None:
        limit = self._container.max_prompt_bytes
        if len(self._prompt) + len(data) > limit:
            raise PayloadTooLarge(f"the prompt is larger than the {limit / (1 << 20):g} MiB that this server takes")
        self._held.add(len(data))
        self._prompt += data

    def _obey(self, text: str) -> None:
        was_refused, self._is_refused = self._is_refused, True  # until the frame turns out to be right
        event = _parse(text)
        match event.get("type"):
            case "session.config":
                self._config = _changed(self._config, event)
                self._is_refused = False
                if was_refused:
                    self._drop_prompt()  # it came with what was refused
            case "input.done":
                self._is_refused = was_refused
                self._start_answer()
            case "response.cancel":
                self._is_refused = was_refused
                self._cancel()
            case other:
                raise InvalidRequest(
                    f"this socket takes session.config, input.done and response.cancel, not {other!r}", param="type"
                )

    def _start_answer(self) -> None:
        if self._answering is not None and not self._answering.done():
            raise Conflict("a continuation is under way on this socket; wait for audio.done or cancel it")
        if self._is_refused:
            self._drop_prompt()
            raise InvalidRequest(
                "a text frame before was refused, so that this would not be what was asked for: "
                "send session.config with all its fields again, then the prompt"
            )
        prompt, self._prompt = bytes(self._prompt), bytearray()
        self._is_cancelled = False
        self._answering = asyncio.ensure_future(self._answer(self._config, prompt))

    def _drop_prompt(self) -> None:
        """Forget what has come of a prompt."""
        self._held.release(len(self._prompt))
        self._prompt.clear()

    def _cancel(self) -> None:
        self._is_cancelled = True
        if self._running is not None:
            self._running.cancel()

    async def _stop(self) -> None:
        """Leave nothing running behind."""
        self._cancel()
        if self._answering is not None:
            self._answering.cancel()
            with suppress(asyncio.CancelledError):
                await self._answering

    async def _answer(self, config: SessionConfig, prompt: bytes) -> None:
        """Answer one request, whatever its end; only a defect of ours leaves this with an error."""
        is_defect = True
        try:
            await self._continue_or_say_why(config, prompt)
            is_defect = False
        except ClientTooSlow:
            is_defect = False
            await self._send_away()
        except (WebSocketDisconnect, asyncio.CancelledError):
            is_defect = False
        finally:
            self._running = None
            self._held.release(len(prompt))
            if is_defect:
                await self._close(_INTERNAL_ERROR, "this failed on our side")

    async def _continue_or_say_why(self, config: SessionConfig, prompt: bytes) -> None:
        try:
            await self._continue(config, prompt)
        except Overloaded as error:
            await self._send(refuse(self._websocket, error))
        except AudioFoundationError as error:
            await self._send_error(error)

    async def _continue(self, config: SessionConfig, prompt: bytes) -> None:
        self._container.runner.admission.check()
        recording = await self._read_prompt(config, prompt)
        request = converters.to_request(config, recording.waveform, seed=config.seed)
        self._running = running = self._container.runner.start(request)
        delivery = Delivery(running, converters.to_websocket_format(config), sample_rate_hz=config.sample_rate)
        try:
            if self._is_cancelled:
                running.cancel()
            await delivery.begin()
            start = converters.to_start_message(running, delivery, recording, config.response_format)
            await self._send_json(start)
            async for chunk in delivery.chunks():
                await self._send(self._websocket.send_bytes(chunk))
        except Cancelled:
            if not self._is_cancelled:
                raise
        finally:
            running.cancel()
        await self._send_json(converters.to_done_message(running, delivery, is_cancelled=self._is_cancelled))

    async def _read_prompt(self, config: SessionConfig, prompt: bytes) -> Recording:
        reader = self._container.reader
        if config.prompt_format == "pcm16":
            return await reader.read_pcm16(prompt, PcmLayout(config.prompt_sample_rate, config.prompt_channels))
        return await reader.read(prompt, rate_hz=self._container.rate_hz)

    async def _send_error(self, error: AudioFoundationError) -> None:
        await self._send_json({"type": "error", "code": error.code.value, "message": error.message})

    async def _send_json(self, message: Mapping[str, object]) -> None:
        await self._send(self._websocket.send_text(json.dumps(message)))

    async def _send(self, sending: Awaitable[None]) -> None:
        try:
            await asyncio.wait_for(sending, _SEND_TIMEOUT_S)
        except TimeoutError as error:
            raise ClientTooSlow from error
        except RuntimeError as error:  # Starlette's word for a socket that we have closed, here or in the other task
            if self._websocket.application_state is WebSocketState.CONNECTED:
                raise
            raise WebSocketDisconnect from error

    async def _send_away(self) -> None:
        _log.info("websocket_client_too_slow")
        await self._close(_TRY_AGAIN_LATER, "frames were not read in time")

    async def _close(self, code: int, reason: str) -> None:
        with suppress(TimeoutError, RuntimeError, WebSocketDisconnect):  # it may be closed already
            await asyncio.wait_for(self._websocket.close(code, reason), _CLOSE_TIMEOUT_S)


def _parse(text: str) -> dict[str, object]:
    try:
        event = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"a text frame must be JSON: {error}") from error
    if not isinstance(event, dict):
        raise InvalidRequest("a text frame must be a JSON object with a type")
    return event


def _changed(config: SessionConfig, event: dict[str, object]) -> SessionConfig:
    """Return the configuration with the fields of the event replaced."""
    try:
        return SessionConfig.model_validate({**config.model_dump(), **event})
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(f"session.config, {param}: {first['msg']}", param=param) from error
