"""Reading shards back, verified."""

import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from audiofoundation.errors import ShardCorrupt
from audiofoundation.shards.manifest import DatasetManifest, ShardRecord
from audiofoundation.shards.sample import Int16, Sample, SampleMeta
from audiofoundation.shards.writer import JSON_SUFFIX, MEL_SUFFIX, WAVE_SUFFIX
from audiofoundation.storage.object_store import ObjectStore


def read_dataset(store: ObjectStore, manifest: DatasetManifest, *, cache_dir: Path | None = None) -> Iterator[Sample]:
    """Yield every sample of a dataset, shard after shard, in the order in which they were written.

    Args:
        store: where the shards lie.
        manifest: which shards.
        cache_dir: keeps verified shards for the next time; without it each is dropped after reading.

    Raises:
        MelMismatch: the dataset's preset has changed since.
        ObjectCorrupt, ShardCorrupt: a shard is not what was written.
    """
    manifest.mel_config()
    for record in manifest.shards:
        with tempfile.TemporaryDirectory(prefix="shard-") as spare:
            yield from read_shard(fetch_shard(store, record, cache_dir or Path(spare)))


def fetch_shard(store: ObjectStore, record: ShardRecord, cache_dir: Path) -> Path:
    """Return a local, verified copy of a shard; what lies in the cache was verified when it was put there.

    Raises:
        ObjectNotFound: the shard is gone.
        ObjectCorrupt: it is not what was written.
    """
    path = cache_dir / f"{record.sha256}.tar"
    if not path.exists() or path.stat().st_size != record.size_bytes:
        store.get_to_file(record.key, path, sha256=record.sha256)
    return path


def read_shard(path: Path) -> Iterator[Sample]:
    """Yield the samples of one tar.

    Raises:
        ShardCorrupt: it is not a shard of ours, or damaged.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            for key, members in _grouped(archive, path):
                yield to_sample(key, members, path)
    except (tarfile.TarError, EOFError) as error:
        raise ShardCorrupt(f"the shard {path.name} is not a whole tar: {error}") from error


def _grouped(archive: tarfile.TarFile, path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield each key with its members' bytes; members of one key lie together."""
    key, members = "", dict[str, bytes]()
    for info in archive:
        stem, _, suffix = info.name.partition(".")
        if stem != key and members:
            yield key, members
            members = {}
        key = stem
        members[suffix] = _content(archive.extractfile(info), info.name, path)
    if members:
        yield key, members


def _content(stream: IO[bytes] | None, name: str, path: Path) -> bytes:
    if stream is None:
        raise ShardCorrupt(f"the shard {path.name} has a member {name!r} that is no file")
    return stream.read()


def to_sample(key: str, members: Mapping[str, bytes], path: Path) -> Sample:
    """Return a sample of its members' bytes by suffix. Raises ShardCorrupt."""
    try:
        meta = SampleMeta.model_validate_json(members[JSON_SUFFIX])
        mel_TF = _array(members[MEL_SUFFIX]).astype(np.float16, copy=False)
        wave = members.get(WAVE_SUFFIX)
        waveform = None if wave is None else _waveform(wave, meta.num_channels)
    except (KeyError, ValueError) as error:
        raise ShardCorrupt(f"the sample {key!r} of the shard {path.name} cannot be read: {error}") from error
    return Sample(key, mel_TF, meta, waveform)


def _waveform(data: bytes, num_channels: int) -> Int16:
    """Return int16 [N] or [channels, N]. Raises ValueError when it has another shape than its JSON says."""
    found = _array(data).astype(np.int16, copy=False)
    if found.shape[:-1] != (() if num_channels == 1 else (num_channels,)):
        raise ValueError(f"its waveform has shape {found.shape}, its JSON says {num_channels} channels")
    return found


def _array(data: bytes) -> NDArray[np.generic]:
    found: NDArray[np.generic] = np.lib.format.read_array(BytesIO(data), allow_pickle=False)
    return found
