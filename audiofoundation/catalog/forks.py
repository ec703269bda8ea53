"""Forking between sessions: a child must not inherit a database connection that is in use.

SQLite keeps what a process has locked in that process's memory. A child forked while another thread holds the
write lock believes for ever that the lock is taken, though nobody holds it. A PostgreSQL connection would be
one socket with two readers.
"""

import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

from sqlalchemy import Engine


class ForkGate:
    """Makes forks wait for the sessions of other threads, and new sessions wait for a fork in progress."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_open: Counter[int] = Counter()  # by thread
        self._engines: WeakSet[Engine] = WeakSet()
        self._forking: int | None = None

    def watch(self, engine: Engine) -> None:
        """Close the engine's idle connections before each fork."""
        self._engines.add(engine)

    @contextmanager
    def session(self) -> Iterator[None]:
        """Hold forks of other threads back until the block ends."""
        thread = threading.get_ident()
        with self._changed:
            # A thread that waited inside a session of its own would make the fork wait for ever.
            self._changed.wait_for(lambda: self._forking is None or self._num_open[thread] > 0)
            self._num_open[thread] += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_open[thread] -= 1
                if not self._num_open[thread]:
                    del self._num_open[thread]
                self._changed.notify_all()

    def before_fork(self) -> None:
        """Wait until no other thread is in a session; take the gate until `after_fork`."""
        thread = threading.get_ident()
        self._changed.acquire()
        self._changed.wait_for(lambda: self._forking is None)
        self._forking = thread
        self._changed.wait_for(lambda: all(other == thread for other in self._num_open))
        for engine in self._engines:
            engine.dispose()

    def after_fork(self) -> None:
        """Let sessions go on, in the parent and in the child."""
        self._forking = None
        self._changed.notify_all()
        self._changed.release()


FORK_GATE = ForkGate()
os.register_at_fork(
    before=FORK_GATE.before_fork, after_in_parent=FORK_GATE.after_fork, after_in_child=FORK_GATE.after_fork
)
