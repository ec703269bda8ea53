"""Running a job: every way it can end."""

import time

import pytest
from sqlalchemy import Engine

from audiofoundation.errors import DecodeFailed, FetchFailed, RateLimited
from audiofoundation.identifiers import JobId
from audiofoundation.jobs import lease
from audiofoundation.jobs.kinds import JobKind, JobState
from audiofoundation.jobs.lease import Claim, Effect
from audiofoundation.jobs.queue import JobQueue, UnitOfWork
from audiofoundation.jobs.runner import HandlerSpec, run_job
from audiofoundation.settings import JobSettings
from tests.servers import wait_until

from .handlers import COUNTING, Recorder, add_jobs, count_effect, effects, expire, job_of, make_due, mark_failed

SETTINGS = JobSettings(max_attempts=3)


@pytest.fixture
def queue(engine: Engine) -> JobQueue:
    return JobQueue(engine, Recorder())


def run_raising(queue: JobQueue, job_id: JobId, error: BaseException) -> None:
    def handle(_claim: Claim) -> Effect:
        raise error

    run_job(queue, job_id, {JobKind.NOOP: HandlerSpec(handle, mark_failed)}, SETTINGS)


def test_job_runs_and_a_second_message_does_nothing(queue: JobQueue) -> None:
    (job_id,) = add_jobs(queue)
    run_job(queue, job_id, COUNTING, SETTINGS)
    run_job(queue, job_id, COUNTING, SETTINGS)
    assert effects(queue.engine) == ["1"]


def test_late_hint_does_another_due_job(queue: JobQueue) -> None:
    first, second = add_jobs(queue, 2)
    run_job(queue, first, COUNTING, SETTINGS)
    run_job(queue, first, COUNTING, SETTINGS)
    assert job_of(queue.engine, second).state == JobState.DONE
    assert effects(queue.engine) == ["1", "1"]


def test_message_for_no_job_does_nothing(queue: JobQueue) -> None:
    run_job(queue, JobId("job_gone"), COUNTING, SETTINGS)

    assert effects(queue.engine) == []


def test_effect_enqueues_what_follows(queue: JobQueue) -> None:
    def handle(_claim: Claim) -> Effect:
        def effect(unit: UnitOfWork) -> None:
            unit.enqueue(JobKind.PREPROCESS_COMMIT, key="next", subject_id="s")

        return effect

    (job_id,) = add_jobs(queue)
    run_job(queue, job_id, {JobKind.NOOP: HandlerSpec(handle, mark_failed)}, SETTINGS)
    claim = lease.claim_next(queue.engine, JobKind.PREPROCESS_COMMIT, owner="a", settings=SETTINGS)
    assert claim is not None


def test_lasting_error_ends_the_job(queue: JobQueue) -> None:
    (job_id,) = add_jobs(queue)
    run_raising(queue, job_id, DecodeFailed("This is text, not audio."))
    assert job_of(queue.engine, job_id).state == JobState.FAILED
    assert effects(queue.engine) == ["failed: undecodable_audio"]


@pytest.mark.parametrize("error", [FetchFailed("away"), ZeroDivisionError("a defect")])
def test_other_errors_are_tried_again_and_then_end_the_job(queue: JobQueue, error: Exception) -> None:
    (job_id,) = add_jobs(queue)
    for _ in range(SETTINGS.max_attempts - 1):
        run_raising(queue, job_id, error)
        assert job_of(queue.engine, job_id).state == JobState.QUEUED
        make_due(queue.engine)
    run_raising(queue, job_id, error)
    job = job_of(queue.engine, job_id)
    assert (job.state, job.attempt) == (JobState.DEAD, SETTINGS.max_attempts)
    assert str(error) in (job.last_error or "")
    assert effects(queue.engine)[0].startswith("failed: ")


def test_rate_limit_uses_up_no_attempt(queue: JobQueue) -> None:
    (job_id,) = add_jobs(queue)
    run_raising(queue, job_id, RateLimited("slow down", retry_after_s=50.0))
    job = job_of(queue.engine, job_id)
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)
    assert job.not_before > time.time() + 40.0


def test_worker_told_to_leave_gives_the_job_back(queue: JobQueue) -> None:
    (job_id,) = add_jobs(queue)
    with pytest.raises(SystemExit):
        run_raising(queue, job_id, SystemExit(0))
    job = job_of(queue.engine, job_id)
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)


def test_job_whose_workers_died_on_every_attempt_is_dead_with_its_consequence(queue: JobQueue) -> None:
    (job_id,) = add_jobs(queue)
    for _ in range(SETTINGS.max_attempts):
        assert lease.claim(queue.engine, job_id, owner="a", settings=SETTINGS) is not None
        expire(queue.engine, job_id)
    assert lease.claim(queue.engine, job_id, owner="a", settings=SETTINGS) is None
    run_job(queue, job_id, COUNTING, SETTINGS)
    assert job_of(queue.engine, job_id).state == JobState.DEAD
    assert effects(queue.engine) == ["failed: lease_lost"]


def test_stale_worker_ends_without_a_trace(queue: JobQueue) -> None:
    (job_id,) = add_jobs(queue)

    def handle(claim: Claim) -> Effect:
        expire(queue.engine, job_id)
        other = lease.claim(queue.engine, job_id, owner="b", settings=SETTINGS)
        assert other is not None
        lease.commit(queue, other, count_effect(other))
        return count_effect(claim)

    run_job(queue, job_id, {JobKind.NOOP: HandlerSpec(handle, mark_failed)}, SETTINGS)
    assert effects(queue.engine) == ["1"]


def test_heartbeat_keeps_a_long_job(queue: JobQueue) -> None:
    (job_id,) = add_jobs(queue)
    settings = JobSettings(lease_s=30.0, heartbeat_s=0.05)

    def handle(claim: Claim) -> Effect:
        expire(queue.engine, job_id)
        wait_until(
            lambda: (job_of(queue.engine, job_id).lease_until or 0.0) > time.time(),
            timeout_s=10.0,
            what="the heartbeat renews the lease",
        )
        return count_effect(claim)

    run_job(queue, job_id, {JobKind.NOOP: HandlerSpec(handle, mark_failed)}, settings)
    assert effects(queue.engine) == ["1"]


def test_kind_without_a_handler_is_given_back(queue: JobQueue) -> None:
    (job_id,) = add_jobs(queue)
    run_job(queue, job_id, {}, SETTINGS)
    job = job_of(queue.engine, job_id)
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)
