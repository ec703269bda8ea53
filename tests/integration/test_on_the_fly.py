"""Training straight from original recordings: the mels of the shards, computed on the training device."""

import secrets
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import SecretStr
from sqlalchemy import select, update

from audiofoundation.catalog.engine import create_catalog_engine, read_session, write_session
from audiofoundation.catalog.tables import Asset, Model
from audiofoundation.errors import InvalidRequest
from audiofoundation.identifiers import RunId, Sha256
from audiofoundation.jobs import lease
from audiofoundation.jobs.kinds import JobKind
from audiofoundation.jobs.owner import current_owner
from audiofoundation.preprocessing.levelled import read_levelled
from audiofoundation.settings import CatalogSettings, StorageSettings
from audiofoundation.shards.manifest import DatasetManifest, load_manifest
from audiofoundation.shards.reader import read_dataset
from audiofoundation.storage.object_store import ObjectStore
from audiofoundation.training.assembly import create_objective
from audiofoundation.training.corpus import Draw
from audiofoundation.training.holding import begin
from audiofoundation.training.ledger import RunLedger
from audiofoundation.training.on_the_fly import DataConfig, OnTheFly, Source, excerpt, pick
from audiofoundation.training.recipes import OverrideValue, resolve_recipe
from audiofoundation.training.requests import RunRequest, create_run
from audiofoundation.training.run_process import Attempt
from audiofoundation.training.states import ExitCode
from audiofoundation.training.trainer import create_state, fit
from audiofoundation.training.wave_corpus import WaveCorpus
from tests.data_plane import DataPlane, create_data_plane, data_plane_settings, recordings
from tests.training_stage import TINY

NUM_RECORDINGS = 4
CPU = torch.device("cpu")
PLAIN = DataConfig(data="on_the_fly", max_item_s=600.0)
VOCODER = {"width": 16, "hidden": 16, "num_layers": 1, "clip_frames": 16, "batch": 1}


def build(folder: Path, template: Path, s3_settings: StorageSettings) -> DataPlane:
    """Make a dataset of real recordings by the real jobs, without waveforms."""
    shutil.copy(template, folder / "catalog.db")
    engine = create_catalog_engine(CatalogSettings(url=SecretStr(f"sqlite:///{folder / 'catalog.db'}")))
    store = ObjectStore(s3_settings.model_copy(update={"bucket": f"test-{secrets.token_hex(6)}"}))
    store.ensure_bucket()
    plane = create_data_plane(engine, store, data_plane_settings(folder / "data"))
    plane.post("/v1/collections", {"name": "clips"})
    for path in recordings(NUM_RECORDINGS):
        plane.upload("clips", path.read_bytes(), name=path.name)
    plane.run_jobs()
    plane.post("/v1/datasets", {"collection": "clips"})
    plane.run_jobs()
    return plane


@pytest.fixture(scope="module")
def plane(
    tmp_path_factory: pytest.TempPathFactory, _sqlite_template: Path, s3_settings: StorageSettings
) -> Iterator[DataPlane]:
    """A dataset that tests only read."""
    plane = build(tmp_path_factory.mktemp("plane"), _sqlite_template, s3_settings)
    yield plane
    plane.queue.engine.dispose()


@pytest.fixture
def own_plane(tmp_path: Path, _sqlite_template: Path, s3_settings: StorageSettings) -> Iterator[DataPlane]:
    """A dataset that a test may spoil."""
    plane = build(tmp_path, _sqlite_template, s3_settings)
    yield plane
    plane.queue.engine.dispose()


def manifest_of(plane: DataPlane, **thresholds: float) -> DatasetManifest:
    dataset = plane.post("/v1/datasets", {"collection": "clips", **thresholds})
    return load_manifest(plane.store, str(dataset["manifest_key"]), Sha256(str(dataset["manifest_sha256"])))


@pytest.fixture
def manifest(plane: DataPlane) -> DatasetManifest:
    return manifest_of(plane)


def source(plane: DataPlane, tmp_path: Path) -> OnTheFly:
    work_dir = tmp_path / "work"
    work_dir.mkdir(exist_ok=True)
    return OnTheFly(plane.queue.engine, plane.store, read_levelled, lambda name: name.split("-")[0], work_dir)


