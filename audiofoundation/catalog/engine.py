"""Engines and sessions of the catalog: SQLite or PostgreSQL behind one contract.

Also the one file that knows SQLAlchemy's exceptions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, create_engine, exc, inspect, text
from sqlalchemy.orm import Session

from audiofoundation.catalog import sqlite
from audiofoundation.catalog.forks import FORK_GATE
from audiofoundation.errors import Conflict, InvalidRequest, StorageUnavailable
from audiofoundation.settings import CatalogSettings

_READ_OPTIONS = {sqlite.IS_READ: True, "postgresql_readonly": True}
NEWEST_REVISION = "0009"  # of catalog/migrations/versions; a test compares them
_ADVISORY_LOCK = 0x61756469  # any constant that nothing else in the database uses
_POOL_TIMEOUT_S = 30.0


def create_catalog_engine(settings: CatalogSettings) -> Engine:
    """Return an engine for `sqlite:////path/catalog.db` or `postgresql+psycopg://…`.

    The engine may be inherited by a forked process: its idle connections close before the fork.

    Raises:
        InvalidRequest: the URL is empty, of another database, or a file on a network filesystem.
    """
    url = settings.url.get_secret_value()
    if url.startswith("sqlite:////"):
        path = Path(url.removeprefix("sqlite:///"))
        path.parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(url, pool_timeout=_POOL_TIMEOUT_S)
        sqlite.prepare(engine, path)
    elif url.startswith("postgresql+psycopg://"):
        # A connection that its server dropped is replaced before it is used.
        engine = create_engine(url, pool_timeout=_POOL_TIMEOUT_S, pool_pre_ping=True)
    else:
        raise InvalidRequest(
            "AF_CATALOG__URL must be sqlite:////absolute/path.db or postgresql+psycopg://user:password@host/db."
        )
    FORK_GATE.watch(engine)
    return engine


def migrate(engine: Engine) -> None:
    """Bring the tables to the newest revision; several processes may call this at once.

    One transaction holds a lock over the whole (on SQLite its write lock), so the others wait and then
    find nothing to do; a process killed on the way leaves the tables as they were.

    Raises:
        StorageUnavailable: the catalog did not answer.
    """
    if _revision_of(engine) == NEWEST_REVISION:
        return
    from audiofoundation.catalog.migrations import upgrade  # Alembic costs 0.2 s that most starts can save

    with _translated_errors(), FORK_GATE.session(), engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        upgrade(connection)


def _revision_of(engine: Engine) -> str | None:
    with read_session(engine) as session:
        if not inspect(session.connection()).has_table("alembic_version"):
            return None
        revision: str | None = session.scalar(text("SELECT version_num FROM alembic_version"))
        return revision


@contextmanager
def read_session(engine: Engine) -> Iterator[Session]:
    """Yield a session on one snapshot; writing in it fails.

    Raises:
        StorageUnavailable: the catalog did not answer.
        InvalidRequest: no column holds what was asked for.
    """
    with _translated_errors(), FORK_GATE.session(), Session(engine.execution_options(**_READ_OPTIONS)) as session:
        yield session


@contextmanager
def write_session(engine: Engine) -> Iterator[Session]:
    """Yield a session that commits at the end and rolls back on an error.

    Raises:
        StorageUnavailable: the catalog did not answer.
        Conflict: a unique or foreign key contradicts the write.
        InvalidRequest: no column holds a value.
    """
    with _translated_errors(), FORK_GATE.session(), Session(engine, expire_on_commit=False) as session:
        # The lock comes first, so that nothing read here is stale when it is written (SQLite).
        session.connection()
        yield session
        session.commit()


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Turn SQLAlchemy's errors into StorageUnavailable, Conflict and InvalidRequest."""
    try:
        yield
    except exc.IntegrityError as error:
        raise Conflict(f"The catalog refuses the write: {error.orig}") from error
    except exc.DataError as error:  # PostgreSQL's text holds no NUL, and its numbers end somewhere
        raise InvalidRequest(f"The catalog cannot hold such a value: {_cause_of(error)}.") from error
    except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
        raise StorageUnavailable(f"The catalog did not answer: {_cause_of(error)}. Try again.") from error


def _cause_of(error: exc.SQLAlchemyError) -> str:
    cause = getattr(error, "orig", None) or error
    return str(cause).strip().splitlines()[0]
