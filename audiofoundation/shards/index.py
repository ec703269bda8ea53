"""Where each sample lies in its shard, so that one can be read without the rest.

The index is a JSON object beside the tar, named and hashed in the manifest. A sample's members lie together:
one range of bytes, with a hash of its own, is all that is fetched.
"""

import tarfile
from io import BytesIO
from pathlib import Path

from audiofoundation.errors import ObjectCorrupt, ShardCorrupt
from audiofoundation.identifiers import sha256_of
from audiofoundation.shards.manifest import ShardRecord
from audiofoundation.shards.places import ShardIndex
from audiofoundation.shards.reader import to_sample
from audiofoundation.shards.sample import Sample
from audiofoundation.storage.object_store import ObjectStore

_SUFFIX = ".index.json"


def index_key(shard_key: str) -> str:
    """Return the key of a shard's index."""
    return shard_key + _SUFFIX


def load_index(store: ObjectStore, record: ShardRecord) -> ShardIndex:
    """Read and verify a shard's index.

    Raises:
        ShardCorrupt: the shard was made without one, or it is none.
        ObjectNotFound: it is gone.
        ObjectCorrupt: it is not what was written.
    """
    if record.index_sha256 is None:
        raise ShardCorrupt(f"the shard {record.key} has no index: read it from its beginning")
    data = store.get_bytes(index_key(record.key), sha256=record.index_sha256)
    try:
        index = ShardIndex.model_validate_json(data)
    except ValueError as error:
        raise ShardCorrupt(f"the index of the shard {record.key} is none: {error}") from error
    if index.shard_sha256 != record.sha256:
        raise ShardCorrupt(f"the index of the shard {record.key} belongs to another")
    return index


def read_sample(store: ObjectStore, record: ShardRecord, index: ShardIndex, key: str) -> Sample:
    """Fetch and verify one sample.

    Raises:
        KeyError: the shard holds none of that name.
        ObjectNotFound: the shard is gone.
        ObjectCorrupt: the range is not what was written.
        ShardCorrupt: it is no sample.
    """
    place = index.samples[key]
    data = store.get_range(record.key, place.offset, place.size)
    if sha256_of(data) != place.sha256:
        raise ObjectCorrupt(f"the sample {key!r} of {record.key} is not what was written")
    path = Path(record.key)
    try:
        with tarfile.open(fileobj=BytesIO(data), mode="r:") as archive:
            members = {info.name.partition(".")[2]: data[info.offset_data :][: info.size] for info in archive}
    except tarfile.TarError as error:
        raise ShardCorrupt(f"the sample {key!r} of the shard {path.name} is no tar: {error}") from error
    return to_sample(key, members, path)
