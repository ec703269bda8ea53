"""Where a job's trace comes from: the row carries it from who enqueues to every attempt."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, func, select

from audiofoundation.catalog.engine import read_session
from audiofoundation.catalog.tables import Job
from audiofoundation.errors import DecodeFailed, FetchFailed, RateLimited
from audiofoundation.identifiers import JobId
from audiofoundation.jobs.kinds import JobKind
from audiofoundation.jobs.lease import Claim, Effect
from audiofoundation.jobs.queue import MAX_TOGETHER, JobQueue, UnitOfWork
from audiofoundation.jobs.runner import HandlerSpec, run_job, run_pending
from audiofoundation.settings import JobSettings, TelemetrySettings
from audiofoundation.telemetry import tracing
from audiofoundation.telemetry.tracing import span
from tests.collector import Collector, collecting

from .handlers import COUNTING, Recorder, add_jobs, count_effect, expire, job_of, make_due, mark_failed

SETTINGS = JobSettings(max_attempts=3)


@pytest.fixture
def queue(sqlite_engine: Engine) -> JobQueue:
    return JobQueue(sqlite_engine, Recorder())


@pytest.fixture
def each_queue(engine: Engine) -> JobQueue:
    """One on each database, which insert many rows in ways of their own."""
    return JobQueue(engine, Recorder())


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Receives this process's spans, when `tracing.stop_tracing` sends them."""
    with collecting() as found, tracing.tracing(TelemetrySettings(otlp_endpoint=found.endpoint), service="test"):
        yield found


def add_many(queue: JobQueue, num_jobs: int) -> None:
    with queue.unit_of_work() as unit:
        unit.enqueue_all(JobKind.NOOP, {f"k{number:03d}": f"s{number}" for number in range(num_jobs)})


def do_nothing(_claim: Claim) -> Effect:
    return lambda _unit: None


NOTHING = {kind: HandlerSpec(do_nothing, mark_failed) for kind in (JobKind.NOOP, JobKind.PREPROCESS_COMMIT)}


def test_a_job_and_the_jobs_that_it_enqueues_are_one_trace(queue: JobQueue, collector: Collector) -> None:
    def handle(_claim: Claim) -> Effect:
        def effect(unit: UnitOfWork) -> None:
            unit.enqueue(JobKind.PREPROCESS_COMMIT, key="next", subject_id="s2")

        return effect

    with span("request"):
        (job_id,) = add_jobs(queue)
    run_pending(queue, {**NOTHING, JobKind.NOOP: HandlerSpec(handle, mark_failed)}, SETTINGS)
    tracing.stop_tracing()
    request, first, following = (
        collector.one(name) for name in ("request", "job maintenance.noop", "job preprocess.commit")
    )
    assert {found.trace_id for found in collector.spans} == {request.trace_id}
    assert (first.parent_id, first.kind) == (request.span_id, "consumer")
    assert first.attributes == {"job_id": job_id, "subject_id": "c0", "attempt": 1, "outcome": "done"}
    assert collector.children_of(first) == ["commit"]
    assert following.parent_id in {found.span_id for found in collector.named("commit")}


@pytest.mark.parametrize("num_jobs", [MAX_TOGETHER, MAX_TOGETHER + 1])
def test_many_jobs_at_once_are_traces_of_their_own_that_name_who_enqueued_them(
    each_queue: JobQueue, collector: Collector, num_jobs: int
) -> None:
    with span("request"):
        add_many(each_queue, num_jobs)
    assert run_pending(each_queue, NOTHING, SETTINGS) == num_jobs
    tracing.stop_tracing()
    request, jobs = collector.one("request"), collector.named("job maintenance.noop")
    is_apart = num_jobs > MAX_TOGETHER
    assert len(jobs) == num_jobs
    assert len({job.trace_id for job in jobs}) == (num_jobs if is_apart else 1)
    expected = ("", (request.span_id,)) if is_apart else (request.span_id, ())
    assert {(job.parent_id, job.links) for job in jobs} == {expected}


def test_jobs_enqueued_one_by_one_are_as_many_together(queue: JobQueue, collector: Collector) -> None:
    with span("request"), queue.unit_of_work() as unit:
        for number in range(MAX_TOGETHER + 2):
            unit.enqueue(JobKind.NOOP, key=f"k{number}", subject_id="s")
    run_pending(queue, NOTHING, SETTINGS)
    tracing.stop_tracing()
    jobs = collector.named("job maintenance.noop")
    assert sum(bool(job.parent_id) for job in jobs) == MAX_TOGETHER
    assert sum(bool(job.links) for job in jobs) == 2


