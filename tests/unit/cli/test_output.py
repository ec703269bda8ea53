"""What commands say while they wait, where no bar can be shown, and their tables."""

import re
import sys

import pytest

from audiofoundation.cli import output
from audiofoundation.cli.output import PlainProgress, print_table


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


def test_a_table_in_a_pipe_is_as_wide_as_it_must_be(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("item", "why not"), [("item_" + "0" * 32, "x" * 1200)], has_ids=True)

    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[0] == ["item", "why", "not"]
    assert lines[-1] == ["item_" + "0" * 32, "x" * 1200]


@pytest.mark.parametrize("has_ids", [False, True])
def test_a_table_in_a_narrow_window_loses_nothing(
    has_ids: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_table(("skipped", "reason"), [("n" * 80, "r" * 30)], has_ids=has_ids)

    shown = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out)
    assert max(map(len, shown.splitlines())) <= 50
    assert (shown.count("n"), shown.count("r") - "reason".count("r")) == (80 + "reason".count("n"), 30)
