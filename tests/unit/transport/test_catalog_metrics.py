"""Gauges of the catalog: right, bounded, cheap, and there while the catalog is away."""

import time

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, event, update

from audiofoundation.catalog.engine import write_session
from audiofoundation.catalog.tables import Collection, Dataset, ItemCount, Job, Shard
from audiofoundation.jobs.kinds import JobKind, JobState
from audiofoundation.transport import catalog_metrics
from audiofoundation.transport.catalog_metrics import CatalogMetrics
from tests.unit.transport.serving import create_sample_app

INGEST = JobKind.INGEST_ITEM


def gauges(metrics: CatalogMetrics) -> dict[tuple[str, ...], float]:
    """Return every sample by its name and label values."""
    text = metrics.exposition().decode()
    families = text_string_to_metric_families(text)
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def add_jobs(engine: Engine, *states: JobState, created_at: float | None = None) -> None:
    with write_session(engine) as session:
        for number, state in enumerate(states):
            name = f"{state}-{number}-{created_at}"
            row = Job(id=name, kind=INGEST, key=name, subject_id="x", state=state)
            if created_at is not None:
                row.created_at = created_at
            session.add(row)


def add_collection(engine: Engine, name: str, **counts: int) -> None:
    with write_session(engine) as session:
        session.add(Collection(id=name, name=f"private {name}"))
        session.flush()
        for state, number in counts.items():
            error_class = "license" if state == "rejected" else ""
            row = ItemCount(collection_id=name, kind="url", state=state, error_class=error_class, num_items=number)
            session.add(row)


def test_jobs_by_kind_and_state_and_how_long_the_oldest_waits(engine: Engine) -> None:
    add_jobs(engine, JobState.QUEUED, JobState.RUNNING, JobState.DEAD, JobState.DEAD, JobState.DONE)
    add_jobs(engine, JobState.QUEUED, created_at=time.time() - 1000)
    found = gauges(CatalogMetrics(engine))
    assert found["jobs", INGEST, "queued"] == 2
    assert found["jobs", INGEST, "running"] == 1
    assert found["dead_total", INGEST] == 2
    assert found["oldest_queued_seconds", INGEST] <= 1001
    assert found["oldest_queued_seconds", JobKind.TRAIN_RUN] == 0
    with write_session(engine) as session:
        session.execute(update(Job).where(Job.created_at > time.time() - 500).values(state=JobState.DONE))
    assert 999 < gauges(CatalogMetrics(engine))["oldest_queued_seconds", INGEST] < 1100


def test_counting_stops_at_a_limit(sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_metrics, "MAX_COUNTED", 3)
    add_jobs(sqlite_engine, *[JobState.QUEUED] * 5)
    assert gauges(CatalogMetrics(sqlite_engine))["jobs", INGEST, "queued"] == 3


def test_items_of_the_largest_collections_by_id_and_the_others_together(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_metrics, "MAX_COLLECTIONS", 1)
    add_collection(engine, "col_large", stored=70, rejected=5)
    add_collection(engine, "col_small", stored=2)
    add_collection(engine, "col_tiny", stored=1, rejected=1)
    metrics = CatalogMetrics(engine)
    found = gauges(metrics)
    assert found["items", "col_large", "stored"] == 70
    assert found["items_not_taken", "col_large", "license"] == 5
    assert found["items", "other", "stored"] == 3
    assert ("items", "col_small", "stored") not in found
    assert b"private" not in metrics.exposition()


def test_shards_by_state_with_their_bytes_and_seconds(engine: Engine) -> None:
    with write_session(engine) as session:
        session.add(Collection(id="c", name="c"))
        session.flush()
        session.add(Dataset(id="d", collection_id="c", preset="vocos24", mel_fingerprint="f", config={}))
        session.flush()
        for number, state in enumerate(("committed", "committed", "queued")):
            done = {"size_bytes": 100, "duration_s": 2.5, "cpu_s": 0.5} if state == "committed" else {}
            session.add(Shard(id=str(number), dataset_id="d", shard_index=number, state=state, **done))
    found = gauges(CatalogMetrics(engine))
    assert found["shards", "committed"] == 2
    assert found["shards", "queued"] == 1
    assert found["shard_bytes", "committed"] == 200
    assert found["shard_audio_seconds", "committed"] == 5.0


def test_scrapes_share_one_reading_and_survive_a_catalog_that_is_away(sqlite_engine: Engine) -> None:
    add_jobs(sqlite_engine, JobState.QUEUED)
    statements: list[str] = []
    event.listen(sqlite_engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    metrics = CatalogMetrics(sqlite_engine)
    first = gauges(metrics)
    num_read = len(statements)
    assert gauges(metrics) == first
    assert len(statements) == num_read
    metrics.keep_s = 0.0
    with sqlite_engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE jobs RENAME TO hidden")
    found = gauges(metrics)
    assert found["catalog_up",] == 0
    assert found["jobs", INGEST, "queued"] == 1


def test_the_route_adds_them_to_the_process_metrics(sqlite_engine: Engine) -> None:
    app = create_sample_app()
    app.state.catalog_metrics = CatalogMetrics(sqlite_engine)
    text = TestClient(app).get("/metrics").text
    assert "catalog_up 1.0" in text
    assert "http_requests_running" in text
    list(text_string_to_metric_families(text))
