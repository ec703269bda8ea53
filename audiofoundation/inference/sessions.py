"""How many callers may be connected at once, and how much of their recordings is held in memory."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from audiofoundation.errors import Overloaded

_RETRY_AFTER_S = 5.0


class OpenSessions:
    """Places for sessions: sockets and calls that bring a recording piece by piece and may do so slowly.

    Args:
        most: sessions at the same time; one more is refused.
        max_held_bytes: of all their recordings together.
    """

    def __init__(self, *, most: int, max_held_bytes: int) -> None:
        self.most, self.max_held_bytes = most, max_held_bytes
        self._lock = threading.Lock()
        self.num_open = 0
        self.num_held_bytes = 0

    @contextmanager
    def place(self) -> Iterator["HeldBytes"]:
        """Yield a session's place; at the end it and everything it holds is free again.

        Raises:
            Overloaded: all places are taken.
        """
        with self._lock:
            if self.num_open >= self.most:
                raise Overloaded(
                    f"{self.most} sessions are open here already; try again in a moment", retry_after_s=_RETRY_AFTER_S
                )
            self.num_open += 1
        held = HeldBytes(self)
        try:
            yield held
        finally:
            held.release()
            with self._lock:
                self.num_open -= 1

    def _add(self, num_bytes: int) -> None:
        with self._lock:
            if num_bytes > 0 and self.num_held_bytes + num_bytes > self.max_held_bytes:
                raise Overloaded(
                    f"the recordings that are being sent here fill the {self.max_held_bytes / (1 << 20):g} MiB set "
                    "aside for them; try again in a moment",
                    retry_after_s=_RETRY_AFTER_S,
                )
            self.num_held_bytes += num_bytes


class HeldBytes:
    """What one session holds."""

    def __init__(self, sessions: OpenSessions) -> None:
        self._sessions, self._num_bytes = sessions, 0

    def add(self, num_bytes: int) -> None:
        """Hold so many bytes more. Raises Overloaded when all sessions together would hold too many."""
        self._sessions._add(num_bytes)
        self._num_bytes += num_bytes

    def release(self, num_bytes: int | None = None) -> None:
        """Hold so many bytes less; without a number nothing."""
        number = self._num_bytes if num_bytes is None else num_bytes
        self._sessions._add(-number)
        self._num_bytes -= number
