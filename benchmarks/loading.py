"""How fast the loader gives samples: `python -m benchmarks.loading [--shards 8] [--samples 500]`.

Shards of random mels of 3 s lie in the embedded S3 server; the loader reads them cold, from its cache, and with
two workers, beside a plain sequential read. Pools (`data=stream`) are joined two shards at a time, each while the one
before it is used; what they hold on disk at most is printed beside.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import typer

from audiofoundation.shards.cache import ShardCache
from audiofoundation.shards.dataset import ShardDataset
from audiofoundation.shards.reader import read_dataset
from audiofoundation.storage.object_store import ObjectStore
from audiofoundation.training.loading import ShardLoader
from audiofoundation.training.streaming import PoolSource, plan_pools
from tests.servers import S3Server
from tests.unit.shards.stage import MEL, store_shards

_FRAMES = 281


def main(shards: int = 8, samples: int = 500) -> None:
    """Measure and print samples per second."""
    folder = Path(tempfile.mkdtemp(prefix="loading-"))
    server = S3Server(folder / "s3")
    server.start()
    try:
        store = ObjectStore(server.settings)
        store.ensure_bucket()
        manifest = store_shards(store, folder, sizes=(samples,) * shards, num_frames=_FRAMES)
        cache = ShardCache(store, folder / "cache")

        def loaded(num_workers: int) -> int:
            dataset = ShardDataset(cache, manifest, seed=1)
            loader = ShardLoader(dataset, batch_size=32, num_workers=num_workers, num_epochs=1)
            return sum(len(batch) for batch in loader)

        measure("sequential, no cache, not shuffled", lambda: sum(1 for _ in read_dataset(store, manifest)))
        measure("loader, cold cache", lambda: loaded(0))
        measure("loader, warm cache", lambda: loaded(0))
        measure("loader, warm cache, 2 workers", lambda: loaded(2))
        pools, plan = plan_pools(manifest, pool_shards=2, frames_per_step=_FRAMES, seed=1)
        source, on_disk = PoolSource(store, manifest, pools, plan, folder / "pools"), list[int]()

        def pooled() -> int:
            num_frames = 0
            for pool in range(len(pools)):
                corpus = source.at(sum(plan.num_steps[:pool]))
                num_frames += sum(recording.num_frames for recording in corpus.recordings) if corpus else 0
                on_disk.append(sum(path.stat().st_size for path in (folder / "pools").rglob("*") if path.is_file()))
            return num_frames // _FRAMES

        measure("pools of two shards, joined", pooled)
        source.close()
        whole = sum(shard.size_bytes for shard in manifest.shards)
        print(f"pools on disk: {max(on_disk) / 1e6:.0f} MB at most, of {whole / 1e6:.0f} MB of shards")
    finally:
        server.stop()
        shutil.rmtree(folder)


def measure(name: str, read: Callable[[], int]) -> None:
    """Print how many samples and hours of audio a second `read` reads."""
    started = time.perf_counter()
    num_read = read()
    rate = num_read / (time.perf_counter() - started)
    hours = rate * _FRAMES / MEL.frame_rate_hz / 3600
    print(f"{name}: {rate:.0f} samples/s, {hours:.1f} h of audio/s")


if __name__ == "__main__":
    typer.run(main)
