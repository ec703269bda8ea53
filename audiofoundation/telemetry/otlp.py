"""OpenTelemetry's SDK: spans in batches over HTTP to a collector. The one file that knows it.

A collector that is away costs traces and nothing else: the queue is bounded, a thread sends, and an end waits briefly.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from audiofoundation.errors import AudioFoundationError
from audiofoundation.settings import TelemetrySettings
from audiofoundation.telemetry.tracing import Attributes, Origin, Span, SpanKind

_MAX_WAITING = 2048  # spans; more are dropped
_PAUSE_S = 2.0  # between batches: what a kill loses
_EXPORT_S = 5.0
_FLUSH_S = 3.0
_COMPLAINT_EVERY_S = 60.0
_KINDS = {
    SpanKind.STEP: trace.SpanKind.INTERNAL,
    SpanKind.REQUEST: trace.SpanKind.SERVER,
    SpanKind.JOB: trace.SpanKind.CONSUMER,
}
_HEADER = "traceparent"
_w3c = TraceContextTextMapPropagator()


class _OnceInAWhile(logging.Filter):
    """Lets one of the exporter's complaints through a minute; it has one or two for every batch."""

    _silent_until = 0.0

    def filter(self, _record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now < self._silent_until:
            return False
        self._silent_until = now + _COMPLAINT_EVERY_S
        return True


_once_in_a_while = _OnceInAWhile()


class OtlpTracer:
    """Makes spans and sends them. Make it after the last fork: its thread does not live on in a child."""

    def __init__(self, settings: TelemetrySettings, *, service: str) -> None:
        logging.getLogger(trace_exporter.__name__).addFilter(_once_in_a_while)
        exporter = trace_exporter.OTLPSpanExporter(f"{settings.otlp_endpoint}/v1/traces", timeout=_EXPORT_S)
        resource = Resource.create({"service.name": service, "service.version": version("audiofoundation")})
        self._provider = TracerProvider(
            sampler=ParentBasedTraceIdRatio(settings.trace_ratio),
            resource=resource.merge(Resource({"process.pid": os.getpid()})),
            shutdown_on_exit=False,  # `stop` does it, and has an end
        )
        processor = BatchSpanProcessor(exporter, max_queue_size=_MAX_WAITING, schedule_delay_millis=_PAUSE_S * 1000)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("audiofoundation")

    @contextmanager
    def span(self, name: str, attributes: Attributes, kind: SpanKind, origin: Origin | None) -> Iterator[Span]:
        """Yield a span that is current in the block."""
        with self._tracer.start_as_current_span(
            name,
            context=None if origin is None else _parent(origin.traceparent),
            kind=_KINDS[kind],
            attributes=attributes,
            links=[] if origin is None else _links(origin.trace_link),
            record_exception=False,  # it would send the message, which may name an address
            set_status_on_exception=False,
        ) as started:
            made = _OtlpSpan(started)
            try:
                yield made
            except AudioFoundationError as error:
                made.fail(error.code.value)
                raise
            except BaseException as error:
                made.fail(type(error).__name__)
                raise

    def current(self) -> Span:
        """Return the current span; one that goes nowhere when there is none."""
        return _OtlpSpan(trace.get_current_span())

    def traceparent(self) -> str | None:
        """Return the current span as other processes are told of it; None when there is none."""
        carrier: dict[str, str] = {}
        _w3c.inject(carrier)
        return carrier.get(_HEADER)

    def stop(self) -> None:
        """Send what is left. The SDK may take half a minute over that, so it has a thread that may be left behind."""
        flushing = threading.Thread(target=self._provider.shutdown, name="traces-flush", daemon=True)
        flushing.start()
        flushing.join(_FLUSH_S)


class _OtlpSpan:
    """A span of the SDK as the rest of the library sees it."""

    def __init__(self, started: trace.Span) -> None:
        self._span = started

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def fail(self, error_class: str) -> None:
        self._span.set_attribute("error_class", error_class)
        self._span.set_status(trace.StatusCode.ERROR, error_class)


def _parent(traceparent: str | None) -> Context:
    """Return the context of a parent; that of a root when there is none, or none that can be read."""
    carrier = {} if traceparent is None else {_HEADER: traceparent}
    return _w3c.extract(carrier, context=Context())


def _links(traceparent: str | None) -> list[trace.Link]:
    found = trace.get_current_span(_parent(traceparent)).get_span_context()
    return [trace.Link(found)] if found.is_valid else []
