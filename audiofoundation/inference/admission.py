"""Who may run now, who waits, who is sent away: decided before any work is done."""

import threading
import time
from types import TracebackType

from audiofoundation.errors import Cancelled, DeadlineExceeded, Overloaded

_FIRST_GUESS_S = 2.0
_SMOOTHING = 0.2


class Admission:
    """A first-come queue of tickets, the first `max_running` of which run.

    Args:
        max_running: streams that compute at the same time.
        max_waiting: streams that may wait for a place; one more is refused at once.
    """

    def __init__(self, *, max_running: int, max_waiting: int) -> None:
        self.max_running, self.max_waiting = max_running, max_waiting
        self._changed = threading.Condition()
        self._tickets: list[Ticket] = []
        self._mean_run_s = _FIRST_GUESS_S
        self._is_draining = False

    @property
    def num_running(self) -> int:
        return min(len(self._tickets), self.max_running)

    @property
    def num_waiting(self) -> int:
        return max(0, len(self._tickets) - self.max_running)

    def check(self) -> None:
        """Raise Overloaded when `enter` would, so that nobody decodes what cannot run."""
        with self._changed:
            self._check()

    def enter(self, *, timeout_s: float | None = None) -> "Ticket":
        """Return a place in the queue.

        Args:
            timeout_s: from now until the answer must be complete; None is no limit.

        Raises:
            Overloaded: the queue is full or the server is stopping.
        """
        with self._changed:
            self._check()
            ticket = Ticket(self, timeout_s=timeout_s)
            self._tickets.append(ticket)
            return ticket

    def drain(self) -> None:
        """Admit nobody any more; those inside finish."""
        with self._changed:
            self._is_draining = True

    def cancel_all(self) -> None:
        """Ask every ticket inside to stop."""
        for ticket in tuple(self._tickets):
            ticket.cancel()

    def wait_until_idle(self, *, timeout_s: float) -> bool:
        """Return whether everybody left within the time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._tickets, timeout_s)

    def _check(self) -> None:
        if self._is_draining:
            raise Overloaded("this server is stopping; try again in a moment", retry_after_s=5)
        if len(self._tickets) < self.max_running + self.max_waiting:
            return
        retry_after_s = max(1.0, self._mean_run_s * (self.num_waiting + 1) / self.max_running)
        raise Overloaded(
            f"all {self.max_running} places are taken and {self.num_waiting} requests wait already; "
            f"try again in {retry_after_s:.0f} s",
            retry_after_s=retry_after_s,
        )


class Ticket:
    """One stream's place. Leave it by `with`, whatever happens."""

    def __init__(self, admission: Admission, *, timeout_s: float | None) -> None:
        self._admission = admission
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._is_cancelled = False
        self._started_at: float | None = None

    def cancel(self) -> None:
        """Ask the stream to stop; it does at its next step."""
        with self._admission._changed:
            self._is_cancelled = True
            self._admission._changed.notify_all()

    def check(self) -> None:
        """Raise Cancelled or DeadlineExceeded when the stream should not go on. Called at every step."""
        if self._is_cancelled:
            raise Cancelled("the caller asked to stop")
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise DeadlineExceeded("the answer was not complete within the time the request allows")

    def wait(self) -> None:
        """Return once the stream may run.

        Raises:
            Cancelled: the caller left the queue.
            DeadlineExceeded: its time ran out in the queue.
        """
        changed = self._admission._changed
        with changed:
            remaining = None if self._deadline is None else self._deadline - time.monotonic()
            changed.wait_for(lambda: self._is_cancelled or self._may_run(), remaining)
        self.check()
        self._started_at = time.monotonic()

    def leave(self) -> None:
        """Give the place to the next. Leaving twice does nothing."""
        admission = self._admission
        with admission._changed:
            if self not in admission._tickets:
                return
            admission._tickets.remove(self)
            if self._started_at is not None:
                took_s = time.monotonic() - self._started_at
                admission._mean_run_s += _SMOOTHING * (took_s - admission._mean_run_s)
            admission._changed.notify_all()

    def __enter__(self) -> "Ticket":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def _may_run(self) -> bool:
        return self in self._admission._tickets[: self._admission.max_running]
