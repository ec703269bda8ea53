"""Who holds a lease, named so that another process on the same machine can tell that it is dead.

A name is `boot id : pid namespace : pid : start time`. The boot id separates machines and boots, the
namespace separates containers, the start time separates a process from a later one with the same pid.
"""

import os
import secrets
from functools import cache
from pathlib import Path

_PROC = Path("/proc")
# Fields of /proc/PID/stat after the parenthesised command name (proc(5)): state is 3, starttime 22.
_STATE, _START_TIME = 0, 19


def current_owner() -> str:
    """Return this process's name, alike in all its threads."""
    return _owner_of(os.getpid())


def create_lease_owner(owner: str) -> str:
    """Return a name for one claim, so that two claims by one process are told apart."""
    return f"{owner}:{secrets.token_hex(4)}"


def is_certainly_dead(owner: str) -> bool:
    """Return whether the named process has ended for certain.

    False for a process of another machine or container, and wherever the system does not tell: its
    lease then has to run out.
    """
    machine, pid, start_time = _split(owner)
    if pid is None or not start_time or machine != _machine():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    stat = _stat_of(pid)
    if stat is None:
        return False
    # A zombie has stopped for good: it only waits for its parent to read its status.
    return stat[_START_TIME] != start_time or stat[_STATE] == "Z"


def _split(owner: str) -> tuple[str, int | None, str]:
    parts = owner.split(":")
    if len(parts) < 4 or not parts[2].isdigit():
        return "", None, ""
    return ":".join(parts[:2]), int(parts[2]), parts[3]


@cache
def _owner_of(pid: int) -> str:
    stat = _stat_of(pid)
    return f"{_machine()}:{pid}:{stat[_START_TIME] if stat else ''}"


@cache
def _machine() -> str:
    boot = _PROC / "sys/kernel/random/boot_id"
    namespace = _PROC / "self/ns/pid"
    if not boot.exists():
        return f"{secrets.token_hex(8)}:0"
    return f"{boot.read_text().strip()}:{namespace.stat().st_ino}"


def _stat_of(pid: int) -> list[str] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    return text.rpartition(")")[2].split()
