"""Typed ids and content hashes."""

import hashlib
import os
import time
import uuid
from typing import BinaryIO, NewType

CollectionId = NewType("CollectionId", str)
ItemId = NewType("ItemId", str)
AssetId = NewType("AssetId", str)
DatasetId = NewType("DatasetId", str)
ShardId = NewType("ShardId", str)
RunId = NewType("RunId", str)
CheckpointId = NewType("CheckpointId", str)
ModelId = NewType("ModelId", str)
JobId = NewType("JobId", str)
Sha256 = NewType("Sha256", str)

_READ_BYTES = 1 << 20


def create_id(prefix: str) -> str:
    """Return a time-ordered id such as `item_0192f3…`: a UUIDv7 (RFC 9562) in hex behind a prefix.

    Time order keeps inserts at the end of the catalog's indexes. Its 12 bits below the millisecond (method 3 of
    the RFC) are finer than a call is long, so ids of one process sort as they were made. An id is never a
    permission.
    """
    milliseconds, rest_ns = divmod(time.time_ns(), 1_000_000)
    fraction = (rest_ns << 12) // 1_000_000
    raw = bytearray(milliseconds.to_bytes(6, "big") + fraction.to_bytes(2, "big") + os.urandom(8))
    raw[6] = 0x70 | raw[6]
    raw[8] = 0x80 | (raw[8] & 0x3F)
    return f"{prefix}_{uuid.UUID(bytes=bytes(raw)).hex}"


def derive_id(prefix: str, *parts: str) -> str:
    """Return the id that these parts always give, so that asking twice makes nothing twice."""
    joined = "\x1f".join(parts).encode()
    return f"{prefix}_{sha256_of(joined)[:32]}"


def sha256_of(data: bytes) -> Sha256:
    """Return the lower-case hex SHA-256 of the bytes."""
    return Sha256(hashlib.sha256(data).hexdigest())


def sha256_of_stream(stream: BinaryIO) -> Sha256:
    """Return the SHA-256 of what is left in the stream, read in blocks."""
    digest = hashlib.sha256()
    while block := stream.read(_READ_BYTES):
        digest.update(block)
    return Sha256(digest.hexdigest())
