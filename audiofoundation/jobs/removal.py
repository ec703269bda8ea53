"""Enqueueing what a takedown has to do; both services need it."""

from audiofoundation.jobs.kinds import JobKind
from audiofoundation.jobs.queue import UnitOfWork


def enqueue_purge(unit: UnitOfWork, owner_id: str) -> None:
    """Have the doomed objects of an asset, an item or a dataset deleted."""
    _enqueue(unit, JobKind.PURGE, owner_id)


def enqueue_rewrite(unit: UnitOfWork, shard_id: str) -> None:
    """Have a committed shard written again without what was taken down."""
    _enqueue(unit, JobKind.PREPROCESS_REWRITE, shard_id)


def _enqueue(unit: UnitOfWork, kind: JobKind, subject_id: str) -> None:
    unit.enqueue(kind, key=f"{kind.value}:{subject_id}", subject_id=subject_id, is_requeue=True)
