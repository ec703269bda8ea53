"""Fixtures that every tier shares: real servers, started once, and a fresh catalog per test."""

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from pydantic import SecretStr
from sqlalchemy import Engine

from audiofoundation.catalog.engine import create_catalog_engine, migrate
from audiofoundation.settings import CatalogSettings, QueueSettings, StorageSettings
from audiofoundation.storage.object_store import ObjectStore
from tests.servers import PostgresServer, S3Server, ValkeyServer, missing_postgres

# As configure_logging does: the default renders every local variable of a traceback, half a second each.
structlog.configure(processors=[structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)])


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Never name a test after bytes: they may differ between two processes (a gzip header holds the time), and workers
    that collected different names refuse to run."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def s3_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageSettings]:
    """A real S3 server; it may be shared, so use your own keys or bucket."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server.settings
    server.stop()


@pytest.fixture
def store(s3_settings: StorageSettings) -> ObjectStore:
    """An object store on a bucket of this test alone."""
    store = ObjectStore(s3_settings.model_copy(update={"bucket": f"test-{secrets.token_hex(6)}"}))
    store.ensure_bucket()
    return store


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A real Valkey server."""
    server = ValkeyServer(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def queue_settings(valkey_server: ValkeyServer) -> QueueSettings:
    """Queues of this test alone on the real Valkey server."""
    return valkey_server.settings.model_copy(update={"key_prefix": f"test-{secrets.token_hex(6)}:"})


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A real PostgreSQL server, where one is installed."""
    if reason := missing_postgres():
        pytest.skip(reason)
    server = PostgresServer()
    server.start()
    try:
        server.execute("CREATE DATABASE template_catalog")
        _migrate(server.url("template_catalog"))
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("catalog") / "template.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_catalog(_sqlite_template: Path, tmp_path: Path) -> CatalogSettings:
    """A fresh, migrated SQLite catalog."""
    path = tmp_path / "catalog.db"
    shutil.copy(_sqlite_template, path)
    return CatalogSettings(url=SecretStr(f"sqlite:///{path}"))


@pytest.fixture
def postgres_catalog(postgres_server: PostgresServer) -> Iterator[CatalogSettings]:
    """A fresh, migrated PostgreSQL catalog."""
    name = f"test_{secrets.token_hex(6)}"
    postgres_server.execute(f"CREATE DATABASE {name} TEMPLATE template_catalog")
    yield CatalogSettings(url=SecretStr(postgres_server.url(name)))
    postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def catalog_settings(request: pytest.FixtureRequest) -> CatalogSettings:
    """A fresh catalog on each database in turn: the same suite runs on both."""
    name = "sqlite_catalog" if request.param == "sqlite" else "postgres_catalog"
    settings = request.getfixturevalue(name)
    assert isinstance(settings, CatalogSettings)
    return settings


@pytest.fixture
def engine(catalog_settings: CatalogSettings) -> Iterator[Engine]:
    """An engine on the fresh catalog."""
    engine = create_catalog_engine(catalog_settings)
    yield engine
    engine.dispose()


@pytest.fixture
def sqlite_engine(sqlite_catalog: CatalogSettings) -> Iterator[Engine]:
    """An engine on a fresh SQLite catalog, for what does not depend on the database."""
    engine = create_catalog_engine(sqlite_catalog)
    yield engine
    engine.dispose()


def _migrate(url: str) -> None:
    engine = create_catalog_engine(CatalogSettings(url=SecretStr(url)))
    migrate(engine)
    engine.dispose()
