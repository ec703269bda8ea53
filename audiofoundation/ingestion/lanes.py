"""Lanes in the catalog: what each egress identity may ask of each site, shared by all workers.

A lane is read, judged and written in one transaction that locks its row, so two workers never take the
same start. A place in it belongs to a running job: when the worker dies, the place goes with its lease.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, bindparam, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from audiofoundation.catalog.tables import EgressLane, Item, Job
from audiofoundation.ingestion.breaker import Breaker
from audiofoundation.ingestion.pacing import Lane, Pace
from audiofoundation.ingestion.source import SourceKind
from audiofoundation.ingestion.states import ItemState
from audiofoundation.ingestion.web_address import parse_web_address
from audiofoundation.jobs.kinds import JobKind, JobState
from audiofoundation.jobs.lease import Claim
from audiofoundation.settings import EgressIdentity, FetchSettings

_SCANNED = 5000


@dataclass(frozen=True, slots=True)
class Site:
    """Where fetches go: YouTube, or one other host.

    Attributes:
        name: of the lanes that lead there, before the identity's.
        pace: what one identity may ask of it.
        identities: the ways there.
        items: condition on `Item` for what is fetched from it.
    """

    name: str
    pace: Pace
    identities: tuple[EgressIdentity, ...]
    items: ColumnElement[bool]

    def lane_of(self, identity: EgressIdentity) -> str:
        """Return the name of an identity's lane."""
        return f"{self.name}|{identity.name}"


def site_of(kind: SourceKind, source: str, settings: FetchSettings) -> Site:
    """Return the site that a crawled source lies on. Raises UnsafeUrl."""
    if kind is SourceKind.YOUTUBE:
        return youtube_site(settings)
    address = parse_web_address(source)
    prefix = f"url:{address.scheme}://{address.authority}/"
    pace = Pace(
        per_hour=settings.host_per_hour,
        burst=min(settings.host_burst, settings.host_per_hour),
        max_running=settings.host_concurrency,
        open_s=settings.breaker_s,
    )
    is_there = and_(Item.kind == SourceKind.URL, Item.canonical.startswith(prefix, autoescape=True))
    if kind is SourceKind.YANDEX:  # its canonical names hold no address: all of them lie on one host
        is_there = Item.kind == SourceKind.YANDEX
    return Site(address.authority, pace, (EgressIdentity(),), is_there)


def youtube_site(settings: FetchSettings) -> Site:
    """Return YouTube, over all identities."""
    pace = Pace(
        per_hour=settings.videos_per_hour,
        max_running=1,
        min_gap_s=settings.video_min_gap_s,
        max_gap_s=settings.video_max_gap_s,
        open_s=settings.breaker_s,
    )
    return Site("youtube", pace, settings.identities, Item.kind == SourceKind.YOUTUBE)


def lock_lanes(session: Session, names: Sequence[str]) -> dict[str, EgressLane]:
    """Return the lanes' rows, made where there are none, locked until the transaction ends."""
    is_postgresql = session.get_bind().dialect.name == "postgresql"
    insert = postgresql.insert if is_postgresql else sqlite.insert
    missing = set(names) - set(session.scalars(select(EgressLane.name).where(EgressLane.name.in_(names))))
    for name in sorted(missing):
        session.execute(insert(EgressLane).values(name=name, holders={}).on_conflict_do_nothing())
    rows = session.scalars(
        select(EgressLane).where(EgressLane.name.in_(names)).order_by(EgressLane.name).with_for_update()
    )
    return {row.name: row for row in rows}


def read_lanes(session: Session, site: Site) -> list[Lane]:
    """Return the lanes of a site, one per identity, fresh ones where nothing was fetched yet."""
    names = [site.lane_of(identity) for identity in site.identities]
    rows = {row.name: row for row in session.scalars(select(EgressLane).where(EgressLane.name.in_(names)))}
    return [to_lane(rows[name]) if name in rows else Lane() for name in names]


