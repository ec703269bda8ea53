"""Spans as a collector sees them, and that there are none, nor OpenTelemetry's SDK, where none is named."""

import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import structlog
from pydantic import ValidationError

from audiofoundation.errors import FetchFailed
from audiofoundation.settings import TelemetrySettings
from audiofoundation.telemetry import tracing
from audiofoundation.telemetry.logging import configure_logging
from audiofoundation.telemetry.tracing import NOWHERE, Origin, SpanKind, current_origin, current_traceparent, note, span
from tests.collector import CLIENT_SPAN, CLIENT_TRACE, CLIENT_TRACEPARENT, Collector, collecting
from tests.servers import free_port

SIGNED = "https://cdn.example/a.mp3?signature=open-sesame"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


def started(collector: Collector, *, ratio: float = 1.0) -> TelemetrySettings:
    return TelemetrySettings(otlp_endpoint=collector.endpoint, trace_ratio=ratio)


def test_steps_lie_within_one_another_and_tell_what_they_did(collector: Collector) -> None:
    with tracing.tracing(started(collector), service="test"), span("job x", {"attempt": 2}, kind=SpanKind.JOB):
        with span("fetch") as step:
            step.set({"num_bytes": 7})
        note({"outcome": "done"})
    job, fetch = collector.one("job x"), collector.one("fetch")
    assert (job.service, job.kind, job.parent_id, job.error) == ("audiofoundation-test", "consumer", "", None)
    assert job.attributes == {"attempt": 2, "outcome": "done"}
    assert (fetch.trace_id, fetch.parent_id, fetch.attributes) == (job.trace_id, job.span_id, {"num_bytes": 7})


def test_a_failure_is_told_by_its_code_and_never_by_its_message(collector: Collector) -> None:
    with tracing.tracing(started(collector), service="test"):
        with pytest.raises(FetchFailed), span("ours"):
            raise FetchFailed(f"{SIGNED} did not answer")
        with pytest.raises(KeyError), span("theirs"):
            raise KeyError(SIGNED)
    assert collector.one("ours").error == "fetch_failed"
    assert collector.one("ours").attributes == {"error_class": "fetch_failed"}
    assert collector.one("theirs").error == "KeyError"
    assert b"open-sesame" not in b"".join(collector.bodies)


def test_work_handed_over_continues_the_trace_or_names_it(collector: Collector) -> None:
    with tracing.tracing(started(collector), service="test"):
        with span("request", origin=Origin(traceparent=CLIENT_TRACEPARENT)):
            together, apart = current_origin(is_apart=False), current_origin(is_apart=True)
        with span("together", origin=together):
            pass
        with span("apart", origin=apart):
            pass
        with span("unreadable", origin=Origin(traceparent="00-what-01")):
            pass
    request = collector.one("request")
    assert (request.trace_id, request.parent_id) == (CLIENT_TRACE, CLIENT_SPAN)
    found = collector.one("together")
    assert (found.trace_id, found.parent_id, found.links) == (CLIENT_TRACE, request.span_id, ())
    found = collector.one("apart")
    assert (found.parent_id, found.links) == ("", (request.span_id,))
    assert found.trace_id != CLIENT_TRACE
    assert collector.one("unreadable").parent_id == ""


def test_what_is_not_sampled_is_not_sent_and_whoever_continues_it_knows(collector: Collector) -> None:
    with tracing.tracing(started(collector, ratio=0.0), service="test"):
        with span("ours"):
            origin = current_origin(is_apart=False)
            assert current_origin(is_apart=True) == NOWHERE, "a link would lead nowhere"
        with span("continued", origin=origin):
            pass
        with span("the client's", origin=Origin(traceparent=CLIENT_TRACEPARENT)):
            pass
    assert origin.traceparent is not None
    assert [found.name for found in collector.spans] == ["the client's"], "who came with a trace has decided"


@pytest.mark.usefixtures("_restored")
def test_a_log_line_names_the_span_it_was_written_in(collector: Collector, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(TelemetrySettings())
    with tracing.tracing(started(collector), service="test"):
        with span("step"):
            structlog.get_logger("ours").info("within")
            logging.getLogger("theirs").warning("within")
        structlog.get_logger("ours").info("outside")
    ours, theirs, outside = map(json.loads, capsys.readouterr().out.splitlines())
    step = collector.one("step")
    for line in (ours, theirs):
        assert (line["trace_id"], line["span_id"]) == (step.trace_id, step.span_id)
    assert "trace_id" not in outside


def test_a_collector_that_is_away_holds_nobody_up_and_is_complained_of_once(caplog: pytest.LogCaptureFixture) -> None:
    away = TelemetrySettings(otlp_endpoint=f"http://127.0.0.1:{free_port()}")
    begun = time.monotonic()
    with tracing.tracing(away, service="test"):
        for _ in range(3000):  # more than are kept
            with span("step"):
                pass
        assert time.monotonic() - begun < 2.0
    assert time.monotonic() - begun < 6.0, "an end waits for a few seconds only"
    complaints = [record for record in caplog.records if record.name.startswith("opentelemetry.exporter")]
    assert len(complaints) <= 1


def test_off_nothing_is_made() -> None:
    with tracing.tracing(TelemetrySettings(), service="test"), span("step", {"attempt": 1}) as step:
        step.set({"num_bytes": 1})
        step.rename("other")
        step.fail("internal")
        note({"outcome": "done"})
        assert current_traceparent() is None
        assert current_origin(is_apart=False) is NOWHERE
        assert id(span("another")) == id(step), "one object for all of them"


def test_off_the_sdk_is_not_even_imported() -> None:
    code = """
import sys
import audiofoundation.jobs.worker, audiofoundation.transport.http
from audiofoundation.settings import Settings
from audiofoundation.telemetry.tracing import prepare_tracing, start_tracing
prepare_tracing(Settings().telemetry)
start_tracing(Settings().telemetry, service="test")
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk.trace", "opentelemetry.exporter"))])
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


@pytest.mark.parametrize("written", ["", "http://127.0.0.1:4318", "https://collector.example/otlp"])
def test_an_address_of_a_collector(written: str) -> None:
    assert TelemetrySettings(otlp_endpoint=written).otlp_endpoint == written
    assert TelemetrySettings(otlp_endpoint=written and written + "/").otlp_endpoint == written


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("127.0.0.1:4318", "http://host:4318"),
        ("grpc://collector:4317", "http://host:4318"),
        ("http://", "http://host:4318"),
        ("http://collector:port", "[Pp]ort"),
        ("http://collector?key=1", "http://host:4318"),
        ("http://a b:4318", "http://host:4318"),
        ("http://me:secret@collector:4318", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("http://token@collector:4318", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("http://collector:4318/v1/traces", "leave out /v1/traces"),
    ],
)
def test_nonsense_is_refused_in_words(written: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        TelemetrySettings(otlp_endpoint=written)


@pytest.mark.parametrize("ratio", [-0.1, 1.1])
def test_a_ratio_lies_between_none_and_all(ratio: float) -> None:
    with pytest.raises(ValidationError, match="trace_ratio"):
        TelemetrySettings(trace_ratio=ratio)
