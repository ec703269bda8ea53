"""Claims and fences, the same suite on SQLite and PostgreSQL."""

import threading
from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from audiofoundation.catalog.engine import write_session
from audiofoundation.errors import DecodeFailed, FetchFailed, LeaseLost
from audiofoundation.jobs import lease
from audiofoundation.jobs.kinds import JobKind, JobState
from audiofoundation.jobs.queue import JobQueue, UnitOfWork
from audiofoundation.settings import JobSettings

from .handlers import Recorder, add_jobs, count_effect, effects, expire, job_of, make_due, mark_failed

SETTINGS = JobSettings()
NUM_JOBS, NUM_THREADS = 40, 4


@pytest.fixture
def queue(engine: Engine) -> JobQueue:
    return JobQueue(engine, Recorder())


def claim_first(queue: JobQueue, owner: str = "a") -> lease.Claim:
    claim = lease.claim_next(queue.engine, JobKind.NOOP, owner=owner, settings=SETTINGS)
    assert claim is not None
    return claim


def test_claim_takes_a_queued_job_once(queue: JobQueue) -> None:
    (job_id,) = add_jobs(queue)
    first = lease.claim(queue.engine, job_id, owner="a", settings=SETTINGS)
    assert first is not None
    assert (first.attempt, first.kind, first.subject_id) == (1, JobKind.NOOP, "c0")
    assert lease.claim(queue.engine, job_id, owner="b", settings=SETTINGS) is None


def test_commit_writes_the_effect_and_ends_the_job(queue: JobQueue) -> None:
    (job_id,) = add_jobs(queue)
    claim = claim_first(queue)
    lease.commit(queue, claim, count_effect(claim))
    assert effects(queue.engine) == ["1"]
    assert job_of(queue.engine, job_id).state == JobState.DONE


def test_effect_that_raises_leaves_the_job_running(queue: JobQueue) -> None:
    (job_id,) = add_jobs(queue)
    claim = claim_first(queue)

    def broken(unit: UnitOfWork) -> None:
        count_effect(claim)(unit)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        lease.commit(queue, claim, broken)
    assert effects(queue.engine) == ["0"]
    assert job_of(queue.engine, job_id).state == JobState.RUNNING


def test_expired_lease_is_claimed_by_another(queue: JobQueue) -> None:
    (job_id,) = add_jobs(queue)
    claim_first(queue)
    expire(queue.engine, job_id)
    second = lease.claim(queue.engine, job_id, owner="b", settings=SETTINGS)
    assert second is not None
    assert second.attempt == 2


