"""Claiming jobs and finishing them: lease, attempt, fenced commit (docs/adr/0003).

A claim holds a job while its row says `running` with this claim's attempt and owner. Whatever a claim
writes goes in one transaction with a check of that, so a worker that lost its job writes nothing.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, Engine, Row, and_, or_, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate, Update

from audiofoundation.catalog.engine import read_session, write_session
from audiofoundation.catalog.tables import Job
from audiofoundation.errors import AudioFoundationError, LeaseLost
from audiofoundation.identifiers import JobId
from audiofoundation.jobs.kinds import JobKind, JobState
from audiofoundation.jobs.owner import create_lease_owner
from audiofoundation.jobs.queue import JobQueue, UnitOfWork
from audiofoundation.settings import JobSettings
from audiofoundation.telemetry.failpoints import Failpoint, failpoint
from audiofoundation.telemetry.tracing import NOWHERE, Origin


@dataclass(frozen=True, slots=True)
class Claim:
    """One attempt at a job by one worker."""

    job_id: JobId
    kind: JobKind
    subject_id: str
    attempt: int
    owner: str
    origin: Origin = NOWHERE


_Columns = tuple[str, str, str, int, str | None, str | None]  # of a row, for a claim
Effect = Callable[[UnitOfWork], None]
OnFailure = Callable[[UnitOfWork, Claim, AudioFoundationError], None]


def claim(engine: Engine, job_id: JobId, *, owner: str, settings: JobSettings) -> Claim | None:
    """Take the job if it is free (queued and due, or its lease ran out); None when it is not."""
    now = time.time()
    return _claim_where(engine, and_(Job.id == job_id, _is_free(now)), now, owner, settings)


def claim_next(engine: Engine, kind: JobKind, *, owner: str, settings: JobSettings) -> Claim | None:
    """Take the job of this kind that has been due longest; None when none is due."""
    now = time.time()
    due = (
        select(Job.id)
        .where(Job.kind == kind, _is_due(now), Job.attempt < settings.max_attempts)
        .order_by(Job.not_before, Job.id)
        .limit(1)
        .correlate(None)
    )
    with read_session(engine) as session:  # an idle worker that looks takes no write lock
        if session.scalar(due) is None:
            return None
    first = due.with_for_update(skip_locked=True).scalar_subquery()  # SQLite leaves the locking out
    return _claim_where(engine, Job.id == first, now, owner, settings)


def renew(engine: Engine, claim: Claim, *, settings: JobSettings) -> None:
    """Extend the lease. Raises LeaseLost when the claim no longer holds the job."""
    with write_session(engine) as session:
        _write_held(session, claim, update(Job).values(lease_until=time.time() + settings.lease_s))


def record(queue: JobQueue, claim: Claim, effect: Effect, *, settings: JobSettings) -> None:
    """Apply an effect on the way, fenced like `commit`, and extend the lease; the job goes on.

    Raises:
        LeaseLost: the claim no longer holds the job; nothing was written.
    """
    with queue.unit_of_work() as unit:
        lease_until = time.time() + settings.lease_s
        _write_held(unit.session, claim, update(Job).values(lease_until=lease_until))
        effect(unit)


def commit(queue: JobQueue, claim: Claim, effect: Effect) -> None:
    """Finish the job and apply its effect, both or neither.

    Raises:
        LeaseLost: the claim no longer holds the job; nothing was written.
    """
    with queue.unit_of_work() as unit:
        _write_held(unit.session, claim, _ending(JobState.DONE, None))
        effect(unit)
        failpoint(Failpoint.JOB_COMMITTING)


def fail(
    queue: JobQueue,
    claim: Claim,
    error: AudioFoundationError,
    *,
    settings: JobSettings,
    on_failure: OnFailure,
) -> JobState:
    """Put the job back for another attempt, or end it; return the state it is in now.

    An error that is not retryable ends it as `failed`, the last attempt as `dead`; `on_failure` then runs
    in the same transaction.

    Raises:
        LeaseLost: the claim no longer holds the job; nothing was written.
    """
    with queue.unit_of_work() as unit:
        if error.retryable and claim.attempt < settings.max_attempts:
            delay_s = max(backoff_s(claim.attempt, settings), error.retry_after_s or 0.0)
            _write_held(unit.session, claim, _requeueing(delay_s, error))
            return JobState.QUEUED
        state = JobState.DEAD if error.retryable else JobState.FAILED
        _write_held(unit.session, claim, _ending(state, error))
        on_failure(unit, claim, error)
        return state


def release(engine: Engine, claim: Claim, *, delay_s: float = 0.0, error: AudioFoundationError | None = None) -> None:
    """Put the job back without using up the attempt. Raises LeaseLost."""
    with write_session(engine) as session:
        _write_held(session, claim, _requeueing(delay_s, error).values(attempt=Job.attempt - 1))


def restart_attempts(session: Session, claim: Claim) -> Claim:
    """Count this claim as the first attempt, since the one before it got somewhere; return what it is now.

    Raises:
        LeaseLost: the claim no longer holds the job; nothing was written.
    """
    _write_held(session, claim, update(Job).values(attempt=1))
    return replace(claim, attempt=1)


def bury(queue: JobQueue, job_id: JobId, *, settings: JobSettings, on_failure: OnFailure) -> bool:
    """End a job as `dead` whose attempts are used up (its workers died); return whether it was one."""
    now = time.time()
    is_exhausted = and_(Job.id == job_id, _is_free(now), Job.attempt >= settings.max_attempts)
    error = LeaseLost(f"The workers of all {settings.max_attempts} attempts died or stalled; the job is given up.")
    with read_session(queue.engine) as session:
        if session.scalar(select(Job.id).where(is_exhausted)) is None:
            return False
    with queue.unit_of_work() as unit:
        burying = _ending(JobState.DEAD, error).where(is_exhausted)
        row = unit.session.execute(_returning(burying)).one_or_none()
        if row is None:
            return False
        on_failure(unit, _to_claim(row, owner=""), error)
    return True


def cancel(session: Session, job_id: JobId) -> bool:
    """Stop a queued or running job: a worker that holds it can no longer commit. Return whether it was."""
    cancelled = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.state.in_((JobState.QUEUED, JobState.RUNNING)))
        .values(state=JobState.CANCELLED, lease_owner=None, lease_until=None)
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    ).scalar_one_or_none()
    return cancelled is not None


def backoff_s(attempt: int, settings: JobSettings) -> float:
    """Return how long to wait after this attempt: doubling, capped, ± 20 % so that a crowd spreads."""
    return min(2.0**attempt, settings.max_backoff_s) * random.uniform(0.8, 1.2)


def _is_due(now: float) -> ColumnElement[bool]:
    return and_(Job.state == JobState.QUEUED, Job.not_before <= now)


def _is_free(now: float) -> ColumnElement[bool]:
    return or_(_is_due(now), and_(Job.state == JobState.RUNNING, Job.lease_until < now))


def _claim_where(
    engine: Engine, condition: ColumnElement[bool], now: float, owner: str, settings: JobSettings
) -> Claim | None:
    lease_owner = create_lease_owner(owner)
    taking = (
        update(Job)
        .where(condition, Job.attempt < settings.max_attempts)
        .values(
            state=JobState.RUNNING,
            attempt=Job.attempt + 1,
            lease_owner=lease_owner,
            lease_until=now + settings.lease_s,
        )
    )
    with write_session(engine) as session:
        row = session.execute(_returning(taking)).one_or_none()
        return None if row is None else _to_claim(row, owner=lease_owner)


def _returning(statement: Update) -> ReturningUpdate[*_Columns]:
    returning = statement.returning(Job.id, Job.kind, Job.subject_id, Job.attempt, Job.traceparent, Job.trace_link)
    return returning.execution_options(synchronize_session=False)


def _to_claim(row: Row[*_Columns], *, owner: str) -> Claim:
    job_id, kind, subject_id, attempt, traceparent, trace_link = row
    origin = Origin(traceparent, trace_link)
    return Claim(JobId(job_id), JobKind(kind), subject_id, attempt, owner, origin)


def _write_held(session: Session, claim: Claim, statement: Update) -> None:
    held = statement.where(
        Job.id == claim.job_id,
        Job.state == JobState.RUNNING,
        Job.attempt == claim.attempt,
        Job.lease_owner == claim.owner,
    )
    if session.execute(_returning(held)).one_or_none() is None:
        raise LeaseLost(f"Attempt {claim.attempt} no longer holds job {claim.job_id}; nothing was written.")


def _ending(state: JobState, error: AudioFoundationError | None) -> Update:
    return _explained(update(Job).values(state=state, lease_owner=None, lease_until=None), error)


def _requeueing(delay_s: float, error: AudioFoundationError | None) -> Update:
    statement = update(Job).values(
        state=JobState.QUEUED,
        lease_owner=None,
        lease_until=None,
        not_before=time.time() + delay_s,
        published_at=0.0,  # the sweeper publishes it when it is due
    )
    return _explained(statement, error)


def _explained(statement: Update, error: AudioFoundationError | None) -> Update:
    if error is None:
        return statement
    return statement.values(last_error_class=error.code.value, last_error=error.message)