def test_every_attempt_is_in_the_same_trace_and_says_which_it_is(queue: JobQueue, collector: Collector) -> None:
    with span("request"):
        (job_id,) = add_jobs(queue)
    run_raising(queue, job_id, FetchFailed("https://x.example/?key=open-sesame did not answer"))
    make_due(queue.engine)
    run_raising(queue, job_id, RateLimited("later"))
    make_due(queue.engine)
    run_raising(queue, job_id, ZeroDivisionError("open-sesame"))
    make_due(queue.engine)
    run_raising(queue, job_id, DecodeFailed("noise"))
    tracing.stop_tracing()
    attempts = collector.named("job maintenance.noop")
    told = [
        (found.attributes["attempt"], found.attributes["outcome"], found.attributes["error_class"], found.error)
        for found in attempts
    ]
    assert told == [
        (1, "queued", "fetch_failed", "fetch_failed"),
        (2, "released", "rate_limited", None),
        (2, "queued", "internal", "internal"),
        (3, "failed", "undecodable_audio", "undecodable_audio"),
    ]
    assert {found.trace_id for found in attempts} == {collector.one("request").trace_id}
    assert b"open-sesame" not in b"".join(collector.bodies)


def test_an_attempt_whose_worker_died_is_followed_by_another_in_its_trace(
    queue: JobQueue, collector: Collector
) -> None:
    def lose(claim: Claim) -> Effect:
        expire(queue.engine, claim.job_id)
        run_job(queue, claim.job_id, COUNTING, SETTINGS)
        return count_effect(claim)

    with span("request"):
        (job_id,) = add_jobs(queue)
    run_job(queue, job_id, {JobKind.NOOP: HandlerSpec(lose, mark_failed)}, SETTINGS)
    tracing.stop_tracing()
    second, first = collector.named("job maintenance.noop")
    assert (first.attributes["attempt"], first.attributes["outcome"], first.error) == (1, "lost", "lease_lost")
    assert (second.attributes["attempt"], second.attributes["outcome"], second.error) == (2, "done", None)
    request = collector.one("request")
    assert first.parent_id == second.parent_id == request.span_id


def test_a_job_asked_for_again_belongs_to_who_asked_last(queue: JobQueue, collector: Collector) -> None:
    for name in ("first", "second"):
        with span(name), queue.unit_of_work() as unit:
            unit.enqueue(JobKind.NOOP, key="k", subject_id="s", is_requeue=True)
        run_pending(queue, NOTHING, SETTINGS)
    with queue.unit_of_work() as unit:
        job_id = unit.enqueue(JobKind.NOOP, key="k", subject_id="s", is_requeue=True)
    assert origin_of(queue, job_id) == (None, None)
    tracing.stop_tracing()
    first, second = collector.named("job maintenance.noop")
    assert first.parent_id == collector.one("first").span_id
    assert second.parent_id == collector.one("second").span_id


def test_a_look_that_comes_later_by_itself_is_a_trace_of_its_own(queue: JobQueue, collector: Collector) -> None:
    def handle(claim: Claim) -> Effect:
        return lambda unit: unit.enqueue_again(claim.job_id, not_before=0.0)

    with span("request"):
        (job_id,) = add_jobs(queue)
    run_job(queue, job_id, {JobKind.NOOP: HandlerSpec(handle, mark_failed)}, SETTINGS)
    run_job(queue, job_id, NOTHING, SETTINGS)
    tracing.stop_tracing()
    first, later = collector.named("job maintenance.noop")
    assert later.parent_id == ""
    assert later.links == tuple(found.span_id for found in collector.spans if found.parent_id == first.span_id)


def test_without_traces_rows_name_none(each_queue: JobQueue) -> None:
    add_jobs(each_queue)
    add_many(each_queue, MAX_TOGETHER + 1)
    run_pending(each_queue, NOTHING, SETTINGS)
    with each_queue.unit_of_work() as unit:
        unit.enqueue(JobKind.NOOP, key="k0", subject_id="c0", is_requeue=True)
    with read_session(each_queue.engine) as session:
        named = Job.traceparent.is_not(None) | Job.trace_link.is_not(None)
        assert session.scalar(select(func.count()).where(named)) == 0


def run_raising(queue: JobQueue, job_id: JobId, error: BaseException) -> None:
    def handle(_claim: Claim) -> Effect:
        raise error

    run_job(queue, job_id, {JobKind.NOOP: HandlerSpec(handle, mark_failed)}, SETTINGS)


def origin_of(queue: JobQueue, job_id: JobId) -> tuple[str | None, str | None]:
    job = job_of(queue.engine, job_id)
    return job.traceparent, job.trace_link
