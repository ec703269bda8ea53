import tarfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from audiofoundation.audio.quality import measure_quality
from audiofoundation.audio.waveform import Waveform
from audiofoundation.errors import MelMismatch, ObjectCorrupt, ShardCorrupt
from audiofoundation.features.mel import get_preset
from audiofoundation.identifiers import AssetId, CollectionId, DatasetId, ItemId, Sha256, sha256_of
from audiofoundation.shards.manifest import DatasetManifest, ShardRecord, load_manifest, parse_manifest
from audiofoundation.shards.reader import read_dataset, read_shard
from audiofoundation.shards.sample import Sample, SampleMeta, sample_key
from audiofoundation.shards.writer import ShardSummary, ShardWriter
from audiofoundation.storage.object_store import ObjectStore

MEL = get_preset("vocos24")


def sample(index: int, *, has_waveform: bool = True) -> Sample:
    rng = np.random.default_rng(index)
    sound = (0.1 * rng.standard_normal(10 * MEL.hop_length)).astype(np.float32)
    meta = SampleMeta(
        item_id=ItemId("item_1"),
        asset_id=AssetId("asset_1"),
        asset_sha256=Sha256("0" * 64),
        segment_index=index,
        offset_s=index * 0.1,
        duration_s=sound.size / MEL.sample_rate_hz,
        num_samples=sound.size,
        sample_rate_hz=MEL.sample_rate_hz,
        gain_db=0.0,
        loudness_lufs=-23.4,
        mel_preset=MEL.name,
        mel_fingerprint=MEL.fingerprint,
        quality=measure_quality(Waveform(sound[None], MEL.sample_rate_hz)),
    )
    mel_TF = rng.standard_normal((10, MEL.num_bands)).astype(np.float16)
    waveform = (sound * 32767).astype(np.int16) if has_waveform else None
    return Sample(sample_key(ItemId("item_1"), index), mel_TF, meta, waveform)


def write(path: Path, *samples: Sample) -> ShardSummary:
    with ShardWriter(path) as writer:
        for one in samples:
            writer.write(one)
        return writer.finish()


def manifest_of(*summaries: tuple[str, ShardSummary], fingerprint: str = MEL.fingerprint) -> DatasetManifest:
    records = tuple(
        ShardRecord(
            index=index,
            key=key,
            size_bytes=summary.size_bytes,
            sha256=summary.sha256,
            num_samples=summary.num_samples,
            duration_s=summary.num_audio_samples / MEL.sample_rate_hz,
        )
        for index, (key, summary) in enumerate(summaries)
    )
    return DatasetManifest(
        dataset_id=DatasetId("ds_1"),
        collection_id=CollectionId("col_1"),
        mel_preset=MEL.name,
        mel_fingerprint=fingerprint,
        segment_s=3.0,
        has_waveform=True,
        num_items=1,
        num_samples=sum(record.num_samples for record in records),
        duration_s=sum(record.duration_s for record in records),
        shards=records,
    )


def assert_equal(one: Sample, other: Sample) -> None:
    assert (one.key, one.meta) == (other.key, other.meta)
    np.testing.assert_array_equal(one.mel_TF, other.mel_TF)
    assert (one.waveform is None) == (other.waveform is None)
    if one.waveform is not None and other.waveform is not None:
        np.testing.assert_array_equal(one.waveform, other.waveform)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    samples = [sample(0), sample(1, has_waveform=False)]
    summary = write(tmp_path / "a.tar", *samples)
    for found, expected in zip(read_shard(tmp_path / "a.tar"), samples, strict=True):
        assert_equal(found, expected)
    data = (tmp_path / "a.tar").read_bytes()
    assert summary == ShardSummary(len(data), sha256_of(data), 2, 2 * 10 * MEL.hop_length)


