"""A left-over comes again, under the same key, while the collector is about to delete it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from audiofoundation.catalog.engine import read_session
from audiofoundation.catalog.orphan_marks import deleting_marked, forget_mark
from audiofoundation.catalog.tables import Shard
from audiofoundation.identifiers import sha256_of
from audiofoundation.ingestion import item_job
from audiofoundation.ingestion.collector import Collector, CollectorRules
from audiofoundation.preprocessing import shard_job
from audiofoundation.shards.index import index_key
from audiofoundation.storage.keys import raw_key
from audiofoundation.storage.object_store import ListedObject, ObjectStore
from audiofoundation.telemetry.failpoints import Failpoint
from services.ingest import routes
from tests.data_plane import (
    DataPlane,
    FileServer,
    create_data_plane,
    data_plane_settings,
    open_source,
    serving_files,
    tone,
)
from tests.unit.jobs.handlers import make_due

AT_ONCE = CollectorRules(min_age_s=0.0, min_marked_s=0.0, max_share=1.0)
DEADLINE_S = 30.0


@dataclass(slots=True)
class Writer:
    """Brings the bytes again in a thread of its own, and stops between the object and its row."""

    write: Callable[[], object]
    has_begun: threading.Event = field(default_factory=threading.Event)
    may_begin: threading.Event = field(default_factory=threading.Event)
    has_stored: threading.Event = field(default_factory=threading.Event)
    may_commit: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.may_begin.set()

    def start(self) -> None:
        self.thread = threading.Thread(target=self.write)
        self.thread.start()

    def begin(self, engine: Engine, key: str) -> None:
        self.has_begun.set()
        assert self.may_begin.wait(DEADLINE_S)
        forget_mark(engine, key)

    def pause(self, point: Failpoint) -> None:
        if point in (Failpoint.UPLOAD_STORED, Failpoint.INGEST_STORED):
            self.has_stored.set()
            assert self.may_commit.wait(DEADLINE_S)

    def finish(self) -> None:
        self.may_commit.set()
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive()


@dataclass(frozen=True, slots=True)
class Race:
    plane: DataPlane
    collector: Collector
    writer: Writer
    key: str

    def check(self) -> None:
        """What the catalog says is stored must be there."""
        self.writer.finish()
        self.plane.run_jobs()
        (item,) = self.plane.items("clips")
        assert item["state"] == "stored"
        assert self.plane.store.exists(self.key)


@pytest.fixture(params=["upload", "url"])
def race(
    request: pytest.FixtureRequest,
    engine: Engine,
    store: ObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Race]:
    """A marked left-over and a writer of the same bytes that has not begun."""
    plane = create_data_plane(engine, store, data_plane_settings(tmp_path / "data"))
    plane.post("/v1/collections", {"name": "clips"})
    data = tone(tmp_path / "a.wav", 31.0).read_bytes()
    key = raw_key(sha256_of(data))
    store.put_bytes(key, data)
    collector = Collector(engine, store, AT_ONCE, sleep=lambda _: None)
    assert collector.collect(is_applied=True).orphans == [key]
    with serving_files(FileServer({"/a.wav": data})) as server:
        if request.param == "upload":
            writer = Writer(lambda: plane.upload("clips", data))
        else:
            plane.post("/v1/collections/clips/items", {"sources": [open_source(server.url("/a.wav"))]})
            writer = Writer(plane.run_jobs)
        for module in (routes, item_job):
            monkeypatch.setattr(module, "failpoint", writer.pause)
            monkeypatch.setattr(module, "forget_mark", writer.begin)
        yield Race(plane, collector, writer, key)


def test_what_is_written_after_the_listing_stays(race: Race, monkeypatch: pytest.MonkeyPatch) -> None:
    look = Collector._unnamed

    def write_meanwhile(self: Collector, page: list[ListedObject]) -> list[ListedObject]:
        orphans = look(self, page)
        race.writer.start()
        assert race.writer.has_stored.wait(DEADLINE_S)
        monkeypatch.setattr(Collector, "_unnamed", look)
        return orphans

    monkeypatch.setattr(Collector, "_unnamed", write_meanwhile)
    assert race.collector.collect(is_applied=True).deleted == []
    race.check()


def test_what_is_written_after_the_last_look_stays(race: Race, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def write_first(engine: Engine, key: str) -> Iterator[bool]:
        race.writer.start()
        assert race.writer.has_stored.wait(DEADLINE_S)
        with deleting_marked(engine, key) as is_marked:
            yield is_marked

    monkeypatch.setattr("audiofoundation.ingestion.collector.deleting_marked", write_first)
    assert race.collector.collect(is_applied=True).deleted == []
    race.check()


def test_who_comes_during_the_deletion_writes_after_it(race: Race, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def write_meanwhile(engine: Engine, key: str) -> Iterator[bool]:
        race.writer.may_begin.clear()
        race.writer.start()
        assert race.writer.has_begun.wait(DEADLINE_S)
        with deleting_marked(engine, key) as is_marked:
            race.writer.may_begin.set()
            yield is_marked
            assert not race.writer.has_stored.is_set()

    monkeypatch.setattr("audiofoundation.ingestion.collector.deleting_marked", write_meanwhile)
    assert race.collector.collect(is_applied=True).deleted == [race.key]
    race.check()


def test_what_is_younger_than_its_listing_stays_whoever_wrote_it(race: Race, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer of an older version forgets no mark."""
    listing = race.plane.store.list_objects

    def an_hour_later(prefix: str) -> Iterator[ListedObject]:
        is_whole = prefix == race.key
        return (replace(found, modified_at=found.modified_at + 3600.0 * is_whole) for found in listing(prefix))

    monkeypatch.setattr(race.plane.store, "list_objects", an_hour_later)
    assert race.collector.collect(is_applied=True).deleted == []
    race.writer.start()
    race.check()


def test_a_shard_that_is_made_again_under_its_key_stays(
    engine: Engine, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that is asked for again after its last attempt counts attempts, and so keys, from one."""
    plane = create_data_plane(engine, store, data_plane_settings(tmp_path / "data"))
    plane.post("/v1/collections", {"name": "clips"})
    plane.upload("clips", tone(tmp_path / "a.wav", 31.0).read_bytes())
    plane.run_jobs()
    with monkeypatch.context() as patched:
        patched.setattr(shard_job, "failpoint", fail_when_stored)
        plane.post("/v1/datasets", {"collection": "clips"})
        for _ in range(6):
            plane.run_jobs()
            make_due(engine)
    collector = Collector(engine, store, AT_ONCE, sleep=lambda _: None)
    assert len(collector.collect(is_applied=True).orphans) >= 2
    writer, delete = threading.Thread(target=make_again, args=(plane,)), store.delete_at_once

    def delete_meanwhile(key: str) -> None:
        if key.endswith(".tar") and key.rpartition("/")[2].startswith("1-"):
            writer.start()
            writer.join(2.0)  # it waits for the mark of this key, or is done
        delete(key)

    monkeypatch.setattr(store, "delete_at_once", delete_meanwhile)
    collector.collect(is_applied=True)
    writer.join(DEADLINE_S)
    plane.run_jobs()

    with read_session(engine) as session:
        (shard,) = session.scalars(select(Shard))
        assert shard.state == "committed"
        assert store.exists(shard.key or "")
        assert store.exists(index_key(shard.key or ""))


def fail_when_stored(point: Failpoint) -> None:
    if point is Failpoint.SHARD_STORED:
        raise RuntimeError("the catalog is away")


def make_again(plane: DataPlane) -> None:
    plane.post("/v1/datasets", {"collection": "clips"})
    plane.run_jobs()
