"""Stored recordings to verified shards: real catalog, object store and decoder."""

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine, select, update

from audiofoundation.catalog.engine import read_session, write_session
from audiofoundation.catalog.tables import Dataset, DatasetItem, Job, Shard
from audiofoundation.errors import StorageUnavailable
from audiofoundation.features.mel import get_preset, log_mel
from audiofoundation.identifiers import Sha256, sha256_of
from audiofoundation.jobs.kinds import JobKind
from audiofoundation.jobs.lease import Claim, Effect, claim_next
from audiofoundation.jobs.runner import HandlerSpec, run_pending
from audiofoundation.shards.index import load_index
from audiofoundation.shards.manifest import DatasetManifest, load_manifest
from audiofoundation.shards.reader import read_dataset
from audiofoundation.shards.sample import Sample
from audiofoundation.storage.keys import raw_key
from audiofoundation.storage.object_store import ObjectStore
from services.preprocess.schemas import DatasetItemPageOut
from tests.data_plane import (
    DataPlane,
    FileServer,
    create_data_plane,
    data_plane_settings,
    open_source,
    recordings,
    serving_files,
    tone,
)

NUM_RECORDINGS = 4
COUNTS = ("items", "segments", "hours", "states")


@pytest.fixture
def plane(engine: Engine, store: ObjectStore, tmp_path: Path) -> DataPlane:
    """A collection of real recordings, stored."""
    plane = create_data_plane(engine, store, data_plane_settings(tmp_path / "data"))
    plane.post("/v1/collections", {"name": "clips"})
    for path in recordings(NUM_RECORDINGS):
        plane.upload("clips", path.read_bytes(), name=path.name)
    plane.run_jobs()
    return plane


def build(plane: DataPlane, **options: object) -> dict[str, object]:
    dataset = plane.post("/v1/datasets", {"collection": "clips", **options})["dataset"]
    plane.run_jobs()
    return plane.get(f"/v1/datasets/{dataset}")


def manifest_of(plane: DataPlane, dataset: dict[str, object]) -> DatasetManifest:
    return load_manifest(plane.store, str(dataset["manifest_key"]), Sha256(str(dataset["manifest_sha256"])))


def samples_of(plane: DataPlane, dataset: dict[str, object]) -> list[Sample]:
    return list(read_dataset(plane.store, manifest_of(plane, dataset)))


