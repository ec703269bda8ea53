"""A platform's datasets in the forms that others read: over HTTP, and as folders."""

import json
import tarfile
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile
import uvicorn
from sqlalchemy import Engine, update
from typer.testing import CliRunner

from audiofoundation.catalog.engine import write_session
from audiofoundation.catalog.tables import DatasetItem
from audiofoundation.cli import create_cli
from audiofoundation.cli.output import CommandError
from audiofoundation.errors import Conflict
from audiofoundation.identifiers import Sha256, sha256_of
from audiofoundation.jobs.kinds import JobKind
from audiofoundation.jobs.runner import run_pending
from audiofoundation.preprocessing.recordings import iterate_recordings
from audiofoundation.shards.manifest import DatasetManifest, load_manifest
from audiofoundation.storage.object_store import ObjectStore
from tests.data_plane import KEY, DataPlane, create_data_plane, data_plane_settings, recordings, tone
from tests.servers import wait_until

NUM_RECORDINGS = 3
DEADLINE_S = 30.0


@pytest.fixture
def plane(sqlite_engine: Engine, store: ObjectStore, tmp_path: Path) -> DataPlane:
    return stored_recordings(sqlite_engine, store, tmp_path)


def stored_recordings(engine: Engine, store: ObjectStore, folder: Path) -> DataPlane:
    plane = create_data_plane(engine, store, data_plane_settings(folder / "data"))
    plane.post("/v1/collections", {"name": "clips"})
    for path in recordings(NUM_RECORDINGS):
        plane.upload("clips", path.read_bytes(), name=path.name)
    plane.run_jobs()
    return plane


@pytest.fixture
def dataset(plane: DataPlane) -> str:
    return build(plane)


def build(plane: DataPlane) -> str:
    found = plane.post("/v1/datasets", {"collection": "clips", "include_waveform": True})["dataset"]
    plane.run_jobs()
    return str(found)


