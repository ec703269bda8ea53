"""Workers die by SIGKILL while jobs flow: none is lost, none is done twice (docs/adr/0003)."""

import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, func, select

from audiofoundation.catalog.engine import create_catalog_engine, read_session
from audiofoundation.catalog.tables import Job
from audiofoundation.features.mel import Float32
from audiofoundation.identifiers import ItemId
from audiofoundation.jobs.celery_app import CeleryPublisher
from audiofoundation.jobs.kinds import JobKind, JobState
from audiofoundation.jobs.lease import Claim, Effect
from audiofoundation.jobs.queue import JobQueue
from audiofoundation.jobs.runner import HandlerSpec
from audiofoundation.preprocessing.custom import RecordingFeatures
from audiofoundation.settings import CatalogSettings, JobSettings, QueueSettings, Settings, TelemetrySettings
from tests.servers import ValkeyServer, wait_until
from tests.unit.jobs.handlers import COUNTING, add_jobs, count_effect, effects, mark_failed

from .workers import children_of, is_running, kill, start_worker

NUM_JOBS, NUM_KILLS, NUM_WORKERS, CONCURRENCY = 5000, 50, 3, 3
SEED = 20261120
DEADLINE_S = 240.0  # a minute on two idle cores

pytestmark = pytest.mark.slow


@pytest.fixture
def memory_catalog(sqlite_catalog: CatalogSettings) -> Iterator[CatalogSettings]:
    """The catalog in a memory filesystem where there is one: SIGKILL needs no disk, 10 000 commits do."""
    source = Path(sqlite_catalog.url.get_secret_value().removeprefix("sqlite:///"))
    memory = Path("/dev/shm")
    directory = Path(tempfile.mkdtemp(prefix="af-faults-", dir=memory if memory.is_dir() else None))
    shutil.copy(source, directory / "catalog.db")
    yield CatalogSettings(url=SecretStr(f"sqlite:///{directory}/catalog.db"))
    shutil.rmtree(directory)


@pytest.fixture
def settings(memory_catalog: CatalogSettings, queue_settings: QueueSettings, tmp_path: Path) -> Settings:
    jobs = JobSettings(lease_s=5.0, heartbeat_s=1.0, sweep_interval_s=1.0, republish_after_s=5.0)
    telemetry = TelemetrySettings(log_level="ERROR")
    return Settings(data_dir=tmp_path, catalog=memory_catalog, queue=queue_settings, jobs=jobs, telemetry=telemetry)


@pytest.fixture
def queue(settings: Settings) -> Iterator[JobQueue]:
    engine = create_catalog_engine(settings.catalog)
    publisher = CeleryPublisher(settings.queue)
    yield JobQueue(engine, publisher)
    publisher.close()
    engine.dispose()


def counting_handlers() -> Mapping[JobKind, HandlerSpec]:
    return COUNTING


def suicidal_handlers() -> Mapping[JobKind, HandlerSpec]:
    def handle(claim: Claim) -> Effect:
        if claim.subject_id == "c0":
            kill(os.getpid())
        return count_effect(claim)

    return {JobKind.NOOP: HandlerSpec(handle, mark_failed)}


def mark_of(job_id: str) -> Path:
    return Path(tempfile.gettempdir()) / f"af-faults-{job_id}"


def slow_handlers() -> Mapping[JobKind, HandlerSpec]:
    def handle(claim: Claim) -> Effect:
        mark_of(claim.job_id).touch()
        time.sleep(600)
        return count_effect(claim)

    return {JobKind.NOOP: HandlerSpec(handle, mark_failed)}


def measuring_handlers() -> Mapping[JobKind, HandlerSpec]:
    """The same, but within a custom feature, whose own SystemExit would be a failure of that feature."""

    def handle(claim: Claim) -> Effect:
        def slow(_samples: Float32, _rate_hz: int) -> float:
            mark_of(claim.job_id).touch()
            time.sleep(600)
            return 0.0

        RecordingFeatures(ItemId("item_1"), {"slow": slow}).measure(np.zeros(1, np.float32), 24_000)
        return count_effect(claim)

    return {JobKind.NOOP: HandlerSpec(handle, mark_failed)}


def states(engine: Engine) -> dict[str, int]:
    with read_session(engine) as session:
        counted = select(Job.state, func.count().label("num_jobs")).group_by(Job.state)
        return {row.state: row.num_jobs for row in session.execute(counted)}


