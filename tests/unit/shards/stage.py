"""Small shards in a real store."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from audiofoundation.features.mel import get_preset
from audiofoundation.identifiers import AssetId, CollectionId, DatasetId, ItemId, sha256_of
from audiofoundation.shards.manifest import DatasetManifest, ShardRecord
from audiofoundation.shards.sample import Sample, SampleMeta, sample_key
from audiofoundation.shards.writer import ShardWriter
from audiofoundation.storage.object_store import ObjectStore

MEL = get_preset("vocos24")
SIZES = (7, 3, 11, 5, 9)


def make_sample(item: int, index: int, *, num_frames: int = 10) -> Sample:
    """Return a sample of random numbers that depend on its name only."""
    item_id, num_samples = ItemId(f"item_{item}"), num_frames * MEL.hop_length
    meta = SampleMeta(
        item_id=item_id,
        asset_id=AssetId(f"asset_{item}"),
        asset_sha256=sha256_of(item_id.encode()),
        segment_index=index,
        offset_s=index * num_samples / MEL.sample_rate_hz,
        duration_s=num_samples / MEL.sample_rate_hz,
        num_samples=num_samples,
        sample_rate_hz=MEL.sample_rate_hz,
        gain_db=0.0,
        loudness_lufs=-23.0,
        mel_preset=MEL.name,
        mel_fingerprint=MEL.fingerprint,
    )
    rng = np.random.default_rng([item, index])
    return Sample(sample_key(item_id, index), rng.standard_normal((num_frames, 100)).astype(np.float16), meta)


def store_shards(
    store: ObjectStore, folder: Path, sizes: Sequence[int] = SIZES, *, num_frames: int = 10
) -> DatasetManifest:
    """Write one shard per size, one item in each."""
    records = []
    for index, size in enumerate(sizes):
        path = folder / f"{index}.tar"
        with ShardWriter(path) as writer:
            for number in range(size):
                writer.write(make_sample(index, number, num_frames=num_frames))
            summary = writer.finish()
        key = f"shards/{index}.tar"
        store.put_file(key, path)
        records.append(
            ShardRecord(
                index=index,
                key=key,
                size_bytes=summary.size_bytes,
                sha256=summary.sha256,
                num_samples=size,
                duration_s=1.0,
            )
        )
    return DatasetManifest(
        dataset_id=DatasetId("ds_1"),
        collection_id=CollectionId("col_1"),
        mel_preset=MEL.name,
        mel_fingerprint=MEL.fingerprint,
        segment_s=1.0,
        has_waveform=False,
        num_items=len(sizes),
        num_samples=sum(sizes),
        duration_s=1.0,
        shards=tuple(records),
    )


def all_keys(sizes: Sequence[int] = SIZES) -> set[str]:
    """Return the keys of every sample of `store_shards`."""
    return {sample_key(ItemId(f"item_{item}"), n) for item, size in enumerate(sizes) for n in range(size)}
