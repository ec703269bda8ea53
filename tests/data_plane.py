"""The data plane without its processes: real catalog and object store, jobs run where the test stands."""

import http.server
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import Engine, text

from audiofoundation.catalog.engine import read_session
from audiofoundation.identifiers import sha256_of
from audiofoundation.ingestion.expand_job import DiscoveryExpand
from audiofoundation.ingestion.item_job import ItemIngest
from audiofoundation.ingestion.purge_job import Purge
from audiofoundation.jobs.kinds import JobKind
from audiofoundation.jobs.queue import JobQueue, UnitOfWork
from audiofoundation.jobs.runner import HandlerSpec, run_pending
from audiofoundation.preprocessing.commit_job import DatasetCommit
from audiofoundation.preprocessing.custom import load_functions
from audiofoundation.preprocessing.rewrite_job import ShardRewrite
from audiofoundation.preprocessing.shard_job import ShardPreprocess
from audiofoundation.settings import FetchSettings, JobSettings, ServingSettings, Settings
from audiofoundation.storage.object_store import ObjectStore
from audiofoundation.transport.http import create_app
from services.ingest import routes as ingest_routes
from services.ingest import wiring as ingest_wiring
from services.preprocess import routes as preprocess_routes
from services.preprocess import wiring as preprocess_wiring
from tests.servers import wait_until
from tests.unit.jobs.handlers import Recorder
from tests.unit.transport.serving import served

KEY = "data-plane-key"
ORIGINALS = Path(__file__).parent / "data" / "originals"
RECORDINGS = Path(__file__).parent / "data" / "recordings"
LOOPBACK = FetchSettings(allowed_networks=(ip_network("127.0.0.0/8"),), timeout_s=5.0)
JOBS = JobSettings(max_attempts=3)


@dataclass(frozen=True, slots=True)
class DataPlane:
    """Both services behind one client, and their jobs."""

    client: TestClient
    queue: JobQueue
    store: ObjectStore
    ingest: ItemIngest
    expand: DiscoveryExpand
    shards: ShardPreprocess
    commit: DatasetCommit
    settings: Settings

    @property
    def purge(self) -> Purge:
        return Purge(self.queue.engine, self.store, self.settings.data_dir)

    @property
    def rewrite(self) -> ShardRewrite:
        return ShardRewrite(self.queue.engine, self.store, self.settings.data_dir / "preprocess")

    @property
    def handlers(self) -> Mapping[JobKind, HandlerSpec]:
        return {
            JobKind.PURGE: HandlerSpec(self.purge, self.purge.on_failure),
            JobKind.PREPROCESS_REWRITE: HandlerSpec(self.rewrite, self.rewrite.on_failure),
            JobKind.INGEST_EXPAND: HandlerSpec(self.expand, self.expand.on_failure),
            JobKind.INGEST_ITEM: HandlerSpec(self.ingest, self.ingest.on_failure),
            JobKind.PREPROCESS_SHARD: HandlerSpec(self.shards, self.shards.on_failure),
            JobKind.PREPROCESS_COMMIT: HandlerSpec(self.commit, self.commit.on_failure),
        }

    def run_jobs(self) -> int:
        """Run everything that is due; return how many attempts that took."""
        return run_pending(self.queue, self.handlers, self.settings.jobs)

    def upload(
        self, collection: str, data: bytes, *, name: str = "clip.wav", license_text: str | None = None
    ) -> dict[str, object]:
        digest = sha256_of(data)
        params = {"name": name, **({"license": license_text} if license_text else {})}
        answer = self.client.put(f"/v1/collections/{collection}/files/{digest}", params=params, content=data)
        assert answer.status_code == 200, answer.text
        found: dict[str, object] = answer.json()
        return found

    def post(self, path: str, body: object) -> dict[str, object]:
        answer = self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, object] = answer.json()
        return found

    def get(self, path: str) -> dict[str, object]:
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        found: dict[str, object] = answer.json()
        return found

    def items(self, collection: str) -> list[dict[str, object]]:
        found = self.get(f"/v1/collections/{collection}/items")["items"]
        assert isinstance(found, list)
        return found


