"""The bucket, the gap and the breaker, with time as an argument: a million items pass in seconds."""

import random
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from audiofoundation.ingestion.pacing import Ending, Lane, Pace

HOUR_S = 3600.0
VIDEOS = Pace(per_hour=250, burst=1, max_running=1, min_gap_s=10.0, max_gap_s=20.0)
NOW = 1_790_000_000.0
PACES = st.integers(1, 40).flatmap(
    lambda rate: st.builds(Pace, per_hour=st.just(rate), burst=st.integers(1, rate), max_running=st.just(1000))
)


def most_in_an_hour(starts: NDArray[np.float64]) -> int:
    """The most starts in any closed window of 3600 s; the worst one begins at a start."""
    ends = np.searchsorted(starts, starts + HOUR_S, side="right")
    return int((ends - np.arange(len(starts))).max(initial=0))


@given(PACES, st.lists(st.floats(0, 2000), max_size=200), st.integers(0, 3))
def test_no_window_of_an_hour_holds_more_starts_than_the_rate(pace: Pace, steps: list[float], num_eager: int) -> None:
    lane, now, starts = Lane(), NOW, []
    for step in steps:
        now += step
        for _ in range(1 + num_eager * 20):
            if lane.wait_s(pace, now=now, num_running=0) == 0:
                starts.append(now)
                lane = lane.started(pace, now=now)
    assert most_in_an_hour(np.array(starts)) <= pace.per_hour


@given(PACES)
def test_the_eager_get_nearly_the_whole_rate_and_never_more(pace: Pace) -> None:
    lane, now, starts = Lane(), NOW, []
    while now < NOW + 3 * HOUR_S:
        if wait_s := lane.wait_s(pace, now=now, num_running=0):
            now += wait_s
            continue
        starts.append(now)
        lane = lane.started(pace, now=now)
    assert most_in_an_hour(np.array(starts)) == pace.per_hour


def test_a_bucket_that_refills_at_the_whole_rate_would_be_caught() -> None:
    class Naive(Pace):
        @property
        def interval_s(self) -> float:
            return HOUR_S / self.per_hour

    pace, lane, now = Naive(per_hour=20, burst=10, max_running=9), Lane(), NOW
    starts = []
    for _ in range(100):
        now += lane.wait_s(pace, now=now, num_running=0)
        starts.append(now)
        lane = lane.started(pace, now=now)
    assert most_in_an_hour(np.array(starts)) > pace.per_hour


def test_a_clock_set_back_costs_one_bucket_at_most() -> None:
    lane = Lane().started(VIDEOS, now=NOW)
    assert lane.wait_s(VIDEOS, now=NOW - HOUR_S, num_running=0) == pytest.approx(VIDEOS.interval_s)


def test_one_at_a_time_and_a_rest_after_each() -> None:
    lane = Lane().started(VIDEOS, now=NOW)
    assert lane.wait_s(VIDEOS, now=NOW + 100, num_running=1) > 0
    lane = lane.ended(VIDEOS, now=NOW + 100, started_at=NOW, ending=Ending.ANSWERED, gap_s=12.0)
    assert lane.wait_s(VIDEOS, now=NOW + 111, num_running=0) == pytest.approx(1.0)
    assert lane.wait_s(VIDEOS, now=NOW + 112, num_running=0) == 0


def test_a_refusal_shuts_the_lane_for_an_hour_and_then_lets_one_try() -> None:
    many = Pace(per_hour=250, burst=10, max_running=4)
    lane = Lane().started(many, now=NOW)
    lane = lane.ended(many, now=NOW + 5, started_at=NOW, ending=Ending.REFUSED, gap_s=0)
    assert lane.wait_s(many, now=NOW + 5, num_running=0) == HOUR_S
    late = lane.ended(many, now=NOW + 9, started_at=NOW + 1, ending=Ending.ANSWERED, gap_s=0)
    assert late.breaker.is_tripped, "what began before the refusal proves nothing"
    probe_at = NOW + 5 + HOUR_S
    assert lane.wait_s(many, now=probe_at, num_running=1) > 0
    assert lane.wait_s(many, now=probe_at, num_running=0) == 0
    probing = lane.started(many, now=probe_at)
    assert probing.wait_s(many, now=probe_at + 60, num_running=0) == HOUR_S - 60, "even when the probe's worker dies"
    ended = probing.ended(many, now=probe_at + 30, started_at=probe_at, ending=Ending.UNKNOWN, gap_s=0)
    assert ended.breaker.is_tripped
    healed = probing.ended(many, now=probe_at + 30, started_at=probe_at, ending=Ending.ANSWERED, gap_s=0)
    assert not healed.breaker.is_tripped


@pytest.mark.parametrize(("per_hour", "burst"), [(0, 1), (5, 6), (5, 0)])
def test_a_burst_beyond_the_rate_is_refused(per_hour: int, burst: int) -> None:
    with pytest.raises(ValueError, match="burst"):
        Pace(per_hour=per_hour, burst=burst)


@dataclass(slots=True)
class Identity:
    """One egress identity working through its share of the queue as eagerly as it may."""

    rng: random.Random
    pace: Pace
    starts: list[float] = field(default_factory=list)
    probes: list[float] = field(default_factory=list)

    def work(self, num_items: int) -> float:
        """Serve the items; return how long it took. Refused items go back, as the queue does it."""
        lane, now, num_done = Lane(), NOW, 0
        storm_until = 0.0
        while num_done < num_items:
            wait_s = lane.wait_s(self.pace, now=now, num_running=0)
            if wait_s:
                now += wait_s
                continue
            if lane.breaker.is_tripped:
                self.probes.append(now)
            self.starts.append(now)
            lane, began = lane.started(self.pace, now=now), now
            ending = self._ending(now < storm_until)
            if ending is Ending.REFUSED and storm_until < now:
                storm_until = now + self.rng.expovariate(1 / (3 * HOUR_S))
            now += 1.0 if ending is Ending.REFUSED else self.rng.expovariate(1 / 4.0)
            num_done += ending is Ending.ANSWERED
            gap_s = self.rng.uniform(self.pace.min_gap_s, self.pace.max_gap_s)
            lane = lane.ended(self.pace, now=now, started_at=began, ending=ending, gap_s=gap_s)
        return now - NOW

    def _ending(self, is_storm: bool) -> Ending:
        chance = self.rng.random()
        if is_storm or chance < 0.0005:
            return Ending.REFUSED
        return Ending.UNKNOWN if chance < 0.005 else Ending.ANSWERED


@pytest.mark.parametrize(
    "pace",
    [VIDEOS, Pace(per_hour=250, burst=50, max_running=1)],
    ids=["as shipped", "eager, with a burst"],
)
def test_a_million_items_never_break_the_rate_nor_knock_twice_an_hour(pace: Pace) -> None:
    num_identities, num_items = 10, 500_000  # a million over both paces
    for seed in range(num_identities):
        identity = Identity(random.Random(seed), pace)
        identity.work(num_items // num_identities)
        assert most_in_an_hour(np.array(identity.starts)) <= 250
        assert len(identity.probes) > 10
        assert np.diff(identity.probes).min() >= HOUR_S
