"""One child of the platform: started, watched, logged, restarted with back-off, stopped."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from audiofoundation.embedded.log_file import LogFile
from audiofoundation.embedded.readiness import Probe
from audiofoundation.embedded.spawn import spawn
from audiofoundation.errors import InternalError

Announce = Callable[[str], None]

_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 5.0
_STEADY_S = 20.0  # a child that ran this long starts again without a delay that earlier deaths built up
_MAX_FAILED_STARTS = 4
_CANNOT_START = 127
_LAST_GRACE_S = 3.0


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How to run one child."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    probe: Probe
    on_start: Callable[[], None] = lambda: None
    niceness: int = 0
    stop_grace_s: float = 10.0
    can_outlive_us: bool = False


class Child:
    """Runs a ChildSpec until told to stop."""

    def __init__(self, spec: ChildSpec, *, log: LogFile, announce: Announce) -> None:
        self.spec = spec
        self._log = log
        self._announce = announce
        self._process: subprocess.Popen[bytes] | None = None
        self._supervision: asyncio.Task[None] | None = None
        self._first_ready: asyncio.Future[None] | None = None
        self._is_stopping = False

    @property
    def pid(self) -> int | None:
        """The process id while the child runs."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the child, return when it is ready.

        Raises:
            InternalError: it kept dying before it was ever ready.
        """
        self._first_ready = asyncio.get_running_loop().create_future()
        self._supervision = asyncio.create_task(self._supervise(), name=self.spec.name)
        await self._first_ready

    async def stop(self) -> None:
        """SIGTERM; after the grace period once more, to all that it started; then SIGKILL."""
        self._is_stopping = True
        process = self._process
        if process is None:
            if self._supervision is not None:
                self._supervision.cancel()
        else:
            if process.stdin is not None:
                process.stdin.close()
            _signal_group(process.pid, signal.SIGTERM, is_leader_only=True)
            if not await self._has_ended(within_s=self.spec.stop_grace_s):
                _signal_group(process.pid, signal.SIGTERM)
                await self._has_ended(within_s=_LAST_GRACE_S)
                self.kill()
        await self._has_ended(within_s=_LAST_GRACE_S)
        self._log.close()

    async def _has_ended(self, *, within_s: float) -> bool:
        if self._supervision is None:
            return True
        done, _ = await asyncio.wait([self._supervision], timeout=within_s)
        return bool(done)

    def kill(self) -> None:
        """SIGKILL the child and all that share its session's process group."""
        if self._process is not None:
            _signal_group(self._process.pid, signal.SIGKILL)

    async def _supervise(self) -> None:
        delay_s, failed_starts = _FIRST_DELAY_S, 0
        while not self._is_stopping:
            started = time.monotonic()
            status, was_ready = await self._run_once()
            if self._is_stopping:
                return
            failed_starts = 0 if was_ready else failed_starts + 1
            if self._gives_up(failed_starts, status):
                return
            if time.monotonic() - started > _STEADY_S:
                delay_s = _FIRST_DELAY_S
            why = f": {self._log.last_line}" if not was_ready and self._log.last_line else ""
            self._announce(f"{self.spec.name} {_describe(status)}{why}; starting it again in {delay_s:.1f} s")
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, _LONGEST_DELAY_S)

    def _gives_up(self, failed_starts: int, status: int) -> bool:
        """Before the platform was ever ready, a child that keeps dying is an error; later, we keep trying."""
        assert self._first_ready is not None
        if self._first_ready.done() or failed_starts < _MAX_FAILED_STARTS:
            return False
        why = f"{_describe(status)}: {self._log.last_line}"
        self._first_ready.set_exception(InternalError(f"{self.spec.name} does not start ({why}); see {self._log.path}"))
        return True

    async def _run_once(self) -> tuple[int, bool]:
        """Run one process to its end; return its exit status and whether it was ever ready."""
        self.spec.on_start()
        try:
            process = self._spawn()
        except OSError as error:
            self._log.write(f"{error}\n".encode())
            return _CANNOT_START, False
        self._process = process
        pump = asyncio.create_task(self._pump(process))
        watch = asyncio.create_task(self._watch_readiness())
        try:
            status = await _wait(process)
        finally:
            _signal_group(process.pid, signal.SIGKILL)
            self._process = None
            watch.cancel()
            await asyncio.wait([pump, watch], timeout=1)
            pump.cancel()
        return status, not watch.cancelled()

    def _spawn(self) -> subprocess.Popen[bytes]:
        return spawn(
            self.spec.argv,
            env=self.spec.env,
            niceness=self.spec.niceness,
            can_outlive_us=self.spec.can_outlive_us,
        )

    async def _watch_readiness(self) -> None:
        assert self._first_ready is not None
        while not await self.spec.probe():
            await asyncio.sleep(0.05)
        if self._first_ready.done():
            self._announce(f"{self.spec.name} is back")
        else:
            self._first_ready.set_result(None)

    async def _pump(self, process: subprocess.Popen[bytes]) -> None:
        """Copy the child's output to its log."""
        assert process.stdout is not None
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), process.stdout
        )
        try:
            while data := await reader.read(65536):
                self._log.write(data)
        finally:
            transport.close()


async def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for the process's end without a thread: its pidfd becomes readable."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    descriptor = os.pidfd_open(process.pid)
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return process.wait()


def _signal_group(pid: int, number: signal.Signals, *, is_leader_only: bool = False) -> None:
    with suppress(ProcessLookupError, PermissionError):
        if is_leader_only:
            os.kill(pid, number)
        else:
            os.killpg(pid, number)


def _describe(status: int) -> str:
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with exit status {status}"
