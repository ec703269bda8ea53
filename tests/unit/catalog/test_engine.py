"""Sessions on both databases, and what SQLite needs to bear many writers."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, func, insert, select, text, update

from audiofoundation.catalog.engine import create_catalog_engine, read_session, write_session
from audiofoundation.catalog.sqlite import filesystem_of
from audiofoundation.catalog.tables import Collection, Item
from audiofoundation.errors import Conflict, InvalidRequest, StorageUnavailable
from audiofoundation.settings import CatalogSettings
from tests.servers import process_context

NUM_WRITERS, NUM_INCREMENTS = 4, 40


def count(engine: Engine) -> int:
    with read_session(engine) as session:
        return session.scalar(select(func.count()).select_from(Collection)) or 0


def test_write_session_commits_at_the_end(engine: Engine) -> None:
    with write_session(engine) as session:
        session.add(Collection(id="c", name="n"))
    assert count(engine) == 1


def test_write_session_rolls_back_on_an_error(engine: Engine) -> None:
    def write_and_raise() -> None:
        with write_session(engine) as session:
            session.add(Collection(id="c", name="n"))
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_raise()
    assert count(engine) == 0


def test_read_session_refuses_to_write(engine: Engine) -> None:
    with pytest.raises(Exception, match=r"read-?only"), read_session(engine) as session:
        session.execute(insert(Collection).values(id="c", name="n", policy="p"))
    assert count(engine) == 0


def test_connection_writes_again_after_it_was_lent_for_reading(engine: Engine) -> None:
    assert count(engine) == 0
    with write_session(engine) as session:
        session.add(Collection(id="c", name="n"))
    assert count(engine) == 1


def test_duplicate_is_a_conflict(engine: Engine) -> None:
    with write_session(engine) as session:
        session.add(Collection(id="c", name="n"))
    with pytest.raises(Conflict, match="refuses"), write_session(engine) as session:
        session.add(Collection(id="d", name="n"))


def test_foreign_keys_hold(engine: Engine) -> None:
    with pytest.raises(Conflict), write_session(engine) as session:
        session.add(Item(id="i", collection_id="nowhere", canonical="x", kind="file", source="x"))


def test_sqlite_connections_are_wal_durable_and_patient(sqlite_catalog: CatalogSettings) -> None:
    engine = create_catalog_engine(sqlite_catalog)
    with read_session(engine) as session:
        pragmas = {
            name: session.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "busy_timeout": 30_000, "foreign_keys": 1}
    engine.dispose()


def test_processes_that_read_then_write_lose_no_update(catalog_settings: CatalogSettings) -> None:
    engine = create_catalog_engine(catalog_settings)
    with write_session(engine) as session:
        session.add(Collection(id="c", name="n", policy="0"))
    engine.dispose()
    context = process_context()
    writers = [context.Process(target=increment, args=(catalog_settings,)) for _ in range(NUM_WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    with read_session(engine) as session:
        assert session.scalar(select(Collection.policy)) == str(NUM_WRITERS * NUM_INCREMENTS)
    engine.dispose()


def increment(settings: CatalogSettings) -> None:
    engine = create_catalog_engine(settings)
    for _ in range(NUM_INCREMENTS):
        with write_session(engine) as session:
            seen = session.scalars(select(Collection.policy).with_for_update()).one()
            session.execute(update(Collection).values(policy=str(int(seen) + 1)))


def test_engine_bears_a_fork(engine: Engine) -> None:
    assert count(engine) == 0
    pid = os.fork()
    if pid == 0:
        with write_session(engine) as session:
            session.add(Collection(id="child", name="child"))
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    with write_session(engine) as session:
        session.add(Collection(id="parent", name="parent"))
    assert count(engine) == 2


def test_fork_waits_for_the_session_of_another_thread(engine: Engine) -> None:
    """A child forked in the middle of it would take the lock for held until its patience ends."""
    is_open = threading.Event()

    def write() -> None:
        with write_session(engine) as session:
            session.add(Collection(id="thread", name="thread"))
            session.flush()
            is_open.set()
            time.sleep(0.5)  # the fork comes in between

    thread = threading.Thread(target=write)
    thread.start()
    assert is_open.wait(10.0)
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)  # far below the busy timeout
        with write_session(engine) as session:
            session.add(Collection(id="child", name="child"))
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    thread.join()
    assert count(engine) == 2


@pytest.mark.parametrize("url", ["", "mysql://x/y", "sqlite:///relative.db", "sqlite://"])
def test_other_databases_are_refused_in_words(url: str) -> None:
    with pytest.raises(InvalidRequest, match="AF_CATALOG__URL"):
        create_catalog_engine(CatalogSettings(url=SecretStr(url)))


def test_unreachable_catalog_is_storage_unavailable(tmp_path: Path) -> None:
    url = f"postgresql+psycopg://nobody@/nothing?host={tmp_path}"
    engine = create_catalog_engine(CatalogSettings(url=SecretStr(url)))
    with pytest.raises(StorageUnavailable, match="did not answer"):
        count(engine)
    engine.dispose()


def test_sqlite_on_a_network_filesystem_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audiofoundation.catalog.sqlite.filesystem_of", lambda _path: "nfs4")
    with pytest.raises(InvalidRequest, match="local disk"):
        create_catalog_engine(CatalogSettings(url=SecretStr(f"sqlite:///{tmp_path}/catalog.db")))


def test_filesystem_is_found_for_a_path() -> None:
    assert filesystem_of(Path("/proc/self")) == "proc"
