"""Running one job: claim, work under a heartbeat, commit or fail."""

import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Protocol

import structlog
from sqlalchemy import Engine

from audiofoundation.errors import (
    AudioFoundationError,
    InternalError,
    LeaseLost,
    RateLimited,
    StorageUnavailable,
)
from audiofoundation.identifiers import JobId
from audiofoundation.jobs import lease
from audiofoundation.jobs.heartbeat import heartbeat
from audiofoundation.jobs.kinds import JobKind
from audiofoundation.jobs.lease import Claim, Effect, OnFailure
from audiofoundation.jobs.owner import current_owner
from audiofoundation.jobs.queue import JobQueue, UnitOfWork
from audiofoundation.settings import JobSettings
from audiofoundation.telemetry.failpoints import Failpoint, failpoint
from audiofoundation.telemetry.metrics import JOB_SECONDS, JOBS_ATTEMPTED, count, observe
from audiofoundation.telemetry.tracing import Attributes, Span, SpanKind, span

_RATE_LIMIT_DELAY_S = 60.0
_MISROUTED_DELAY_S = 30.0

_log = structlog.get_logger(__name__)


class Handler(Protocol):
    """Does the work of one kind of job: reads, computes, writes new immutable objects."""

    def __call__(self, claim: Claim, /) -> Effect:
        """Return what to write in the catalog; it is applied only if the claim still holds the job."""


@dataclass(frozen=True, slots=True)
class HandlerSpec:
    """How one kind of job runs, and what to write when it ends `failed` or `dead`."""

    handle: Handler
    on_failure: OnFailure


def run_job(queue: JobQueue, job_id: JobId, handlers: Mapping[JobKind, HandlerSpec], settings: JobSettings) -> None:
    """Run the job if it is free, else another due one that these handlers know, else none.

    A hint that comes late thus still does work. A job whose attempts were used up by workers that died is
    ended as `dead`.
    """
    claim = lease.claim(queue.engine, job_id, owner=current_owner(), settings=settings)
    if claim is None:
        lease.bury(queue, job_id, settings=settings, on_failure=_on_failure_of(handlers))
        claim = _claim_any(queue.engine, handlers, settings)
    if claim is not None:
        run_claim(queue, claim, handlers, settings)


def run_pending(queue: JobQueue, handlers: Mapping[JobKind, HandlerSpec], settings: JobSettings) -> int:
    """Run every job that is due now, here and one after another; return how many."""
    num_run = 0
    while claim := _claim_any(queue.engine, handlers, settings):
        run_claim(queue, claim, handlers, settings)
        num_run += 1
    return num_run


def run_claim(queue: JobQueue, claim: Claim, handlers: Mapping[JobKind, HandlerSpec], settings: JobSettings) -> None:
    """Work on a claimed job and write how it ended."""
    spec = handlers.get(claim.kind)
    if spec is None:
        _log.error("job_misrouted", job_id=claim.job_id, kind=claim.kind)
        lease.release(queue.engine, claim, delay_s=_MISROUTED_DELAY_S)
        return
    ids = structlog.contextvars.bound_contextvars(job_id=claim.job_id, job_kind=claim.kind.value, attempt=claim.attempt)
    started = time.monotonic()
    with _attempt_span(claim) as attempt, ids, heartbeat(queue.engine, claim, settings):
        try:
            outcome = _run_held(queue, claim, spec, settings)
        except (LeaseLost, StorageUnavailable) as refusal:
            # Nothing was written: the sweeper returns the job once its lease has run out.
            _log.warning("job_outcome_not_recorded", error=refusal.message)
            outcome = _Outcome("lost", refusal)
        _describe(attempt, outcome)
    observe(JOB_SECONDS, claim.kind, value=time.monotonic() - started)
    count(JOBS_ATTEMPTED, claim.kind, outcome.name)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How an attempt ended: done, released, lost, or the state that its job is in after a failure."""

    name: str
    error: AudioFoundationError | None = None


def _attempt_span(claim: Claim) -> AbstractContextManager[Span]:
    facts: Attributes = {"job_id": claim.job_id, "subject_id": claim.subject_id, "attempt": claim.attempt}
    return span(f"job {claim.kind.value}", facts, kind=SpanKind.JOB, origin=claim.origin)


def _describe(attempt: Span, outcome: _Outcome) -> None:
    attempt.set({"outcome": outcome.name})
    if outcome.error is None:
        return
    if isinstance(outcome.error, RateLimited):  # waiting is no failure
        attempt.set({"error_class": outcome.error.code.value})
    else:
        attempt.fail(outcome.error.code.value)


def _claim_any(engine: Engine, kinds: Iterable[JobKind], settings: JobSettings) -> Claim | None:
    for kind in kinds:
        if claim := lease.claim_next(engine, kind, owner=current_owner(), settings=settings):
            return claim
    return None


def _run_held(queue: JobQueue, claim: Claim, spec: HandlerSpec, settings: JobSettings) -> _Outcome:
    try:
        failpoint(Failpoint.JOB_CLAIMED)
        effect = spec.handle(claim)
        with span("commit"):
            lease.commit(queue, claim, effect)
    except LeaseLost:
        raise
    except RateLimited as error:
        # The other side asks us to wait: that is no fault of this job and uses up no attempt.
        lease.release(queue.engine, claim, delay_s=error.retry_after_s or _RATE_LIMIT_DELAY_S, error=error)
        return _Outcome("released", error)
    except AudioFoundationError as error:
        return _fail(queue, claim, error, spec, settings)
    except Exception as error:
        _log.exception("job_raised_unexpectedly")
        return _fail(queue, claim, _UnexpectedError.of(error), spec, settings)
    except (SystemExit, KeyboardInterrupt):
        with suppress(LeaseLost, StorageUnavailable):
            lease.release(queue.engine, claim)
        raise
    failpoint(Failpoint.JOB_COMMITTED)
    return _Outcome("done")


def _fail(
    queue: JobQueue, claim: Claim, error: AudioFoundationError, spec: HandlerSpec, settings: JobSettings
) -> _Outcome:
    state = lease.fail(queue, claim, error, settings=settings, on_failure=spec.on_failure)
    _log.warning("job_attempt_failed", error_class=error.code, error=error.message, state=state)
    return _Outcome(state.value, error)


class _UnexpectedError(InternalError):
    """Something that no handler foresaw. Another attempt may not meet it; five that do end the job."""

    retryable = True

    @classmethod
    def of(cls, error: Exception) -> "_UnexpectedError":
        return cls(f"{type(error).__name__}: {error}")


def _on_failure_of(handlers: Mapping[JobKind, HandlerSpec]) -> OnFailure:
    def on_failure(unit: UnitOfWork, claim: Claim, error: AudioFoundationError) -> None:
        spec = handlers.get(claim.kind)
        if spec is not None:
            spec.on_failure(unit, claim, error)

    return on_failure
