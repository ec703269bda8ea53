"""A span for each request and WebSocket, named by its route; it continues the trace that the client is in.

Ours and not FastAPI's own or Starlette's: they send paths and query strings, which hold ids, titles and addresses.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from audiofoundation.telemetry.tracing import Origin, Span, SpanKind, span
from audiofoundation.transport.metrics import method_of, route_of
from audiofoundation.transport.request_id import request_id_of

_UNTRACED = ("/health", "/metrics")
_SERVER_ERROR = 500


class TracingMiddleware:
    """Traces what comes in, but for probes and scrapes. One wrapper around `send`, and none around each message."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or scope["path"].startswith(_UNTRACED):
            await self._app(scope, receive, send)
            return
        name = "WEBSOCKET" if scope["type"] == "websocket" else method_of(scope)
        with span(name, kind=SpanKind.REQUEST, origin=Origin(traceparent=_traceparent_of(scope))) as served:

            async def send_noted(message: Message) -> None:
                if message["type"] in ("http.response.start", "websocket.http.response.start"):
                    _note_status(served, message["status"])
                elif message["type"] == "websocket.close":
                    served.set({"websocket.close_code": message.get("code", 1000)})
                await send(message)

            try:
                await self._app(scope, receive, send_noted)
            except Exception:  # Starlette's outermost layer answers it
                _note_status(served, _SERVER_ERROR)
                raise
            finally:
                _describe(served, scope, name)


def _describe(served: Span, scope: Scope, name: str) -> None:
    """Say what is known only at the end: the route, and the id that the answer carries."""
    served.set({"request_id": request_id_of(scope)})
    if scope["type"] == "http":
        served.set({"http.request.method": name})
    route = route_of(scope)
    if route is not None:
        served.rename(f"{name} {route}")
        served.set({"http.route": route})


def _note_status(served: Span, status: int) -> None:
    served.set({"http.response.status_code": status})
    if status >= _SERVER_ERROR:
        served.fail(str(status))


def _traceparent_of(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"traceparent":
            return str(value.decode("latin-1"))
    return None
