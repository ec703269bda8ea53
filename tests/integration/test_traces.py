"""One trace from the client through the catalog and the queue to the workers' steps: real processes, real OTLP."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from audiofoundation.catalog.engine import create_catalog_engine, read_session
from audiofoundation.catalog.tables import Job
from audiofoundation.jobs.celery_app import CeleryPublisher
from audiofoundation.jobs.kinds import TERMINAL_STATES, JobKind
from audiofoundation.jobs.queue import JobQueue
from audiofoundation.jobs.runner import HandlerSpec
from audiofoundation.settings import CatalogSettings, QueueSettings, Settings, TelemetrySettings
from audiofoundation.storage.object_store import ObjectStore
from audiofoundation.telemetry import tracing
from audiofoundation.telemetry.failpoints import Failpoint
from audiofoundation.telemetry.tracing import span
from tests.collector import CLIENT_SPAN, CLIENT_TRACE, CLIENT_TRACEPARENT, Collector, collecting
from tests.data_plane import FileServer, serving_files, tone
from tests.faults.platform import KEY, Processes, running
from tests.faults.workers import children_of, start_worker
from tests.servers import free_port, wait_until
from tests.unit.jobs.handlers import COUNTING, add_jobs

pytestmark = pytest.mark.slow
DEADLINE_S = 60.0
SIGNED = "signature=open-sesame"
OTHER_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
OTHER_TRACEPARENT = f"00-{OTHER_TRACE}-00f067aa0ba902b7-01"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.fixture
def queue(sqlite_catalog: CatalogSettings, queue_settings: QueueSettings) -> Iterator[JobQueue]:
    engine, publisher = create_catalog_engine(sqlite_catalog), CeleryPublisher(queue_settings)
    yield JobQueue(engine, publisher)
    publisher.close()
    engine.dispose()


def num_unfinished(queue: JobQueue) -> int:
    with read_session(queue.engine) as session:
        return session.scalar(select(func.count()).where(Job.state.not_in(TERMINAL_STATES))) or 0


class DataPlane:
    """The ingest service and both workers, and the preprocess service on a port of its own."""

    def __init__(self, processes: Processes, queue: JobQueue) -> None:
        self.processes = processes
        self.queue = queue
        port = free_port()
        self.preprocess_url = f"http://127.0.0.1:{port}"
        env = {**processes.env, "AF_SERVING__PORT": str(port)}
        self.preprocess = subprocess.Popen([sys.executable, "-P", "-m", "services.preprocess.main"], env=env)

    def finish_jobs(self) -> None:
        def is_idle() -> bool:
            self.processes.keep_alive()
            return num_unfinished(self.queue) == 0

        wait_until(is_idle, timeout_s=DEADLINE_S, what="all jobs are over")

    def make_dataset(self) -> None:
        def answers() -> bool:
            try:
                return httpx.get(f"{self.preprocess_url}/health/live").status_code == 200
            except httpx.HTTPError:
                return False

        wait_until(answers, timeout_s=DEADLINE_S, what="the preprocess service answers")
        headers = {"Authorization": f"Bearer {KEY}", "traceparent": OTHER_TRACEPARENT}
        body = {"collection": "pod", "segment_s": 2.0}
        answer = httpx.post(f"{self.preprocess_url}/v1/datasets", headers=headers, json=body, timeout=20.0)
        assert answer.status_code == 200, answer.text


@pytest.fixture
def plane(
    collector: Collector,
    queue: JobQueue,
    sqlite_catalog: CatalogSettings,
    queue_settings: QueueSettings,
    store: ObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[DataPlane]:
    settings = Settings(
        data_dir=tmp_path / "data", storage=store.settings, catalog=sqlite_catalog, queue=queue_settings
    )
    monkeypatch.setenv("AF_TELEMETRY__OTLP_ENDPOINT", collector.endpoint)
    monkeypatch.setenv("AF_FETCH__ALLOWED_NETWORKS", "127.0.0.0/8")
    failpoints = tmp_path / "failpoints"
    failpoints.mkdir()
    with running(settings, failpoints) as processes:
        plane = DataPlane(processes, queue)
        try:
            yield plane
        finally:
            plane.preprocess.kill()
            plane.preprocess.wait()


def serve_feed(server: FileServer, tmp_path: Path) -> None:
    """A feed of two recordings behind signed addresses."""
    enclosures = ""
    for name, hz in (("a", 440.0), ("b", 660.0)):
        path = f"/{name}.wav?{SIGNED}"
        server.files[path] = tone(tmp_path / f"{name}.wav", 31.0, hz=hz).read_bytes()
        enclosures += f'<item><title>{name}</title><enclosure url="{server.url(path)}" type="audio/wav"/></item>'
    server.files[f"/feed?{SIGNED}"] = (
        f"<rss><channel><title>Pod</title><license>CC-BY-4.0</license>{enclosures}</channel></rss>".encode()
    )


def test_a_request_is_followed_through_the_queue_to_the_last_step(
    plane: DataPlane, collector: Collector, store: ObjectStore, tmp_path: Path
) -> None:
    plane.processes.request("POST", "/v1/collections", json={"name": "pod"})
    (tmp_path / "failpoints" / f"{Failpoint.INGEST_VERIFIED.value}.kill").touch()
    with serving_files(FileServer()) as server:
        serve_feed(server, tmp_path)
        body = {"sources": [f"feed:{server.url(f'/feed?{SIGNED}')}"]}
        _post_in_trace(plane.processes, "/v1/collections/pod/items", body)
        plane.finish_jobs()
    plane.make_dataset()
    plane.finish_jobs()
    awaited = {"POST /v1/datasets": 1, "job ingest.expand": 1, "job ingest.item": 2}
    awaited |= {"job preprocess.shard": 1, "job preprocess.commit": 1}
    for name, num in awaited.items():  # each process sends its own, some seconds later
        collector.wait_for(lambda name=name, num=num: len(collector.named(name)) == num, f"{name} has come")  # type: ignore[misc]
    _check_ingest(collector)
    _check_preprocess(collector)
    storage = store.settings
    secrets = [SIGNED, KEY, storage.secret_key.get_secret_value(), storage.access_key.get_secret_value(), "redis://"]
    sent = b"".join(collector.bodies)
    assert [secret for secret in secrets if secret.encode() in sent] == []


def _post_in_trace(processes: Processes, path: str, body: Mapping[str, object]) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "traceparent": CLIENT_TRACEPARENT}
    answer = httpx.post(f"http://127.0.0.1:{processes.port}{path}", headers=headers, json=body, timeout=20.0)
    assert answer.status_code == 200, answer.text


def _check_ingest(collector: Collector) -> None:
    request = collector.one("POST /v1/collections/{collection}/items")
    assert (request.service, request.trace_id, request.parent_id) == (
        "audiofoundation-ingest",
        CLIENT_TRACE,
        CLIENT_SPAN,
    )
    expand = collector.one("job ingest.expand")
    assert (expand.service, expand.parent_id) == ("audiofoundation-ingest-worker", request.span_id)
    assert collector.children_of(expand) == ["read", "add", "read", "add", "read", "commit"], "the last page is empty"
    items = collector.named("job ingest.item")
    assert {found.trace_id for found in (expand, *items)} == {CLIENT_TRACE}
    add = collector.named("add")[0]
    assert {item.parent_id for item in items} == {add.span_id}
    attempts = sorted(item.attributes["attempt"] for item in items)
    assert attempts == [1, 2], "the attempt that was killed could not tell; the next one is in the same trace"
    for item in items:
        assert collector.children_of(item) == ["probe", "fetch", "verify", "store", "commit"]
        assert item.attributes["outcome"] == "done"
    for step in collector.named("verify"):
        assert step.attributes["duration_s"] == pytest.approx(31.0)


def _check_preprocess(collector: Collector) -> None:
    request = collector.one("POST /v1/datasets")
    assert (request.service, request.trace_id) == ("audiofoundation-preprocess", OTHER_TRACE)
    shard, commit = collector.one("job preprocess.shard"), collector.one("job preprocess.commit")
    assert {found.trace_id for found in (shard, commit)} == {OTHER_TRACE}
    assert (shard.service, shard.parent_id) == ("audiofoundation-preprocess-worker", request.span_id)
    assert collector.children_of(shard) == ["recording", "recording", "store", "commit"]
    assert commit.parent_id in {found.span_id for found in collector.named("commit")}
    assert collector.children_of(commit) == ["store", "commit"]
    for recording in collector.named("recording"):
        assert recording.attributes["duration_s"] == pytest.approx(31.0, abs=0.1)
        assert recording.attributes["outcome"] == "done"


def counting_handlers() -> Mapping[JobKind, HandlerSpec]:
    return COUNTING


def test_a_child_that_ends_sends_what_it_has(
    queue: JobQueue,
    collector: Collector,
    sqlite_catalog: CatalogSettings,
    queue_settings: QueueSettings,
    tmp_path: Path,
) -> None:
    telemetry = TelemetrySettings(log_level="ERROR", otlp_endpoint=collector.endpoint)
    settings = Settings(data_dir=tmp_path, catalog=sqlite_catalog, queue=queue_settings, telemetry=telemetry)
    with tracing.tracing(telemetry, service="client"), span("client"):
        (job_id,) = add_jobs(queue)
    worker = start_worker(settings, counting_handlers, concurrency=1)
    assert worker.pid is not None
    try:
        wait_until(lambda: num_unfinished(queue) == 0, timeout_s=DEADLINE_S, what="the job is done")
        (child,) = children_of(worker.pid)
        os.kill(child, signal.SIGQUIT)  # as Celery ends a child, within a second
        wait_until(lambda: child not in children_of(worker.pid or 0), timeout_s=10.0, what="the child is gone")
        job = collector.one("job maintenance.noop")
    finally:
        worker.kill()
        worker.join()
    assert (job.service, job.attributes["job_id"]) == ("audiofoundation-test-worker", job_id)
    assert job.parent_id == collector.one("client").span_id


def test_a_collector_that_is_away_costs_the_jobs_nothing(
    queue: JobQueue, sqlite_catalog: CatalogSettings, queue_settings: QueueSettings, tmp_path: Path
) -> None:
    telemetry = TelemetrySettings(log_level="CRITICAL", otlp_endpoint=f"http://127.0.0.1:{free_port()}")
    settings = Settings(data_dir=tmp_path, catalog=sqlite_catalog, queue=queue_settings, telemetry=telemetry)
    add_jobs(queue, 100)
    worker = start_worker(settings, counting_handlers, concurrency=1)
    assert worker.pid is not None
    try:
        wait_until(lambda: num_unfinished(queue) == 0, timeout_s=DEADLINE_S, what="all jobs are done")
        begun = time.monotonic()
        os.kill(worker.pid, signal.SIGTERM)
        worker.join(20.0)
        assert worker.exitcode == 0
        assert time.monotonic() - begun < 9.0, "`up` waits ten seconds before it kills a worker"
    finally:
        worker.kill()
        worker.join()
