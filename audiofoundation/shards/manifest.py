"""A dataset's manifest: the immutable list of its shards. One version of a dataset is one manifest hash."""

from pydantic import BaseModel, ConfigDict

from audiofoundation.errors import ShardCorrupt
from audiofoundation.features.mel import MelConfig, get_preset
from audiofoundation.identifiers import CollectionId, DatasetId, Sha256, sha256_of
from audiofoundation.storage.object_store import ObjectStore

FORMAT_VERSION = 1


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ShardRecord(_Record):
    """One shard: where it lies and what it holds; `index_sha256` is the hash of its index (`shards.index`)."""

    index: int
    key: str
    size_bytes: int
    sha256: Sha256
    num_samples: int
    duration_s: float
    index_sha256: Sha256 | None = None


class DatasetManifest(_Record):
    """Everything that a reader needs to know of a dataset.

    Attributes:
        format_version: of this record.
        dataset_id: the dataset.
        collection_id: the collection it was made from.
        mel_preset: name of the preset.
        mel_fingerprint: its fingerprint; readers refuse another.
        segment_s: length of a segment; the last one of a recording may be shorter.
        has_waveform: whether samples carry a waveform.
        num_items: recordings that gave at least one segment.
        num_samples: segments.
        duration_s: their length together.
        shards: in order.
    """

    format_version: int = FORMAT_VERSION
    dataset_id: DatasetId
    collection_id: CollectionId
    mel_preset: str
    mel_fingerprint: str
    segment_s: float
    has_waveform: bool
    num_items: int
    num_samples: int
    duration_s: float
    shards: tuple[ShardRecord, ...]

    def mel_config(self) -> MelConfig:
        """Return the preset. Raises MelMismatch when it no longer is what the shards were made with."""
        config = get_preset(self.mel_preset)
        config.require(self.mel_fingerprint, what=f"dataset {self.dataset_id}")
        return config

    def to_bytes(self) -> bytes:
        """Return the JSON that is stored and hashed."""
        return self.model_dump_json(indent=1).encode()


def load_manifest(store: ObjectStore, key: str, sha256: Sha256) -> DatasetManifest:
    """Read and verify a manifest.

    Raises:
        ObjectNotFound: there is none under the key.
        ObjectCorrupt: it is not what was written.
        ShardCorrupt: its format is unknown.
    """
    return parse_manifest(store.get_bytes(key, sha256=sha256))


def parse_manifest(data: bytes) -> DatasetManifest:
    """Return the manifest that the bytes hold. Raises ShardCorrupt."""
    try:
        manifest = DatasetManifest.model_validate_json(data)
    except ValueError as error:
        raise ShardCorrupt(f"the manifest {sha256_of(data)[:12]} is not one: {error}") from error
    if manifest.format_version > FORMAT_VERSION:
        raise ShardCorrupt(
            f"the manifest has format {manifest.format_version}, this version reads up to {FORMAT_VERSION}; "
            "upgrade audiofoundation"
        )
    return manifest
