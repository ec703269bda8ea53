"""Holding a run: what a supervisor writes when one begins, and how it keeps the lease."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import structlog
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from audiofoundation.catalog.engine import read_session
from audiofoundation.catalog.tables import Checkpoint, Run
from audiofoundation.errors import AudioFoundationError, ErrorCode, InternalError, LeaseLost, StorageUnavailable
from audiofoundation.identifiers import RunId
from audiofoundation.jobs import lease
from audiofoundation.jobs.lease import Claim, Effect
from audiofoundation.jobs.queue import JobQueue, UnitOfWork
from audiofoundation.settings import JobSettings
from audiofoundation.training.states import OVER, ExitCode, RunState

# A lease that could not be renewed for this share of its length is given up before another may take it.
_LOST_AFTER = 0.75
_LOOK_EVERY_S = 1.0

_log = structlog.get_logger(__name__)


class TrainerCrashed(InternalError):
    """The trainer ended without a reason that it could tell; another attempt may not."""

    retryable = True


class TrainingRefused(AudioFoundationError):
    """The trainer said why this run cannot be trained as asked."""

    code = ErrorCode.INVALID_REQUEST


@dataclass(frozen=True, slots=True)
class HeldRun:
    """A run that this process holds.

    Attributes:
        run_id: the run.
        attempt: the fencing token: one more than any trainer of this run had before.
        claim: the hold on the run's job.
    """

    run_id: RunId
    attempt: int
    claim: Claim


def begin(queue: JobQueue, claim: Claim, settings: JobSettings) -> HeldRun | None:
    """Take the run's next attempt number; None when the run is over, whose job then ends too.

    Crashes count in a row: if the attempt before this one saved a checkpoint, this one counts as the first.

    Raises:
        LeaseLost: another supervisor holds the run.
    """
    begun: list[HeldRun] = []

    def effect(unit: UnitOfWork) -> None:
        run = unit.session.get_one(Run, claim.subject_id)
        if run.is_cancel_requested and run.state not in OVER:
            run.state = RunState.CANCELLED
        if run.state in OVER:
            return
        held = claim
        if claim.attempt > 1 and _has_saved(unit.session, run.id, run.attempt):
            held = lease.restart_attempts(unit.session, claim)
        run.attempt += 1
        run.state, run.error, run.error_class = RunState.RUNNING, None, None
        begun.append(HeldRun(RunId(run.id), run.attempt, held))

    lease.record(queue, claim, effect, settings=settings)
    if begun:
        return begun[0]
    lease.commit(queue, claim, lambda _: None)
    return None


def cancel(held: HeldRun) -> Effect:
    """Return the effect that ends the run as cancelled, and its job with it."""

    def effect(unit: UnitOfWork) -> None:
        lease.cancel(unit.session, held.claim.job_id)
        unit.session.execute(update(Run).where(Run.id == held.run_id).values(state=RunState.CANCELLED))

    return effect


def put_back(held: HeldRun) -> Effect:
    """Return the effect that makes the run wait again."""

    def effect(unit: UnitOfWork) -> None:
        unit.session.execute(update(Run).where(Run.id == held.run_id).values(state=RunState.QUEUED))

    return effect


def mark_failed(unit: UnitOfWork, claim: Claim, error: AudioFoundationError) -> None:
    """Write that the run has failed and why: what its trainer noted, else the error."""
    run = unit.session.get_one(Run, claim.subject_id)
    run.state = RunState.FAILED
    run.error_class = run.error_class or error.code.value
    run.error = run.error or error.message


def has_advanced(engine: Engine, held: HeldRun) -> bool:
    """Whether this attempt has saved a checkpoint."""
    with read_session(engine) as session:
        return _has_saved(session, held.run_id, held.attempt)


def noted_error(engine: Engine, held: HeldRun, code: int) -> AudioFoundationError:
    """Return why the trainer ended: in its own words, else what its exit code tells."""
    with read_session(engine) as session:
        noted = session.scalar(select(Run.error).where(Run.id == held.run_id))
    if code in (ExitCode.CONFIG, ExitCode.NUMERIC):
        return TrainingRefused(noted or f"the trainer refused the run (exit code {code}); see its log")
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return TrainerCrashed(noted or f"the trainer {how}; see the supervisor's log")


class SignsOfLife:
    """Looks at a run's row now and then: does it move, shall it be cancelled."""

    def __init__(self, engine: Engine, run_id: RunId) -> None:
        self._engine, self._run_id = engine, run_id
        self._moved_at, self._looked_at = time.monotonic(), -_LOOK_EVERY_S
        self._seen: float | None = None
        self.is_cancel_requested = False

    @property
    def silent_s(self) -> float:
        """Seconds since the trainer last wrote."""
        return time.monotonic() - self._moved_at

    def look(self) -> Self:
        """Read the row unless that was a moment ago; a catalog that is away tells nothing."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_EVERY_S:
            return self
        self._looked_at = now
        try:
            with read_session(self._engine) as session:
                row = session.execute(
                    select(Run.updated_at, Run.is_cancel_requested).where(Run.id == self._run_id)
                ).one()
        except StorageUnavailable as error:
            _log.warning("run_not_readable", run_id=self._run_id, error=error.message)
            return self
        if row.updated_at != self._seen:
            self._seen, self._moved_at = row.updated_at, now
        self.is_cancel_requested = row.is_cancel_requested
        return self


@contextmanager
def heartbeat(engine: Engine, claim: Claim, settings: JobSettings) -> Iterator[threading.Event]:
    """Renew the lease from a thread of its own; the event is set once the lease is lost."""
    stopped, lost = threading.Event(), threading.Event()
    thread = threading.Thread(target=_beat, args=(engine, claim, settings, stopped, lost), daemon=True)
    thread.start()
    try:
        yield lost
    finally:
        stopped.set()
        thread.join()


def _beat(engine: Engine, claim: Claim, settings: JobSettings, stopped: threading.Event, lost: threading.Event) -> None:
    renewed_at = time.monotonic()
    while not stopped.wait(settings.heartbeat_s):
        try:
            lease.renew(engine, claim, settings=settings)
            renewed_at = time.monotonic()
        except LeaseLost:
            lost.set()
            return
        except StorageUnavailable as error:
            _log.warning("run_heartbeat_missed", run_id=claim.subject_id, error=error.message)
            if time.monotonic() - renewed_at > _LOST_AFTER * settings.lease_s:
                lost.set()
                return


def _has_saved(session: Session, run_id: str, attempt: int) -> bool:
    saved = select(Checkpoint.id).where(Checkpoint.run_id == run_id, Checkpoint.attempt == attempt)
    return session.scalars(saved.limit(1)).first() is not None
