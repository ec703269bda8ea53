"""The sweeper: takes jobs back from dead workers and repeats hints that were lost.

Every worker and API process runs one; a lease row elects the one that works.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import Engine, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from audiofoundation.catalog.engine import read_session, write_session
from audiofoundation.catalog.forks import FORK_GATE
from audiofoundation.catalog.tables import Job, Lease
from audiofoundation.errors import AudioFoundationError, ErrorCode, StorageUnavailable
from audiofoundation.identifiers import JobId
from audiofoundation.jobs.kinds import QUEUE_OF, JobKind, JobState
from audiofoundation.jobs.lease import backoff_s
from audiofoundation.jobs.owner import current_owner, is_certainly_dead
from audiofoundation.jobs.queue import MAX_HINTS, JobQueue, Publisher, publish_hints
from audiofoundation.settings import JobSettings
from audiofoundation.telemetry.metrics import HINTS_REPUBLISHED, LEASES_EXPIRED, count

_ROLE = "sweeper"
_LEASE_IN_SWEEPS = 3.0
_MIN_PAUSE_S = 0.5

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one sweep did; all zero where another process is the sweeper."""

    num_reclaimed: int = 0
    num_republished: int = 0


def sweep(engine: Engine, publisher: Publisher, settings: JobSettings) -> Sweep:
    """Return the jobs of dead workers to the queue and publish the due jobs whose hints are lost.

    A job whose last attempt was lost goes back too: the worker that gets it ends it as `dead`, since
    only a worker knows what else to write then.

    Raises:
        StorageUnavailable: the catalog did not answer.
    """
    if not _is_elected(engine, settings):
        return Sweep()
    return Sweep(num_reclaimed=_reclaim(engine, settings), num_republished=_republish(engine, publisher, settings))


def pause_s(engine: Engine, settings: JobSettings) -> float:
    """Return how long to rest after a sweep: until the next job that waits for its time, half a second at least.

    Raises:
        StorageUnavailable: the catalog did not answer.
    """
    now = time.time()
    with read_session(engine) as session:
        waiting = (_next_due(session, kind, now) for kind in JobKind)
        next_due = min((due for due in waiting if due is not None), default=now + settings.sweep_interval_s)
    return min(settings.sweep_interval_s, max(_MIN_PAUSE_S, next_due - now))


def _next_due(session: Session, kind: JobKind, now: float) -> float | None:
    waiting = select(Job.not_before).where(Job.state == JobState.QUEUED, Job.kind == kind, Job.not_before > now)
    return session.scalar(waiting.order_by(Job.not_before).limit(1))


