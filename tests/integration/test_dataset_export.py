"""A platform's datasets in the forms that others read: over HTTP, and as folders."""

import json
import tarfile
from io import BytesIO
from pathlib import Path

import pytest
from sqlalchemy import Engine, update

from audiofoundation.catalog.engine import write_session
from audiofoundation.catalog.tables import DatasetItem
from audiofoundation.identifiers import sha256_of
from audiofoundation.storage.object_store import ObjectStore
from tests.data_plane import DataPlane, create_data_plane, data_plane_settings, recordings

NUM_RECORDINGS = 3


@pytest.fixture
def plane(engine: Engine, store: ObjectStore, tmp_path: Path) -> DataPlane:
    plane = create_data_plane(engine, store, data_plane_settings(tmp_path / "data"))
    plane.post("/v1/collections", {"name": "clips"})
    for path in recordings(NUM_RECORDINGS):
        plane.upload("clips", path.read_bytes(), name=path.name)
    plane.run_jobs()
    return plane


@pytest.fixture
def dataset(plane: DataPlane) -> str:
    found = plane.post("/v1/datasets", {"collection": "clips", "include_waveform": True})["dataset"]
    plane.run_jobs()
    return str(found)


def lines(plane: DataPlane, dataset: str) -> list[dict[str, object]]:
    answer = plane.client.get(f"/v1/datasets/{dataset}/manifest")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines()]


def test_the_manifest_tells_where_every_recording_came_from(plane: DataPlane, dataset: str) -> None:
    rows = lines(plane, dataset)

    stored = {str(item["id"]): item for item in plane.items("clips")}
    originals = {sha256_of(path.read_bytes()): path.name for path in recordings(NUM_RECORDINGS)}
    assert {row["item_id"] for row in rows} == set(stored)
    assert {row["sha256"] for row in rows} == set(originals)
    for row in rows:
        assert row["title"] == originals[str(row["sha256"])]  # type: ignore[index]
        assert "license" in row
        assert isinstance(row["descriptors"], dict)
        assert row["descriptors"]["spectral_centroid_hz"] > 0
        assert row["segments"] > 0  # type: ignore[operator]
        shard = plane.client.get(str(row["shard_url"]))
        assert sha256_of(shard.content) == row["shard_sha256"]
        names = tarfile.open(fileobj=BytesIO(shard.content)).getnames()  # noqa: SIM115
        assert (
            sum(name.startswith(f"{row['item_id']}-") and name.endswith(".json") for name in names) == row["segments"]
        )


def test_a_shard_is_sent_byte_for_byte(plane: DataPlane, dataset: str) -> None:
    listed = plane.get(f"/v1/datasets/{dataset}/shards")
    assert listed["manifest_sha256"] == plane.get(f"/v1/datasets/{dataset}")["manifest_sha256"]
    shards = listed["shards"]
    assert isinstance(shards, list)
    shard = shards[0]

    answer = plane.client.get(shard["url"])

    assert (len(answer.content), sha256_of(answer.content)) == (shard["size_bytes"], shard["sha256"])
    assert answer.headers["x-content-sha256"] == shard["sha256"]
    assert int(answer.headers["content-length"]) == shard["size_bytes"]


def test_what_is_not_there_is_told(plane: DataPlane, dataset: str) -> None:
    for path, status in (
        ("absent/manifest", 404),
        ("absent/shards", 404),
        (f"{dataset}/shards/99", 404),
        (f"{dataset}/shards/x", 422),
    ):
        assert plane.client.get(f"/v1/datasets/{path}").status_code == status
    unfinished = plane.post("/v1/datasets", {"collection": "clips", "segment_s": 1.0})["dataset"]
    assert plane.client.get(f"/v1/datasets/{unfinished}/shards").status_code == 409
    assert lines(plane, str(unfinished)) == []


def test_an_item_that_was_taken_down_is_not_listed(plane: DataPlane, dataset: str) -> None:
    gone, *rest = lines(plane, dataset)

    with write_session(plane.queue.engine) as session:
        of_item = DatasetItem.item_id == gone["item_id"]
        session.execute(update(DatasetItem).where(of_item).values(removed_generation=1))

    assert lines(plane, dataset) == rest


def test_pages_follow_each_other(plane: DataPlane, dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = lines(plane, dataset)
    for size in (1, 2, NUM_RECORDINGS):
        monkeypatch.setattr("audiofoundation.preprocessing.recordings._PAGE", size)
        assert lines(plane, dataset) == whole
