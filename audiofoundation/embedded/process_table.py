"""What the kernel knows of running processes, and of those that belong to a platform.

Every child carries two environment variables: STACK_ID, new at each start, and STACK_ROOT, the data
directory. They are inherited by all that a child starts, so nothing that is ours can hide.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

STACK_ID = "AF_STACK_ID"
STACK_ROOT = "AF_STACK_ROOT"
_PROC = Path("/proc")


def parents() -> dict[int, int]:
    """Return the parent of every process that can be seen."""
    found = {}
    for pid in _pids():
        with contextlib.suppress(OSError, ValueError, IndexError):
            stat = (_PROC / str(pid) / "stat").read_text()
            found[pid] = int(stat.rsplit(")", 1)[1].split()[1])
    return found


def processes_with(name: str, is_wanted: Callable[[str], bool]) -> list[int]:
    """Return the processes, ourselves excepted, whose environment variable `name` is wanted."""
    prefix = f"{name}=".encode()
    found = []
    for pid in _pids():
        if pid == os.getpid():
            continue
        with contextlib.suppress(OSError):
            for entry in (_PROC / str(pid) / "environ").read_bytes().split(b"\0"):
                if entry.startswith(prefix) and is_wanted(entry[len(prefix) :].decode(errors="replace")):
                    found.append(pid)
    return found


def kill_all(pids: list[int]) -> None:
    """SIGKILL each process that still exists."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _pids() -> Iterator[int]:
    if _PROC.is_dir():
        yield from (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())
