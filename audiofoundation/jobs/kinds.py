"""The kinds of short jobs and the queues that carry them."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class JobKind(StrEnum):
    """What a job does. The value is stored in the catalog."""

    INGEST_ITEM = "ingest.item"
    INGEST_EXPAND = "ingest.expand"
    PREPROCESS_SHARD = "preprocess.shard"
    PREPROCESS_COMMIT = "preprocess.commit"
    PREPROCESS_REWRITE = "preprocess.rewrite"
    PURGE = "ingest.purge"
    TRAIN_RUN = "train.run"
    NOOP = "maintenance.noop"


class JobState(StrEnum):
    """Where a job stands. `done`, `failed`, `dead` and `cancelled` are terminal."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    DEAD = "dead"
    CANCELLED = "cancelled"


TERMINAL_STATES = frozenset({JobState.DONE, JobState.FAILED, JobState.DEAD, JobState.CANCELLED})

QUEUE_OF: Mapping[JobKind, str] = MappingProxyType(
    {
        JobKind.INGEST_ITEM: "ingest",
        JobKind.INGEST_EXPAND: "ingest",
        JobKind.PREPROCESS_SHARD: "preprocess.cpu",
        JobKind.PREPROCESS_COMMIT: "preprocess.cpu",
        JobKind.PREPROCESS_REWRITE: "preprocess.cpu",
        JobKind.PURGE: "ingest",
        JobKind.TRAIN_RUN: "train",
        JobKind.NOOP: "maintenance",
    }
)
