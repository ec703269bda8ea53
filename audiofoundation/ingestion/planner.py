"""Who fetches when: places in lanes, jobs that wait their turn without holding a worker, honest time left.

A job that finds every lane of its site busy goes back to the queue at once, with a time of its own: spread
evenly over a quarter of what the site needs for all that wait. About four jobs then knock per start, however
long the queue is, so a lane hardly idles and a million waiting rows cost nothing. A finished fetch calls the
next jobs forward, which makes up for estimates that were wrong.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Engine

from audiofoundation.catalog.engine import read_session, write_session
from audiofoundation.errors import FetchRefused, PayloadTooLarge, RateLimited
from audiofoundation.ingestion import lanes
from audiofoundation.ingestion.lanes import Site
from audiofoundation.ingestion.pacing import Ending, Lane, Pace
from audiofoundation.ingestion.source import SourceKind
from audiofoundation.jobs.lease import Claim
from audiofoundation.settings import EgressIdentity, FetchSettings

_KNOCKS_PER_START = 4.0
_POSTPONED_AT_ONCE = 500
_CALLED_FORWARD = 2
_RECOUNT_S = 60.0
_MIN_DELAY_S = 0.05
_HINT_S = 0.5  # from the time when a job is due until a worker has it
_RNG = random.SystemRandom()  # has no state that forked workers would share


@dataclass(frozen=True, slots=True)
class Place:
    """A start that one job was given.

    Attributes:
        site: where it goes.
        identity: how it goes there.
        started_at: when it began.
    """

    site: Site
    identity: EgressIdentity
    started_at: float


@dataclass(frozen=True, slots=True)
class Planner:
    """Gives jobs their places.

    Attributes:
        engine: the catalog, which all workers share.
        settings: identities and rates.
        clock: seconds since the epoch.
        rng: rests and waiting times.
    """

    engine: Engine
    settings: FetchSettings
    clock: Callable[[], float] = time.time
    rng: random.Random = _RNG

    @contextmanager
    def place(self, kind: SourceKind, source: str, claim: Claim) -> Iterator[Place]:
        """Hold a place in a lane to the source's site.

        Raises:
            RateLimited: no identity may start now, or the one that did was refused; come again after `retry_after_s`.
            UnsafeUrl: the source is no address.
        """
        site = lanes.site_of(kind, source, self.settings)
        place = self.take(site, claim)
        if place is None:
            raise RateLimited(
                f"{site.name} is asked as often as it may be", retry_after_s=self._send_away(site, is_full=True)
            )
        ending = Ending.UNKNOWN
        try:
            yield place
            ending = Ending.ANSWERED
        except RateLimited as error:
            ending = Ending.REFUSED
            self.give_back(place, claim, ending)
            raise RateLimited(error.message, retry_after_s=self._send_away(site, is_full=False)) from error
        except (FetchRefused, PayloadTooLarge):
            ending = Ending.ANSWERED  # a plain no is an answer
            raise
        finally:
            if ending is not Ending.REFUSED:
                self.give_back(place, claim, ending)

    def take(self, site: Site, claim: Claim) -> Place | None:
        """Start in the first lane that allows it; None when none does."""
        with write_session(self.engine) as session:
            rows = lanes.lock_lanes(session, [site.lane_of(identity) for identity in site.identities])
            now = self.clock()
            for identity in self.rng.sample(site.identities, len(site.identities)):
                row = rows[site.lane_of(identity)]
                lanes.drop_dead_holders(session, row, claim)
                lane = lanes.to_lane(row)
                if lane.wait_s(site.pace, now=now, num_running=len(row.holders)) == 0:
                    lanes.write_lane(row, lane.started(site.pace, now=now))
                    row.holders = {**row.holders, claim.job_id: claim.owner}
                    row.num_started += 1
                    return Place(site, identity, now)
        return None

    def give_back(self, place: Place, claim: Claim, ending: Ending) -> None:
        """End a fetch: the lane learns from it and the jobs that come next are called."""
        pace = place.site.pace
        gap_s = self.rng.uniform(pace.min_gap_s, pace.max_gap_s)
        with write_session(self.engine) as session:
            name = place.site.lane_of(place.identity)
            row = lanes.lock_lanes(session, [name])[name]
            lane = lanes.to_lane(row).ended(
                pace, now=self.clock(), started_at=place.started_at, ending=ending, gap_s=gap_s
            )
            lanes.write_lane(row, lane)
            row.holders = {job_id: owner for job_id, owner in row.holders.items() if owner != claim.owner}
            now = self.clock()
            wait_s = lane.wait_s(pace, now=now, num_running=len(row.holders))
            lanes.call_forward(session, place.site, to=now + wait_s, limit=_CALLED_FORWARD)

    def _send_away(self, site: Site, *, is_full: bool) -> float:
        """Return after how long a job may come again, and send others away that would find no place either.

        Args:
            site: where all of them want to go.
            is_full: no lane lets anybody start now; otherwise it depends on their breakers.
        """
        now = self.clock()
        with read_session(self.engine) as session:
            found = lanes.read_lanes(session, site)
            num_waiting = lanes.last_count(session, site, newer_than=now - _RECOUNT_S)
            if num_waiting is None:
                num_waiting = lanes.count_waiting(session, site)
        wait_s = min(lane.wait_s(site.pace, now=now, num_running=0) for lane in found)
        spread_s = num_waiting / (starts_per_s(found, site.pace) * _KNOCKS_PER_START)

        def delay_s() -> float:
            return max(_MIN_DELAY_S, wait_s) + self.rng.uniform(0.0, spread_s)

        with write_session(self.engine) as session:
            lanes.note_count(session, site, num_waiting, now=now)
            if is_full or wait_s > 0:
                lanes.postpone_due(session, site, now=now, limit=_POSTPONED_AT_ONCE, next_time=lambda: now + delay_s())
        return delay_s()


def starts_per_s(found: Sequence[Lane], pace: Pace) -> float:
    """Return how many fetches these lanes start per second while something always waits."""
    return sum(1.0 / (lane.cycle_s(pace) + _HINT_S / pace.max_running) for lane in found)
