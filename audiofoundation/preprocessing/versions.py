"""Versions of a dataset: which shards each manifest names, and when one has to go."""

import time
from dataclasses import dataclass

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from audiofoundation.catalog.tables import DatasetItem, DatasetVersion, DoomedObject, Item, Shard, VersionShard
from audiofoundation.catalog.tombstones import doom, let_go
from audiofoundation.identifiers import Sha256
from audiofoundation.jobs.kinds import JobKind
from audiofoundation.jobs.queue import UnitOfWork
from audiofoundation.jobs.removal import enqueue_purge
from audiofoundation.preprocessing.states import DatasetItemState, ShardState
from audiofoundation.shards.manifest import DatasetManifest

_TOMBSTONED = "tombstoned"


@dataclass(frozen=True, slots=True)
class ShardsAsOf:
    """What a manifest describes: while this stays the same, so does the list of shards."""

    num_committed: int
    num_rewritten: int


def shards_as_of(session: Session, dataset_id: str) -> ShardsAsOf:
    """Return where the dataset's shards stand."""
    is_committed = (Shard.dataset_id == dataset_id) & (Shard.state == ShardState.COMMITTED)
    counted = select(func.count(), func.coalesce(func.sum(Shard.generation), 0)).where(is_committed)
    num_committed, num_rewritten = session.execute(counted).one()
    return ShardsAsOf(num_committed, int(num_rewritten))


def record_version(unit: UnitOfWork, manifest: DatasetManifest, key: str, sha256: Sha256) -> None:
    """Write the version that the dataset's committed shards make up now, and let go of those that name older shards.

    Call it with the dataset's row locked, when the manifest describes the shards as they are.
    """
    session = unit.session
    if session.get(DatasetVersion, sha256) is None:
        session.add(
            DatasetVersion(
                manifest_sha256=sha256,
                dataset_id=manifest.dataset_id,
                key=key,
                num_items=manifest.num_items,
                num_samples=manifest.num_samples,
                duration_s=manifest.duration_s,
                created_at=time.time(),
            )
        )
        session.flush()
        is_named = (Shard.dataset_id == manifest.dataset_id) & (Shard.state == ShardState.COMMITTED)
        named = session.execute(select(Shard.id, Shard.generation).where(is_named, Shard.key.is_not(None))).all()
        if named:
            rows = [{"manifest_sha256": sha256, "shard_id": row.id, "generation": row.generation} for row in named]
            session.connection().execute(insert(VersionShard), rows)
    _retire_older(session, manifest.dataset_id)
    if let_go(session, manifest.dataset_id):
        enqueue_purge(unit, manifest.dataset_id)


def enqueue_new_version(unit: UnitOfWork, shard_id: str, dataset_id: str, generation: int) -> None:
    """Have the dataset described again after a rewrite, even while other shards are still being made."""
    key = f"{JobKind.PREPROCESS_COMMIT.value}:{dataset_id}:{shard_id}-{generation}"
    unit.enqueue(JobKind.PREPROCESS_COMMIT, key=key, subject_id=dataset_id, is_requeue=True)


def tainted_items(session: Session, shard_id: str) -> list[str]:
    """Return the items in a committed shard that were taken down since it was made."""
    is_in = (DatasetItem.shard_id == shard_id) & (DatasetItem.state == DatasetItemState.DONE)
    gone = select(DatasetItem.item_id).join(Item, Item.id == DatasetItem.item_id)
    return list(session.scalars(gone.where(is_in, Item.state == _TOMBSTONED).order_by(DatasetItem.item_id)))


def tombstone_absent_items(session: Session, shard_id: str) -> None:
    """Mark the items that were taken down and of which a shard holds nothing. Call it with the shard's row locked."""
    gone = select(Item.id).where(Item.state == _TOMBSTONED)
    is_absent = (DatasetItem.shard_id == shard_id) & (DatasetItem.state != DatasetItemState.DONE)
    session.execute(
        update(DatasetItem).where(is_absent, DatasetItem.item_id.in_(gone)).values(state=DatasetItemState.TOMBSTONED)
    )


def is_version_missing(session: Session, dataset_id: str) -> bool:
    """Tell whether shards were written again and no manifest names the new ones yet."""
    waiting = (DoomedObject.owner_id == dataset_id) & DoomedObject.is_due.is_(False)
    return session.scalar(select(DoomedObject.key).where(waiting)) is not None


def _retire_older(session: Session, dataset_id: str) -> None:
    """Doom the manifests that name a shard as it was before it was written again."""
    older = (
        select(DatasetVersion.key)
        .join(VersionShard, VersionShard.manifest_sha256 == DatasetVersion.manifest_sha256)
        .join(Shard, Shard.id == VersionShard.shard_id)
        .where(
            DatasetVersion.dataset_id == dataset_id,
            DatasetVersion.deleted_at.is_(None),
            VersionShard.generation < Shard.generation,
        )
    )
    doom(session, session.scalars(older.distinct()), owner_id=dataset_id, is_due=True)
