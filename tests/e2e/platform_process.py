"""`audiofoundation up` as a user runs it, for end-to-end tests."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

import httpx

from audiofoundation.embedded.process_table import STACK_ROOT, processes_with

START_DEADLINE_S = 240.0
STOP_DEADLINE_S = 40.0


class Ready(TypedDict):
    """What the ready file holds."""

    url: str
    grpc: str
    s3: str
    redis: str
    api_key: str
    pid: int


def wait_until(is_true: Callable[[], bool], *, what: str, timeout_s: float = 60.0) -> None:
    """Look every 50 ms until it is true; fail after the timeout."""
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)


class PlatformProcess:
    """One `up` on a data directory. Use it as a context: it leaves no process behind."""

    def __init__(self, data_dir: Path, *extra: str) -> None:
        self.data_dir = data_dir
        self.ready_file = data_dir.parent / f"{data_dir.name}-ready.json"
        self._log_path = data_dir.parent / f"{data_dir.name}.log"
        argv = [sys.executable, "-m", "audiofoundation.cli", "up", "--data-dir", str(data_dir)]
        argv += ["--port", "0", "--grpc-port", "0", "--ready-file", str(self.ready_file), *extra]
        with self._log_path.open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def __enter__(self) -> "PlatformProcess":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in self.descendants():
            os.kill(pid, signal.SIGKILL)

    @property
    def log(self) -> str:
        """What it told its user so far."""
        return self._log_path.read_text()

    def wait_ready(self) -> Ready:
        """Return the ready file's content once it is there."""

        def is_ready() -> bool:
            assert self.process.poll() is None, f"up ended: {self.log[-600:]}"
            return self.ready_file.exists()

        wait_until(is_ready, what="the platform is ready", timeout_s=START_DEADLINE_S)
        ready: Ready = json.loads(self.ready_file.read_text())
        return ready

    def descendants(self) -> list[int]:
        """Return every running process that belongs to this data directory, `up` itself not counted."""
        return processes_with(STACK_ROOT, lambda root: root == str(self.data_dir))

    def process_of(self, *words: str) -> int:
        """Return the oldest process of this platform that has these words on its command line."""
        for pid in sorted(self.descendants()):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            if all(any(word in part for part in command) for word in words):
                return pid
        raise AssertionError(f"no process of the platform runs {words}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal, wait, return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(STOP_DEADLINE_S)


def is_healthy(url: str) -> bool:
    """Tell whether the API says that it is ready."""
    try:
        return httpx.get(f"{url}/health/ready", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
