"""Logs are one JSON object per event, whoever wrote them."""

import json
import logging

import pytest
import structlog

from audiofoundation.settings import TelemetrySettings
from audiofoundation.telemetry import configure_logging

pytestmark = pytest.mark.usefixtures("_restored")


def test_event_fields_and_bound_ids_are_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(TelemetrySettings())
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        structlog.get_logger("ours").info("item_stored", size_bytes=3)
    (line,) = capsys.readouterr().out.splitlines()
    event = json.loads(line)
    assert {"event": "item_stored", "size_bytes": 3, "request_id": "r1", "level": "info"}.items() <= event.items()


def test_other_libraries_log_in_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(TelemetrySettings())
    logging.getLogger("theirs").warning("%d retries", 2)
    event = json.loads(capsys.readouterr().out)
    assert (event["event"], event["logger"]) == ("2 retries", "theirs")


def test_level_holds_for_all(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(TelemetrySettings(log_level="error"))
    structlog.get_logger("ours").info("quiet")
    logging.getLogger("theirs").warning("quiet")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("is_json", [True, False])
def test_a_traceback_tells_no_local_variables(capsys: pytest.CaptureFixture[str], is_json: bool) -> None:
    configure_logging(TelemetrySettings(is_json=is_json))
    password = "-".join(["open", "sesame"])
    try:
        raise RuntimeError(f"{len(password)} letters")
    except RuntimeError:
        structlog.get_logger("ours").exception("it_failed")
    printed = capsys.readouterr().out
    assert "11 letters" in printed
    assert password not in printed
