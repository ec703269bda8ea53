"""The collector by itself, in real workers on a real store, with the grace periods that operators have."""

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, exc, select

from audiofoundation.catalog.engine import create_catalog_engine, read_session, write_session
from audiofoundation.catalog.tables import Item, Lease, OrphanMark
from audiofoundation.errors import StorageUnavailable
from audiofoundation.identifiers import Sha256, sha256_of
from audiofoundation.ingestion import collector_thread
from audiofoundation.ingestion.collector import Collector, CollectorRules
from audiofoundation.ingestion.collector_thread import TURN, CollectorThread, collecting
from audiofoundation.jobs.queue import JobQueue
from audiofoundation.jobs.role import holding_role
from audiofoundation.settings import CatalogSettings, QueueSettings, Settings
from audiofoundation.storage.keys import raw_key
from audiofoundation.storage.object_store import ListedObject, ObjectStore
from tests.data_plane import tone
from tests.faults.platform import running
from tests.servers import S3Server, wait_until
from tests.unit.jobs.handlers import Recorder

AT_ONCE = CollectorRules(min_age_s=0.0, min_marked_s=0.0, max_share=1.0)
HOUR_S = 3600.0
ORPHAN, YOUNG = raw_key(Sha256("0" * 64)), raw_key(Sha256("1" * 64))


@pytest.fixture
def s3_server(tmp_path: Path) -> Iterator[S3Server]:
    """A server of this test alone: its objects are files whose age can be set."""
    server = S3Server(tmp_path / "s3")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def queue(sqlite_engine: Engine) -> JobQueue:
    return JobQueue(sqlite_engine, Recorder())


@pytest.fixture
def collector(sqlite_engine: Engine, store: ObjectStore) -> Collector:
    return Collector(sqlite_engine, store, AT_ONCE)


@pytest.fixture
def looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a thread whose interval is long look for its turn at once."""
    monkeypatch.setattr(collector_thread, "_MAX_PAUSE_S", 0.05)


def is_marked(engine: Engine, key: str) -> bool:
    with read_session(engine) as session:
        return session.get(OrphanMark, key) is not None


def due_in_s(engine: Engine) -> float:
    with read_session(engine) as session:
        return session.get_one(Lease, TURN).lease_until - time.time()


def let_it_be_due(engine: Engine) -> None:
    with write_session(engine) as session:
        session.merge(Lease(name=TURN, owner="nobody", lease_until=0.0))


def number_of_turns(engine: Engine) -> Callable[[], int]:
    """Return a count of how often the turn was seen to be taken."""
    seen = set[float]()

    def count() -> int:
        with read_session(engine) as session:
            seen.update(session.scalars(select(Lease.lease_until).where(Lease.name == TURN)))
        return len(seen)

    return count


@pytest.mark.slow
def test_an_old_orphan_goes_by_itself_and_what_is_named_or_young_stays(
    sqlite_catalog: CatalogSettings,
    queue_settings: QueueSettings,
    s3_server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket = f"test-{secrets.token_hex(6)}"
    storage = s3_server.settings.model_copy(update={"bucket": bucket})
    settings = Settings(data_dir=tmp_path / "data", storage=storage, catalog=sqlite_catalog, queue=queue_settings)
    monkeypatch.setenv("AF_COLLECTOR__INTERVAL_S", "0.5")
    store, engine = ObjectStore(storage), create_catalog_engine(sqlite_catalog)
    store.ensure_bucket()
    failpoints = tmp_path / "failpoints"
    failpoints.mkdir()
    data = tone(tmp_path / "a.wav", 5.0).read_bytes()
    named = raw_key(sha256_of(data))
    three_days_ago = time.time() - 72 * HOUR_S

    def becomes_old(key: str) -> bool:
        """The server may write a new file's time once more, and remembers times for a while."""
        os.utime(tmp_path / "s3" / bucket / key, (three_days_ago, three_days_ago))
        return age_s(key) > 71 * HOUR_S

    def age_s(key: str) -> float:
        (found,) = store.list_objects(key)
        return time.time() - found.modified_at

    def is_stored() -> bool:
        with read_session(engine) as session:
            return session.scalars(select(Item.state)).all() == ["stored"]

    for key in (ORPHAN, YOUNG):
        store.put_bytes(key, b"left over")
    with running(settings, failpoints) as processes:
        processes.request("POST", "/v1/collections", json={"name": "clips"})
        processes.upload("clips", data)
        wait_until(is_stored, timeout_s=60.0, what="the upload is an item")
        for key in (named, ORPHAN):
            wait_until(partial(becomes_old, key), timeout_s=30.0, what="the server sees its age")
        assert age_s(YOUNG) < HOUR_S
        wait_until(lambda: is_marked(engine, ORPHAN), timeout_s=60.0, what="a pass marks the orphan")
        turns = number_of_turns(engine)
        wait_until(lambda: turns() >= 3, timeout_s=60.0, what="more passes come")
        assert store.exists(ORPHAN), "it was marked only now"
        with write_session(engine) as session:
            session.get_one(OrphanMark, ORPHAN).marked_at -= 25 * HOUR_S
        wait_until(lambda: not store.exists(ORPHAN), timeout_s=60.0, what="the orphan is gone")
    assert store.get_bytes(named) == data
    assert store.exists(YOUNG)
    assert not is_marked(engine, named)
    assert not is_marked(engine, YOUNG)


