"""Structured logs: a static event name and fields, one line each, on stdout."""

import logging
import sys

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from audiofoundation.settings import TelemetrySettings
from audiofoundation.telemetry.tracing import current_traceparent

_NOISY = ("urllib3", "httpx", "httpcore", "minio", "alembic.runtime", "uvicorn.access")


def configure_logging(settings: TelemetrySettings) -> None:
    """Send structlog's events and the standard library's through one format. Call it once, in a `main`."""
    level = logging.getLevelNamesMapping().get(settings.log_level.upper(), logging.INFO)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_trace,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_formatter(shared, is_json=settings.is_json))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def _add_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Name the current span, if there is one: a line of the log then leads to its trace."""
    traceparent = current_traceparent()
    if traceparent is not None:
        _, event["trace_id"], event["span_id"], _ = traceparent.split("-")
    return event


def _formatter(shared: list[Processor], *, is_json: bool) -> logging.Formatter:
    renderer: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if is_json
        # Not the default, which prints the local variables of every frame: secrets, and half a second of work.
        else [structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)]
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
    )
