"""Enqueueing: the row is written with what it refers to; its id is published after the commit."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Protocol

import structlog
from sqlalchemy import Engine, and_, or_, select, update
from sqlalchemy.orm import Session

from audiofoundation.catalog.bulk import insert_new
from audiofoundation.catalog.engine import write_session
from audiofoundation.catalog.tables import Job
from audiofoundation.errors import StorageUnavailable
from audiofoundation.identifiers import JobId, create_id
from audiofoundation.jobs.kinds import TERMINAL_STATES, JobKind, JobState
from audiofoundation.telemetry.tracing import NOWHERE, Origin, current_origin

# More hints than this never wait in one queue: the sweeper tops it up as it drains.
MAX_HINTS = 1000
# Of more jobs at once each is a trace of its own: one of a million nobody can look at. Fewer than a full page of any
# discovery has entries, so that those of a channel with a hundred pages do not all come into one trace either.
MAX_TOGETHER = 50

_log = structlog.get_logger(__name__)


class Publisher(Protocol):
    """Carries hints ("this job may be claimable") to workers. Losing one costs time, never work."""

    def publish(self, kind: JobKind, job_id: JobId) -> None:
        """Send one hint. Raises StorageUnavailable when the queue server does not answer."""

    def num_waiting(self, kind: JobKind) -> int:
        """Return how many hints wait in the queue of this kind. Raises StorageUnavailable."""


@dataclass(frozen=True, slots=True)
class UnitOfWork:
    """One write transaction and the jobs enqueued in it."""

    session: Session
    enqueued: list[tuple[JobKind, JobId]] = field(default_factory=list)

    def enqueue(self, kind: JobKind, *, key: str, subject_id: str, is_requeue: bool = False) -> JobId:
        """Add a job, unless one with this key exists; return the id of the job with this key.

        Args:
            kind: what the job does.
            key: what makes the job one of its kind; enqueueing the same key again adds nothing.
            subject_id: the row that the job is about.
            is_requeue: put a finished, failed, dead or cancelled job back in the queue, attempt 0; one that
                waits for a later time to begin comes at once.
        """
        now, origin = time.time(), current_origin(is_apart=len(self.enqueued) >= MAX_TOGETHER)
        job_id = self._insert({"kind": kind.value, "key": key, "subject_id": subject_id, **_columns(origin)}, now)
        if job_id is None and is_requeue:
            job_id = self._requeue(key, now, origin)
        if job_id is None:
            return JobId(self.session.scalars(select(Job.id).where(Job.key == key)).one())
        self.enqueued.append((kind, job_id))
        return job_id

    def enqueue_again(self, job_id: JobId, *, not_before: float) -> None:
        """Put a job that has ended back in the queue, to be done once more from that time on."""
        ended = update(Job).where(Job.id == job_id, Job.state.in_(TERMINAL_STATES))
        origin = asdict(current_origin(is_apart=True))  # it may be days
        again = ended.values(state=JobState.QUEUED, attempt=0, not_before=not_before, published_at=0.0, **origin)
        self.session.execute(again.execution_options(synchronize_session=False))

    def enqueue_all(self, kind: JobKind, subjects: Mapping[str, str]) -> None:
        """Add a job for each key that none has yet, in one statement.

        Args:
            kind: what the jobs do.
            subjects: the row that each job is about, by the job's key.
        """
        if not subjects:
            return
        now = time.time()
        num_hints = max(MAX_HINTS - len(self.enqueued), 0)
        columns = _columns(current_origin(is_apart=len(self.enqueued) + len(subjects) > MAX_TOGETHER))
        rows = [
            {
                "id": create_id("job"),
                "kind": kind.value,
                "key": key,
                "subject_id": subject_id,
                "published_at": now if index < num_hints else 0.0,
                **columns,
            }
            for index, (key, subject_id) in enumerate(sorted(subjects.items()))
        ]
        added = insert_new(self.session, Job, rows, unique=["key"])
        self.enqueued.extend((kind, JobId(job_id)) for job_id in sorted(added))

    def _insert(self, columns: Mapping[str, str], now: float) -> JobId | None:
        # Hints beyond the limit are left to the sweeper, which sees published_at = 0.
        published_at = now if len(self.enqueued) < MAX_HINTS else 0.0
        row = {"id": create_id("job"), "published_at": published_at, **columns}
        inserted = insert_new(self.session, Job, [row], unique=["key"])
        return JobId(inserted.pop()) if inserted else None

    def _requeue(self, key: str, now: float, origin: Origin) -> JobId | None:
        is_put_off = and_(Job.state == JobState.QUEUED, Job.attempt == 0, Job.not_before > now)
        requeued = self.session.execute(
            update(Job)
            .where(Job.key == key, or_(Job.state.in_(TERMINAL_STATES), is_put_off))
            .values(
                state=JobState.QUEUED,
                attempt=0,
                lease_owner=None,
                lease_until=None,
                not_before=0.0,
                published_at=now,
                last_error_class=None,
                last_error=None,
                **asdict(origin),
            )
            .returning(Job.id)
            .execution_options(synchronize_session=False)
        ).scalar_one_or_none()
        return None if requeued is None else JobId(requeued)


def _columns(origin: Origin) -> Mapping[str, str]:
    """Return what of an origin is written into a new row; nothing without traces, which then cost inserts nothing."""
    return {} if origin is NOWHERE else {name: value for name, value in asdict(origin).items() if value is not None}


@dataclass(frozen=True, slots=True)
class JobQueue:
    """Opens units of work on the catalog and publishes what they enqueued."""

    engine: Engine
    publisher: Publisher

    @contextmanager
    def unit_of_work(self) -> Iterator[UnitOfWork]:
        """Yield a unit of work: it commits at the end, then its jobs are published; an error drops both.

        Raises:
            StorageUnavailable: the catalog did not answer; nothing was written.
        """
        with write_session(self.engine) as session:
            unit = UnitOfWork(session)
            yield unit
        publish_hints(self.publisher, unit.enqueued[:MAX_HINTS])


def publish_hints(publisher: Publisher, jobs: Sequence[tuple[JobKind, JobId]]) -> int:
    """Publish each job; return how many went out. The sweeper repeats what did not."""
    for num_published, (kind, job_id) in enumerate(jobs):
        try:
            publisher.publish(kind, job_id)
        except StorageUnavailable as error:
            _log.warning("job_hints_not_published", num_jobs=len(jobs) - num_published, error=error.message)
            return num_published
    return len(jobs)
