"""Where each sample lies in its shard: what `writer` notes and `index` reads."""

from pydantic import BaseModel, ConfigDict

from audiofoundation.identifiers import Sha256


class SamplePlace(BaseModel):
    """Where a sample's members lie, headers included: `size` bytes from `offset` on, and their hash."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    offset: int
    size: int
    sha256: Sha256


class ShardIndex(BaseModel):
    """The samples of one shard by their keys, in the order in which they lie there."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    shard_sha256: Sha256
    samples: dict[str, SamplePlace]

    def to_bytes(self) -> bytes:
        """Return the JSON that is stored and hashed."""
        return self.model_dump_json().encode()
