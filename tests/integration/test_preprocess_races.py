"""Plans and shards of one dataset in the same instant."""

from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from audiofoundation.catalog.engine import read_session
from audiofoundation.catalog.tables import Collection, Dataset, DatasetItem, Shard
from audiofoundation.jobs.kinds import JobKind
from audiofoundation.jobs.lease import claim_next, commit
from audiofoundation.jobs.queue import UnitOfWork
from audiofoundation.preprocessing.options import DatasetOptions
from audiofoundation.preprocessing.plan import plan_dataset
from audiofoundation.storage.object_store import ObjectStore
from tests.data_plane import DataPlane, create_data_plane, data_plane_settings, meet, tone


@pytest.fixture
def plane(engine: Engine, store: ObjectStore, tmp_path: Path) -> DataPlane:
    plane = create_data_plane(engine, store, data_plane_settings(tmp_path / "data"))
    plane.post("/v1/collections", {"name": "clips"})
    add_tone(plane, tmp_path, 330.0)
    return plane


def add_tone(plane: DataPlane, folder: Path, hz: float) -> str:
    item = plane.upload("clips", tone(folder / "tone.wav", 1.2, hz=hz).read_bytes(), name=f"{hz:.0f}.wav")["item"]
    plane.run_jobs()
    return str(item)


def plan(unit: UnitOfWork) -> None:
    collection = unit.session.scalars(select(Collection)).one()
    plan_dataset(unit, collection, DatasetOptions(segment_s=0.5), num_workers=1)


@pytest.mark.parametrize("is_new", [True, False])
def test_two_plans_at_once_give_each_recording_one_shard(plane: DataPlane, tmp_path: Path, is_new: bool) -> None:
    if not is_new:
        with plane.queue.unit_of_work() as unit:
            plan(unit)
        plane.run_jobs()
        add_tone(plane, tmp_path, 440.0)

    meet(plane, plan, plan)

    num_recordings = 1 if is_new else 2
    with read_session(plane.queue.engine) as session:
        assert len(session.scalars(select(DatasetItem.item_id)).all()) == num_recordings
        assert len(session.scalars(select(Shard.id)).all()) == num_recordings


def test_two_last_shards_that_end_at_once_bring_a_manifest(plane: DataPlane, tmp_path: Path) -> None:
    with plane.queue.unit_of_work() as unit:
        plan(unit)
    plane.upload("clips", tone(tmp_path / "tone.wav", 1.2, hz=440.0).read_bytes(), name="440.wav")
    effects = []
    jobs = plane.settings.jobs
    ingest = claim_next(plane.queue.engine, JobKind.INGEST_ITEM, owner="me", settings=jobs)
    assert ingest is not None
    commit(plane.queue, ingest, plane.ingest(ingest))
    with plane.queue.unit_of_work() as unit:
        plan(unit)
    for _ in range(2):
        claim = claim_next(plane.queue.engine, JobKind.PREPROCESS_SHARD, owner="me", settings=jobs)
        assert claim is not None
        effects.append(plane.shards(claim))

    meet(plane, *effects)
    plane.run_jobs()

    with read_session(plane.queue.engine) as session:
        assert session.scalars(select(Dataset.state)).one() == "ready"
