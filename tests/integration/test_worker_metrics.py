"""What workers count can be scraped, from whichever child counted it, across children and in bounded files."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import func, select

from audiofoundation.catalog.engine import create_catalog_engine, read_session
from audiofoundation.catalog.tables import Collection, Job, Shard
from audiofoundation.jobs.celery_app import CeleryPublisher
from audiofoundation.jobs.kinds import TERMINAL_STATES
from audiofoundation.jobs.queue import JobQueue
from audiofoundation.preprocessing.options import DatasetOptions
from audiofoundation.preprocessing.plan import plan_dataset
from audiofoundation.settings import CatalogSettings, QueueSettings, Settings
from audiofoundation.storage.object_store import ObjectStore
from tests.data_plane import tone
from tests.faults.platform import Processes, running
from tests.faults.workers import children_of
from tests.servers import free_port, wait_until

pytestmark = pytest.mark.slow
INGEST, PREPROCESS = "services.ingest.worker", "services.preprocess.worker"
DEADLINE_S = 60.0
Figures = dict[tuple[str, ...], float]


class Platform:
    """The data plane's processes, their catalog, and the ports of their metrics."""

    def __init__(self, processes: Processes, settings: Settings, ports: dict[str, int]) -> None:
        self.processes = processes
        self.settings = settings
        self.ports = ports
        self.queue = JobQueue(create_catalog_engine(settings.catalog), CeleryPublisher(settings.queue))

    def finish_jobs(self) -> None:
        def is_idle() -> bool:
            with read_session(self.queue.engine) as session:
                return not session.scalar(select(func.count()).where(Job.state.not_in(TERMINAL_STATES)))

        wait_until(is_idle, timeout_s=DEADLINE_S, what="all jobs are over")

    def figures(self, module: str) -> Figures:
        """Return every sample of a worker by its name and label values."""
        answer = httpx.get(f"http://127.0.0.1:{self.ports[module]}/metrics")
        families = text_string_to_metric_families(answer.text)
        return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}

    def wait_for(self, module: str, *key: str, value: float) -> None:
        """An attempt is counted just after it was committed."""
        wait_until(lambda: self.figures(module).get(key) == value, timeout_s=10.0, what=f"{key} is {value}")


@pytest.fixture
def platform(
    sqlite_catalog: CatalogSettings,
    queue_settings: QueueSettings,
    store: ObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Platform]:
    settings = Settings(
        data_dir=tmp_path / "data", storage=store.settings, catalog=sqlite_catalog, queue=queue_settings
    )
    ports = {INGEST: free_port(), PREPROCESS: free_port()}
    monkeypatch.setenv("AF_METRICS__INGEST_WORKER_PORT", str(ports[INGEST]))
    monkeypatch.setenv("AF_METRICS__PREPROCESS_WORKER_PORT", str(ports[PREPROCESS]))
    failpoints = tmp_path / "failpoints"
    failpoints.mkdir()
    with running(settings, failpoints) as processes:
        processes.request("POST", "/v1/collections", json={"name": "clips"})
        yield Platform(processes, settings, ports)


def test_a_real_job_of_each_worker_can_be_read_over_http(platform: Platform, tmp_path: Path) -> None:
    data = tone(tmp_path / "a.wav", 2.5).read_bytes()
    platform.processes.upload("clips", data)
    platform.finish_jobs()
    platform.wait_for(INGEST, "jobs_attempted_total", "ingest.item", "done", value=1)
    found = platform.figures(INGEST)
    assert found["job_seconds_count", "ingest.item"] == 1
    assert 0 < found["job_seconds_sum", "ingest.item"] < DEADLINE_S
    assert found["fetched_bytes_total", "file"] == len(data)
    assert found["audio_seconds_total", "ingest.item"] == pytest.approx(2.5, abs=0.01)

    with platform.queue.unit_of_work() as unit:
        collection = unit.session.scalars(select(Collection)).one()
        plan_dataset(unit, collection, DatasetOptions(segment_s=0.5), num_workers=2)
    platform.finish_jobs()
    platform.wait_for(PREPROCESS, "jobs_attempted_total", "preprocess.commit", "done", value=1)
    found = platform.figures(PREPROCESS)
    assert found["jobs_attempted_total", "preprocess.shard", "done"] == 1
    assert found["job_seconds_count", "preprocess.shard"] == 1
    with read_session(platform.queue.engine) as session:
        made_s = session.scalars(select(Shard.duration_s)).one()
    assert made_s >= 2.0
    assert found["audio_seconds_total", "preprocess.shard"] == pytest.approx(made_s)
    assert ("fetched_bytes_total", "file") not in found, "what the other worker counts is its own"


def test_children_come_and_go_and_the_counts_stay(platform: Platform, tmp_path: Path) -> None:
    worker = platform.processes.running[INGEST]
    for number in range(1, 4):
        platform.processes.upload("clips", tone(tmp_path / "a.wav", 1.0, hz=200.0 + number).read_bytes())
        platform.finish_jobs()
        platform.wait_for(INGEST, "jobs_attempted_total", "ingest.item", "done", value=number)
        gone = children_of(worker.pid)
        for child in gone:
            os.kill(child, signal.SIGKILL)

        def are_replaced(gone: list[int] = gone) -> bool:
            now = children_of(worker.pid)
            return len(now) == len(gone) and not set(now) & set(gone)

        wait_until(are_replaced, timeout_s=DEADLINE_S, what="new children")
    names = {
        path.name
        for path in (platform.settings.data_dir / "work" / "metrics" / f"ingest-{platform.ports[INGEST]}").iterdir()
    }
    assert names <= {f"{kind}_{place}.db" for kind in ("counter", "histogram") for place in ("0", "1", "worker")}


def test_a_worker_that_starts_again_counts_from_zero(platform: Platform, tmp_path: Path) -> None:
    platform.processes.upload("clips", tone(tmp_path / "a.wav", 1.0).read_bytes())
    platform.finish_jobs()
    platform.wait_for(INGEST, "jobs_attempted_total", "ingest.item", "done", value=1)
    platform.processes.running[INGEST].kill()
    platform.processes.running[INGEST].wait()
    platform.processes.upload("clips", tone(tmp_path / "b.wav", 1.0, hz=600.0).read_bytes())
    platform.processes.keep_alive()
    platform.finish_jobs()
    platform.wait_for(INGEST, "jobs_attempted_total", "ingest.item", "done", value=1)
