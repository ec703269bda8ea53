"""States of datasets, their shards and their items."""

from enum import StrEnum


class DatasetState(StrEnum):
    """`ready` datasets have a manifest; new recordings put them back to `building` until the next one."""

    BUILDING = "building"
    READY = "ready"


class ShardState(StrEnum):
    """A shard exists for readers once it is `committed`."""

    QUEUED = "queued"
    COMMITTED = "committed"
    FAILED = "failed"


class DatasetItemState(StrEnum):
    """`skipped` recordings are sound but gave no segment; `failed` ones could not be read.

    `tombstoned` ones were taken down: no shard that readers see holds them.
    """

    QUEUED = "queued"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"
    TOMBSTONED = "tombstoned"
