"""CPU seconds of this process and of the decoders that it started."""

import os
import resource
import time
from pathlib import Path

_TASKS = Path("/proc/self/task")
# Fields of /proc/PID/stat after the parenthesised name: utime, stime, cutime, cstime (proc(5), 14 to 17).
_FIRST, _LAST = 11, 15


class CpuClock:
    """Counts CPU seconds from its making on; decoding children count while they run and when they end."""

    def __init__(self) -> None:
        self._start_s = _cpu_s()

    def elapsed_s(self) -> float:
        """Return the CPU seconds used since."""
        return max(0.0, _cpu_s() - self._start_s)


def _cpu_s() -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime + _living_children_s()


def _living_children_s() -> float:
    """CPU seconds of children that run now, their own ended children included; 0 where /proc is missing."""
    ticks = 0
    for listing in _TASKS.glob("*/children"):
        for pid in _words(listing):
            stat = _text(Path("/proc") / pid / "stat").rpartition(")")[2].split()
            ticks += sum(map(int, stat[_FIRST:_LAST]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _words(path: Path) -> list[str]:
    return _text(path).split()


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it has ended meanwhile
        return ""
