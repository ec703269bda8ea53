"""Migrations: equal to the tables, safe when several processes start at once."""

from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic import SecretStr
from sqlalchemy import Engine, inspect

from audiofoundation.catalog.engine import NEWEST_REVISION, create_catalog_engine, migrate, read_session
from audiofoundation.catalog.migrations import alembic_config
from audiofoundation.catalog.tables import Base, Discovery
from audiofoundation.settings import CatalogSettings
from tests.servers import PostgresServer, process_context

NUM_PROCESSES = 4


def test_migrated_catalog_differs_in_nothing_from_the_tables(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_a_missing_column_would_be_noticed(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE jobs DROP COLUMN last_error")
        context = MigrationContext.configure(connection)
        assert [difference[0] for difference in compare_metadata(context, Base.metadata)] == ["add_column"]


def test_newest_revision_is_the_head_of_the_scripts(engine: Engine) -> None:
    with engine.connect() as connection:
        scripts = ScriptDirectory.from_config(alembic_config(connection))
        assert scripts.get_current_head() == NEWEST_REVISION


def test_a_discovery_made_before_its_rejections_were_counted_is_kept(engine: Engine) -> None:
    with engine.begin() as connection:
        for name in ("num_duplicates", "num_discoveries", "rejected", "examples", "license", "note"):
            connection.exec_driver_sql(f"ALTER TABLE discoveries DROP COLUMN {name}")
        for name in ("left_out", "features_failed"):
            connection.exec_driver_sql(f"ALTER TABLE shards DROP COLUMN {name}")
        for name in ("traceparent", "trace_link"):
            connection.exec_driver_sql(f"ALTER TABLE jobs DROP COLUMN {name}")
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0005'")
        connection.exec_driver_sql("INSERT INTO collections VALUES ('col', 'pod', 'crawled', 0, 0)")
        columns = "id, collection_id, kind, address, state, is_plan, num_seen, num_added, validators"
        connection.exec_driver_sql(
            f"INSERT INTO discoveries ({columns}, created_at, updated_at) "
            "VALUES ('disc', 'col', 'feed', 'https://x.org/feed', 'done', false, 7, 5, '{}', 0, 0)"
        )
    migrate(engine)
    with read_session(engine) as session:
        row = session.get_one(Discovery, "disc")
        assert (row.num_seen, row.num_added, row.num_duplicates, row.num_discoveries) == (7, 5, 0, 0)
        assert (row.rejected, row.examples, row.note) == ({}, [], None)


def test_processes_that_migrate_at_once_all_succeed_on_sqlite(tmp_path: Path) -> None:
    migrate_at_once(CatalogSettings(url=SecretStr(f"sqlite:///{tmp_path}/catalog.db")))


@pytest.mark.slow
def test_processes_that_migrate_at_once_all_succeed_on_postgresql(postgres_server: PostgresServer) -> None:
    postgres_server.execute("CREATE DATABASE at_once")
    migrate_at_once(CatalogSettings(url=SecretStr(postgres_server.url("at_once"))))


def migrate_at_once(settings: CatalogSettings) -> None:
    context = process_context()
    barrier = context.Barrier(NUM_PROCESSES)
    processes = [context.Process(target=migrate_after, args=(settings, barrier)) for _ in range(NUM_PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
        assert process.exitcode == 0
    engine = create_catalog_engine(settings)
    assert set(Base.metadata.tables) < set(inspect(engine).get_table_names())
    engine.dispose()


def migrate_after(settings: CatalogSettings, barrier: Barrier) -> None:
    barrier.wait(60)
    migrate(create_catalog_engine(settings))
