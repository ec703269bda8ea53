"""WebSockets: who may open one, and how an error ends one.

CORS and HTTP middleware do not run for WebSockets, so origin and key are checked here, before `accept`.
"""

from urllib.parse import urlsplit

from fastapi.responses import JSONResponse
from starlette.websockets import WebSocket, WebSocketState

from audiofoundation.errors import AudioFoundationError, Forbidden
from audiofoundation.transport.auth import Authenticator, bearer_token
from audiofoundation.transport.errors import HTTP_STATUS, WEBSOCKET_CLOSE, error_body
from audiofoundation.transport.request_id import request_id_of

_MAX_REASON_BYTES = 120  # RFC 6455: a close frame carries at most 123
_TOKEN_PROTOCOLS = ("bearer.", "openai-insecure-api-key.")


async def authenticate(websocket: WebSocket) -> str | None:
    """Check origin and key; return the subprotocol to accept with, if the client named any.

    Browsers cannot set headers on a WebSocket: they offer the key as subprotocol `bearer.KEY` (or in OpenAI's
    form) beside a real one. A key in the URL would end up in logs and is not looked at. Let the error pass:
    the application's handler answers it with 401 or 403 in place of the upgrade.

    Raises:
        Forbidden: a browser page of a foreign origin asks.
        Unauthenticated: no valid key came.
    """
    allowed: tuple[str, ...] = websocket.app.state.settings.serving.allowed_origins
    _check_origin(websocket, allowed)
    authenticator: Authenticator = websocket.app.state.authenticator
    offered: list[str] = websocket.scope.get("subprotocols", [])
    token = bearer_token(websocket.headers.get("authorization")) or _token_among(offered)
    authenticator.check(token)
    return next((name for name in offered if not name.startswith(_TOKEN_PROTOCOLS)), None)


async def refuse(websocket: WebSocket, error: AudioFoundationError) -> None:
    """End a WebSocket because of an error: by an HTTP answer before `accept`, else by message and close."""
    if websocket.application_state is WebSocketState.CONNECTING:
        body = error_body(error, request_id_of(websocket.scope))
        await websocket.send_denial_response(JSONResponse(body, status_code=HTTP_STATUS[error.code]))
    elif websocket.application_state is WebSocketState.CONNECTED and websocket.client_state is WebSocketState.CONNECTED:
        await websocket.send_json({"type": "error", "code": error.code.value, "message": error.message})
        await websocket.close(WEBSOCKET_CLOSE[error.code], close_reason(error))


def close_reason(error: AudioFoundationError) -> str:
    """Return the error's message, cut to what a close frame can carry."""
    return error.message.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")


def _check_origin(websocket: WebSocket, allowed: tuple[str, ...]) -> None:
    origin = websocket.headers.get("origin")
    if origin is None or origin in allowed:  # only browsers send one, and pages cannot leave it out
        return
    if urlsplit(origin).netloc != websocket.headers.get("host"):
        raise Forbidden(f"pages of {origin} may not connect; name it in AF_SERVING__ALLOWED_ORIGINS")


def _token_among(offered: list[str]) -> str | None:
    for name in offered:
        for prefix in _TOKEN_PROTOCOLS:
            if name.startswith(prefix):
                return name.removeprefix(prefix)
    return None
