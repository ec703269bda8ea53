"""Training on pools of shards: which step sees what, what lies on disk, and going on where another stopped."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from audiofoundation.errors import InvalidRequest, StorageUnavailable
from audiofoundation.identifiers import CollectionId, DatasetId, sha256_of
from audiofoundation.shards.dataset import OpenShard, ShardDataset
from audiofoundation.shards.manifest import DatasetManifest, ShardRecord
from audiofoundation.shards.sample import Sample
from audiofoundation.shards.writer import ShardWriter
from audiofoundation.storage.object_store import ObjectStore
from audiofoundation.training.assembly import create_objective, frames_per_step
from audiofoundation.training.recipes import Recipe, resolve_recipe
from audiofoundation.training.shards_corpus import TRAIN, VALIDATION
from audiofoundation.training.streaming import PoolPlan, StreamedCorpus, plan_pools, stream_corpus
from audiofoundation.training.trainer import TrainState, create_state, fit
from tests.training_stage import NAMES, PRESET, SEGMENT_FRAMES, TINY, item_of, segments_of

PAIRS = tuple(NAMES[start : start + 2] for start in range(0, 6, 2))  # each shard has one to train on, one held out


def store_pairs(store: ObjectStore, folder: Path, pairs: Sequence[Sequence[str]] = PAIRS) -> DatasetManifest:
    """Write a shard of each pair of recordings."""
    records = []
    for index, names in enumerate(pairs):
        path = folder / f"{index}.tar"
        with ShardWriter(path) as writer:
            for name in names:
                for sample in segments_of(name, item_of(name)):
                    writer.write(sample)
            summary = writer.finish()
        key = f"shards/{index}.tar"
        store.put_file(key, path)
        seconds = summary.num_audio_samples / PRESET.sample_rate_hz
        records.append(
            ShardRecord(
                index=index,
                key=key,
                size_bytes=summary.size_bytes,
                sha256=summary.sha256,
                num_samples=summary.num_samples,
                duration_s=seconds,
            )
        )
    return DatasetManifest(
        dataset_id=DatasetId("ds_1"),
        collection_id=CollectionId("col_1"),
        mel_preset=PRESET.name,
        mel_fingerprint=PRESET.fingerprint,
        segment_s=SEGMENT_FRAMES / PRESET.frame_rate_hz,
        has_waveform=True,
        num_items=2 * len(pairs),
        num_samples=sum(record.num_samples for record in records),
        duration_s=sum(record.duration_s for record in records),
        shards=tuple(records),
    )


@pytest.fixture
def manifest(store: ObjectStore, tmp_path: Path) -> DatasetManifest:
    return store_pairs(store, tmp_path)


def streamed(store: ObjectStore, manifest: DatasetManifest, folder: Path, *, per_step: int = 400) -> StreamedCorpus:
    return stream_corpus(store, manifest, folder, pool_shards=1, frames_per_step=per_step, seed=0)


def groups_of(names: Sequence[str]) -> set[str]:
    return {sha256_of(name.encode()) for name in names}


@pytest.mark.parametrize("num_steps", [(3, 1, 4, 2), (1,), (5, 5)])
def test_an_epoch_visits_every_pool_once_for_its_steps(num_steps: tuple[int, ...]) -> None:
    plan, length = PoolPlan(num_steps, seed=1), sum(num_steps)
    orders = set()
    for epoch in range(6):
        pools = [plan.stay(step)[0] for step in range(epoch * length, (epoch + 1) * length)]
        order = tuple(dict.fromkeys(pools))
        assert pools == [pool for pool in order for _ in range(num_steps[pool])]
        assert set(order) == set(range(len(num_steps)))
        orders.add(order)
    assert len(orders) > 1 or len(num_steps) == 1
    pool, end = plan.stay(2)
    assert plan.stay(end - 1) == (pool, end)


def test_pools_are_as_long_as_their_frames_fill(manifest: DatasetManifest) -> None:
    pools, plan = plan_pools(manifest, pool_shards=2, frames_per_step=100, seed=0)
    assert [[shard.index for shard in pool] for pool in pools] == [[0, 1], [2]]
    for pool, steps in zip(pools, plan.num_steps, strict=True):
        frames = sum(shard.duration_s for shard in pool) * PRESET.frame_rate_hz
        assert abs(steps * 100 - frames) <= 50


def test_a_step_sees_its_own_pool_and_what_is_held_out_is_never_trained_on(
    store: ObjectStore, manifest: DatasetManifest, tmp_path: Path
) -> None:
    folder = tmp_path / "pools"
    corpus = streamed(store, manifest, folder)
    train, held_out = corpus.select(TRAIN), corpus.select(VALIDATION)
    _, plan = plan_pools(manifest, pool_shards=1, frames_per_step=400, seed=0)
    met: dict[int, set[str]] = {}
    for step in range(2 * sum(plan.num_steps)):
        pool = plan.stay(step)[0]
        found = train.at(step)
        assert {recording.split for recording in found.recordings} == {TRAIN}
        met[pool] = {recording.group for recording in found.recordings}
        assert met[pool] < groups_of(PAIRS[pool])
        assert len([path for path in folder.iterdir() if (path / "index.json").exists()]) <= 2
    assert set(met) == {0, 1, 2}
    assert {recording.group for recording in held_out.recordings}.isdisjoint(set[str]().union(*met.values()))


@dataclass(frozen=True, slots=True)
class Training:
    """Attempts at one run, each with pools of its own."""

    store: ObjectStore
    manifest: DatasetManifest
    recipe: Recipe
    folder: Path

    def go_on(self, after: TrainState | None, *, until: int) -> TrainState:
        """Train up to some step, from the beginning or from what another attempt has left."""
        folder = self.folder / f"{after.step if after else 0}-{until}"
        corpus = streamed(self.store, self.manifest, folder, per_step=frames_per_step(self.recipe))
        state = create_state(create_objective(self.recipe, corpus), self.recipe.trainer)
        if after is not None:
            state.load_state_dict(after.state_dict())
        trainer = self.recipe.trainer
        fit(state, trainer, save=lambda _: None, report=lambda _: None, should_stop=lambda: state.step >= until)
        return state


def test_a_run_that_is_interrupted_goes_on_as_if_it_had_not_been(
    store: ObjectStore, manifest: DatasetManifest, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    overrides = {**TINY, "window_patches": 40, "precision": "fp32", "evaluate_every": 0, "data": "stream"}
    recipe = resolve_recipe("tiny", overrides, num_steps=12)
    _, plan = plan_pools(manifest, pool_shards=1, frames_per_step=frames_per_step(recipe), seed=0)
    assert len({plan.stay(step)[0] for step in range(12)}) == 3
    training = Training(store, manifest, recipe, tmp_path / "pools")
    whole = training.go_on(None, until=12)
    half = training.go_on(None, until=7)

    rest = training.go_on(half, until=12)

    assert (half.step, rest.step) == (7, 12)
    expected = whole.objective.model.state_dict()
    for name, value in rest.objective.model.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_a_pool_that_cannot_be_read_is_passed_over(
    store: ObjectStore, manifest: DatasetManifest, tmp_path: Path
) -> None:
    _, plan = plan_pools(manifest, pool_shards=1, frames_per_step=400, seed=0)
    broken = plan.stay(0)[0]
    store.put_bytes(manifest.shards[broken].key, b"not what was written")
    corpus = streamed(store, manifest, tmp_path / "pools").select(TRAIN)
    for step in range(sum(plan.num_steps)):
        groups = {recording.group for recording in corpus.at(step).recordings}
        assert groups
        assert groups.isdisjoint(groups_of(PAIRS[broken]))
    for shard in manifest.shards:
        store.delete(shard.key)
    with pytest.raises(InvalidRequest, match="no shard of the dataset can be used"):
        streamed(store, manifest, tmp_path / "again")


def test_whoever_is_asked_to_go_does_not_wait_for_the_next_pool(
    store: ObjectStore, manifest: DatasetManifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_reading, may_go_on = threading.Event(), threading.Event()
    scan = ShardDataset.scan

    def slowly(dataset: ShardDataset) -> Iterator[Sample]:
        for sample in scan(dataset):
            yield sample
            if threading.current_thread() is not threading.main_thread():
                is_reading.set()
                assert may_go_on.wait(30.0)

    monkeypatch.setattr(ShardDataset, "scan", slowly)
    corpus = streamed(store, manifest, tmp_path / "pools")
    assert is_reading.wait(30.0)
    ahead = corpus.source._ahead
    assert ahead is not None
    threading.Timer(0.5, may_go_on.set).start()
    corpus.close()
    with pytest.raises(CancelledError):
        ahead.corpus.result(timeout=30.0)
    assert not (tmp_path / "pools").exists()
    assert np.isfinite(corpus.mel_excerpt(corpus.recordings[0], corpus.recordings[0].start_frame, 10)).all()


def test_a_store_that_was_away_while_the_next_pool_was_read_is_asked_again(
    store: ObjectStore, manifest: DatasetManifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = ShardDataset.scan

    def unlucky(dataset: ShardDataset) -> Iterator[Sample]:
        if threading.current_thread() is not threading.main_thread():
            raise StorageUnavailable("away for a moment")
        return scan(dataset)

    monkeypatch.setattr(ShardDataset, "scan", unlucky)
    corpus = streamed(store, manifest, tmp_path / "pools").select(TRAIN)
    _, plan = plan_pools(manifest, pool_shards=1, frames_per_step=400, seed=0)
    assert len({id(corpus.at(step)) for step in range(sum(plan.num_steps))}) == 3


def test_a_shard_that_has_been_joined_is_let_go(
    store: ObjectStore, manifest: DatasetManifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, most = ShardDataset._opened, list[int]()

    def counted(dataset: ShardDataset, number: int) -> OpenShard:
        found = opened(dataset, number)
        most.append(len(dataset._open))
        return found

    monkeypatch.setattr(ShardDataset, "_opened", counted)
    stream_corpus(store, manifest, tmp_path / "pools", pool_shards=3, frames_per_step=400, seed=0)
    assert max(most) == 1


def test_a_pool_of_recordings_too_short_for_a_window_lends_none(
    store: ObjectStore, manifest: DatasetManifest, tmp_path: Path
) -> None:
    recipe = resolve_recipe("vocoder-tiny", {"clip_frames": 16, "batch": 2, "evaluate_every": 0}, num_steps=40)
    corpus = streamed(store, manifest, tmp_path / "pools", per_step=400)
    objective = create_objective(recipe, corpus)
    source, first = corpus.source, {recording.group for recording in corpus.recordings}
    found = source.at

    def shortened(step: int) -> object:
        pool = found(step)
        assert pool is not None
        is_first = {recording.group for recording in pool.recordings} == first
        short = tuple(replace(recording, num_frames=5) for recording in pool.recordings)
        return pool if is_first else replace(pool, recordings=short)

    source.at = shortened  # type: ignore[method-assign, assignment]
    _, plan = plan_pools(manifest, pool_shards=1, frames_per_step=400, seed=0)
    for step in range(sum(plan.num_steps)):
        assert np.isfinite(float(objective.losses("model", step)["total"].detach()))


def test_recipes_that_cannot_stream_are_refused_in_words() -> None:
    with pytest.raises(InvalidRequest, match="data=on_the_fly"):
        resolve_recipe("classifier-tiny", {"data": "stream"})
