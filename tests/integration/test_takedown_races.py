"""Takedowns in the same instant as the jobs that write of the recording."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from sqlalchemy import Engine, select

from audiofoundation.audio.decode import DecodeLimits, decode_file
from audiofoundation.catalog.engine import read_session
from audiofoundation.catalog.tables import Asset, Item, Probe
from audiofoundation.errors import DecodeFailed
from audiofoundation.ingestion.probe import Stage, judge, write_verdict
from audiofoundation.ingestion.takedown import take_down
from audiofoundation.jobs.kinds import JobKind
from audiofoundation.jobs.lease import Claim, claim_next, commit, fail
from audiofoundation.settings import ProbeSettings
from audiofoundation.storage.object_store import ObjectStore
from tests.data_plane import DataPlane, create_data_plane, data_plane_settings, meet, tone


@pytest.fixture
def plane(engine: Engine, store: ObjectStore, tmp_path: Path) -> DataPlane:
    """A tone and silence, stored."""
    plane = create_data_plane(engine, store, data_plane_settings(tmp_path / "data"))
    plane.post("/v1/collections", {"name": "clips"})
    plane.upload("clips", tone(tmp_path / "tone.wav", 1.2).read_bytes(), name="tone")
    soundfile.write(tmp_path / "silence.wav", np.full(28_800, 1e-5), 24_000, subtype="PCM_24")
    plane.upload("clips", (tmp_path / "silence.wav").read_bytes(), name="silence")
    plane.run_jobs()
    return plane


def item_named(plane: DataPlane, name: str) -> str:
    return next(str(item["id"]) for item in plane.items("clips") if item["source"] == name)


def claimed(plane: DataPlane, kind: JobKind) -> Claim:
    claim = claim_next(plane.queue.engine, kind, owner="me", settings=plane.settings.jobs)
    assert claim is not None
    return claim


def ask(plane: DataPlane) -> str:
    return str(plane.post("/v1/datasets", {"collection": "clips", "segment_s": 0.5})["dataset"])


def lose_original(plane: DataPlane, item: str) -> None:
    with read_session(plane.queue.engine) as session:
        is_its = (Item.asset_id == Asset.id) & (Item.id == item)
        plane.store.delete(session.scalars(select(Asset.key).where(is_its)).one())


@pytest.mark.parametrize(("name", "is_lost", "other"), [("silence", False, "done"), ("tone", True, "skipped")])
def test_a_recording_without_segments_that_is_taken_down_meanwhile_is_tombstoned(
    plane: DataPlane, name: str, is_lost: bool, other: str
) -> None:
    item, dataset = item_named(plane, name), ask(plane)
    if is_lost:
        lose_original(plane, item)
    claim = claimed(plane, JobKind.PREPROCESS_SHARD)
    effect = plane.shards(claim)
    plane.post("/v1/takedowns", {"target": item})

    commit(plane.queue, claim, effect)
    plane.run_jobs()

    assert plane.get(f"/v1/datasets/{dataset}")["states"] == {other: 1, "tombstoned": 1}
    assert plane.post("/v1/takedowns", {"target": item})["pending"] == 0


def test_a_recording_taken_down_while_its_shard_is_made_again_in_vain_is_tombstoned(
    plane: DataPlane, tmp_path: Path
) -> None:
    plane.upload("clips", tone(tmp_path / "other.wav", 1.2, hz=550.0).read_bytes(), name="other")
    plane.run_jobs()
    dataset = ask(plane)
    plane.run_jobs()
    for key in plane.store.list(f"datasets/{dataset}/shards/"):
        plane.store.delete(key)
    plane.post("/v1/takedowns", {"target": item_named(plane, "other")})
    rewrite = claimed(plane, JobKind.PREPROCESS_REWRITE)
    commit(plane.queue, rewrite, plane.rewrite(rewrite))
    claim, item = claimed(plane, JobKind.PREPROCESS_SHARD), item_named(plane, "tone")
    plane.post("/v1/takedowns", {"target": item})

    error = DecodeFailed("nothing decodes here")
    fail(plane.queue, claim, error, settings=plane.settings.jobs, on_failure=plane.shards.on_failure)

    assert plane.get(f"/v1/datasets/{dataset}")["states"] == {"failed": 1, "tombstoned": 2}
    plane.run_jobs()
    assert plane.post("/v1/takedowns", {"target": item})["pending"] == 0


def test_a_probe_that_ends_in_the_same_instant_leaves_nothing(plane: DataPlane, tmp_path: Path) -> None:
    item, settings = item_named(plane, "tone"), ProbeSettings()
    sound = decode_file(tmp_path / "tone.wav", limits=DecodeLimits(max_duration_s=10, max_bytes=1 << 20)).waveform
    verdict = judge([sound], settings, stage=Stage.WHOLE, num_bytes=1)

    meet(
        plane,
        lambda unit: take_down(unit, item, reason="theirs"),
        lambda unit: write_verdict(unit.session, item, verdict, settings),
    )

    with read_session(plane.queue.engine) as session:
        assert session.scalars(select(Probe).where(Probe.item_id == item)).all() == []


def test_a_shard_committed_in_the_same_instant_is_written_again(plane: DataPlane) -> None:
    item, dataset = item_named(plane, "tone"), ask(plane)
    effect = plane.shards(claimed(plane, JobKind.PREPROCESS_SHARD))

    meet(plane, effect, lambda unit: take_down(unit, item, reason="theirs"))
    plane.run_jobs()

    assert plane.get(f"/v1/datasets/{dataset}")["states"] == {"skipped": 1, "tombstoned": 1}


def test_a_manifest_under_way_while_its_shard_is_lost_and_made_again_leaves_no_dataset_unfinished(
    plane: DataPlane,
) -> None:
    dataset = ask(plane)
    shard = claimed(plane, JobKind.PREPROCESS_SHARD)
    commit(plane.queue, shard, plane.shards(shard))
    manifest = claimed(plane, JobKind.PREPROCESS_COMMIT)
    effect = plane.commit(manifest)
    for key in plane.store.list(f"datasets/{dataset}/shards/"):
        plane.store.delete(key)
    plane.post("/v1/takedowns", {"target": item_named(plane, "tone")})
    plane.run_jobs()

    commit(plane.queue, manifest, effect)
    plane.run_jobs()

    found = plane.get(f"/v1/datasets/{dataset}")
    assert (found["state"], found["segments"]) == ("ready", 0)
