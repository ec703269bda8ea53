"""Enqueueing: once per key, published only after the commit."""

import pytest
from sqlalchemy import Engine, func, select

from audiofoundation.catalog.engine import read_session
from audiofoundation.catalog.tables import Job
from audiofoundation.identifiers import JobId
from audiofoundation.jobs.kinds import QUEUE_OF, JobKind, JobState
from audiofoundation.jobs.queue import MAX_HINTS, JobQueue
from audiofoundation.jobs.runner import run_pending
from audiofoundation.settings import JobSettings

from .handlers import COUNTING, Recorder, add_jobs, effects, job_of


def test_same_key_is_one_job(engine: Engine) -> None:
    publisher = Recorder()
    queue = JobQueue(engine, publisher)
    with queue.unit_of_work() as unit:
        first = unit.enqueue(JobKind.NOOP, key="k", subject_id="s")
    with queue.unit_of_work() as unit:
        assert unit.enqueue(JobKind.NOOP, key="k", subject_id="s") == first
    assert publisher.published == [first]


def test_ids_are_published_after_the_commit(engine: Engine) -> None:
    class Looking(Recorder):
        def publish(self, _kind: JobKind, job_id: JobId) -> None:
            seen.append(job_of(engine, job_id).state)

    seen: list[str] = []
    add_jobs(JobQueue(engine, Looking()), 2)
    assert seen == ["queued", "queued"]


def test_rollback_publishes_nothing(engine: Engine) -> None:
    publisher = Recorder()

    def enqueue_and_raise() -> None:
        with JobQueue(engine, publisher).unit_of_work() as unit:
            unit.enqueue(JobKind.NOOP, key="k", subject_id="s")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        enqueue_and_raise()
    assert publisher.published == []
    with read_session(engine) as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 0


def test_queue_server_that_is_away_loses_no_job(engine: Engine) -> None:
    add_jobs(JobQueue(engine, Recorder(is_up=False)), 3)
    with read_session(engine) as session:
        assert session.scalar(select(func.count()).where(Job.state == JobState.QUEUED)) == 3


def test_requeue_puts_an_ended_job_back(engine: Engine) -> None:
    queue = JobQueue(engine, Recorder())
    (job_id,) = add_jobs(queue)
    assert run_pending(queue, COUNTING, JobSettings()) == 1
    with queue.unit_of_work() as unit:
        assert unit.enqueue(JobKind.NOOP, key="k0", subject_id="c0", is_requeue=True) == job_id
    job = job_of(engine, job_id)
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)
    assert run_pending(queue, COUNTING, JobSettings()) == 1
    assert effects(engine) == ["2"]


def test_requeue_leaves_a_waiting_job_alone(engine: Engine) -> None:
    publisher = Recorder()
    queue = JobQueue(engine, publisher)
    add_jobs(queue)
    with queue.unit_of_work() as unit:
        unit.enqueue(JobKind.NOOP, key="k0", subject_id="c0", is_requeue=True)
    assert len(publisher.published) == 1


def test_crowd_of_jobs_sends_a_bounded_crowd_of_hints(sqlite_engine: Engine) -> None:
    publisher = Recorder()
    queue = JobQueue(sqlite_engine, publisher)
    with queue.unit_of_work() as unit:
        for index in range(MAX_HINTS + 5):
            unit.enqueue(JobKind.NOOP, key=str(index), subject_id="s")
    assert len(publisher.published) == MAX_HINTS
    with read_session(sqlite_engine) as session:
        assert session.scalar(select(func.count()).where(Job.published_at == 0.0)) == 5


def test_every_kind_has_a_queue() -> None:
    assert set(QUEUE_OF) == set(JobKind)


def test_many_jobs_at_once_are_one_per_key(engine: Engine) -> None:
    publisher = Recorder()
    queue = JobQueue(engine, publisher)
    with queue.unit_of_work() as unit:
        first = unit.enqueue(JobKind.NOOP, key="k1", subject_id="s1")
    with queue.unit_of_work() as unit:
        unit.enqueue_all(JobKind.NOOP, {f"k{number}": f"s{number}" for number in range(MAX_HINTS + 5)})
        unit.enqueue_all(JobKind.NOOP, {})
    with read_session(engine) as session:
        rows = {row.key: row for row in session.scalars(select(Job))}
    assert len(rows) == MAX_HINTS + 5
    assert (rows["k1"].id, rows["k2"].subject_id) == (first, "s2")
    assert len(set(publisher.published)) == 1 + MAX_HINTS
    hinted = {row.id for row in rows.values() if row.published_at}
    assert hinted <= set(publisher.published)