def test_the_mels_are_those_of_the_shards(plane: DataPlane, manifest: DatasetManifest, tmp_path: Path) -> None:
    corpus = source(plane, tmp_path).load(manifest, PLAIN, seed=0)
    assert len(corpus.recordings) == NUM_RECORDINGS
    plain, by_group = replace(corpus, augment=None), {r.group: r for r in corpus.recordings}
    frames_per_segment = round(manifest.segment_s * manifest.mel_config().frame_rate_hz)
    num_compared = 0
    for sample in read_dataset(plane.store, manifest):
        recording = by_group[sample.meta.asset_sha256]
        start = recording.start_frame + sample.meta.segment_index * frames_per_segment
        batch = plain.mel_windows([(recording, start)], len(sample.mel_TF), Draw(0, 0, CPU))
        alone = plain.mel_excerpt(recording, start, len(sample.mel_TF))
        # Shards keep float16: half a unit in the last place of 16 is 0.004; torch's FFT differs by far less.
        np.testing.assert_allclose(batch[0].numpy(), sample.mel_TF.astype(np.float32), atol=0.01)
        np.testing.assert_allclose(alone, sample.mel_TF.astype(np.float32), atol=0.01)
        num_compared += 1
    assert num_compared == manifest.num_samples


def test_training_batches_are_augmented_held_out_ones_are_not(
    plane: DataPlane, manifest: DatasetManifest, tmp_path: Path
) -> None:
    corpus = source(plane, tmp_path).load(manifest, PLAIN, seed=0)
    places = [(recording, recording.start_frame) for recording in corpus.recordings]
    plain = corpus.select("validation").mel_windows(places, 20, Draw(0, 7, CPU))
    first = corpus.mel_windows(places, 20, Draw(0, 7, CPU))
    assert torch.equal(first, corpus.mel_windows(places, 20, Draw(0, 7, CPU)))
    assert not torch.equal(first, corpus.mel_windows(places, 20, Draw(0, 8, CPU)))
    assert not torch.allclose(first, plain)
    assert torch.equal(plain, corpus.select("validation").mel_windows(places, 20, Draw(0, 8, CPU)))


def test_a_recording_shorter_than_a_window_is_repeated(
    plane: DataPlane, manifest: DatasetManifest, tmp_path: Path
) -> None:
    corpus = replace(source(plane, tmp_path).load(manifest, PLAIN, seed=0), augment=None)
    recording = min(corpus.recordings, key=lambda r: r.num_frames)
    num_frames = recording.num_frames
    window = corpus.mel_windows([(recording, recording.start_frame)], 2 * num_frames + 3, Draw(0, 0, CPU))[0]
    assert torch.equal(window[:num_frames], window[num_frames : 2 * num_frames])
    assert torch.equal(window[:3], window[2 * num_frames :])


def test_a_broken_or_missing_recording_is_left_out_and_long_ones_are_cut(own_plane: DataPlane, tmp_path: Path) -> None:
    plane, manifest = own_plane, manifest_of(own_plane)
    with read_session(plane.queue.engine) as session:
        first, second, *_ = session.scalars(select(Asset.key).order_by(Asset.id))
    plane.store.delete(first)
    plane.store.put_bytes(second, b"not what it was")
    corpus = source(plane, tmp_path).load(manifest, replace(PLAIN, max_item_s=0.5), seed=0)
    assert len(corpus.recordings) == NUM_RECORDINGS - 2
    assert {r.num_frames for r in corpus.recordings} == {47}
    with write_session(plane.queue.engine) as session:
        session.execute(update(Asset).values(tombstoned_at=1.0))
    with pytest.raises(InvalidRequest, match="none of the dataset"):
        source(plane, tmp_path).load(manifest, PLAIN, seed=0)


def test_segments_that_a_threshold_left_out_are_not_heard(plane: DataPlane, tmp_path: Path) -> None:
    manifest = manifest_of(plane)
    levels = {s.key: s.meta.quality.rms_db for s in read_dataset(plane.store, manifest) if s.meta.quality is not None}
    least = sorted(levels.values())[1]
    plane.post("/v1/datasets", {"collection": "clips", "min_rms_dbfs": least})
    plane.run_jobs()
    strict = manifest_of(plane, min_rms_dbfs=least)
    assert strict.num_samples == manifest.num_samples - 1

    corpus = source(plane, tmp_path).load(strict, PLAIN, seed=0)

    kept = list(read_dataset(plane.store, strict))
    assert sum(r.num_frames for r in corpus.recordings) == sum(len(sample.mel_TF) for sample in kept)
    assert {r.group for r in corpus.recordings} == {sample.meta.asset_sha256 for sample in kept}


