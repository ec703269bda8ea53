"""Requests as spans, on a real server."""

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import httpx
import pytest
import websockets.sync.client
from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from audiofoundation.settings import TelemetrySettings
from audiofoundation.telemetry import tracing
from audiofoundation.telemetry.tracing import span
from tests.collector import CLIENT_SPAN, CLIENT_TRACE, CLIENT_TRACEPARENT, Collector, ReceivedSpan, collecting
from tests.unit.transport.serving import AUTHORIZED, KEY, create_sample_app, served

IN_TRACE = {**AUTHORIZED, "traceparent": CLIENT_TRACEPARENT}


class Traced:
    """An application that sends its spans to a collector."""

    def __init__(self, collector: Collector) -> None:
        self.collector = collector
        self.may_end = threading.Event()
        telemetry = TelemetrySettings(otlp_endpoint=collector.endpoint)
        app = create_sample_app(telemetry=telemetry)
        add_routes(app, self.may_end)
        self.running = ExitStack()
        self.running.enter_context(tracing.tracing(telemetry, service="sample"))
        self.url = self.running.enter_context(served(app))

    def spans(self) -> list[ReceivedSpan]:
        """End the server, and with it what it is still at after an answer; return all spans."""
        self.running.close()
        return self.collector.spans


@pytest.fixture
def traced() -> Iterator[Traced]:
    with collecting() as collector:
        made = Traced(collector)
        with made.running:
            yield made


def add_routes(app: FastAPI, may_end: threading.Event) -> None:
    @app.get("/v1/things/{thing}")
    def thing(thing: str) -> str:
        with span("look up"):
            return thing

    @app.get("/v1/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"first"
            await run_in_threadpool(may_end.wait)
            yield b"last"

        return StreamingResponse(parts())


def test_a_request_continues_the_clients_trace_and_is_named_by_its_route(traced: Traced) -> None:
    answer = httpx.get(f"{traced.url}/v1/things/7", headers=IN_TRACE, params={"token": "open-sesame"})
    assert answer.status_code == 200
    below, request = traced.spans()
    assert (request.service, request.kind) == ("audiofoundation-sample", "server")
    assert (request.name, request.trace_id, request.parent_id) == (
        "GET /v1/things/{thing}",
        CLIENT_TRACE,
        CLIENT_SPAN,
    )
    assert request.attributes == {
        "http.request.method": "GET",
        "http.route": "/v1/things/{thing}",
        "http.response.status_code": 200,
        "request_id": answer.headers["X-Request-Id"],
    }
    assert (below.name, below.parent_id) == ("look up", request.span_id), "routes run in another thread"
    sent = b"".join(traced.collector.bodies)
    assert b"open-sesame" not in sent
    assert KEY.encode() not in sent


@pytest.mark.parametrize(
    ("method", "path", "name", "status", "error"),
    [
        ("GET", "/v1/undecodable", "GET /v1/undecodable", 422, None),
        ("GET", "/v1/broken", "GET /v1/broken", 500, "ZeroDivisionError"),
        ("GET", "/v1/nowhere", "GET", 404, None),
        ("PROPFIND", "/v1/nowhere", "other", 404, None),
    ],
)
def test_what_went_wrong_is_told_and_no_more(
    traced: Traced, method: str, path: str, name: str, status: int, error: str | None
) -> None:
    httpx.request(method, traced.url + path, headers=AUTHORIZED)
    (request,) = traced.spans()
    assert (request.name, request.attributes["http.response.status_code"]) == (name, status)
    assert request.error == error
    assert b"a secret detail" not in b"".join(traced.collector.bodies)


def test_who_has_no_key_is_traced_as_well(traced: Traced) -> None:
    httpx.get(f"{traced.url}/v1/things/7")
    (request,) = traced.spans()
    assert (request.name, request.attributes["http.response.status_code"]) == ("GET", 401)


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/health", "/metrics"])
def test_probes_and_scrapes_are_not_traced(traced: Traced, path: str) -> None:
    httpx.get(traced.url + path)
    assert traced.spans() == []


def test_a_stream_arrives_while_it_is_made_and_its_span_lasts_as_long(traced: Traced) -> None:
    with httpx.stream("GET", f"{traced.url}/v1/stream", headers=AUTHORIZED) as answer:
        parts = answer.iter_raw()
        assert next(parts) == b"first"
        assert traced.collector.named("GET /v1/stream") == []
        traced.may_end.set()
        assert b"".join(parts) == b"last"
    assert [found.name for found in traced.spans()] == ["GET /v1/stream"]


def test_a_websocket_is_one_span(traced: Traced) -> None:
    url = traced.url.replace("http", "ws") + "/v1/echo?key=open-sesame"
    with websockets.sync.client.connect(url, additional_headers=IN_TRACE) as socket:
        socket.send("hello")
        assert socket.recv() == "hello"
        with pytest.raises(websockets.exceptions.ConnectionClosedOK):
            socket.recv()
    (request,) = traced.spans()
    assert (request.name, request.trace_id) == ("WEBSOCKET /v1/echo", CLIENT_TRACE)
    assert request.attributes["websocket.close_code"] == 1000
    assert b"open-sesame" not in b"".join(traced.collector.bodies)