def test_a_collection_becomes_a_dataset_that_can_be_read(plane: DataPlane) -> None:
    found = build(plane, include_waveform=True)
    assert (found["state"], found["items"], found["states"]) == ("ready", NUM_RECORDINGS, {"done": NUM_RECORDINGS})
    samples = samples_of(plane, found)
    assert len(samples) == found["segments"]
    assert len({sample.key for sample in samples}) == len(samples)
    total_s = sum(sample.meta.duration_s for sample in samples)
    assert found["hours"] == pytest.approx(total_s / 3600, abs=1e-9)
    stored = {item["id"]: item["asset_id"] for item in plane.items("clips")}
    config = get_preset("vocos24")
    for sample in samples:
        assert sample.meta.asset_id == stored[sample.meta.item_id]
        assert sample.meta.mel_fingerprint == config.fingerprint
        assert sample.meta.quality is not None
        assert sample.waveform is not None
        assert sample.mel_TF.shape == (sample.waveform.size // config.hop_length, config.num_bands)
    page = DatasetItemPageOut.model_validate(plane.get(f"/v1/datasets/{found['dataset']}/items?state=done"))
    for item in page.items:
        own = [s.meta.descriptors for s in samples if s.meta.item_id == item.item_id and s.meta.descriptors]
        assert len(own) == item.num_segments
        centroids = [part.spectral_centroid_hz for part in own]
        assert item.descriptors is not None
        assert min(centroids) <= item.descriptors.spectral_centroid_hz <= max(centroids)


def test_a_recording_under_several_addresses_enters_a_dataset_once(plane: DataPlane, tmp_path: Path) -> None:
    sound = tone(tmp_path / "a.wav", 31.0).read_bytes()
    with serving_files(FileServer({"/a": sound, "/b": sound, "/c": sound})) as server:
        for paths in (("/a", "/b"), ("/c",)):  # the second time, it is in the dataset already
            plane.post("/v1/collections/clips/items", {"sources": [open_source(server.url(path)) for path in paths]})
            plane.run_jobs()
            found = build(plane)
            assert (found["items"], found["states"]) == (NUM_RECORDINGS + 1, {"done": NUM_RECORDINGS + 1})
    assert plane.get("/v1/collections/clips")["items"] == NUM_RECORDINGS + 3

    plane.post("/v1/takedowns", {"target": server.url("/c")})
    plane.run_jobs()

    left = samples_of(plane, plane.get(f"/v1/datasets/{found['dataset']}"))
    assert {sample.meta.asset_sha256 for sample in left} == {
        sha256_of(p.read_bytes()) for p in recordings(NUM_RECORDINGS)
    }


def test_tempo_and_harmonic_ratio_are_measured_when_asked_for(plane: DataPlane) -> None:
    plain, found = build(plane), build(plane, has_rhythm=True)
    assert plain["dataset"] != found["dataset"]
    page = DatasetItemPageOut.model_validate(plane.get(f"/v1/datasets/{found['dataset']}/items?state=done"))
    described = [item.descriptors for item in page.items if item.descriptors is not None]
    assert len(described) == NUM_RECORDINGS
    assert all(one.tempo_bpm is not None and 0 <= (one.harmonic_ratio or -1) <= 1 for one in described)


def test_mel_and_waveform_of_a_sample_belong_together(plane: DataPlane) -> None:
    config = get_preset("vocos24")
    for sample in samples_of(plane, build(plane, include_waveform=True)):
        assert sample.waveform is not None
        again = log_mel(sample.waveform.astype(np.float32) / np.float32(32767), config)
        inner = slice(3, len(sample.mel_TF) - 3)  # the borders see beyond the segment, where this mel reflects
        # A 16-bit step's noise is about 2e-4 in a bin: bands far above it agree to float16.
        is_loud = again[inner] > np.log(0.2)
        assert is_loud.any()
        difference = np.abs(again[inner] - sample.mel_TF[inner].astype(np.float32))
        assert float(difference[is_loud].max()) < 0.02


def test_asking_again_makes_nothing_twice(plane: DataPlane) -> None:
    first = build(plane)
    assert build(plane) == first
    assert plane.run_jobs() == 0


def test_new_recordings_extend_the_dataset_and_keep_its_shards(plane: DataPlane, tmp_path: Path) -> None:
    before = build(plane)
    plane.upload("clips", tone(tmp_path / "new.wav", 4.0).read_bytes())
    plane.run_jobs()
    after = build(plane)
    assert after["dataset"] == before["dataset"]
    assert after["manifest_sha256"] != before["manifest_sha256"]
    assert (after["items"], after["shards"]) == (NUM_RECORDINGS + 1, 2)
    old, new = manifest_of(plane, before).shards, manifest_of(plane, after).shards
    assert new[: len(old)] == old


def test_counts_do_not_depend_on_how_the_work_was_split(plane: DataPlane) -> None:
    whole = build(plane)
    plane.post("/v1/collections", {"name": "pieces"})
    for path in recordings(NUM_RECORDINGS):
        plane.upload("pieces", path.read_bytes(), name=path.name)
        plane.run_jobs()
        pieces = build(plane, collection="pieces")
    assert pieces["shards"] == NUM_RECORDINGS
    assert [pieces[name] for name in COUNTS if name != "hours"] == [whole[name] for name in COUNTS if name != "hours"]
    assert pieces["hours"] == pytest.approx(whole["hours"], abs=1e-9)


def test_a_bad_recording_is_left_out_and_the_rest_goes_on(plane: DataPlane) -> None:
    item = plane.items("clips")[0]
    digest = sha256_of(recordings(NUM_RECORDINGS)[0].read_bytes())
    plane.store.delete(raw_key(digest))
    found = build(plane)
    assert (found["items"], found["states"]) == (NUM_RECORDINGS - 1, {"done": NUM_RECORDINGS - 1, "failed": 1})
    assert found["error_classes"] == {"not_found": 1}
    assert found["state"] == "ready"
    failed = plane.get(f"/v1/datasets/{found['dataset']}/items?state=failed")["items"]
    assert isinstance(failed, list)
    assert len(failed) == 1
    assert item["id"].startswith("item_")  # type: ignore[attr-defined]


def test_silence_and_snippets_are_skipped_and_say_so(plane: DataPlane, tmp_path: Path) -> None:
    plane.post("/v1/collections", {"name": "odd"})
    plane.upload("odd", tone(tmp_path / "short.wav", 0.2).read_bytes())
    plane.run_jobs()
    found = build(plane, collection="odd")
    assert (found["state"], found["items"], found["states"]) == ("ready", 0, {"skipped": 1})
    assert samples_of(plane, found) == []


def test_segments_that_miss_a_threshold_are_left_out_and_counted(plane: DataPlane) -> None:
    plain = build(plane)
    assert (plain["segments_left_out"], plain["features_failed"]) == ({}, {})
    levels = {s.key: s.meta.quality.rms_db for s in samples_of(plane, plain) if s.meta.quality is not None}
    least = sorted(levels.values())[2]
    found = build(plane, min_rms_dbfs=least, max_silence_ratio=1.0)
    assert found["dataset"] != plain["dataset"]
    assert found["segments_left_out"] == {"min_rms_dbfs": 2}
    expected = [sample for sample in samples_of(plane, plain) if levels[sample.key] >= least]
    assert len(expected) == found["segments"] == int(str(plain["segments"])) - 2
    for sample, was in zip(samples_of(plane, found), expected, strict=True):
        assert sample.meta == was.meta, "index and offset stay those of the whole recording"
        np.testing.assert_array_equal(sample.mel_TF, was.mel_TF)
    with read_session(plane.queue.engine) as session:
        kept = session.scalars(select(DatasetItem.num_segments).where(DatasetItem.dataset_id == found["dataset"])).all()
    assert sum(kept) == len(expected)
    assert build(plane) == plain, "the dataset without thresholds is as it was"


def test_a_recording_of_which_nothing_is_good_enough_is_skipped_and_says_so(plane: DataPlane, tmp_path: Path) -> None:
    plane.upload("clips", tone(tmp_path / "tone.wav", 4.0, hz=200.0).read_bytes(), name="tone.wav")
    plane.run_jobs()
    found = build(plane, min_bandwidth_hz=3000.0)
    assert (found["items"], found["states"]) == (NUM_RECORDINGS, {"done": NUM_RECORDINGS, "skipped": 1})
    assert (found["error_classes"], found["segments_left_out"]) == ({"low_quality": 1}, {"min_bandwidth_hz": 2})
    page = DatasetItemPageOut.model_validate(plane.get(f"/v1/datasets/{found['dataset']}/items?state=skipped"))
    assert [item.error for item in page.items] == [
        "every segment of the recording misses a quality threshold (min_bandwidth_hz: 2)"
    ]
    nothing = build(plane, min_bandwidth_hz=12_000.0, min_rms_dbfs=0.0)
    assert (nothing["state"], nothing["items"], nothing["segments"]) == ("ready", 0, 0)


def test_an_empty_collection_is_an_empty_dataset(plane: DataPlane) -> None:
    plane.post("/v1/collections", {"name": "empty"})
    found = build(plane, collection="empty")
    assert (found["state"], found["items"], found["shards"]) == ("ready", 0, 0)


def test_a_lost_attempt_leaves_nothing_that_readers_see(plane: DataPlane) -> None:
    dataset = plane.post("/v1/datasets", {"collection": "clips"})["dataset"]
    claim = claim_next(plane.queue.engine, JobKind.PREPROCESS_SHARD, owner="dies", settings=plane.settings.jobs)
    assert claim is not None
    plane.shards(claim)  # the object is written, the worker dies before its commit
    with write_session(plane.queue.engine) as session:
        session.execute(update(Job).where(Job.id == claim.job_id).values(state="queued", lease_owner=None))
    plane.run_jobs()
    found = plane.get(f"/v1/datasets/{dataset}")
    keys = [record.key for record in manifest_of(plane, found).shards]
    assert len(keys) == found["shards"] == 1
    assert "/2-" in keys[0], "the shard is the second attempt's"
    assert len(samples_of(plane, found)) == found["segments"]


def test_a_shard_whose_attempts_are_used_up_is_tried_again_when_asked(plane: DataPlane) -> None:
    class Broken:
        def __call__(self, claim: Claim) -> Effect:
            del claim
            raise StorageUnavailable("The object store did not answer.")

    dataset = plane.post("/v1/datasets", {"collection": "clips"})["dataset"]
    handlers = {**plane.handlers, JobKind.PREPROCESS_SHARD: HandlerSpec(Broken(), plane.shards.on_failure)}
    for _ in range(plane.settings.jobs.max_attempts):
        run_pending(plane.queue, handlers, plane.settings.jobs)
        with write_session(plane.queue.engine) as session:
            session.execute(update(Job).values(not_before=0.0))
    plane.run_jobs()
    dead = plane.get(f"/v1/datasets/{dataset}")
    assert dead["states"] == {"failed": NUM_RECORDINGS}
    assert dead["error_classes"] == {"storage_unavailable": NUM_RECORDINGS}
    assert build(plane)["states"] == {"done": NUM_RECORDINGS}


def test_loudness_reaches_the_target(plane: DataPlane, tmp_path: Path) -> None:
    plane.post("/v1/collections", {"name": "tones"})
    plane.upload("tones", tone(tmp_path / "a.wav", 4.0, hz=1000.0).read_bytes())
    plane.run_jobs()
    (first, _) = samples_of(plane, build(plane, collection="tones", target_lufs=-30.0, include_waveform=True))
    assert first.waveform is not None
    # BS.1770: a sine of 0 dBFS peak at 997 Hz has -3.01 LUFS.
    level = 20 * np.log10(np.abs(first.waveform / 32767).max()) - 3.01
    assert level == pytest.approx(-30.0, abs=0.1)
    assert first.meta.loudness_lufs is not None
    assert first.meta.loudness_lufs + first.meta.gain_db == pytest.approx(-30.0, abs=0.01)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"collection": "absent"}, 404),
        ({"collection": "clips", "preset": "mel9000"}, 409),
        ({"collection": "clips", "segment_s": 0.001}, 400),
        ({"collection": "clips", "wings": 2}, 422),
        ({"collection": "clips", "target_lufs": 40}, 400),
        ({"collection": "clips", "max_silence_ratio": 1.1}, 400),
        ({"collection": "clips", "min_bandwidth_hz": 20_000}, 400),
    ],
)
def test_what_cannot_be_built_is_refused_in_words(plane: DataPlane, body: dict[str, object], status: int) -> None:
    answer = plane.client.post("/v1/datasets", json=body)
    assert answer.status_code == status, answer.text
    assert len(answer.json()["error"]["message"]) > 10


def test_rows_and_objects_agree(plane: DataPlane) -> None:
    found = build(plane)
    with read_session(plane.queue.engine) as session:
        shard = session.scalars(select(Shard)).one()
        dataset = session.scalars(select(Dataset)).one()
        segments = sum(session.scalars(select(DatasetItem.num_segments)))
    assert shard.key is not None
    data = plane.store.get_bytes(shard.key)
    assert (sha256_of(data), len(data), segments) == (shard.sha256, shard.size_bytes, found["segments"])
    assert dataset.manifest_sha256 == found["manifest_sha256"]
    record = manifest_of(plane, found).shards[0]
    assert len(load_index(plane.store, record).samples) == record.num_samples == found["segments"]
    assert shard.cpu_s > 0
    # Taken from times since the epoch, which float64 knows to 0.24 µs.
    assert found["wall_s"] == pytest.approx(shard.wall_s, abs=1e-6)