def test_two_channels_are_written_and_read(tmp_path: Path) -> None:
    plain = sample(0)
    assert plain.waveform is not None
    sides = np.stack([plain.waveform, -3 * (plain.waveform // 4)])
    stereo = replace(plain, waveform=sides, meta=plain.meta.model_copy(update={"num_channels": 2}))
    write(tmp_path / "a.tar", stereo)
    (found,) = read_shard(tmp_path / "a.tar")
    assert_equal(found, stereo)
    mono = found.mono()
    assert mono is not None
    assert mono.dtype == np.int16
    assert np.abs(mono - sides.astype(np.float64).mean(axis=0)).max() <= 0.5
    np.testing.assert_array_equal(plain.mono(), plain.waveform)
    assert sample(0, has_waveform=False).mono() is None


def test_a_shard_from_before_there_were_channels_is_read(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", sample(0))
    data = (tmp_path / "a.tar").read_bytes()
    name = b'"num_channels":1,'
    assert data.count(name) == 1
    (tmp_path / "a.tar").write_bytes(data.replace(name, b" " * len(name)))
    (found,) = read_shard(tmp_path / "a.tar")
    assert_equal(found, sample(0))


@pytest.mark.parametrize("num_channels", [1, 2])
def test_a_waveform_of_other_channels_than_its_json_says_is_told(num_channels: int, tmp_path: Path) -> None:
    plain = sample(0)
    assert plain.waveform is not None
    wrong = plain.waveform if num_channels == 2 else np.stack([plain.waveform] * 2)
    meta = plain.meta.model_copy(update={"num_channels": num_channels})
    write(tmp_path / "a.tar", replace(plain, waveform=wrong, meta=meta))
    with pytest.raises(ShardCorrupt, match=f"says {num_channels} channels"):
        list(read_shard(tmp_path / "a.tar"))


def test_the_same_samples_are_the_same_bytes(tmp_path: Path) -> None:
    assert write(tmp_path / "a.tar", sample(0)) == write(tmp_path / "b.tar", sample(0))


def test_any_tar_reader_sees_the_webdataset_layout(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", sample(0))
    with tarfile.open(tmp_path / "a.tar") as archive:
        names = archive.getnames()
    assert names == [f"item_1-000000.{suffix}" for suffix in ("json", "mel.npy", "wave.npy")]


def test_a_shard_is_to_the_byte_what_tarfile_and_numpy_write(tmp_path: Path) -> None:
    samples = [sample(0), sample(1, has_waveform=False)]
    write(tmp_path / "a.tar", *samples)

    with tarfile.open(tmp_path / "b.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for one in samples:
            add(archive, f"{one.key}.json", one.meta.model_dump_json().encode())
            for suffix, array in (("mel.npy", one.mel_TF), ("wave.npy", one.waveform)):
                if array is not None:
                    buffer = BytesIO()
                    np.save(buffer, array)
                    add(archive, f"{one.key}.{suffix}", buffer.getvalue())

    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size, header.mode = len(data), 0o444
    archive.addfile(header, BytesIO(data))


@pytest.mark.parametrize("key", ["k" * 96, "é"])
def test_a_key_that_no_tar_header_holds_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match=r"tar header|ascii"):
        write(tmp_path / "a.tar", replace(sample(0), key=key))


def test_an_empty_shard_is_an_empty_tar(tmp_path: Path) -> None:
    assert write(tmp_path / "a.tar").num_samples == 0
    assert list(read_shard(tmp_path / "a.tar")) == []


@pytest.mark.parametrize("keep", [100, 700, 3000])
def test_a_cut_shard_is_told(tmp_path: Path, keep: int) -> None:
    write(tmp_path / "a.tar", sample(0), sample(1))
    data = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "b.tar").write_bytes(data[:keep])
    with pytest.raises(ShardCorrupt):
        list(read_shard(tmp_path / "b.tar"))


def test_something_else_is_no_shard(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"RIFF" * 1000)
    with pytest.raises(ShardCorrupt):
        list(read_shard(tmp_path / "a.tar"))


def test_a_manifest_is_verified_and_survives(store: ObjectStore, tmp_path: Path) -> None:
    manifest = manifest_of(("a", write(tmp_path / "a.tar", sample(0))))
    data = manifest.to_bytes()
    store.put_bytes("manifest", data)
    assert load_manifest(store, "manifest", sha256_of(data)) == manifest
    with pytest.raises(ObjectCorrupt):
        load_manifest(store, "manifest", Sha256("0" * 64))


@pytest.mark.parametrize("data", [b"", b"{}", b"not json"])
def test_what_is_no_manifest_is_told(data: bytes) -> None:
    with pytest.raises(ShardCorrupt):
        parse_manifest(data)


def test_a_manifest_of_a_later_version_is_refused_in_words(tmp_path: Path) -> None:
    manifest = manifest_of(("a", write(tmp_path / "a.tar", sample(0)))).model_copy(update={"format_version": 99})
    with pytest.raises(ShardCorrupt, match="upgrade"):
        parse_manifest(manifest.to_bytes())


def test_a_dataset_is_read_in_order_and_from_the_cache(store: ObjectStore, tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.tar", sample(0), sample(1)), write(tmp_path / "b.tar", sample(2))
    store.put_file("a", tmp_path / "a.tar")
    store.put_file("b", tmp_path / "b.tar")
    manifest = manifest_of(("a", first), ("b", second))
    cache = tmp_path / "cache"
    expected = [sample(0), sample(1), sample(2)]
    for found, wanted in zip(read_dataset(store, manifest, cache_dir=cache), expected, strict=True):
        assert_equal(found, wanted)
    store.delete("a")
    store.delete("b")
    assert len(list(read_dataset(store, manifest, cache_dir=cache))) == 3


def test_a_flipped_bit_never_reaches_a_reader(store: ObjectStore, tmp_path: Path) -> None:
    summary = write(tmp_path / "a.tar", sample(0))
    data = bytearray((tmp_path / "a.tar").read_bytes())
    data[1500] ^= 1
    store.put_bytes("a", bytes(data))
    with pytest.raises(ObjectCorrupt):
        list(read_dataset(store, manifest_of(("a", summary))))


def test_another_mel_is_refused_before_anything_is_read(store: ObjectStore) -> None:
    with pytest.raises(MelMismatch):
        list(read_dataset(store, manifest_of(fingerprint="0" * 16)))
