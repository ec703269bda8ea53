import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from audiofoundation.embedded.child import Child, ChildSpec
from audiofoundation.embedded.log_file import LogFile
from audiofoundation.errors import InternalError

DEADLINE_S = 20.0


class Harness:
    """A child that runs a Python snippet, and what was announced about it."""

    def __init__(self, folder: Path, code: str, *, grace_s: float = 5.0) -> None:
        self.ready_file = folder / "ready"
        self.announced: list[str] = []
        self.log = folder / "child.log"
        spec = ChildSpec(
            name="sample",
            argv=(sys.executable, "-c", code, str(self.ready_file)),
            env=dict(os.environ),
            probe=self._is_ready,
            stop_grace_s=grace_s,
        )
        self.child = Child(spec, log=LogFile(self.log), announce=self.announced.append)

    async def _is_ready(self) -> bool:
        return self.ready_file.exists()


STEADY = "import sys, pathlib, time; print('hello', flush=True); pathlib.Path(sys.argv[1]).touch(); time.sleep(60)"


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.02)


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(3 * DEADLINE_S):
            await main()

    asyncio.run(bounded())


def test_a_started_child_is_ready_logged_and_stopped(tmp_path: Path) -> None:
    harness = Harness(tmp_path, STEADY)

    async def main() -> None:
        await harness.child.start()
        pid = harness.child.pid
        assert pid is not None
        await until(lambda: "hello" in harness.log.read_text())
        await harness.child.stop()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    run(main)
    assert harness.announced == []


def test_a_killed_child_comes_back_and_is_announced(tmp_path: Path) -> None:
    harness = Harness(tmp_path, STEADY)

    async def main() -> None:
        await harness.child.start()
        first = harness.child.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: harness.child.pid not in (None, first))
        await until(lambda: any("is back" in text for text in harness.announced))
        await harness.child.stop()

    run(main)
    assert "was killed by SIGKILL" in harness.announced[0]


def test_delays_grow_while_a_child_keeps_dying(tmp_path: Path) -> None:
    dies = "import sys, pathlib, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(0.1); sys.exit(3)"
    harness = Harness(tmp_path, dies)

    async def main() -> None:
        await harness.child.start()
        await until(lambda: sum("exit status 3" in text for text in harness.announced) >= 3)
        await harness.child.stop()

    run(main)
    deaths = [text for text in harness.announced if "exit status 3" in text]
    assert ["0.1 s" in deaths[0], "0.2 s" in deaths[1], "0.4 s" in deaths[2]] == [True, True, True]


def test_a_child_that_never_becomes_ready_fails_the_start_with_its_last_words(tmp_path: Path) -> None:
    harness = Harness(tmp_path, "import sys; sys.exit('no such luck')")

    async def main() -> None:
        with pytest.raises(InternalError, match="no such luck"):
            await harness.child.start()
        await harness.child.stop()

    run(main)


def test_a_child_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    deaf = (
        "import signal, sys, pathlib, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "pathlib.Path(sys.argv[1]).touch(); time.sleep(60)"
    )
    harness = Harness(tmp_path, deaf, grace_s=0.5)

    async def main() -> None:
        await harness.child.start()
        started = time.monotonic()
        await harness.child.stop()
        assert time.monotonic() - started < 5
        assert harness.child.pid is None

    run(main)


def test_a_missing_program_fails_the_start(tmp_path: Path) -> None:
    async def is_ready() -> bool:
        return False

    spec = ChildSpec(name="ghost", argv=("/no/such/program",), env={}, probe=is_ready)
    child = Child(spec, log=LogFile(tmp_path / "ghost.log"), announce=lambda _: None)

    async def main() -> None:
        with pytest.raises(InternalError, match="No such file"):
            await child.start()
        await child.stop()

    run(main)
