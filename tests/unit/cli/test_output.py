"""What commands say while they wait, where no bar can be shown."""

import pytest

from audiofoundation.cli import output
from audiofoundation.cli.output import PlainProgress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_long_work_says_a_line_now_and_then(clock: list[float], capfd: pytest.CaptureFixture[str]) -> None:
    plain = PlainProgress(10.0)
    for second in range(26):
        clock[0] = 100.0 + second
        plain.say(f"second {second}")

    assert capfd.readouterr().err.split("\n") == ["second 10", "second 20", ""]


def test_a_bar_is_enough(
    clock: list[float], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output.stderr, "_force_terminal", True)
    plain = PlainProgress(10.0)
    clock[0] = 200.0
    plain.say("hidden")

    assert "hidden" not in capfd.readouterr().err