def to_lane(row: EgressLane) -> Lane:
    """Return the value of a row."""
    breaker = Breaker(row.is_tripped, row.open_until)
    return Lane(full_at=row.full_at, resume_at=row.resume_at, breaker=breaker, mean_cost_s=row.mean_cost_s)


def write_lane(row: EgressLane, lane: Lane) -> None:
    """Write a value into its row."""
    row.full_at = lane.full_at
    row.resume_at = lane.resume_at
    row.is_tripped = lane.breaker.is_tripped
    row.open_until = lane.breaker.open_until
    row.mean_cost_s = lane.mean_cost_s


def drop_dead_holders(session: Session, row: EgressLane, claim: Claim) -> None:
    """Free the places of jobs whose workers died, and of this job's earlier attempts."""
    now = time.time()
    holders = {job_id: owner for job_id, owner in row.holders.items() if job_id != claim.job_id}
    if holders:
        is_held = and_(Job.id.in_(holders), Job.state == JobState.RUNNING, Job.lease_until > now)
        held = {tuple(row) for row in session.execute(select(Job.id, Job.lease_owner).where(is_held))}
        holders = dict(pair for pair in holders.items() if pair in held)
    row.holders = holders


def count_waiting(session: Session, site: Site) -> int:
    """Return how many jobs wait for a site. It looks at each of them."""
    jobs = select(func.count()).select_from(Job).join(Item, Item.id == Job.subject_id)
    return session.scalar(jobs.where(_is_waiting(), _is_of(site))) or 0


def last_count(session: Session, site: Site, *, newer_than: float) -> int | None:
    """Return what `note_count` wrote last, unless it is older than that."""
    row = session.get(EgressLane, site.lane_of(site.identities[0]))
    return None if row is None or row.counted_at < newer_than else row.num_waiting


def note_count(session: Session, site: Site, num_waiting: int, *, now: float) -> None:
    """Keep a count for a while; it stands in the lane of the first identity."""
    name = site.lane_of(site.identities[0])
    row = lock_lanes(session, [name])[name]
    row.num_waiting, row.counted_at = num_waiting, now


def postpone_due(session: Session, site: Site, *, now: float, limit: int, next_time: Callable[[], float]) -> int:
    """Give the next due jobs of a site times of their own, so that workers need not refuse each; return how many."""
    due = select(Job.id, Job.subject_id).where(_is_waiting(), Job.not_before <= now)
    first = due.order_by(Job.not_before, Job.id).limit(_SCANNED).subquery()
    chosen = select(first.c.id).join(Item, Item.id == first.c.subject_id).where(_is_of(site)).limit(limit)
    ids = session.scalars(chosen).all()
    _move(session, {job_id: next_time() for job_id in ids})
    return len(ids)


def call_forward(session: Session, site: Site, *, to: float, limit: int) -> None:
    """Let the jobs of a site that would come next come by then."""
    waiting = select(Job.id, Job.not_before, Job.subject_id).where(_is_waiting())
    first = waiting.order_by(Job.not_before, Job.id).limit(_SCANNED).subquery()
    chosen = select(first.c.id, first.c.not_before).join(Item, Item.id == first.c.subject_id).where(_is_of(site))
    next_ones = session.execute(chosen.order_by(first.c.not_before, first.c.id).limit(limit)).all()
    _move(session, {row.id: to for row in next_ones if row.not_before > to})


def _is_waiting() -> ColumnElement[bool]:
    return and_(Job.state == JobState.QUEUED, Job.kind == JobKind.INGEST_ITEM)


def _is_of(site: Site) -> ColumnElement[bool]:
    """Of the site and wanted now; items that are only looked at again some day do not count."""
    return and_(Item.state == ItemState.QUEUED, site.items)


def _move(session: Session, times: Mapping[str, float]) -> None:
    """Give waiting jobs new times, in one order everywhere, so that two workers cannot wait for each other."""
    if not times:
        return
    moving = update(Job).where(Job.id == bindparam("job"), Job.state == JobState.QUEUED)
    rows = [{"job": job_id, "time": times[job_id]} for job_id in sorted(times)]
    session.connection().execute(moving.values(not_before=bindparam("time"), published_at=0.0), rows)