def test_an_excerpt_runs_over_stretches() -> None:
    stretches = [np.arange(3, dtype=np.float32), np.arange(3, 8, dtype=np.float32)]
    assert [part.tolist() for part in excerpt(stretches, 2, 3)] == [[2], [3, 4]]
    assert [part.tolist() for part in excerpt(stretches, 4, 99)] == [[], [4, 5, 6, 7]]


def test_the_sample_of_the_catalog_depends_on_the_seed_alone() -> None:
    sources = [Source(f"item_{n}", "", Sha256("0"), "") for n in range(200)]
    picked = pick(sources, 20, seed=3)
    assert pick(sources[::-1], 20, seed=3) == picked
    assert set(pick(sources, 20, seed=4)) != set(picked)


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        pytest.param("tiny", {**TINY, "precision": "fp32"}, id="transformer"),
        pytest.param("vocoder-tiny", {**VOCODER, "precision": "fp32"}, id="vocoder"),
        pytest.param("classifier-tiny", {"labels": "speech,music", "batch": 2}, id="classifier"),
    ],
)
def test_every_recipe_trains_on_it_and_resumes_alike(
    recipe: str, overrides: dict[str, OverrideValue], plane: DataPlane, manifest: DatasetManifest, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    resolved = resolve_recipe(recipe, {**overrides, "evaluate_every": 0, "data": "on_the_fly"}, num_steps=3)
    corpus = _with_both_labels(source(plane, tmp_path).load(manifest, resolved.data, seed=0))
    losses = []
    for _ in range(2):
        state = create_state(create_objective(resolved, corpus), resolved.trainer)
        fit(state, resolved.trainer, save=lambda _: None, report=lambda _: None)
        assert np.isfinite(state.losses["model/total"])
        losses.append(dict(state.losses))
    assert losses[0] == losses[1]


def _with_both_labels(corpus: WaveCorpus) -> WaveCorpus:
    rows = tuple(replace(r, label=("speech", "music")[n % 2], split="train") for n, r in enumerate(corpus.recordings))
    return replace(corpus, recordings=rows)


def test_a_run_trains_without_any_shard(own_plane: DataPlane, tmp_path: Path) -> None:
    plane, manifest = own_plane, manifest_of(own_plane)
    for record in manifest.shards:
        plane.store.delete(record.key)
    overrides: dict[str, OverrideValue] = {**VOCODER, "data": "on_the_fly", "num_items": 3, "precision": "fp32"}
    request = RunRequest("vocoder-tiny", manifest.dataset_id, overrides, 2)
    with plane.queue.unit_of_work() as unit:
        run_id = create_run(unit, request, pretrained_dir=tmp_path)
    with pytest.raises(InvalidRequest, match="data=on_the_fly"), plane.queue.unit_of_work() as unit:
        create_run(unit, replace(request, overrides=VOCODER), pretrained_dir=tmp_path)
    assert _train(plane, run_id) == ExitCode.DONE
    with read_session(plane.queue.engine) as session:
        assert session.scalars(select(Model.run_id)).all() == [run_id]


def test_a_run_streams_its_dataset_and_leaves_nothing_of_it(own_plane: DataPlane, tmp_path: Path) -> None:
    plane, manifest = own_plane, manifest_of(own_plane)
    overrides: dict[str, OverrideValue] = {**TINY, "data": "stream", "pool_shards": 1, "precision": "fp32"}
    with plane.queue.unit_of_work() as unit:
        run_id = create_run(unit, RunRequest("tiny", manifest.dataset_id, overrides, 3), pretrained_dir=tmp_path)
    vocoder = RunRequest("vocoder-tiny", manifest.dataset_id, {"data": "stream"}, 2)
    with pytest.raises(InvalidRequest, match="no waveforms"), plane.queue.unit_of_work() as unit:
        create_run(unit, vocoder, pretrained_dir=tmp_path)

    assert _train(plane, run_id) == ExitCode.DONE

    with read_session(plane.queue.engine) as session:
        assert session.scalars(select(Model.run_id)).all() == [run_id]
    kept = [path for path in plane.settings.data_dir.rglob("*") if path.suffix in (".npy", ".tar")]
    assert kept == []


def _train(plane: DataPlane, run_id: RunId) -> ExitCode:
    claim = lease.claim_next(plane.queue.engine, JobKind.TRAIN_RUN, owner=current_owner(), settings=plane.settings.jobs)
    assert claim is not None
    held = begin(plane.queue, claim, plane.settings.jobs)
    assert held is not None
    ledger = RunLedger(plane.queue.engine, run_id, held.attempt)
    return Attempt(plane.settings, plane.store, ledger, read_levelled).train(threading.Event())