Write = Callable[[JobQueue, lease.Claim], object]
WRITES: dict[str, Write] = {
    "commit": lambda queue, claim: lease.commit(queue, claim, count_effect(claim)),
    "record": lambda queue, claim: lease.record(queue, claim, count_effect(claim), settings=SETTINGS),
    "renew": lambda queue, claim: lease.renew(queue.engine, claim, settings=SETTINGS),
    "release": lambda queue, claim: lease.release(queue.engine, claim),
    "fail": lambda queue, claim: lease.fail(
        queue, claim, DecodeFailed("late"), settings=SETTINGS, on_failure=mark_failed
    ),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_stale_writer_is_refused_everything(queue: JobQueue, write: Write) -> None:
    (job_id,) = add_jobs(queue)
    stale = claim_first(queue)
    expire(queue.engine, job_id)
    current = lease.claim(queue.engine, job_id, owner="a", settings=SETTINGS)
    assert current is not None
    with pytest.raises(LeaseLost):
        write(queue, stale)
    assert effects(queue.engine) == ["0"]
    lease.commit(queue, current, count_effect(current))
    assert effects(queue.engine) == ["1"]


def test_claim_before_a_release_is_stale_though_the_attempt_is_the_same(queue: JobQueue) -> None:
    add_jobs(queue)
    released = claim_first(queue)
    lease.release(queue.engine, released)
    again = claim_first(queue)
    assert again.attempt == released.attempt
    with pytest.raises(LeaseLost):
        lease.commit(queue, released, count_effect(released))
    lease.commit(queue, again, count_effect(again))


def test_claim_before_a_requeue_is_stale(queue: JobQueue) -> None:
    (job_id,) = add_jobs(queue)
    stale = claim_first(queue)
    with write_session(queue.engine) as session:
        assert lease.cancel(session, job_id)
    with queue.unit_of_work() as unit:
        unit.enqueue(JobKind.NOOP, key="k0", subject_id="c0", is_requeue=True)
    current = claim_first(queue)
    assert current.attempt == stale.attempt
    with pytest.raises(LeaseLost):
        lease.commit(queue, stale, count_effect(stale))


def test_record_writes_on_the_way_and_extends_the_lease(queue: JobQueue) -> None:
    (job_id,) = add_jobs(queue)
    claim = claim_first(queue)
    expire(queue.engine, job_id)
    lease.record(queue, claim, count_effect(claim), settings=SETTINGS)
    job = job_of(queue.engine, job_id)
    assert (job.state, effects(queue.engine)) == (JobState.RUNNING, ["1"])
    assert job.lease_until is not None
    assert job.lease_until > 1.0


def test_retryable_error_waits_and_comes_back(queue: JobQueue) -> None:
    (job_id,) = add_jobs(queue)
    claim = claim_first(queue)
    error = FetchFailed("away", retry_after_s=100.0)
    assert lease.fail(queue, claim, error, settings=SETTINGS, on_failure=mark_failed) is JobState.QUEUED
    assert lease.claim(queue.engine, job_id, owner="b", settings=SETTINGS) is None
    job = job_of(queue.engine, job_id)
    assert (job.last_error_class, job.last_error) == ("fetch_failed", "away")
    assert job.not_before >= job.updated_at + 99.0
    make_due(queue.engine)
    assert claim_first(queue).attempt == 2
    assert effects(queue.engine) == ["0"]


def test_lasting_error_fails_at_once_with_its_consequence(queue: JobQueue) -> None:
    (job_id,) = add_jobs(queue)
    claim = claim_first(queue)
    error = DecodeFailed("This is text, not audio.")
    assert lease.fail(queue, claim, error, settings=SETTINGS, on_failure=mark_failed) is JobState.FAILED
    assert effects(queue.engine) == ["failed: undecodable_audio"]
    assert lease.claim(queue.engine, job_id, owner="b", settings=SETTINGS) is None


def test_last_attempt_that_fails_is_dead(queue: JobQueue) -> None:
    (job_id,) = add_jobs(queue)
    states = []
    for _ in range(SETTINGS.max_attempts):
        make_due(queue.engine)
        claim = claim_first(queue)
        states.append(lease.fail(queue, claim, FetchFailed("away"), settings=SETTINGS, on_failure=mark_failed))
    assert states == [JobState.QUEUED] * (SETTINGS.max_attempts - 1) + [JobState.DEAD]
    assert effects(queue.engine) == ["failed: fetch_failed"]
    assert job_of(queue.engine, job_id).attempt == SETTINGS.max_attempts


def test_release_uses_up_no_attempt(queue: JobQueue) -> None:
    add_jobs(queue)
    for _ in range(SETTINGS.max_attempts + 2):
        claim = claim_first(queue)
        assert claim.attempt == 1
        lease.release(queue.engine, claim)


def test_cancelled_job_cannot_commit_nor_be_claimed(queue: JobQueue) -> None:
    (job_id,) = add_jobs(queue)
    claim = claim_first(queue)
    with write_session(queue.engine) as session:
        assert lease.cancel(session, job_id)
    with write_session(queue.engine) as session:
        assert not lease.cancel(session, job_id)
    with pytest.raises(LeaseLost):
        lease.commit(queue, claim, count_effect(claim))
    assert lease.claim(queue.engine, job_id, owner="b", settings=SETTINGS) is None


def test_claim_next_takes_the_longest_due_first(queue: JobQueue) -> None:
    ids = add_jobs(queue, 3)
    assert [claim_first(queue).job_id for _ in ids] == ids
    assert lease.claim_next(queue.engine, JobKind.NOOP, owner="a", settings=SETTINGS) is None


def test_racing_threads_take_each_job_once(queue: JobQueue) -> None:
    ids = add_jobs(queue, NUM_JOBS)
    taken: list[str] = []

    def take_all() -> None:
        while claim := lease.claim_next(queue.engine, JobKind.NOOP, owner="a", settings=SETTINGS):
            lease.commit(queue, claim, count_effect(claim))
            taken.append(claim.job_id)

    threads = [threading.Thread(target=take_all) for _ in range(NUM_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(ids)
    assert effects(queue.engine) == ["1"] * NUM_JOBS


def test_backoff_doubles_up_to_its_cap() -> None:
    settings = JobSettings(max_backoff_s=60.0)
    for attempt, middle in ((1, 2.0), (3, 8.0), (20, 60.0)):
        delays = [lease.backoff_s(attempt, settings) for _ in range(100)]
        assert middle * 0.8 <= min(delays) < max(delays) <= middle * 1.2
