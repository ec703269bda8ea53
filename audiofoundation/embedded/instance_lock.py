"""One platform per data directory, told apart from a stale lock by the kernel."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from audiofoundation.errors import Conflict


@contextmanager
def instance_lock(path: Path) -> Iterator[None]:
    """Hold the data directory. The kernel drops the lock with its holder, so `kill -9` leaves none behind.

    Raises:
        Conflict: another platform holds it; the message names its process id.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            raise Conflict(
                f"a platform is already running on {path.parent} (process {holder}); "
                "stop it first, or choose another --data-dir"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
