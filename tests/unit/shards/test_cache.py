"""The cache of shards: verified, bounded, and safe to kill."""

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from audiofoundation.errors import ObjectCorrupt
from audiofoundation.identifiers import sha256_of_stream
from audiofoundation.shards.cache import ShardCache
from audiofoundation.shards.manifest import DatasetManifest, ShardRecord
from audiofoundation.storage.object_store import ObjectStore
from tests.unit.shards.stage import store_shards


@pytest.fixture
def manifest(store: ObjectStore, tmp_path: Path) -> DatasetManifest:
    return store_shards(store, tmp_path)


def read(cache: ShardCache, record: ShardRecord) -> bytes:
    with cache.open(record) as file:
        file.seek(0)
        return file.read()


def cached(folder: Path) -> set[str]:
    return {path.name.removesuffix(".tar") for path in folder.iterdir() if path.suffix in (".tar", ".part")}


def test_a_shard_is_read_from_the_store_once(store: ObjectStore, manifest: DatasetManifest, tmp_path: Path) -> None:
    cache, record = ShardCache(store, tmp_path / "cache"), manifest.shards[0]
    first = read(cache, record)
    store.delete(record.key)
    assert read(cache, record) == first


def test_what_changed_on_disk_is_fetched_again(store: ObjectStore, manifest: DatasetManifest, tmp_path: Path) -> None:
    cache, record = ShardCache(store, tmp_path / "cache"), manifest.shards[0]
    first = read(cache, record)
    path = tmp_path / "cache" / f"{record.sha256}.tar"
    spoilt = bytearray(first)
    spoilt[600] ^= 1
    path.write_bytes(spoilt)
    assert read(cache, record) == first


def test_a_shard_that_is_not_what_was_written_is_never_served(
    store: ObjectStore, manifest: DatasetManifest, tmp_path: Path
) -> None:
    record = manifest.shards[0]
    store.put_bytes(record.key, b"x" * record.size_bytes)
    with pytest.raises(ObjectCorrupt):
        ShardCache(store, tmp_path / "cache").open(record)
    assert not cached(tmp_path / "cache")


def test_the_least_recently_opened_shards_make_room(
    store: ObjectStore, manifest: DatasetManifest, tmp_path: Path
) -> None:
    first, second, third, fourth, _ = manifest.shards
    room = first.size_bytes + second.size_bytes + third.size_bytes
    cache = ShardCache(store, tmp_path / "cache", max_bytes=room + fourth.size_bytes - 1)
    for age, record in enumerate((first, second, third)):
        cache.open(record).close()
        moment = 1_000_000 + age
        os.utime(tmp_path / "cache" / f"{record.sha256}.tar", (moment, moment))
    held = cache.open(first)  # which makes the second the oldest
    os.utime(tmp_path / "cache" / f"{first.sha256}.tar", (1_000_010, 1_000_010))
    cache.open(fourth).close()
    kept = cached(tmp_path / "cache")
    assert second.sha256 not in kept
    assert {first.sha256, fourth.sha256} <= kept
    assert sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.tar")) <= room + fourth.size_bytes - 1
    held.close()


def test_an_open_shard_outlives_its_eviction(store: ObjectStore, manifest: DatasetManifest, tmp_path: Path) -> None:
    cache = ShardCache(store, tmp_path / "cache", max_bytes=1)
    with cache.open(manifest.shards[0]) as file:
        cache.open(manifest.shards[1]).close()
        assert cached(tmp_path / "cache") == {manifest.shards[1].sha256}
        file.seek(0)
        assert sha256_of_stream(file) == manifest.shards[0].sha256


def test_many_threads_on_a_cache_that_is_too_small_see_whole_shards_only(
    store: ObjectStore, manifest: DatasetManifest, tmp_path: Path
) -> None:
    wrong: list[str] = []

    def work(start: int) -> None:
        cache = ShardCache(store, tmp_path / "cache", max_bytes=manifest.shards[2].size_bytes + 1)
        for turn in range(10):
            record = manifest.shards[(start + turn) % len(manifest.shards)]
            with cache.open(record) as file:
                file.seek(0)
                if sha256_of_stream(file) != record.sha256:
                    wrong.append(record.sha256)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def _fill_for_ever(store: ObjectStore, manifest: DatasetManifest, folder: Path) -> None:
    cache = ShardCache(store, folder, max_bytes=1)
    while True:
        for record in manifest.shards:
            cache.open(record).close()


def test_processes_killed_at_any_moment_leave_nothing_that_is_served_or_stays(
    store: ObjectStore, tmp_path: Path
) -> None:
    manifest = store_shards(store, tmp_path, sizes=(60, 60), num_frames=200)
    folder = tmp_path / "cache"
    store.stat(manifest.shards[0].key)
    context = multiprocessing.get_context("fork")
    for turn in range(12):
        victim = context.Process(target=_fill_for_ever, args=(store, manifest, folder))
        victim.start()
        assert victim.pid is not None
        deadline = time.monotonic() + 10
        while not list(folder.glob("*.part")) and time.monotonic() < deadline:
            pass  # catch it in the middle of a shard
        time.sleep(0.001 * turn)
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        for path in folder.glob("*.tar"):
            with path.open("rb") as file:
                assert sha256_of_stream(file) == path.stem
    cache = ShardCache(store, folder, max_bytes=1)
    for record in manifest.shards:
        cache.open(record).close()
    assert cached(folder) == {manifest.shards[-1].sha256}