class SweeperThread:
    """Sweeps every `sweep_interval_s`, and when a job's time comes, until stopped."""

    def __init__(self, queue: JobQueue, settings: JobSettings) -> None:
        self._queue = queue
        self._settings = settings
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        """Start sweeping; the first sweep comes at once."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the sweep in progress."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            rest_s = self._settings.sweep_interval_s
            try:
                sweep(self._queue.engine, self._queue.publisher, self._settings)
                rest_s = pause_s(self._queue.engine, self._settings)
            except (
                AudioFoundationError,
                SQLAlchemyError,
            ) as error:  # of any kind: a sweeper that ended would be missed
                _log.warning("sweep_failed", error=str(error))
            if self._stopped.wait(rest_s):
                return


def _is_elected(engine: Engine, settings: JobSettings) -> bool:
    now, me = time.time(), current_owner()
    with read_session(engine) as session:
        holder = session.get(Lease, _ROLE)
        if holder is not None and holder.owner != me and not _is_over(holder.owner, holder.lease_until, now):
            return False
        seen = None if holder is None else (holder.owner, holder.lease_until)
    with write_session(engine) as session:
        return _take_role(session, me, seen, now + _LEASE_IN_SWEEPS * settings.sweep_interval_s)


def _take_role(session: Session, me: str, seen: tuple[str, float] | None, lease_until: float) -> bool:
    """Take the role from the holder that was seen; whoever came in between keeps it."""
    if seen is None:
        insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
        adding = insert(Lease).values(name=_ROLE, owner=me, lease_until=lease_until)
        taken = session.execute(adding.on_conflict_do_nothing().returning(Lease.name)).one_or_none()
        return taken is not None
    taking = (
        update(Lease)
        .where(Lease.name == _ROLE, Lease.owner == seen[0], Lease.lease_until == seen[1])
        .values(owner=me, lease_until=lease_until)
        .returning(Lease.name)
    )
    return session.execute(taking).one_or_none() is not None


def _is_over(owner: str | None, lease_until: float | None, now: float) -> bool:
    return lease_until is None or lease_until < now or owner is None or is_certainly_dead(owner)


def _reclaim(engine: Engine, settings: JobSettings) -> int:
    now = time.time()
    with read_session(engine) as session:
        running = session.execute(
            select(Job.id, Job.kind, Job.attempt, Job.lease_owner, Job.lease_until).where(Job.state == JobState.RUNNING)
        ).all()
    lost = [row for row in running if _is_over(row.lease_owner, row.lease_until, now)]
    if not lost:
        return 0
    num_reclaimed = 0
    with write_session(engine) as session:
        for row in lost:
            if _take_back(session, row.id, row.attempt, row.lease_owner, row.lease_until, settings):
                num_reclaimed += 1
                count(LEASES_EXPIRED, row.kind)
                _log.warning("job_reclaimed", job_id=row.id, job_kind=row.kind, attempt=row.attempt)
    return num_reclaimed


def _take_back(
    session: Session, job_id: str, attempt: int, owner: str, lease_until: float, settings: JobSettings
) -> bool:
    """Return the job to the queue unless its worker has renewed or finished in between."""
    is_exhausted = attempt >= settings.max_attempts
    requeueing = (
        update(Job)
        .where(
            Job.id == job_id,
            Job.state == JobState.RUNNING,
            Job.attempt == attempt,
            Job.lease_owner == owner,
            Job.lease_until == lease_until,
        )
        .values(
            state=JobState.QUEUED,
            lease_owner=None,
            lease_until=None,
            not_before=time.time() + (0.0 if is_exhausted else backoff_s(attempt, settings)),
            published_at=0.0,
            last_error_class=ErrorCode.LEASE_LOST.value,
            last_error=f"The worker of attempt {attempt} died or stalled.",
        )
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    )
    return session.execute(requeueing).one_or_none() is not None


def _republish(engine: Engine, publisher: Publisher, settings: JobSettings) -> int:
    """Publish due jobs until each queue holds as many hints as it has due jobs.

    Any hint makes a worker take any due job of its queue, so only their number matters.
    """
    num_published = 0
    for name in sorted(set(QUEUE_OF.values())):
        kinds = [kind for kind in JobKind if QUEUE_OF[kind] == name]
        unseen, num_due = _unseen(engine, kinds, settings)
        if not unseen:
            continue
        try:
            num_missing = num_due - publisher.num_waiting(kinds[0])
        except StorageUnavailable as error:
            _log.warning("queue_depth_unknown", queue=name, error=error.message)
            return num_published
        hints = unseen[: max(num_missing, 0)]
        with write_session(engine) as session:
            _mark_published(session, [job_id for _, job_id in hints])
        num_sent = publish_hints(publisher, hints)
        with FORK_GATE.session():
            count(HINTS_REPUBLISHED, name, amount=num_sent)
        num_published += num_sent
    return num_published


def _unseen(engine: Engine, kinds: Sequence[JobKind], settings: JobSettings) -> tuple[list[tuple[JobKind, JobId]], int]:
    """Return the due jobs that nobody has published lately, and how many are due (up to MAX_HINTS)."""
    now = time.time()
    lately = now - settings.republish_after_s
    unseen: list[tuple[JobKind, JobId]] = []
    num_due = 0
    with read_session(engine) as session:
        for kind in kinds:  # one after the other: only then is each answer an index's first rows, however many wait
            due = select(Job.id).where(Job.state == JobState.QUEUED, Job.kind == kind, Job.not_before <= now)
            oldest = due.where(Job.published_at < lately).order_by(Job.not_before, Job.id).limit(MAX_HINTS)
            unseen += [(kind, JobId(job_id)) for job_id in session.scalars(oldest)]
            num_due += session.scalar(select(func.count()).select_from(due.limit(MAX_HINTS).subquery())) or 0
    return unseen[:MAX_HINTS], min(num_due, MAX_HINTS)


def _mark_published(session: Session, job_ids: Sequence[JobId]) -> None:
    marking = update(Job).where(Job.id.in_(job_ids)).values(published_at=time.time())
    session.execute(marking.execution_options(synchronize_session=False))