@pytest.fixture
def url(plane: DataPlane, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The same services, where commands find them."""
    server = uvicorn.Server(uvicorn.Config(plane.client.app, host="127.0.0.1", port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started, timeout_s=DEADLINE_S, what="the server listens")
    monkeypatch.setenv("AF_API_KEY", KEY)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(DEADLINE_S)


def export(url: str, dataset: str, out: Path, format_: str) -> dict[str, object]:
    command = ["dataset", "export", dataset, "--out", str(out), "--format", format_, "--url", url, "--json"]
    done = CliRunner().invoke(create_cli(), command)
    if done.exception is not None:
        raise done.exception
    found: dict[str, object] = json.loads(done.stdout)
    return found


def read_lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


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
    assert plane.client.get(f"/v1/datasets/{unfinished}/manifest").status_code == 409


def test_an_item_that_was_taken_down_is_not_listed(plane: DataPlane, dataset: str) -> None:
    gone, *rest = lines(plane, dataset)

    with write_session(plane.queue.engine) as session:
        of_item = DatasetItem.item_id == gone["item_id"]
        session.execute(update(DatasetItem).where(of_item).values(removed_generation=1))

    assert lines(plane, dataset) == rest


def test_a_shard_of_the_next_version_is_not_listed_yet(plane: DataPlane, dataset: str, tmp_path: Path) -> None:
    before = lines(plane, dataset)
    plane.upload("clips", tone(tmp_path / "new.wav", 4.0).read_bytes())
    plane.run_jobs()

    build_shards = dict(plane.handlers)
    del build_shards[JobKind.PREPROCESS_COMMIT]
    plane.post("/v1/datasets", {"collection": "clips", "include_waveform": True})
    run_pending(plane.queue, build_shards, plane.settings.jobs)

    assert len(list(iterate_recordings(plane.queue.engine, dataset))) == len(before) + 1
    assert lines(plane, dataset) == before
    plane.run_jobs()
    assert len(lines(plane, dataset)) == len(before) + 1


def test_pages_follow_each_other_on_each_database(
    engine: Engine, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = stored_recordings(engine, store, tmp_path)
    dataset = build(plane)
    whole = lines(plane, dataset)
    assert len(whole) == NUM_RECORDINGS
    for size in (1, 2, NUM_RECORDINGS):
        monkeypatch.setattr("audiofoundation.preprocessing.recordings._PAGE", size)
        assert lines(plane, dataset) == whole


def test_webdataset_shards_are_copies_that_any_reader_groups_by_stem(
    plane: DataPlane, dataset: str, url: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    found = export(url, dataset, out, "webdataset")

    (tar,) = (out / "shards").iterdir()
    (record,) = load_manifest_of(plane, dataset).shards
    assert (tar.name, sha256_of(tar.read_bytes())) == ("000000.tar", record.sha256)
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(tar) as archive:
        for member in archive:
            stem, _, suffix = member.name.partition(".")
            content = archive.extractfile(member)
            assert content is not None
            samples.setdefault(stem, {})[suffix] = content.read()
    assert len(samples) == found["samples"]
    items = {row["item_id"] for row in read_lines(out / "manifest.jsonl")}
    for members in samples.values():
        assert set(members) == {"json", "mel.npy", "wave.npy"}
        assert np.load(BytesIO(members["mel.npy"])).shape[1] == 100
        assert json.loads(members["json"])["item_id"] in items


def test_jsonl_is_the_manifest_alone(plane: DataPlane, dataset: str, url: str, tmp_path: Path) -> None:
    found = export(url, dataset, tmp_path / "out", "jsonl")

    assert read_lines(tmp_path / "out" / "manifest.jsonl") == lines(plane, dataset)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["manifest.jsonl", "processing_metadata.json"]
    assert found["recordings"] == NUM_RECORDINGS


def test_audiocraft_finds_audio_and_side_json_where_its_lines_say(dataset: str, url: str, tmp_path: Path) -> None:
    found = export(url, dataset, tmp_path / "out", "audiocraft")

    rows = read_lines(tmp_path / "out" / "data.jsonl")
    titles = {row["item_id"]: row["title"] for row in read_lines(tmp_path / "out" / "manifest.jsonl")}
    assert len(rows) == found["samples"]
    assert set(rows[0]) == {"path", "duration", "sample_rate", "amplitude", "weight", "info_path"}
    for row in rows:
        path = Path(str(row["path"]))
        samples, rate_hz = soundfile.read(path, dtype="int16")
        assert (rate_hz, samples.size / rate_hz) == (row["sample_rate"], pytest.approx(row["duration"]))
        assert np.abs(samples).max() > 100
        info = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        assert info["description"] == titles[info["item_id"]]
        assert info["sample_rate"] == rate_hz


def test_audio_that_is_not_in_the_dataset_cannot_be_exported(plane: DataPlane, url: str, tmp_path: Path) -> None:
    dataset = str(plane.post("/v1/datasets", {"collection": "clips"})["dataset"])
    plane.run_jobs()

    with pytest.raises(CommandError, match="--with-waveform"):
        export(url, dataset, tmp_path / "out", "audiocraft")

    assert not (tmp_path / "out").exists()


def test_a_shard_that_arrives_changed_is_refused(plane: DataPlane, dataset: str, url: str, tmp_path: Path) -> None:
    (record,) = load_manifest_of(plane, dataset).shards
    data = plane.store.get_bytes(record.key)
    plane.store.put_bytes(record.key, data[:-1] + bytes([data[-1] ^ 1]))

    with pytest.raises(CommandError, match="did not arrive as it is stored"):
        export(url, dataset, tmp_path / "out", "webdataset")

    assert list(tmp_path.glob("out*")) == []


def test_exporting_again_replaces_and_foreign_folders_stay(dataset: str, url: str, tmp_path: Path) -> None:
    export(url, dataset, tmp_path / "out", "webdataset")
    export(url, dataset, tmp_path / "out", "jsonl")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()

    with pytest.raises(Conflict, match="not made here"):
        export(url, dataset, tmp_path / "mine", "jsonl")

    assert not (tmp_path / "out" / "shards").exists()
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def load_manifest_of(plane: DataPlane, dataset: str) -> DatasetManifest:
    found = plane.get(f"/v1/datasets/{dataset}")
    return load_manifest(plane.store, str(found["manifest_key"]), Sha256(str(found["manifest_sha256"])))
