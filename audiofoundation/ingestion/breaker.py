"""The circuit breaker of one egress identity: after a refusal nobody knocks for an hour, then one does."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Breaker:
    """Whether the other side has asked us to wait.

    Tripped, it lets one start through each time `open_until` has passed: a probe. Taking the probe shuts it
    for another period at once, so a probe whose worker dies, or that learns nothing, is not repeated before
    that; two probes are thus never closer than `open_s`.

    Attributes:
        is_tripped: a refusal has not been followed by an answer yet.
        open_until: nothing starts before this time, in seconds since the epoch.
    """

    is_tripped: bool = False
    open_until: float = 0.0

    def wait_s(self, now: float) -> float:
        """Return how long nothing may start, in seconds."""
        return max(0.0, self.open_until - now) if self.is_tripped else 0.0

    def started(self, now: float, open_s: float) -> "Breaker":
        """Return the breaker after a start at a time when it let one through."""
        return Breaker(True, now + open_s) if self.is_tripped else self

    def refused(self, now: float, open_s: float) -> "Breaker":
        """Return the breaker after the other side refused this identity."""
        return Breaker(True, max(self.open_until, now + open_s))


CLOSED = Breaker()