def test_a_pass_that_is_refused_is_no_end(queue: JobQueue, collector: Collector, store: ObjectStore) -> None:
    store.put_bytes("uploads/0", b"left over")
    turns = number_of_turns(queue.engine)
    with collecting(queue, collector, interval_s=0.05):
        with holding_role(queue.engine, "collector"):
            wait_until(lambda: turns() >= 4, timeout_s=30.0, what="turns come")
            assert not is_marked(queue.engine, "uploads/0")
        wait_until(lambda: not store.exists("uploads/0"), timeout_s=30.0, what="the orphan is gone")


def test_what_the_catalog_refuses_is_no_end(queue: JobQueue, collector: Collector, store: ObjectStore) -> None:
    store.put_bytes("uploads/0", b"left over")
    refusals = iter([exc.DatabaseError("SELECT 1", {}, Exception("malformed")) for _ in range(3)])

    def refuse_the_collector(*_: object) -> None:
        if threading.current_thread().name == "collector" and (refusal := next(refusals, None)) is not None:
            raise refusal

    event.listen(queue.engine, "before_cursor_execute", refuse_the_collector)
    with collecting(queue, collector, interval_s=0.05):
        wait_until(lambda: not store.exists("uploads/0"), timeout_s=30.0, what="the orphan is gone")
    assert next(refusals, None) is None


@pytest.mark.usefixtures("looking_often")
def test_a_worker_that_stops_deletes_no_more_and_leaves_its_turn_to_another(
    queue: JobQueue, collector: Collector, store: ObjectStore
) -> None:
    keys = [f"uploads/{number}" for number in range(60)]
    for key in keys:
        store.put_bytes(key, b"left over")
    collector.collect(is_applied=True)  # marks
    thread = CollectorThread(queue, collector, interval_s=HOUR_S)
    let_it_be_due(queue.engine)
    thread.start()
    wait_until(lambda: not store.exists(keys[0]), timeout_s=30.0, what="the first is deleted")
    thread.stop()
    left = sum(store.exists(key) for key in keys)
    assert left > 0
    assert due_in_s(queue.engine) <= 0.0
    assert sum(store.exists(key) for key in keys) == left
    assert collector.collect(is_applied=False).orphans, "the role was given back"


@pytest.mark.usefixtures("looking_often")
def test_a_store_that_is_away_is_asked_again_before_the_next_interval(queue: JobQueue, collector: Collector) -> None:
    class Away(ObjectStore):
        num_asked = 0

        def list_objects(self, prefix: str) -> Iterator[ListedObject]:
            self.num_asked += 1
            raise StorageUnavailable(f"{prefix} cannot be listed")

    away = Away(collector.store.settings)
    let_it_be_due(queue.engine)
    with collecting(queue, replace(collector, store=away), interval_s=24 * HOUR_S):
        wait_until(lambda: 0 < due_in_s(queue.engine) < HOUR_S, timeout_s=30.0, what="it tries again soon")
        let_it_be_due(queue.engine)
        wait_until(lambda: away.num_asked >= 2, timeout_s=30.0, what="it tries again")


def test_an_interval_of_zero_is_never(queue: JobQueue, collector: Collector) -> None:
    let_it_be_due(queue.engine)
    with collecting(queue, collector, interval_s=0.0):
        assert "collector" not in {thread.name for thread in threading.enumerate()}
    assert due_in_s(queue.engine) < 0
