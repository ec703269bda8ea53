"""Prometheus: how many requests, how long, with what end; and whatever else the process registers."""

import time

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from audiofoundation.transport.catalog_metrics import CatalogMetrics

_REQUESTS = Counter("http_requests_total", "Requests by route and status", ("method", "route", "status"))
_SECONDS = Histogram("http_request_seconds", "Seconds until the last byte", ("method", "route"))
_RUNNING = Gauge("http_requests_running", "Requests being answered now")
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


class MetricsMiddleware:
    """Counts requests by route template, never by path: labels must stay few."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with _RUNNING.track_inprogress():
            try:
                await self._app(scope, receive, send_noted)
            finally:
                method, route = method_of(scope), route_of(scope) or "unmatched"
                _REQUESTS.labels(method, route, str(status)).inc()
                _SECONDS.labels(method, route).observe(time.perf_counter() - started)


def create_metrics_router() -> APIRouter:
    """Return the route that Prometheus scrapes; it needs no key."""
    router = APIRouter(tags=["health"])

    @router.get("/metrics", summary="Prometheus metrics", response_class=Response)
    def metrics(request: Request) -> Response:
        catalog: CatalogMetrics | None = getattr(request.app.state, "catalog_metrics", None)
        more = b"" if catalog is None else catalog.exposition()
        return Response(generate_latest(REGISTRY) + more, media_type=CONTENT_TYPE_LATEST)

    return router


def method_of(scope: Scope) -> str:
    """Return the request's method; `other` for what a client invented."""
    return scope["method"] if scope["method"] in _METHODS else "other"


def route_of(scope: Scope) -> str | None:
    """Return the template of the route that was found for the request; None when there was none."""
    path = getattr(scope.get("route"), "path", None)
    return None if path is None else str(path)
