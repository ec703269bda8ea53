"""Left-overs go on the second pass; what anything names, or may still name, stays."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from audiofoundation.catalog.engine import write_session
from audiofoundation.catalog.tables import Lease, OrphanMark
from audiofoundation.errors import Conflict
from audiofoundation.identifiers import DatasetId, Sha256, sha256_of
from audiofoundation.ingestion.collector import Collector, CollectorRules
from audiofoundation.jobs.kinds import JobKind
from audiofoundation.jobs.lease import claim_next
from audiofoundation.jobs.role import holding_role
from audiofoundation.storage.keys import raw_key, shard_key
from audiofoundation.storage.object_store import ObjectStore
from tests.data_plane import DataPlane, create_data_plane, data_plane_settings, tone

AT_ONCE = CollectorRules(min_age_s=0.0, min_marked_s=0.0, max_share=1.0)


@pytest.fixture
def plane(sqlite_engine: Engine, store: ObjectStore, tmp_path: Path) -> DataPlane:
    plane = create_data_plane(sqlite_engine, store, data_plane_settings(tmp_path / "data"))
    plane.post("/v1/collections", {"name": "clips"})
    plane.upload("clips", tone(tmp_path / "a.wav", 2.0).read_bytes())
    return plane


@pytest.fixture
def collector(plane: DataPlane) -> Collector:
    return Collector(plane.queue.engine, plane.store, AT_ONCE, sleep=lambda _: None)


def test_everything_that_the_platform_made_is_named(plane: DataPlane, collector: Collector) -> None:
    assert collector.collect(is_applied=False).orphans == [], "an upload that waits for its job is named"
    plane.run_jobs()
    plane.post("/v1/datasets", {"collection": "clips"})
    plane.run_jobs()
    found = collector.collect(is_applied=False)
    assert found.num_objects == 4  # original, shard, its index, manifest
    assert found.orphans == []


def test_an_orphan_is_marked_first_and_deleted_a_pass_later(plane: DataPlane, collector: Collector) -> None:
    plane.run_jobs()
    orphans = {raw_key(Sha256("0" * 64)), "datasets/ds_0/manifest-0.json", "models/m/0.safetensors", "uploads/0"}
    for key in orphans:
        plane.store.put_bytes(key, b"left over")
    plane.store.put_bytes("elsewhere/0", b"not ours")

    assert set(collector.collect(is_applied=False).orphans) == orphans
    first = collector.collect(is_applied=True)
    assert (set(first.orphans), first.deleted) == (orphans, [])
    second = collector.collect(is_applied=True)
    assert set(second.deleted) == orphans
    assert collector.collect(is_applied=True).orphans == []
    assert plane.store.exists("elsewhere/0")
    assert plane.client.post("/v1/maintenance/gc", json={}).json()["orphans"] == 0


def test_age_and_mark_both_have_to_be_old(plane: DataPlane, collector: Collector) -> None:
    plane.store.put_bytes("uploads/0", b"left over")
    assert replace(collector, rules=CollectorRules()).collect(is_applied=True).orphans == []
    waiting = replace(collector, rules=replace(AT_ONCE, min_marked_s=3600.0))
    for _ in range(2):
        assert waiting.collect(is_applied=True).deleted == []
    with write_session(plane.queue.engine) as session:
        session.get_one(OrphanMark, "uploads/0").marked_at -= 3601.0
    assert waiting.collect(is_applied=True).deleted == ["uploads/0"]


def test_a_mark_is_forgotten_when_something_names_the_object(
    plane: DataPlane, collector: Collector, tmp_path: Path
) -> None:
    data = tone(tmp_path / "b.wav", 1.0, hz=990.0).read_bytes()
    key = raw_key(sha256_of(data))
    plane.store.put_bytes(key, data)
    assert collector.collect(is_applied=True).orphans == [key]
    plane.upload("clips", data)
    plane.run_jobs()
    for _ in range(2):
        assert collector.collect(is_applied=True).orphans == []
    assert plane.store.exists(key)


def test_what_a_job_is_about_to_name_stays(plane: DataPlane, collector: Collector) -> None:
    plane.run_jobs()
    dataset = DatasetId(str(plane.post("/v1/datasets", {"collection": "clips"})["dataset"]))
    claim = claim_next(plane.queue.engine, JobKind.PREPROCESS_SHARD, owner="me", settings=plane.settings.jobs)
    assert claim is not None
    effect = plane.shards(claim)
    for _ in range(2):
        assert collector.collect(is_applied=True).orphans == []
    del effect
    plane.store.put_bytes(shard_key(DatasetId("ds_gone"), 0, 1, Sha256("1" * 64)), b"of no shard")
    assert len(collector.collect(is_applied=True).orphans) == 1
    assert dataset


def test_nothing_goes_when_too_much_would(plane: DataPlane, collector: Collector) -> None:
    plane.store.put_bytes("uploads/0", bytes(1 << 20))
    careful = replace(collector, rules=replace(AT_ONCE, max_share=0.05))
    assert careful.collect(is_applied=True).deleted == []
    with pytest.raises(Conflict, match="more than 5%"):
        careful.collect(is_applied=True)
    assert plane.store.exists("uploads/0")


def test_only_one_collector_runs(plane: DataPlane, collector: Collector) -> None:
    with (
        holding_role(plane.queue.engine, "collector"),
        pytest.raises(Conflict, match="already running"),
    ):
        collector.collect(is_applied=False)
    assert collector.collect(is_applied=False).orphans == [], "the role was given back"
    with write_session(plane.queue.engine) as session:
        session.add(Lease(name="collector", owner="killed", lease_until=time.time() - 1.0))
    assert collector.collect(is_applied=False).orphans == [], "a killed one keeps the role only for a while"


def test_a_pass_that_runs_out_of_time_tells_so(plane: DataPlane, collector: Collector) -> None:
    orphans = {"uploads/0", "uploads/1"}
    for key in orphans:
        plane.store.put_bytes(key, b"left over")
    hurried = replace(collector, delete_for_s=0.0)
    passes = [hurried.collect(is_applied=True) for _ in range(3)]
    assert [(len(found.deleted), found.is_more) for found in passes] == [(0, False), (1, True), (1, False)]
    assert not [key for key in orphans if plane.store.exists(key)]


def test_only_what_nothing_else_names_is_looked_for_among_uploads(plane: DataPlane, collector: Collector) -> None:
    plane.run_jobs()
    asked: list[str] = []
    event.listen(plane.queue.engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    collector.collect(is_applied=False)
    assert asked
    assert not [statement for statement in asked if "FROM items" in statement]


def test_originals_are_looked_for_by_an_index(plane: DataPlane, collector: Collector) -> None:
    """Half a thousand objects of a million took 0.1 s each time when their keys were compared."""
    plane.run_jobs()
    engine, asked = plane.queue.engine, list[tuple[str, tuple[object, ...]]]()
    event.listen(engine, "before_cursor_execute", lambda *args: asked.append((args[2], args[3])))
    collector.collect(is_applied=False)
    of_assets = [each for each in asked if "FROM assets" in each[0]]
    assert of_assets
    with engine.connect() as connection:
        for statement, parameters in of_assets:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            assert not [row for row in plan if str(row[-1]).startswith("SCAN")]
