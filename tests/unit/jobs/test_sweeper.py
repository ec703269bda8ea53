"""The sweeper on both databases: it takes back, it repeats, and only one works."""

import sqlite3
import subprocess
import sys
import threading
import time

import pytest
from sqlalchemy import Engine, event, exc, update

from audiofoundation.catalog.engine import write_session
from audiofoundation.catalog.tables import Job, Lease
from audiofoundation.jobs import lease
from audiofoundation.jobs.kinds import JobState
from audiofoundation.jobs.owner import current_owner, is_certainly_dead
from audiofoundation.jobs.queue import MAX_HINTS, JobQueue
from audiofoundation.jobs.runner import run_job
from audiofoundation.jobs.sweeper import Sweep, SweeperThread, pause_s, sweep
from audiofoundation.settings import JobSettings
from tests.servers import wait_until

from .handlers import COUNTING, Recorder, add_jobs, effects, expire, job_of, make_due

SETTINGS = JobSettings(max_attempts=2)
NAME_OF_A_PROCESS = "from audiofoundation.jobs.owner import current_owner; print(current_owner())"


@pytest.fixture(scope="module")
def dead_owner() -> str:
    """The name of a process that has ended."""
    done = subprocess.run([sys.executable, "-c", NAME_OF_A_PROCESS], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def publisher() -> Recorder:
    return Recorder()


@pytest.fixture
def queue(engine: Engine, publisher: Recorder) -> JobQueue:
    return JobQueue(engine, publisher)


def test_expired_lease_goes_back_with_a_delay(queue: JobQueue, publisher: Recorder) -> None:
    (job_id,) = add_jobs(queue)
    lease.claim(queue.engine, job_id, owner="elsewhere", settings=SETTINGS)
    expire(queue.engine, job_id)
    assert sweep(queue.engine, publisher, SETTINGS) == Sweep(num_reclaimed=1)
    job = job_of(queue.engine, job_id)
    assert (job.state, job.attempt, job.last_error_class) == (JobState.QUEUED, 1, "lease_lost")
    assert 1.0 < job.not_before - time.time() < 2.5


def test_held_lease_is_left_alone(queue: JobQueue, publisher: Recorder) -> None:
    theirs, ours = add_jobs(queue, 2)
    lease.claim(queue.engine, theirs, owner="elsewhere", settings=SETTINGS)
    lease.claim(queue.engine, ours, owner=current_owner(), settings=SETTINGS)
    assert sweep(queue.engine, publisher, SETTINGS).num_reclaimed == 0


def test_lease_of_a_dead_process_is_taken_back_before_it_runs_out(
    queue: JobQueue, publisher: Recorder, dead_owner: str
) -> None:
    (job_id,) = add_jobs(queue)
    lease.claim(queue.engine, job_id, owner=dead_owner, settings=SETTINGS)
    assert sweep(queue.engine, publisher, SETTINGS).num_reclaimed == 1


def test_due_job_is_published_again_once_its_hint_is_old(queue: JobQueue, publisher: Recorder) -> None:
    (job_id,) = add_jobs(queue)
    assert sweep(queue.engine, publisher, SETTINGS).num_republished == 0
    with write_session(queue.engine) as session:
        session.execute(update(Job).values(published_at=time.time() - SETTINGS.republish_after_s - 1.0))
    publisher.published.clear()
    assert sweep(queue.engine, publisher, SETTINGS).num_republished == 1
    assert publisher.published == [job_id]
    assert sweep(queue.engine, publisher, SETTINGS).num_republished == 0


def test_job_is_not_published_before_it_is_due(queue: JobQueue, publisher: Recorder) -> None:
    add_jobs(queue)
    with write_session(queue.engine) as session:
        session.execute(update(Job).values(published_at=0.0, not_before=time.time() + 60.0))
    assert sweep(queue.engine, publisher, SETTINGS).num_republished == 0
    make_due(queue.engine)
    assert sweep(queue.engine, publisher, SETTINGS).num_republished == 1


def test_no_more_hints_are_sent_than_jobs_are_due(queue: JobQueue) -> None:
    class Half(Recorder):
        def num_waiting(self, _kind: object) -> int:
            return 2

    publisher = Half()
    add_jobs(queue, 4)
    with write_session(queue.engine) as session:
        session.execute(update(Job).values(published_at=0.0))
    assert sweep(queue.engine, publisher, SETTINGS).num_republished == 2


def test_full_queue_is_not_filled_further(queue: JobQueue) -> None:
    class Full(Recorder):
        def num_waiting(self, _kind: object) -> int:
            return MAX_HINTS

    add_jobs(queue)
    with write_session(queue.engine) as session:
        session.execute(update(Job).values(published_at=0.0))
    assert sweep(queue.engine, Full(), SETTINGS).num_republished == 0
    assert sweep(queue.engine, Recorder(), SETTINGS).num_republished == 1


def test_queue_server_that_is_away_stops_no_reclaiming(queue: JobQueue) -> None:
    held, waiting = add_jobs(queue, 2)
    lease.claim(queue.engine, held, owner="elsewhere", settings=SETTINGS)
    expire(queue.engine, held)
    with write_session(queue.engine) as session:
        session.execute(update(Job).where(Job.id == waiting).values(published_at=0.0))
    assert sweep(queue.engine, Recorder(is_up=False), SETTINGS) == Sweep(num_reclaimed=1)
    assert sweep(queue.engine, Recorder(), SETTINGS).num_republished == 1


def test_job_that_kills_its_workers_is_dead_after_exactly_max_attempts(queue: JobQueue, publisher: Recorder) -> None:
    (job_id,) = add_jobs(queue)
    num_attempts = 0
    while job_of(queue.engine, job_id).state != JobState.DEAD:
        if lease.claim(queue.engine, job_id, owner="elsewhere", settings=SETTINGS) is None:
            run_job(queue, job_id, COUNTING, SETTINGS)
            continue
        num_attempts += 1
        assert num_attempts <= SETTINGS.max_attempts
        expire(queue.engine, job_id)
        sweep(queue.engine, publisher, SETTINGS)
        make_due(queue.engine)
    assert num_attempts == SETTINGS.max_attempts
    assert effects(queue.engine) == ["failed: lease_lost"]
    publisher.published.clear()
    sweep(queue.engine, publisher, SETTINGS)
    assert publisher.published == []


def test_one_sweeper_at_a_time_and_a_dead_one_is_replaced(
    queue: JobQueue, publisher: Recorder, dead_owner: str
) -> None:
    (job_id,) = add_jobs(queue)
    lease.claim(queue.engine, job_id, owner="elsewhere", settings=SETTINGS)
    expire(queue.engine, job_id)
    with write_session(queue.engine) as session:
        session.add(Lease(name="sweeper", owner="elsewhere", lease_until=time.time() + 60.0))
    assert sweep(queue.engine, publisher, SETTINGS) == Sweep()
    with write_session(queue.engine) as session:
        session.execute(update(Lease).values(owner=dead_owner))
    assert sweep(queue.engine, publisher, SETTINGS).num_reclaimed == 1


def test_thread_sweeps_until_it_is_stopped(queue: JobQueue) -> None:
    (job_id,) = add_jobs(queue)
    lease.claim(queue.engine, job_id, owner="elsewhere", settings=SETTINGS)
    thread = SweeperThread(queue, JobSettings(sweep_interval_s=0.05))
    thread.start()
    expire(queue.engine, job_id)
    wait_until(lambda: job_of(queue.engine, job_id).state == JobState.QUEUED, timeout_s=10.0, what="it is swept")
    thread.stop()


def test_a_thread_goes_on_whatever_the_catalog_refuses(queue: JobQueue) -> None:
    (job_id,) = add_jobs(queue)
    lease.claim(queue.engine, job_id, owner="elsewhere", settings=SETTINGS)
    expire(queue.engine, job_id)
    refusals = iter(
        [
            exc.DatabaseError("SELECT 1", {}, sqlite3.DatabaseError("database disk image is malformed")),
            exc.IntegrityError("INSERT", {}, sqlite3.IntegrityError("UNIQUE constraint failed")),
            exc.ProgrammingError("SELECT 1", {}, sqlite3.ProgrammingError("no such column")),
        ]
    )

    def refuse_the_sweeper(*_: object) -> None:
        if threading.current_thread().name == "sweeper" and (refusal := next(refusals, None)) is not None:
            raise refusal

    event.listen(queue.engine, "before_cursor_execute", refuse_the_sweeper)
    thread = SweeperThread(queue, JobSettings(sweep_interval_s=0.05))
    thread.start()
    wait_until(lambda: job_of(queue.engine, job_id).state == JobState.QUEUED, timeout_s=10.0, what="it is swept")
    thread.stop()
    assert next(refusals, None) is None


def test_a_job_whose_time_comes_is_published_then_and_not_at_the_next_sweep(
    queue: JobQueue, publisher: Recorder
) -> None:
    (job_id,) = add_jobs(queue)
    rare = JobSettings(sweep_interval_s=300.0)
    with write_session(queue.engine) as session:
        session.execute(update(Job).values(not_before=time.time() + 1.0, published_at=0.0))
    assert 0.4 < pause_s(queue.engine, rare) <= 1.0
    publisher.published.clear()
    thread = SweeperThread(queue, rare)
    thread.start()
    wait_until(lambda: publisher.published == [job_id], timeout_s=30, what="the job is published")
    thread.stop()
    assert pause_s(queue.engine, rare) == 300.0


def test_liveness_is_told_apart(dead_owner: str) -> None:
    assert not is_certainly_dead(current_owner())
    assert is_certainly_dead(dead_owner)
    machine, namespace, pid, start_time = current_owner().split(":")
    assert is_certainly_dead(f"{machine}:{namespace}:{pid}:{int(start_time) + 1}")
    assert not is_certainly_dead(f"another-boot:{namespace}:{dead_owner.split(':')[2]}:1")
    assert not is_certainly_dead(f"{machine}:another-container:{dead_owner.split(':')[2]}:1")
    assert not is_certainly_dead("anything")
