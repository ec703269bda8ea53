"""The run supervisor: holds runs by lease and has a child process train them (docs/adr/0005).

The queue's hint only shortens the wait; the job's row is the truth. While a run is held, a thread renews the
lease whatever the trainer does. The trainer's exit code decides what becomes of the run.
"""

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy
import structlog

from audiofoundation.catalog.engine import read_session
from audiofoundation.catalog.tables import Job
from audiofoundation.errors import LeaseLost, StorageUnavailable
from audiofoundation.identifiers import JobId, RunId
from audiofoundation.jobs import lease
from audiofoundation.jobs.hints import HintLists
from audiofoundation.jobs.kinds import JobKind, JobState
from audiofoundation.jobs.lease import Claim
from audiofoundation.jobs.owner import current_owner
from audiofoundation.jobs.queue import JobQueue
from audiofoundation.settings import JobSettings
from audiofoundation.training.holding import (
    HeldRun,
    SignsOfLife,
    begin,
    cancel,
    has_advanced,
    heartbeat,
    mark_failed,
    noted_error,
    put_back,
)
from audiofoundation.training.states import ExitCode

StartTrainer = Callable[[HeldRun], "subprocess.Popen[bytes]"]

_WATCH_EVERY_S = 0.5

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SupervisorOptions:
    """How patiently runs are held.

    Attributes:
        lease_s: how long a dead supervisor's run waits for the next one, at most.
        heartbeat_s: between renewals.
        max_attempts: crashes in a row without a new checkpoint after which a run fails.
        max_backoff_s: longest wait after a crash.
        stop_grace_s: for a trainer to save and leave after SIGTERM.
        stall_s: a trainer that gives no sign of progress for so long is killed.
        poll_s: between looks at the catalog while nothing runs; hints make it shorter.
    """

    lease_s: float = 60.0
    heartbeat_s: float = 10.0
    max_attempts: int = 5
    max_backoff_s: float = 60.0
    stop_grace_s: float = 18.0
    stall_s: float = 1800.0
    poll_s: float = 2.0

    def to_job_settings(self, jobs: JobSettings) -> JobSettings:
        """Return the job settings of training runs."""
        changed = {
            "lease_s": self.lease_s,
            "heartbeat_s": self.heartbeat_s,
            "max_attempts": self.max_attempts,
            "max_backoff_s": self.max_backoff_s,
        }
        return jobs.model_copy(update=changed)


