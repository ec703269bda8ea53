"""The loader: every sample once an epoch, in one order, whoever reads; and what happens to broken shards."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from structlog.testing import capture_logs

from audiofoundation.errors import InvalidRequest, ShardCorrupt
from audiofoundation.shards.cache import ShardCache
from audiofoundation.shards.dataset import ShardDataset
from audiofoundation.shards.manifest import DatasetManifest
from audiofoundation.storage.object_store import ObjectStore
from audiofoundation.training.loading import ShardLoader, Share
from tests.unit.shards.stage import SIZES, all_keys, store_shards

BATCH = 4
NUM_SAMPLES = sum(SIZES)


@pytest.fixture
def manifest(store: ObjectStore, tmp_path: Path) -> DatasetManifest:
    return store_shards(store, tmp_path)


@pytest.fixture
def cache(store: ObjectStore, tmp_path: Path) -> ShardCache:
    return ShardCache(store, tmp_path / "cache")


def dataset(cache: ShardCache, manifest: DatasetManifest, *, seed: int = 5) -> ShardDataset:
    return ShardDataset(cache, manifest, seed=seed, window_shards=2)


def read(loaders: Sequence[ShardLoader], num_steps: int | None) -> list[str]:
    """Let the ranks step together; return the keys in global order: step by step, rank by rank in turn."""
    keys: list[str] = []
    steps = zip(*loaders, strict=True)
    for number, shares in enumerate(steps, start=1):
        width = max(map(len, shares))
        keys += [share[turn].key for turn in range(width) for share in shares if turn < len(share)]
        if number == num_steps:
            break
    return keys


def create(
    cache: ShardCache, manifest: DatasetManifest, world_size: int, num_workers: int, *, num_epochs: int | None = 3
) -> list[ShardLoader]:
    return [
        ShardLoader(
            dataset(cache, manifest),
            batch_size=BATCH,
            share=Share(rank, world_size),
            num_workers=num_workers,
            num_epochs=num_epochs,
        )
        for rank in range(world_size)
    ]


def test_an_epoch_is_every_sample_once_and_the_next_one_another_order(
    cache: ShardCache, manifest: DatasetManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(ObjectStore, "list")  # readers follow the manifest
    keys = read(create(cache, manifest, 1, 0), None)
    epochs = [keys[start : start + NUM_SAMPLES] for start in range(0, 3 * NUM_SAMPLES, NUM_SAMPLES)]
    for epoch in epochs:
        assert len(epoch) == NUM_SAMPLES
        assert set(epoch) == all_keys()
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # fewer cores than workers
def test_resuming_with_other_world_sizes_and_workers_repeats_and_skips_nothing(
    cache: ShardCache, manifest: DatasetManifest
) -> None:
    straight = read(create(cache, manifest, 1, 0), None)
    assert len(straight) == 3 * NUM_SAMPLES
    keys: list[str] = []
    state = None
    for world_size, num_workers, num_steps in ((1, 0, 5), (2, 2, 7), (4, 1, 6), (1, 3, None)):
        loaders = create(cache, manifest, world_size, num_workers)
        if state is not None:
            for loader in loaders:
                loader.load_state_dict(state)
        keys += read(loaders, num_steps)
        states = [loader.state_dict() for loader in loaders]
        assert all(one == states[0] for one in states)
        state = states[0]
    assert keys == straight
    assert state == {"seed": 5, "epoch": 3, "sample_in_epoch": 0}


def test_a_state_of_another_order_is_refused(cache: ShardCache, manifest: DatasetManifest) -> None:
    (loader,) = create(cache, manifest, 1, 0)
    for wrong in ({"seed": 6}, {"sample_in_epoch": NUM_SAMPLES}):
        with pytest.raises(InvalidRequest):
            loader.load_state_dict({**loader.state_dict(), **wrong})


def test_reading_draws_nothing_from_the_trainers_generator(cache: ShardCache, manifest: DatasetManifest) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    read(create(cache, manifest, 1, 2), 3)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("is_gone", [True, False])
def test_a_broken_shard_is_set_aside_and_the_rest_keeps_its_order(
    is_gone: bool, cache: ShardCache, manifest: DatasetManifest, store: ObjectStore
) -> None:
    straight = read(create(cache, manifest, 1, 0), None)
    broken = manifest.shards[2]
    (path,) = (p for p in cache.folder.iterdir() if p.name.startswith(broken.sha256))
    path.unlink()
    if is_gone:
        store.delete(broken.key)
    else:
        store.put_bytes(broken.key, b"y" * broken.size_bytes)
    with capture_logs() as logs:
        keys = read(create(cache, manifest, 1, 0), None)
    assert keys == [key for key in straight if not key.startswith("item_2-")]
    assert [log["key"] for log in logs if log["event"] == "shard_quarantined"] == [broken.key]


def test_a_dataset_of_which_nothing_can_be_read_is_an_error(
    cache: ShardCache, manifest: DatasetManifest, store: ObjectStore
) -> None:
    for record in manifest.shards:
        store.put_bytes(record.key, b"z")
    with pytest.raises(ShardCorrupt, match="no shard"):
        read(create(cache, manifest, 1, 0), None)
