"""Traces: spans of requests, jobs and their steps, sent to a collector where the settings name one (docs/adr/0013).

Off, a span costs one comparison. OpenTelemetry is behind `telemetry.otlp`, which only `start_tracing` imports.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType, TracebackType
from typing import Protocol

from audiofoundation.settings import TelemetrySettings

Attributes = Mapping[str, str | bool | int | float]
_NONE: Attributes = MappingProxyType({})
_SAMPLED = 0x01  # of the flags that end a traceparent


class SpanKind(Enum):
    """What a span is to its caller."""

    STEP = auto()
    REQUEST = auto()
    JOB = auto()


@dataclass(frozen=True, slots=True)
class Origin:
    """Where work comes from that another process hands over, as W3C `traceparent`s.

    Attributes:
        traceparent: the span that this work continues.
        trace_link: the span that handed it over among so much else that it is a trace of its own.
    """

    traceparent: str | None = None
    trace_link: str | None = None


NOWHERE = Origin()


class Span(Protocol):
    """A span under way. Values must be harmless: ids, counts, classes; no addresses, messages or keys."""

    def set(self, attributes: Attributes) -> None:
        """Add attributes, with their units in their names."""

    def rename(self, name: str) -> None:
        """Give it the name that was not known when it began."""

    def fail(self, error_class: str) -> None:
        """Say that it failed, and how."""


class Tracer(Protocol):
    """Makes spans; `telemetry.otlp` has the one that sends them."""

    def span(
        self, name: str, attributes: Attributes, kind: SpanKind, origin: Origin | None
    ) -> AbstractContextManager[Span]: ...

    def current(self) -> Span: ...

    def traceparent(self) -> str | None: ...

    def stop(self) -> None: ...


class _NoSpan:
    """A span that goes nowhere, and its own context."""

    def set(self, attributes: Attributes) -> None: ...

    def rename(self, name: str) -> None: ...

    def fail(self, error_class: str) -> None: ...

    def __enter__(self) -> Span:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


_NO_SPAN = _NoSpan()
_tracer: Tracer | None = None  # of this process, like its logs and its metrics


def prepare_tracing(settings: TelemetrySettings) -> None:
    """Import what `start_tracing` needs, if it will need it, so that children that are forked later have it."""
    if settings.otlp_endpoint:
        from audiofoundation.telemetry import otlp  # noqa: F401


def start_tracing(settings: TelemetrySettings, *, service: str) -> None:
    """Send the spans of this process from now on, if the settings name a collector. It starts a thread.

    Args:
        settings: the collector and the ratio of traces.
        service: what this process is called in traces, after `audiofoundation-`.
    """
    global _tracer
    if not settings.otlp_endpoint:
        return
    from audiofoundation.telemetry.otlp import OtlpTracer

    _tracer = OtlpTracer(settings, service=f"audiofoundation-{service}")


def stop_tracing() -> None:
    """Send what is left, for a few seconds at most."""
    global _tracer
    if _tracer is not None:
        _tracer.stop()
        _tracer = None


@contextmanager
def tracing(settings: TelemetrySettings, *, service: str) -> Iterator[None]:
    """Trace while the block runs, as `start_tracing` does."""
    start_tracing(settings, service=service)
    try:
        yield
    finally:
        stop_tracing()


def span(
    name: str, attributes: Attributes = _NONE, *, kind: SpanKind = SpanKind.STEP, origin: Origin | None = None
) -> AbstractContextManager[Span]:
    """Return a span for a block: it fails with the code of our errors that leave it, or the class of others.

    Args:
        name: what happens, from a small set of names.
        attributes: what is known of it already.
        kind: what it is to its caller.
        origin: where it comes from; the current span when None.
    """
    if _tracer is None:
        return _NO_SPAN
    return _tracer.span(name, attributes, kind, origin)


def note(attributes: Attributes) -> None:
    """Add attributes to the current span."""
    if _tracer is not None:
        _tracer.current().set(attributes)


def current_traceparent() -> str | None:
    """Return the current span as a W3C `traceparent`; None when there is none."""
    return None if _tracer is None else _tracer.traceparent()


def current_origin(*, is_apart: bool) -> Origin:
    """Return where work comes from that the current span hands over.

    Args:
        is_apart: it becomes a trace of its own, which names the current span (if that is kept at all).
    """
    traceparent = current_traceparent()
    if traceparent is None:
        return NOWHERE
    if not is_apart:
        return Origin(traceparent=traceparent)
    is_sampled = int(traceparent[-2:], 16) & _SAMPLED
    return Origin(trace_link=traceparent) if is_sampled else NOWHERE