class Supervisor:
    """Trains one run at a time until told to stop.

    Args:
        queue: the catalog and the queue.
        hints: wakes us when a run is asked for.
        start_trainer: starts the child of a run's attempt; it must die with this process.
        options: how patiently runs are held.
        jobs: settings of the jobs in general.
    """

    def __init__(
        self,
        queue: JobQueue,
        hints: HintLists,
        start_trainer: StartTrainer,
        *,
        options: SupervisorOptions,
        jobs: JobSettings,
    ) -> None:
        self._queue, self._hints, self._start_trainer = queue, hints, start_trainer
        self._options, self._jobs = options, options.to_job_settings(jobs)

    def run(self, stop: threading.Event) -> None:
        """Hold one run after another until `stop` is set; the run held then goes back to the queue."""
        while not stop.is_set():
            try:
                claim = self._next_claim()
                if claim is not None:
                    self._hold(claim, stop)
                    continue
            except (StorageUnavailable, LeaseLost) as error:
                _log.warning("run_not_recorded", error=error.message)
            self._wait(stop)

    def _wait(self, stop: threading.Event) -> None:
        try:
            self._hints.wait(JobKind.TRAIN_RUN, timeout_s=self._options.poll_s)
        except StorageUnavailable as error:
            _log.warning("queue_unavailable", error=error.message)
            stop.wait(self._options.poll_s)

    def _next_claim(self) -> Claim | None:
        self._bury_exhausted()
        engine = self._queue.engine
        return lease.claim_next(engine, JobKind.TRAIN_RUN, owner=current_owner(), settings=self._jobs)

    def _bury_exhausted(self) -> None:
        """End runs whose every attempt crashed; the claim alone never takes them."""
        is_exhausted = (Job.kind == JobKind.TRAIN_RUN) & (Job.state == JobState.QUEUED)
        with read_session(self._queue.engine) as session:
            exhausted = sqlalchemy.select(Job.id).where(is_exhausted, Job.attempt >= self._jobs.max_attempts)
            ids = session.scalars(exhausted).all()
        for job_id in ids:
            lease.bury(self._queue, JobId(job_id), settings=self._jobs, on_failure=mark_failed)

    def _hold(self, claim: Claim, stop: threading.Event) -> None:
        """Train a claimed run until its trainer ends, and write how it ended."""
        held = begin(self._queue, claim, self._jobs)
        if held is None:
            return
        _log.info("run_begun", run_id=held.run_id, attempt=held.attempt)
        with heartbeat(self._queue.engine, held.claim, self._jobs) as lost:
            trainer = self._start_trainer(held)
            try:
                code = self._watch(trainer, held.run_id, lost, stop)
            finally:
                trainer.kill()
                trainer.wait()
            _log.info("trainer_ended", run_id=held.run_id, attempt=held.attempt, exit_code=code)
            self._conclude(held, code, is_stopping=stop.is_set())

    def _watch(
        self, trainer: "subprocess.Popen[bytes]", run_id: RunId, lost: threading.Event, stop: threading.Event
    ) -> int:
        """Wait for the trainer's end; ask it to leave when we stop or the run is cancelled. Return its code."""
        asked_at: float | None = None
        signs = SignsOfLife(self._queue.engine, run_id)
        ended = os.pidfd_open(trainer.pid)
        try:
            while not select.select([ended], [], [], _WATCH_EVERY_S)[0]:
                signs.look()
                if lost.is_set() or signs.silent_s > self._options.stall_s:
                    _log.error("trainer_killed", run_id=run_id, is_lease_lost=lost.is_set())
                    trainer.kill()
                elif asked_at is None and (stop.is_set() or signs.is_cancel_requested):
                    asked_at = time.monotonic()
                    trainer.send_signal(signal.SIGTERM)
                elif asked_at is not None and time.monotonic() - asked_at > self._options.stop_grace_s:
                    _log.warning("trainer_did_not_leave", run_id=run_id)
                    trainer.kill()
        finally:
            os.close(ended)
        return trainer.wait()

    def _conclude(self, held: HeldRun, code: int, *, is_stopping: bool) -> None:
        """Write what becomes of the run. Raises LeaseLost when it is no longer ours to say."""
        queue, claim = self._queue, held.claim
        if code == ExitCode.DONE:
            lease.commit(queue, claim, lambda _: None)
        elif SignsOfLife(queue.engine, held.run_id).look().is_cancel_requested:
            lease.record(queue, claim, cancel(held), settings=self._jobs)
        elif code in (ExitCode.CONFIG, ExitCode.NUMERIC):
            refusal = noted_error(queue.engine, held, code)
            lease.fail(queue, claim, refusal, settings=self._jobs, on_failure=mark_failed)
        else:
            lease.record(queue, claim, put_back(held), settings=self._jobs)
            self._try_again(held, code, is_stopping=is_stopping)

    def _try_again(self, held: HeldRun, code: int, *, is_stopping: bool) -> None:
        """Queue the run again; a crash that came no further than the one before it uses up an attempt."""
        queue, claim = self._queue, held.claim
        if code == ExitCode.PREEMPTED or is_stopping:
            lease.release(queue.engine, claim)
        elif has_advanced(queue.engine, held):
            lease.release(queue.engine, claim, delay_s=lease.backoff_s(1, self._jobs))
        else:
            error = noted_error(queue.engine, held, code)
            lease.fail(queue, claim, error, settings=self._jobs, on_failure=mark_failed)