def create_data_plane(engine: Engine, store: ObjectStore, settings: Settings) -> DataPlane:
    queue = JobQueue(engine, Recorder())
    app: FastAPI = create_app("data plane", settings=settings)
    spool_dir = settings.data_dir / "uploads"
    container = ingest_wiring.Container(settings, queue, store, spool_dir)
    app.include_router(ingest_routes.create_router(container))
    names = settings.preprocess.feature_names
    preprocess = preprocess_wiring.Container(queue, store, num_workers=2, custom_features=names)
    app.include_router(preprocess_routes.create_router(preprocess))
    client = TestClient(app, headers={"Authorization": f"Bearer {KEY}"})
    ingest = ItemIngest(engine, store, settings.fetch, settings.data_dir / "ingest", settings.jobs)
    expand = DiscoveryExpand(queue, settings.fetch, settings.jobs, settings.data_dir / "expand")
    functions = load_functions(settings.preprocess.custom_features)
    shards = ShardPreprocess(engine, store, settings.data_dir / "preprocess", functions)
    return DataPlane(client, queue, store, ingest, expand, shards, DatasetCommit(engine, store), settings)


def open_source(address: str) -> dict[str, str]:
    """The address as a list has it that states a licence, without which it would not be asked."""
    return {"source": address, "license": "CC-BY-4.0"}


def meet(plane: DataPlane, first: Callable[[UnitOfWork], object], second: Callable[[UnitOfWork], object]) -> None:
    """Have the second transaction go as far as it can while the first is written and not committed."""

    def write_second() -> None:
        with plane.queue.unit_of_work() as unit:
            second(unit)

    with ThreadPoolExecutor(1) as pool:
        with plane.queue.unit_of_work() as unit:
            first(unit)
            other = pool.submit(write_second)
            wait_until(lambda: other.done() or _waits(plane.queue.engine), timeout_s=30.0, what="the second waits")
        other.result(timeout=30.0)


def _waits(engine: Engine) -> bool:
    """Tell whether a transaction waits for another; on SQLite each does from its beginning."""
    if engine.dialect.name == "sqlite":
        return True
    with read_session(engine) as session:
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(session.scalar(text(waiting)))


def data_plane_settings(data_dir: Path, fetch: FetchSettings = LOOPBACK) -> Settings:
    serving = ServingSettings(api_keys=(SecretStr(KEY),))
    return Settings(data_dir=data_dir, serving=serving, fetch=fetch, jobs=JOBS)


def recordings(count: int) -> list[Path]:
    """Real recordings, short ones first."""
    files = [path for path in RECORDINGS.iterdir() if path.suffix in (".opus", ".flac", ".ogg", ".mp3")]
    return sorted(files, key=lambda path: (path.stat().st_size, path.name))[:count]


def tone(path: Path, seconds: float, *, hz: float = 440.0) -> Path:
    """Write a sine of that length as 16-bit WAV at 24 kHz."""
    samples = 0.2 * np.sin(2 * np.pi * hz * np.arange(round(seconds * 24_000)) / 24_000)
    soundfile.write(path, samples, 24_000, subtype="PCM_16")
    return path


def two_sided(path: Path, left: Path, right: Path, *, rate_hz: int = 24_000) -> Path:
    """Write the beginnings of two mono recordings as left and right of a file at a rate that we give it."""
    sides = [soundfile.read(side, dtype="float32")[0] for side in (left, right)]
    num_samples = min(map(len, sides))
    soundfile.write(path, np.stack([side[:num_samples] for side in sides], axis=1), rate_hz)
    return path


@dataclass(slots=True)
class FileServer:
    """Serves bytes by path over loopback HTTP."""

    files: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    port: int = 0

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@contextmanager
def serving_files(server: FileServer) -> Iterator[FileServer]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append(self.path)
            body = server.files.get(self.path)
            if body is not None and self.headers.get("If-None-Match", "") == f'"{sha256_of(body)}"':
                self.send_response(304)
                self.end_headers()
                return
            self.send_response(404 if body is None else 200)
            self.send_header("ETag", f'"{sha256_of(body or b"")}"')
            for name, value in server.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.port = listener.server_port
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


@contextmanager
def at_work(plane: DataPlane, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Serve the plane on a port that the command line finds, with a worker that runs its jobs."""
    is_over = threading.Event()

    def work() -> None:
        while not is_over.wait(0.02):
            plane.run_jobs()

    worker = threading.Thread(target=work)
    worker.start()
    app = plane.client.app
    assert isinstance(app, FastAPI)
    try:
        with served(app) as url:
            monkeypatch.setenv("AF_URL", url)
            monkeypatch.setenv("AF_API_KEY", KEY)
            yield
    finally:
        is_over.set()
        worker.join()
