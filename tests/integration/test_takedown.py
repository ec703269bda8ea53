"""A recording that is taken down is in no object and no file any more, comes never back, and is still accounted for."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine, select

from audiofoundation.catalog.engine import read_session, write_session
from audiofoundation.catalog.tables import Asset, Checkpoint, DatasetVersion, Item, Job, Model, Run
from audiofoundation.errors import Conflict
from audiofoundation.identifiers import RunId, Sha256, sha256_of
from audiofoundation.ingestion.takedown import take_down
from audiofoundation.jobs.kinds import JobKind
from audiofoundation.jobs.lease import Effect, claim_next, commit
from audiofoundation.settings import ProbeSettings
from audiofoundation.shards.manifest import load_manifest
from audiofoundation.shards.reader import read_dataset
from audiofoundation.shards.retired import corpus_folder
from audiofoundation.shards.sample import Sample
from audiofoundation.storage.keys import raw_key
from audiofoundation.storage.object_store import ObjectStore
from audiofoundation.training.requests import RunRequest, create_run, resume_run
from tests.data_plane import DataPlane, FileServer, create_data_plane, data_plane_settings, meet, serving_files, tone

PITCHES_HZ = (330.0, 440.0, 550.0)


@pytest.fixture
def plane(sqlite_engine: Engine, store: ObjectStore, tmp_path: Path) -> DataPlane:
    """Three tones, stored, the second of them by two names."""
    return stored_tones(sqlite_engine, store, tmp_path)


@pytest.fixture
def each_plane(engine: Engine, store: ObjectStore, tmp_path: Path) -> DataPlane:
    """The same on each database."""
    return stored_tones(engine, store, tmp_path)


def stored_tones(engine: Engine, store: ObjectStore, tmp_path: Path) -> DataPlane:
    plane = create_data_plane(engine, store, data_plane_settings(tmp_path / "data"))
    for name in ("clips", "others"):
        plane.post("/v1/collections", {"name": name})
    for hz in PITCHES_HZ:
        plane.upload("clips", content(tmp_path, hz), name=f"{hz:.0f}.wav")
    plane.upload("others", content(tmp_path, PITCHES_HZ[1]), name="again.wav")
    plane.run_jobs()
    return plane


def content(folder: Path, hz: float) -> bytes:
    return tone(folder / f"{hz:.0f}.wav", 1.2, hz=hz).read_bytes()


def build(plane: DataPlane, collection: str = "clips") -> dict[str, object]:
    dataset = plane.post("/v1/datasets", {"collection": collection, "segment_s": 0.5, "include_waveform": True})
    plane.run_jobs()
    return plane.get(f"/v1/datasets/{dataset['dataset']}")


def samples_of(plane: DataPlane, dataset: dict[str, object]) -> list[Sample]:
    manifest = load_manifest(plane.store, str(dataset["manifest_key"]), Sha256(str(dataset["manifest_sha256"])))
    return list(read_dataset(plane.store, manifest))


def item_named(plane: DataPlane, name: str, collection: str = "clips") -> dict[str, object]:
    return next(item for item in plane.items(collection) if item["source"] == name)


def add_run(plane: DataPlane, dataset: dict[str, object], name: str, *, state: str = "done") -> None:
    """Rows of a run on this version of the dataset, with a checkpoint and a model, and its copies on disk."""
    version = str(dataset["manifest_sha256"])
    with write_session(plane.queue.engine) as session:
        session.add(
            Run(
                id=f"run_{name}",
                recipe="tiny",
                dataset_id=str(dataset["dataset"]),
                manifest_sha256=version,
                overrides={},
                losses={},
                state=state,
            )
        )
        session.flush()
        common = {"key": f"k/{name}", "size_bytes": 1, "sha256": "0" * 64}
        session.add(Checkpoint(id=f"ckpt_{name}", run_id=f"run_{name}", step=1, attempt=1, losses={}, **common))
        session.add(
            Model(
                id=f"model_{name}",
                name=name,
                task="continuation",
                kind="tiny",
                run_id=f"run_{name}",
                mel_fingerprint="",
                metrics={},
                **common,
            )
        )
    copies = corpus_folder(plane.settings.data_dir, version)
    copies.mkdir(parents=True, exist_ok=True)
    np.save(copies / "wave.npy", np.concatenate([sample.waveform for sample in samples_of(plane, dataset)]))


def all_bytes(plane: DataPlane) -> Iterator[tuple[str, bytes]]:
    """Every object in the store and every file under the data directory, by name."""
    for key in plane.store.list(""):
        yield key, key.encode() + plane.store.get_bytes(key)
    for path in plane.settings.data_dir.rglob("*"):
        if path.is_file():
            yield str(path), str(path).encode() + path.read_bytes()


def traces(plane: DataPlane, needles: list[bytes]) -> set[str]:
    return {name for name, data in all_bytes(plane) if any(needle in data for needle in needles)}


def needles_of(item: dict[str, object], original: bytes, samples: list[Sample]) -> list[bytes]:
    own = [sample for sample in samples if sample.meta.item_id == item["id"]]
    assert own
    names = [str(item["id"]), str(item["asset_id"]), sha256_of(original)]
    parts = [original[1000:1200]]
    for sample in own:
        assert sample.waveform is not None
        parts += [sample.mel_TF[5:9].tobytes(), sample.waveform[3000:3100].tobytes()]
    return [name.encode() for name in names] + parts


def states(lineage: dict[str, object]) -> dict[str, str]:
    nodes = lineage["nodes"]
    assert isinstance(nodes, list)
    return {node["id"]: node["state"] for node in nodes}


def test_nothing_of_it_is_left_and_everything_else_is(each_plane: DataPlane, tmp_path: Path) -> None:
    before = build(each_plane)
    samples = samples_of(each_plane, before)
    item, original = item_named(each_plane, "440.wav"), content(tmp_path, 440.0)
    needles = needles_of(item, original, samples)
    add_run(each_plane, before, "saw")
    assert traces(each_plane, needles), "the search itself finds what is there"

    report = each_plane.client.delete(f"/v1/assets/{item['asset_id']}", params={"reason": "asked by its author"}).json()
    assert report["pending"] > 0
    each_plane.run_jobs()

    assert traces(each_plane, needles) == set()
    after = each_plane.get(f"/v1/datasets/{before['dataset']}")
    assert after["state"] == "ready"
    assert after["manifest_sha256"] != before["manifest_sha256"]
    left = samples_of(each_plane, after)
    assert [sample.key for sample in left] == [s.key for s in samples if s.meta.item_id != item["id"]]
    for sample, was in zip(left, (s for s in samples if s.meta.item_id != item["id"]), strict=True):
        assert sample.meta == was.meta
        assert np.array_equal(sample.mel_TF, was.mel_TF)
        assert sample.waveform is not None
        assert was.waveform is not None
        assert np.array_equal(sample.waveform, was.waveform)
    assert after["states"] == {"done": 2, "tombstoned": 1}
    # The same bytes under another name are the same recording.
    assert {entry["state"] for entry in each_plane.items("others")} == {"tombstoned"}
    assert each_plane.get("/v1/collections/clips")["states"] == {"stored": 2, "tombstoned": 1}


def test_lineage_leads_both_ways_and_outlasts_the_takedown(each_plane: DataPlane) -> None:
    first = build(each_plane)
    add_run(each_plane, first, "saw")
    item, other = item_named(each_plane, "440.wav"), item_named(each_plane, "330.wav")
    down = states(each_plane.get(f"/v1/lineage/{item['id']}"))
    assert {"run_saw", "ckpt_saw", "model_saw", str(first["manifest_sha256"])} <= down.keys()
    assert str(other["id"]) not in down
    up = states(each_plane.get("/v1/lineage/model_saw"))
    assert {str(item["id"]), str(other["id"]), str(item["asset_id"])} <= up.keys()
    assert up["model_saw"] == "candidate"
    assert (
        each_plane.get(f"/v1/lineage/{item['id']}-000001")["nodes"]
        == each_plane.get(f"/v1/lineage/{item['id']}")["nodes"]
    )

    report = each_plane.post("/v1/takedowns", {"target": str(item["id"])})
    assert (report["models"], report["runs"]) == (["model_saw"], ["run_saw"])
    each_plane.run_jobs()
    second = each_plane.get(f"/v1/datasets/{first['dataset']}")
    add_run(each_plane, second, "clean")

    down = states(each_plane.get(f"/v1/lineage/{item['id']}"))
    assert down["model_saw"] == "affected"
    assert down[str(first["manifest_sha256"])] == "deleted"
    assert not {"model_clean", str(second["manifest_sha256"])} & down.keys()
    up = states(each_plane.get("/v1/lineage/model_clean"))
    assert str(item["id"]) not in up
    assert str(other["id"]) in up
    assert up["model_clean"] == "candidate"


def test_what_names_nothing_has_no_lineage(plane: DataPlane) -> None:
    for name in ("item_0", "https://example.com/never", "rubbish", "f" * 64):
        assert plane.client.get(f"/v1/lineage/{name}").status_code == 404
    refused = plane.client.delete("/v1/assets/rubbish")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "target")
    assert "item_…, asset_…" in refused.json()["error"]["message"]


def test_asking_again_changes_nothing(plane: DataPlane) -> None:
    build(plane)
    target = {"target": str(item_named(plane, "440.wav")["id"])}
    first = plane.post("/v1/takedowns", target)
    plane.run_jobs()
    again = plane.post("/v1/takedowns", target)
    assert again == {**first, "pending": 0}
    assert plane.run_jobs() <= len(first["datasets"])  # type: ignore[arg-type]
    assert plane.post("/v1/takedowns", target) == again


def test_it_never_comes_back_by_any_name(plane: DataPlane, tmp_path: Path) -> None:
    original = content(tmp_path, 440.0)
    plane.post("/v1/takedowns", {"target": f"sha256:{sha256_of(original)}", "reason": "theirs"})
    plane.run_jobs()
    answer = plane.client.put(
        f"/v1/collections/clips/files/{sha256_of(original)}", params={"name": "x.wav"}, content=original
    )
    assert answer.status_code == 409
    assert "theirs" in answer.json()["error"]["message"]
    plane.post("/v1/collections", {"name": "fresh"})
    added = plane.post("/v1/collections/fresh/items", {"sources": [f"sha256:{sha256_of(original)}"]})
    assert added["missing"] == []
    with serving_files(FileServer({"/a.wav": original})) as server:
        plane.post("/v1/collections/fresh/items", {"sources": [{"source": server.url("/a.wav"), "license": "cc0"}]})
        plane.run_jobs()
    assert plane.get("/v1/collections/fresh")["states"] == {"tombstoned": 2}
    assert not plane.store.exists(raw_key(sha256_of(original)))


def test_a_source_is_refused_before_it_ever_came(plane: DataPlane) -> None:
    report = plane.post("/v1/takedowns", {"target": "https://example.com/a.wav"})
    assert report["items"] == []
    plane.post("/v1/collections/clips/items", {"sources": ["https://EXAMPLE.com:443/a.wav"]})
    assert plane.get("/v1/collections/clips")["states"] == {"stored": 3, "tombstoned": 1}


def test_a_channel_goes_as_a_whole(plane: DataPlane) -> None:
    with write_session(plane.queue.engine) as session:
        for item in session.scalars(select(Item).where(Item.source.in_(("330.wav", "550.wav")))):
            item.channel = "Them"
    report = plane.post("/v1/takedowns", {"target": "channel:Them"})
    assert len(report["items"]) == 2  # type: ignore[arg-type]
    assert plane.client.post("/v1/takedowns", json={"target": "channel:Nobody"}).status_code == 404


def test_a_dataset_may_lose_all_it_has(plane: DataPlane) -> None:
    dataset = build(plane, "others")
    plane.post("/v1/takedowns", {"target": str(item_named(plane, "again.wav", "others")["id"])})
    plane.run_jobs()
    after = plane.get(f"/v1/datasets/{dataset['dataset']}")
    assert (after["state"], after["segments"]) == ("ready", 0)
    assert samples_of(plane, after) == []
    assert list(plane.store.list(f"datasets/{dataset['dataset']}/shards/")) == []


def test_a_shard_that_was_being_made_meanwhile_is_written_again(each_plane: DataPlane) -> None:
    engine, jobs = each_plane.queue.engine, each_plane.settings.jobs
    dataset = each_plane.post("/v1/datasets", {"collection": "clips", "segment_s": 0.5, "include_waveform": True})
    claim = claim_next(engine, JobKind.PREPROCESS_SHARD, owner="me", settings=jobs)
    assert claim is not None
    effect = each_plane.shards(claim)
    item = item_named(each_plane, "440.wav")
    each_plane.post("/v1/takedowns", {"target": str(item["id"])})
    commit(each_plane.queue, claim, effect)
    each_plane.run_jobs()
    assert traces(each_plane, [str(item["id"]).encode()]) == set()
    assert each_plane.get(f"/v1/datasets/{dataset['dataset']}")["states"] == {"done": 2, "tombstoned": 1}


@pytest.mark.parametrize("damaged", [None, b"not what was written"])
def test_a_shard_that_cannot_be_read_is_made_again_without_it(plane: DataPlane, damaged: bytes | None) -> None:
    before = build(plane)
    samples = samples_of(plane, before)
    item = item_named(plane, "440.wav")
    manifest = load_manifest(plane.store, str(before["manifest_key"]), Sha256(str(before["manifest_sha256"])))
    for shard in manifest.shards:
        plane.store.delete(shard.key)
        if damaged is not None:
            plane.store.put_bytes(shard.key, damaged)
    plane.post("/v1/takedowns", {"target": str(item["id"])})
    plane.run_jobs()

    after = plane.get(f"/v1/datasets/{before['dataset']}")
    assert (after["state"], after["states"]) == ("ready", {"done": 2, "tombstoned": 1})
    assert [sample.key for sample in samples_of(plane, after)] == [
        sample.key for sample in samples if sample.meta.item_id != item["id"]
    ]
    assert plane.post("/v1/takedowns", {"target": str(item["id"])})["pending"] == 0
    assert not [shard.key for shard in manifest.shards if plane.store.exists(shard.key)]


def test_bytes_that_come_while_their_source_is_taken_down_go(plane: DataPlane, tmp_path: Path) -> None:
    engine, jobs = plane.queue.engine, plane.settings.jobs
    original = content(tmp_path, 660.0)
    item_id = str(plane.upload("clips", original, name="new.wav")["item"])
    claim = claim_next(engine, JobKind.INGEST_ITEM, owner="me", settings=jobs)
    assert claim is not None
    effect = plane.ingest(claim)
    plane.post("/v1/takedowns", {"target": item_id})
    plane.run_jobs()
    plane.store.put_bytes(raw_key(sha256_of(original)), original)  # as a slow fetch would
    commit(plane.queue, claim, effect)
    plane.run_jobs()
    assert not plane.store.exists(raw_key(sha256_of(original)))
    with read_session(engine) as session:
        assert session.scalar(select(Asset.id).where(Asset.sha256 == sha256_of(original))) is None
        assert session.get_one(Item, item_id).state == "tombstoned"


def test_runs_under_way_on_such_a_version_are_stopped(plane: DataPlane) -> None:
    dataset = build(plane)
    add_run(plane, dataset, "waits", state="queued")
    add_run(plane, dataset, "runs", state="running")
    with plane.queue.unit_of_work() as unit:
        unit.enqueue(JobKind.TRAIN_RUN, key="train.run:run_waits", subject_id="run_waits")
    with plane.queue.unit_of_work() as unit:
        take_down(unit, str(item_named(plane, "440.wav")["id"]), reason="")
    with read_session(plane.queue.engine) as session:
        assert session.get_one(Run, "run_waits").state == "cancelled"
        assert session.get_one(Run, "run_runs").is_cancel_requested
        assert session.scalars(select(Job.state).where(Job.key == "train.run:run_waits")).one() == "cancelled"
    plane.run_jobs()
    with read_session(plane.queue.engine) as session:
        kept = session.scalars(select(DatasetVersion.deleted_at).order_by(DatasetVersion.created_at)).all()
    assert [deleted_at is None for deleted_at in kept] == [False, True]


def test_no_run_begins_on_a_version_with_it(plane: DataPlane, tmp_path: Path) -> None:
    dataset = build(plane)
    add_run(plane, dataset, "saw", state="cancelled")
    request = RunRequest("tiny", str(dataset["dataset"]), {}, 10)
    plane.post("/v1/takedowns", {"target": str(item_named(plane, "440.wav")["id"])})
    with pytest.raises(Conflict, match="takedown is under way"), plane.queue.unit_of_work() as unit:
        create_run(unit, request, pretrained_dir=tmp_path)
    for _ in range(2):
        with pytest.raises(Conflict, match="taken down"), plane.queue.unit_of_work() as unit:
            resume_run(unit, RunId("run_saw"))
        plane.run_jobs()
    with plane.queue.unit_of_work() as unit:
        assert create_run(unit, request, pretrained_dir=tmp_path)


def test_a_recording_stored_in_the_same_instant_goes_too(each_plane: DataPlane, tmp_path: Path) -> None:
    original = tone(tmp_path / "long.wav", 31.0).read_bytes()
    (store,) = fetched_at_once(each_plane, original, names=("a",))
    item_id = each_plane.items("fresh")[0]["id"]
    meet(each_plane, store, lambda unit: take_down(unit, str(item_id), reason="theirs"))
    check_gone(each_plane, original)


def test_the_same_bytes_stored_in_the_same_instant_go_too(each_plane: DataPlane, tmp_path: Path) -> None:
    original = tone(tmp_path / "long.wav", 31.0).read_bytes()
    first, second = fetched_at_once(each_plane, original, names=("a", "b"))
    with each_plane.queue.unit_of_work() as unit:
        first(unit)
    item_id = next(item["id"] for item in each_plane.items("fresh") if item["state"] == "stored")
    meet(each_plane, lambda unit: take_down(unit, str(item_id), reason="theirs"), second)
    check_gone(each_plane, original)


def test_the_same_bytes_stored_twice_in_the_same_instant_are_one_recording(
    each_plane: DataPlane, tmp_path: Path
) -> None:
    first, second = fetched_at_once(each_plane, tone(tmp_path / "long.wav", 31.0).read_bytes(), names=("a", "b"))
    meet(each_plane, first, second)
    items = each_plane.items("fresh")
    assert [item["state"] for item in items] == ["stored", "stored"]
    assert items[0]["asset_id"] == items[1]["asset_id"]


def fetched_at_once(plane: DataPlane, original: bytes, *, names: tuple[str, ...]) -> list[Effect]:
    """Fetch the same bytes from several addresses; return what their jobs are about to write."""
    plane.post("/v1/collections", {"name": "fresh"})
    effects: list[Effect] = []
    with serving_files(FileServer({f"/{name}.wav": original for name in names})) as server:
        sources = [{"source": server.url(f"/{name}.wav"), "license": "cc0"} for name in names]
        plane.post("/v1/collections/fresh/items", {"sources": sources})
        for _ in names:
            claim = claim_next(plane.queue.engine, JobKind.INGEST_ITEM, owner="me", settings=plane.settings.jobs)
            assert claim is not None
            effects.append(replace(plane.ingest, probe=ProbeSettings(is_enabled=False))(claim))
    return effects


def check_gone(plane: DataPlane, original: bytes) -> None:
    plane.run_jobs()
    assert {item["state"] for item in plane.items("fresh")} == {"tombstoned"}
    assert not plane.store.exists(raw_key(sha256_of(original)))
    with read_session(plane.queue.engine) as session:
        is_live = (Asset.sha256 == sha256_of(original)) & Asset.tombstoned_at.is_(None)
        assert session.scalar(select(Asset.id).where(is_live)) is None
