"""What is decided before a byte of the body is read: who calls, and whether the body fits.

FastAPI parses a body before it runs dependencies, so a limit or a key checked there comes after the upload
was spooled to disk. These checks are plain ASGI around the whole application.
"""

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from audiofoundation.errors import AudioFoundationError, DeadlineExceeded, PayloadTooLarge
from audiofoundation.transport.auth import Authenticator
from audiofoundation.transport.errors import HTTP_STATUS, error_body, error_headers
from audiofoundation.transport.request_id import request_id_of

_PROTECTED = "/v1/"
# Original files of collections are streamed to disk, so they may be larger than bodies held in memory.
_UPLOADS = "/v1/collections/"
_LINGER_S = 2.0
_SILENCE_S = 30.0


class GatekeeperMiddleware:
    """Refuses requests under /v1 without a valid key, and bodies that are too large or never arrive."""

    def __init__(
        self, app: ASGIApp, *, authenticator: Authenticator, max_body_bytes: int, max_upload_bytes: int
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._max_body_bytes = max_body_bytes
        self._max_upload_bytes = max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # WebSockets authenticate before they accept: transport.websocket
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        is_upload = scope["method"] == "PUT" and scope["path"].startswith(_UPLOADS)
        limit = self._max_upload_bytes if is_upload else self._max_body_bytes
        try:
            if scope["path"].startswith(_PROTECTED):
                self._authenticator.check_header(headers.get("authorization"))
            _check_length(headers.get("content-length"), limit)
        except AudioFoundationError as error:
            await _refuse(error, scope, receive, send)
            return
        await self._app(scope, self._watched(receive, limit), send)

    def _watched(self, receive: Receive, limit: int) -> Receive:
        """Count a body while it arrives, for its length may be undeclared, and do not wait for ever."""
        num_bytes, is_complete = 0, False

        async def watched() -> Message:
            nonlocal num_bytes, is_complete
            try:
                async with asyncio.timeout(None if is_complete else _SILENCE_S):
                    message = await receive()
            except TimeoutError as error:
                raise DeadlineExceeded(f"no byte of the body arrived for {_SILENCE_S:.0f} s") from error
            is_complete = not message.get("more_body", False)
            num_bytes += len(message.get("body", b""))
            if num_bytes > limit:
                raise _too_large(limit)
            return message

        return watched


def _check_length(content_length: str | None, limit: int) -> None:
    if content_length and content_length.isdecimal() and int(content_length) > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body is larger than the {limit / (1 << 20):g} MiB that this server takes")


async def _refuse(error: AudioFoundationError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer at once, then throw away what the client is still sending.

    Closing a socket with unread bytes resets it, and the client would never see the answer.
    """
    headers = {**error_headers(error), "Connection": "close"}
    body = error_body(error, request_id_of(scope))
    response = JSONResponse(body, status_code=HTTP_STATUS[error.code], headers=headers)

    async def send_unfinished(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "more_body": True}
        await send(message)

    await response(scope, receive, send_unfinished)
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while (await receive()).get("more_body", False):
                pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})
