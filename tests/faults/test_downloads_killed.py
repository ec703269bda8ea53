"""Downloads whose worker dies by SIGKILL at any byte: nothing cut short is accepted, nothing is left behind."""

import multiprocessing
import os
import random
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sqlalchemy import Engine, select

from audiofoundation.catalog.engine import create_catalog_engine, read_session
from audiofoundation.catalog.tables import Asset, Item
from audiofoundation.identifiers import Sha256, sha256_of
from audiofoundation.ingestion.item_job import ItemIngest
from audiofoundation.ingestion.leftovers import remove_leftovers
from audiofoundation.jobs.kinds import JobKind
from audiofoundation.jobs.queue import JobQueue
from audiofoundation.jobs.runner import HandlerSpec, run_pending
from audiofoundation.jobs.sweeper import sweep
from audiofoundation.settings import CatalogSettings, JobSettings, ProbeSettings, Settings, StorageSettings
from audiofoundation.storage.keys import raw_key
from audiofoundation.storage.object_store import ObjectStore
from tests.data_plane import LOOPBACK, create_data_plane, data_plane_settings, open_source
from tests.range_server import RangeServer, serving_ranges
from tests.servers import wait_until
from tests.unit.jobs.handlers import Recorder

NUM_KILLS = int(os.environ.get("AF_TEST_KILLS", "10"))
NUM_FILES = 3
SEED = 20261121
JOBS = JobSettings(max_attempts=10_000, max_backoff_s=0.01, lease_s=60.0, sweep_interval_s=0.1)
PROBE = ProbeSettings(range_bytes=32 << 10)


def work_once(settings: Settings) -> None:
    """Run what is due, as a worker does."""
    engine = create_catalog_engine(settings.catalog)
    work_dir = settings.data_dir / "work"
    ingest = ItemIngest(engine, ObjectStore(settings.storage), LOOPBACK, work_dir, JOBS, PROBE)
    handlers = {JobKind.INGEST_ITEM: HandlerSpec(ingest, ingest.on_failure)}
    run_pending(JobQueue(engine, Recorder()), handlers, JOBS)


def serve_forks(asked: Connection, settings: Settings) -> None:
    """Fork a worker for each word that comes; say its id, and then that it has ended."""
    while asked.recv():
        pid = os.fork()
        if pid == 0:
            work_once(settings)
            os._exit(0)
        asked.send(pid)
        asked.send(os.waitpid(pid, 0)[1])


@contextmanager
def forking(settings: Settings) -> Iterator[Connection]:
    """A process without threads that has the imports already, so that a worker starts at once."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve_forks, args=(theirs, settings))
    process.start()
    try:
        yield ours
    finally:
        ours.send(False)
        process.join(30)
        if process.is_alive():
            process.kill()


def reclaim(engine: Engine) -> None:
    """Give the dead worker's job back, as the sweeper does within seconds."""
    wait_until(lambda: sweep(engine, Recorder(), JOBS).num_reclaimed == 1, timeout_s=20, what="the job is taken back")
    time.sleep(2 * JOBS.max_backoff_s)


def recording(seed: int) -> bytes:
    file = Path(f"/proc/self/fd/{os.memfd_create('recording')}")
    samples = np.random.default_rng(seed).standard_normal(31 * 16_000) * 0.03
    soundfile.write(file, samples, 16_000, format="WAV", subtype="PCM_16")
    return file.read_bytes()


@pytest.mark.slow
def test_no_byte_of_a_killed_download_counts(
    sqlite_engine: Engine,
    sqlite_catalog: CatalogSettings,
    s3_settings: StorageSettings,
    tmp_path: Path,
) -> None:
    storage = s3_settings.model_copy(update={"bucket": f"test-{secrets.token_hex(6)}"})
    store = ObjectStore(storage)
    store.ensure_bucket()
    settings = data_plane_settings(tmp_path / "data")
    plane = create_data_plane(sqlite_engine, store, settings)
    settings = settings.model_copy(update={"catalog": sqlite_catalog, "storage": storage})
    rng = random.Random(SEED)
    with serving_ranges(RangeServer(pause_s=0.002)) as server, forking(settings) as forks:
        server.files = {f"/{number}": recording(number) for number in range(NUM_FILES)}
        plane.post("/v1/collections", {"name": "clips"})
        plane.post("/v1/collections/clips/items", {"sources": [open_source(server.url(path)) for path in server.files]})
        num_killed = 0
        while num_killed < NUM_KILLS:
            # A file is asked for some 100 kB of ranges and then as a whole.
            stop_at = server.sent.total() + rng.randrange(1, int(1.05 * len(server.files["/0"])))
            forks.send(True)
            pid = forks.recv()
            while server.sent.total() < stop_at and not forks.poll(0.0005):
                pass
            if forks.poll():
                forks.recv()
                break  # all are here
            os.kill(pid, signal.SIGKILL)
            assert forks.recv() == signal.SIGKILL
            num_killed += 1
            check_stored(sqlite_engine, store, server)
            reclaim(sqlite_engine)
        assert num_killed >= NUM_KILLS // 2
        forks.send(True)
        forks.recv()
        assert forks.recv() == 0
    assert check_stored(sqlite_engine, store, server) == NUM_FILES
    assert plane.get("/v1/collections/clips")["states"] == {"stored": NUM_FILES}
    assert not [path for path in (tmp_path / "data" / "work").rglob("*") if path.is_file()]


def check_stored(engine: Engine, store: ObjectStore, server: RangeServer) -> int:
    """Everything that the catalog names is whole, and so is every object; return how many."""
    whole = {sha256_of(data) for data in server.files.values()}
    with read_session(engine) as session:
        named = set(session.scalars(select(Asset.sha256)))
        num_stored = len(session.scalars(select(Item.id).where(Item.state == "stored")).all())
    assert named <= whole
    for sha256 in named:
        assert sha256_of(store.get_bytes(raw_key(Sha256(sha256)))) == sha256
    return num_stored


def test_a_file_that_changes_while_it_is_fetched_starts_over(
    sqlite_engine: Engine, store: ObjectStore, tmp_path: Path
) -> None:
    plane = create_data_plane(sqlite_engine, store, data_plane_settings(tmp_path / "data"))
    with serving_ranges(RangeServer({"/a": recording(1)})) as server:
        server.cut_after["/a"] = 400_000

        def change() -> None:
            server.files["/a"], server.etag = recording(2), '"v2"'

        server.on_cut = change
        plane.post("/v1/collections", {"name": "clips"})
        plane.post("/v1/collections/clips/items", {"sources": [open_source(server.url("/a"))]})
        plane.run_jobs()
    (item,) = plane.items("clips")
    assert item["state"] == "stored"
    assert store.exists(raw_key(sha256_of(recording(2))))
    assert not store.exists(raw_key(sha256_of(recording(1))))
    assert "bytes=400000-" in server.asked


def test_leftovers_of_jobs_that_nobody_holds_are_removed(sqlite_engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "work" / "job_gone" / "1").mkdir(parents=True)
    (tmp_path / "work" / "job_gone" / "1" / "body").write_bytes(b"part")
    assert remove_leftovers(tmp_path / "work", sqlite_engine) == 1
    assert list((tmp_path / "work").iterdir()) == []
    assert remove_leftovers(tmp_path / "absent", sqlite_engine) == 0
