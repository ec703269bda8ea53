"""A collector of traces: a real HTTP server on a loopback port that reads real OTLP."""

import http.server
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.servers import wait_until

CLIENT_TRACE = "0af7651916cd43dd8448eb211c80319c"
CLIENT_SPAN = "b7ad6b7169203331"
CLIENT_TRACEPARENT = f"00-{CLIENT_TRACE}-{CLIENT_SPAN}-01"


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """A span as it came over the wire; `error` is None where it did not fail, `links` are span ids."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    links: tuple[str, ...]
    attributes: Mapping[str, str | int | float | bool]
    error: str | None


@dataclass(slots=True)
class Collector:
    """What was received."""

    spans: list[ReceivedSpan] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def named(self, name: str) -> list[ReceivedSpan]:
        return [span for span in list(self.spans) if span.name == name]

    def one(self, name: str) -> ReceivedSpan:
        (found,) = self.named(name)
        return found

    def children_of(self, parent: ReceivedSpan) -> list[str]:
        """Return the names of a span's children in the order in which they began."""
        return [span.name for span in list(self.spans) if span.parent_id == parent.span_id]

    def wait_for(self, is_there: Callable[[], bool], what: str, *, timeout_s: float = 30.0) -> None:
        wait_until(is_there, timeout_s=timeout_s, what=f"{what}; there are {sorted(span.name for span in self.spans)}")

    def take(self, body: bytes) -> None:
        self.bodies.append(body)
        request = ExportTraceServiceRequest.FromString(body)
        found = []
        for resource in request.resource_spans:
            service = _attributes(resource.resource.attributes)["service.name"]
            found += [_to_span(str(service), span) for scope in resource.scope_spans for span in scope.spans]
        self.spans += found


@contextmanager
def collecting() -> Iterator[Collector]:
    """Receive spans while the block runs."""
    collector = Collector()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            is_ours = self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
            if is_ours:
                collector.take(body)
            self.send_response(200 if is_ours else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.port = listener.server_port
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


def _to_span(service: str, span: Span) -> ReceivedSpan:
    return ReceivedSpan(
        service=service,
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        links=tuple(link.span_id.hex() for link in span.links),
        attributes=_attributes(span.attributes),
        error=span.status.message if span.status.code == 2 else None,
    )


def _attributes(pairs: "list[KeyValue]") -> dict[str, str | int | float | bool]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> str | int | float | bool:
    found: str | int | float | bool = getattr(value, value.WhichOneof("value") or "string_value")
    return found
