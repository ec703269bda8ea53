"""One sample is read from its place in a shard, verified; what is not what was written is told."""

from pathlib import Path

import pytest

from audiofoundation.errors import ObjectCorrupt, ShardCorrupt
from audiofoundation.identifiers import Sha256, sha256_of
from audiofoundation.shards.index import index_key, load_index, read_sample
from audiofoundation.shards.manifest import ShardRecord
from audiofoundation.shards.writer import ShardWriter
from audiofoundation.storage.object_store import ObjectStore
from tests.unit.shards.test_shards import assert_equal, sample

SAMPLES = [sample(index, has_waveform=bool(index % 2)) for index in range(3)]


@pytest.fixture
def record(store: ObjectStore, tmp_path: Path) -> ShardRecord:
    with ShardWriter(tmp_path / "a.tar") as writer:
        for one in SAMPLES:
            writer.write(one)
        summary = writer.finish()
    index = writer.index().to_bytes()
    store.put_file("shard", tmp_path / "a.tar")
    store.put_bytes(index_key("shard"), index)
    return ShardRecord(
        index=0,
        key="shard",
        size_bytes=summary.size_bytes,
        sha256=summary.sha256,
        num_samples=summary.num_samples,
        duration_s=1.0,
        index_sha256=sha256_of(index),
    )


def test_each_sample_is_read_alone(store: ObjectStore, record: ShardRecord) -> None:
    index = load_index(store, record)
    assert list(index.samples) == [one.key for one in SAMPLES]
    for one in reversed(SAMPLES):
        assert_equal(read_sample(store, record, index, one.key), one)
    with pytest.raises(KeyError):
        read_sample(store, record, index, "another")


def test_a_flipped_bit_in_one_sample_spoils_only_that_one(store: ObjectStore, record: ShardRecord) -> None:
    index = load_index(store, record)
    data = bytearray(store.get_bytes("shard"))
    data[index.samples[SAMPLES[1].key].offset + 2000] ^= 1
    store.put_bytes("shard", bytes(data))
    assert_equal(read_sample(store, record, index, SAMPLES[0].key), SAMPLES[0])
    with pytest.raises(ObjectCorrupt, match="not what was written"):
        read_sample(store, record, index, SAMPLES[1].key)


def test_an_index_that_is_missing_foreign_or_damaged_is_told(store: ObjectStore, record: ShardRecord) -> None:
    with pytest.raises(ShardCorrupt, match="no index"):
        load_index(store, record.model_copy(update={"index_sha256": None}))
    with pytest.raises(ShardCorrupt, match="another"):
        load_index(store, record.model_copy(update={"sha256": Sha256("0" * 64)}))
    store.put_bytes(index_key("shard"), b"{}")
    with pytest.raises(ObjectCorrupt):
        load_index(store, record)
    with pytest.raises(ShardCorrupt, match="is none"):
        load_index(store, record.model_copy(update={"index_sha256": sha256_of(b"{}")}))
