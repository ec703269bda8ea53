"""Planning: stored recordings that a dataset does not have yet become shards with a job each."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import exists, func, insert, select, update
from sqlalchemy.orm import aliased

from audiofoundation.catalog.tables import Asset, Collection, Dataset, DatasetItem, Item, Shard
from audiofoundation.identifiers import CollectionId, DatasetId, derive_id
from audiofoundation.jobs.kinds import JobKind
from audiofoundation.jobs.queue import UnitOfWork
from audiofoundation.preprocessing.options import DatasetOptions, dataset_id_of
from audiofoundation.preprocessing.states import DatasetItemState, DatasetState, ShardState

TARGET_SHARD_BYTES = 256 << 20
# Below this a shard of its own does not pay: opening, committing and listing it cost more.
MIN_SHARD_S = 600.0
_STORED = "stored"


@dataclass(frozen=True, slots=True)
class PlannedItem:
    """A recording to put into a shard."""

    item_id: str
    duration_s: float


def plan_dataset(unit: UnitOfWork, collection: Collection, options: DatasetOptions, *, num_workers: int) -> DatasetId:
    """Make the dataset, if there is none, and give every stored recording that it lacks a shard.

    Shards whose jobs ended in failure are tried again. Asking twice changes nothing.

    Args:
        unit: the transaction; jobs go out when it commits.
        collection: where recordings come from.
        options: what the dataset looks like.
        num_workers: how many shards may be made at once; a large plan has at least twice as many.
    """
    dataset = _ensure_dataset(unit, collection, options)
    items = _missing_items(unit, dataset)
    groups = list(group_items(items, max_s=_shard_s(items, options, num_workers)))
    first = unit.session.scalar(select(func.count()).where(Shard.dataset_id == dataset.id)) or 0
    for shard_index, group in enumerate(groups, start=first):
        _add_shard(unit, dataset.id, shard_index, group)
    num_retried = _retry_failed(unit, dataset.id)
    if groups or num_retried:
        dataset.state = DatasetState.BUILDING
    elif dataset.state == DatasetState.BUILDING:
        enqueue_commit_if_complete(unit, dataset.id)
    return DatasetId(dataset.id)


def group_items(items: Iterable[PlannedItem], *, max_s: float) -> Iterator[list[PlannedItem]]:
    """Yield groups in order whose durations add up to about `max_s` and no more, unless one item does."""
    group: list[PlannedItem] = []
    total_s = 0.0
    for item in items:
        if group and total_s + item.duration_s > max_s:
            yield group
            group, total_s = [], 0.0
        group.append(item)
        total_s += item.duration_s
    if group:
        yield group


def enqueue_commit_if_complete(unit: UnitOfWork, dataset_id: str) -> None:
    """Enqueue the manifest's job once no shard is under way. Call it in the transaction that ends a shard.

    The dataset's row is locked first: of two last shards that end at once, one must see the other. Shards that were
    made again bring a job of their own: one that runs already has looked at them as they were before.
    """
    unit.session.execute(select(Dataset.id).where(Dataset.id == dataset_id).with_for_update())
    rows = unit.session.execute(
        select(Shard.state, func.count(), func.sum(Shard.generation))
        .where(Shard.dataset_id == dataset_id)
        .group_by(Shard.state)
    ).all()
    counts = {row[0]: row[1] for row in rows}
    num_rewritten = sum(int(row[2]) for row in rows)
    if counts.get(ShardState.QUEUED, 0):
        return
    round_ = f"{counts.get(ShardState.COMMITTED, 0)}-{counts.get(ShardState.FAILED, 0)}-{num_rewritten}"
    unit.enqueue(
        JobKind.PREPROCESS_COMMIT,
        key=f"preprocess.commit:{dataset_id}:{round_}",
        subject_id=dataset_id,
        is_requeue=True,
    )


def _ensure_dataset(unit: UnitOfWork, collection: Collection, options: DatasetOptions) -> Dataset:
    dataset_id = dataset_id_of(CollectionId(collection.id), options)
    # Locking the collection serialises plans: two at once would both give an item a shard.
    unit.session.execute(select(Collection.id).where(Collection.id == collection.id).with_for_update())
    found = unit.session.get(Dataset, dataset_id)
    if found is not None:
        return found
    dataset = Dataset(
        id=dataset_id,
        collection_id=collection.id,
        preset=options.preset,
        mel_fingerprint=options.mel.fingerprint,
        config=options.to_config(),
    )
    unit.session.add(dataset)
    unit.session.flush()
    return dataset


def _missing_items(unit: UnitOfWork, dataset: Dataset) -> list[PlannedItem]:
    """Stored recordings that the dataset lacks, in order of the items' ids: a shuffle that never changes.

    Of items with the same bytes (one recording under several addresses) one stands for all, in takedowns too.
    """
    # Two entries of indexes for each item tell that almost all are there. Which bytes are there under another address
    # is asked of the few that are left, as a set: item by item, bytes with many addresses would cost their square.
    is_there = exists().where(DatasetItem.dataset_id == dataset.id, DatasetItem.item_id == Item.id)
    is_new = (Item.collection_id == dataset.collection_id) & (Item.state == _STORED) & ~is_there
    twin = aliased(Item)
    held = (
        select(twin.asset_id)
        .join(DatasetItem, (DatasetItem.dataset_id == dataset.id) & (DatasetItem.item_id == twin.id))
        .where(twin.asset_id.in_(select(Item.asset_id).where(is_new)))
    )
    rows = unit.session.execute(
        select(Item.id, Item.asset_id, Asset.duration_s)
        .join(Asset, Asset.id == Item.asset_id)
        .where(is_new, Asset.tombstoned_at.is_(None), Item.asset_id.not_in(held))
        .order_by(Item.id)
    )
    firsts: dict[str | None, PlannedItem] = {}
    for item_id, asset_id, duration_s in rows:
        firsts.setdefault(asset_id, PlannedItem(item_id, duration_s))
    return list(firsts.values())


def _shard_s(items: Sequence[PlannedItem], options: DatasetOptions, num_workers: int) -> float:
    total_s = sum(item.duration_s for item in items)
    return min(TARGET_SHARD_BYTES / options.bytes_per_s, max(MIN_SHARD_S, total_s / (2 * num_workers)))


def _add_shard(unit: UnitOfWork, dataset_id: str, shard_index: int, group: Sequence[PlannedItem]) -> None:
    shard_id = derive_id("shard", dataset_id, str(shard_index))
    now = time.time()
    unit.session.add(Shard(id=shard_id, dataset_id=dataset_id, shard_index=shard_index))
    unit.session.flush()
    rows = [
        {
            "dataset_id": dataset_id,
            "item_id": item.item_id,
            "shard_id": shard_id,
            "state": DatasetItemState.QUEUED,
            "num_segments": 0,
            "duration_s": 0.0,
            "created_at": now,
            "updated_at": now,
        }
        for item in group
    ]
    unit.session.connection().execute(insert(DatasetItem), rows)
    unit.enqueue(JobKind.PREPROCESS_SHARD, key=f"preprocess.shard:{shard_id}", subject_id=shard_id)


def _retry_failed(unit: UnitOfWork, dataset_id: str) -> int:
    is_failed = (Shard.dataset_id == dataset_id) & (Shard.state == ShardState.FAILED)
    failed = unit.session.scalars(select(Shard.id).where(is_failed)).all()
    for shard_id in failed:
        unit.session.execute(update(Shard).where(Shard.id == shard_id).values(state=ShardState.QUEUED))
        unit.session.execute(
            update(DatasetItem)
            .where(DatasetItem.shard_id == shard_id, DatasetItem.state != DatasetItemState.TOMBSTONED)
            .values(state=DatasetItemState.QUEUED, error_class=None, error=None)
        )
        unit.enqueue(
            JobKind.PREPROCESS_SHARD,
            key=f"preprocess.shard:{shard_id}",
            subject_id=shard_id,
            is_requeue=True,
        )
    return len(failed)