def test_no_job_is_lost_or_doubled_under_fifty_kills(settings: Settings, queue: JobQueue) -> None:
    chance = random.Random(SEED)
    deadline = time.monotonic() + DEADLINE_S
    add_jobs(queue, NUM_JOBS)
    workers = [start_worker(settings, counting_handlers, concurrency=CONCURRENCY) for _ in range(NUM_WORKERS)]
    num_killed = 0
    try:
        while (done := states(queue.engine).get("done", 0)) < NUM_JOBS:
            assert time.monotonic() < deadline, f"{states(queue.engine)} after {num_killed} kills"
            # Kills are spread over the jobs, so that all of them fall while jobs flow.
            if num_killed < NUM_KILLS and done >= num_killed * (NUM_JOBS - 500) / NUM_KILLS:
                mains = [worker.pid for worker in workers if worker.pid is not None]
                pids = mains + [child for main in mains for child in children_of(main)]
                kill(chance.choice(pids))
                num_killed += 1
            workers = [
                worker if worker.is_alive() else start_worker(settings, counting_handlers, concurrency=CONCURRENCY)
                for worker in workers
            ]
            time.sleep(chance.uniform(0.05, 0.3))
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
    assert num_killed == NUM_KILLS
    assert states(queue.engine) == {"done": NUM_JOBS}
    assert Counter(effects(queue.engine)) == {"1": NUM_JOBS}


def test_job_that_kills_its_worker_is_dead_after_five_attempts_and_others_go_on(
    settings: Settings, queue: JobQueue
) -> None:
    jobs = settings.jobs.model_copy(update={"max_backoff_s": 0.1})
    ids = add_jobs(queue, 20)
    worker = start_worker(settings.model_copy(update={"jobs": jobs}), suicidal_handlers, concurrency=1)
    try:
        wait_until(lambda: states(queue.engine) == {"dead": 1, "done": 19}, timeout_s=60.0, what="all jobs end")
    finally:
        worker.kill()
        worker.join()
    assert effects(queue.engine)[0] == "failed: lease_lost"
    with read_session(queue.engine) as session:
        assert session.get_one(Job, ids[0]).attempt == settings.jobs.max_attempts


@pytest.mark.parametrize("handlers", [slow_handlers, measuring_handlers])
def test_child_that_is_told_to_end_gives_its_job_back(
    settings: Settings, queue: JobQueue, handlers: Callable[[], Mapping[JobKind, HandlerSpec]]
) -> None:
    (job_id,) = add_jobs(queue)
    worker = start_worker(settings, handlers, concurrency=1)
    assert worker.pid is not None
    try:
        # The handler itself: a child that ends between claim and work leaves the job to the sweeper.
        wait_until(mark_of(job_id).exists, timeout_s=60.0, what="it runs")
        assert states(queue.engine) == {JobState.RUNNING: 1}
        os.kill(children_of(worker.pid)[0], signal.SIGQUIT)
        wait_until(lambda: states(queue.engine) == {JobState.QUEUED: 1}, timeout_s=10.0, what="it is back")
        with read_session(queue.engine) as session:
            assert session.get_one(Job, job_id).attempt == 0
    finally:
        worker.kill()
        worker.join()
        mark_of(job_id).unlink(missing_ok=True)


def test_children_of_a_killed_worker_do_not_outlive_it(settings: Settings, queue: JobQueue) -> None:
    ids = add_jobs(queue, 2)
    worker = start_worker(settings, slow_handlers, concurrency=2)
    assert worker.pid is not None
    main = worker.pid
    try:
        wait_until(lambda: states(queue.engine) == {JobState.RUNNING: 2}, timeout_s=60.0, what="both jobs run")
        children = children_of(main)
        assert len(children) == 2
    finally:
        worker.kill()
        worker.join()
        for job_id in ids:
            mark_of(job_id).unlink(missing_ok=True)
    wait_until(lambda: not any(is_running(child) for child in children), timeout_s=5.0, what="the children are gone")


def test_jobs_survive_a_queue_server_that_forgets_everything(
    settings: Settings, queue: JobQueue, valkey_server: ValkeyServer
) -> None:
    add_jobs(queue, 20)
    valkey_server.flush()
    worker = start_worker(settings, counting_handlers, concurrency=1)
    try:
        wait_until(lambda: states(queue.engine) == {"done": 20}, timeout_s=60.0, what="all jobs are done")
    finally:
        worker.kill()
        worker.join()
    assert effects(queue.engine) == ["1"] * 20


def test_running_workers_survive_a_queue_server_that_is_killed(
    settings: Settings, queue: JobQueue, tmp_path: Path
) -> None:
    server = ValkeyServer(tmp_path / "own-valkey")
    server.start()
    publisher = CeleryPublisher(server.settings)
    worker = start_worker(settings.model_copy(update={"queue": server.settings}), counting_handlers, concurrency=1)
    try:
        add_jobs(JobQueue(queue.engine, publisher), 1)
        for num_done in range(1, 5):
            wait_until(
                lambda num_done=num_done: states(queue.engine) == {"done": num_done},  # type: ignore[misc]
                timeout_s=60.0,
                what="the worker works",
            )
            # The row says done before the message is acknowledged: the worst moment to lose the server.
            server.kill()
            with JobQueue(queue.engine, publisher).unit_of_work() as unit:
                unit.enqueue(JobKind.NOOP, key=f"while away {num_done}", subject_id="c0")
            server.start()
        wait_until(lambda: states(queue.engine) == {"done": 5}, timeout_s=60.0, what="it works again")
    finally:
        worker.kill()
        worker.join()
        publisher.close()
        server.stop()
