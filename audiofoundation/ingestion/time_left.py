"""An honest time until a collection is settled: what its sites allow, who else waits there, who is shut out."""

import time
from collections.abc import Mapping, Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from audiofoundation.catalog.tables import EgressLane
from audiofoundation.ingestion.lanes import last_count, read_lanes, youtube_site
from audiofoundation.ingestion.pacing import Lane, Pace
from audiofoundation.ingestion.planner import starts_per_s
from audiofoundation.ingestion.source import SourceKind
from audiofoundation.settings import FetchSettings

_FIRST_URL_S = 2.0  # before anything was fetched
_FILE_S = 0.3


def time_left_s(
    session: Session, pending: Mapping[SourceKind, int], *, settings: FetchSettings, now: float | None = None
) -> float:
    """Return the estimated seconds until none of a collection's pending items waits any more; 0 for none.

    YouTube: the buckets, rests and breakers of all identities, and every video that waits in the platform,
    since collections share them. Other hosts and uploads: the mean of what files took so far.

    Args:
        session: the catalog.
        pending: items that are queued or being fetched, by kind.
        settings: identities and rates.
        now: seconds since the epoch.
    """
    now = time.time() if now is None else now
    site = youtube_site(settings)
    num_videos = pending.get(SourceKind.YOUTUBE, 0)
    videos_s = 0.0
    if num_videos:
        num_ahead = max(num_videos, last_count(session, site, newer_than=0.0) or 0)
        videos_s = _until_started(num_ahead, read_lanes(session, site), site.pace, now)
    files_s = pending.get(SourceKind.FILE, 0) * _FILE_S
    if num_urls := pending.get(SourceKind.URL, 0):
        files_s += num_urls * _mean_url_s(session)
    return max(videos_s, files_s)


def _until_started(num_items: int, lanes: Sequence[Lane], pace: Pace, now: float) -> float:
    """Return when the lanes together have served that many: each begins once it may."""
    waits = sorted(((lane.wait_s(pace, now=now, num_running=0), lane) for lane in lanes), key=lambda pair: pair[0])
    left = float(num_items)
    for index, (wait_s, _) in enumerate(waits):
        rate = starts_per_s([lane for _, lane in waits[: index + 1]], pace)
        next_wait_s = waits[index + 1][0] if index + 1 < len(waits) else float("inf")
        if left <= rate * (next_wait_s - wait_s):
            return wait_s + left / rate
        left -= rate * (next_wait_s - wait_s)
    raise AssertionError("unreachable")


def _mean_url_s(session: Session) -> float:
    is_host = EgressLane.name.not_like("youtube|%")
    mean_s = session.scalar(select(func.avg(EgressLane.mean_cost_s)).where(is_host, EgressLane.mean_cost_s > 0))
    return mean_s or _FIRST_URL_S
