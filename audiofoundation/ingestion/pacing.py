"""How often one egress identity may start a fetch from one site. Pure: times come in, decisions go out.

**Bucket.** Up to `b = burst` starts may come at once, then one every `T` seconds. With the time `F` at which
the bucket will be full again as its only state, a start at `t` is allowed iff `t >= F - (b - 1) T`, and then
`F := max(F, t) + T`.

**Never more than `n = per_hour` starts in any 60 minutes**, wherever the window lies: let `k` starts fall
into a closed window, the first at `t1`, the last at `tk`. Each adds at least `T` to `F`, so before the last
one `F >= t1 + (k - 1) T`; that it was allowed means `tk >= F - (b - 1) T >= t1 + (k - b) T`. Hence
`k <= b + (tk - t1) / T`. With `T = 3600 (1 + 1e-6) / (n + 1 - b)`, `n + 1` starts need more than 3600 s. A
bucket that refills at the whole rate (`T = 3600 / n`) and holds a burst of `b` would let `n + b - 1` through.

The proof needs a clock that all workers share (NTP); a skew of `d` seconds shortens one window by `d`. A
clock that was set back makes nobody wait longer than a whole bucket: `F` is never believed beyond `t + b T`.

**Gap.** After each fetch ends the next one waits a random time (10-20 s for YouTube), counted from the end.

**One at a time** (`max_running`), and the breaker before all of it.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from audiofoundation.ingestion.breaker import CLOSED, Breaker

_HOUR_S = 3600.0
_MARGIN = 1.0 + 1e-6  # of the interval: 14 ms an hour, far above the rounding of times since 1970
_POLL_S = 5.0  # nobody knows when a running fetch ends
_COST_WEIGHT = 0.1
_ROUNDING_S = 1e-3


@dataclass(frozen=True, slots=True)
class Pace:
    """What one identity may ask of one site.

    Attributes:
        per_hour: most starts in any 60 minutes.
        burst: starts that may come at once.
        max_running: fetches at the same time.
        min_gap_s: shortest rest after a fetch.
        max_gap_s: longest rest after a fetch.
        open_s: how long a refusal shuts the identity out.

    Raises:
        ValueError: the burst is not within 1 and the hourly rate.
    """

    per_hour: int
    burst: int = 1
    max_running: int = 1
    min_gap_s: float = 0.0
    max_gap_s: float = 0.0
    open_s: float = _HOUR_S

    def __post_init__(self) -> None:
        if not 1 <= self.burst <= self.per_hour:
            raise ValueError(f"a burst of {self.burst} does not fit a rate of {self.per_hour} an hour")

    @property
    def interval_s(self) -> float:
        """Seconds after which the bucket has one more start (`T` above)."""
        return _HOUR_S * _MARGIN / (self.per_hour + 1 - self.burst)

    @property
    def mean_gap_s(self) -> float:
        return (self.min_gap_s + self.max_gap_s) / 2


class Ending(StrEnum):
    """What a fetch says about its identity."""

    ANSWERED = "answered"  # bytes, or a plain no: the identity is served
    REFUSED = "refused"  # 429, a rate limit, a bot check
    UNKNOWN = "unknown"  # a broken connection, a defect of ours


@dataclass(frozen=True, slots=True)
class Lane:
    """One identity at one site, as it stands.

    Attributes:
        full_at: when the bucket is full again (`F` above).
        resume_at: end of the rest after the last fetch.
        breaker: whether the identity is shut out.
        mean_cost_s: running mean of what a fetch takes; 0 before the first.
    """

    full_at: float = 0.0
    resume_at: float = 0.0
    breaker: Breaker = CLOSED
    mean_cost_s: float = 0.0

    def wait_s(self, pace: Pace, *, now: float, num_running: int) -> float:
        """Return how long to wait before a start may be tried; 0 lets it happen now."""
        full_at = min(self.full_at, now + pace.burst * pace.interval_s)
        waits = [full_at - (pace.burst - 1) * pace.interval_s - now, min(self.resume_at - now, pace.max_gap_s)]
        if num_running >= (1 if self.breaker.is_tripped else pace.max_running):
            waits.append(_POLL_S)
        return max(0.0, self.breaker.wait_s(now), *waits)

    def started(self, pace: Pace, *, now: float) -> "Lane":
        """Return the lane after a start at a time when `wait_s` was 0."""
        full_at = min(self.full_at, now + pace.burst * pace.interval_s)
        return replace(
            self,
            full_at=max(full_at, now) + pace.interval_s,
            breaker=self.breaker.started(now, pace.open_s),
        )

    def ended(self, pace: Pace, *, now: float, started_at: float, ending: Ending, gap_s: float) -> "Lane":
        """Return the lane after a fetch.

        Args:
            pace: of this lane.
            now: when it ended.
            started_at: when it started.
            ending: what it says about the identity.
            gap_s: rest before the next one, within the pace's bounds.
        """
        match ending:
            case Ending.REFUSED:
                breaker = self.breaker.refused(now, pace.open_s)
            case Ending.ANSWERED if started_at > self.breaker.open_until - pace.open_s - _ROUNDING_S:
                breaker = CLOSED  # it began after the refusal: it is the probe
            case _:
                breaker = self.breaker
        if ending is not Ending.ANSWERED:
            return replace(self, breaker=breaker, resume_at=now + gap_s)
        weight = _COST_WEIGHT if self.mean_cost_s else 1.0
        mean_cost_s = self.mean_cost_s + weight * (max(0.0, now - started_at) - self.mean_cost_s)
        return replace(self, breaker=breaker, resume_at=now + gap_s, mean_cost_s=mean_cost_s)

    def cycle_s(self, pace: Pace) -> float:
        """Mean seconds from one start to the next while something always waits."""
        busy_s = (self.mean_cost_s + pace.mean_gap_s) / pace.max_running
        return max(pace.interval_s, busy_s)
