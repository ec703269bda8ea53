"""One id per request, in the logs and in the answer, so that a complaint can be found again."""

import re
from collections.abc import Mapping
from typing import Any

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from audiofoundation.identifiers import create_id

HEADER = "X-Request-Id"
_ACCEPTED = re.compile(rb"[A-Za-z0-9_.\-]{8,64}")


class RequestIdMiddleware:
    """Takes the caller's `X-Request-Id` when it is harmless, else makes one; binds it to the log context."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id = _from_headers(scope) or create_id("req")
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._app(scope, receive, send_with_id)


def request_id_of(scope: Mapping[str, Any]) -> str:
    """Return the id that the middleware gave to this connection."""
    return str(scope.get("state", {}).get("request_id", "unknown"))


def _from_headers(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ACCEPTED.fullmatch(value):
            return str(value.decode("ascii"))
    return None
