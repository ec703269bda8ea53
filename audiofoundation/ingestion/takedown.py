"""Taking recordings down: the catalog forgets their bytes at once, jobs remove every object that holds them.

One transaction writes the tombstones and everything that has to follow: what was asked survives any crash, and
asking again continues it. Then
- `ingest.purge` deletes the original bytes;
- `preprocess.rewrite` writes each shard again without the recordings' samples;
- `preprocess.commit` gives the dataset a new manifest, and
- `ingest.purge` deletes the old shards and manifests.
"""

import time
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from sqlalchemy import Select, delete, func, select, update
from sqlalchemy.orm import Session

from audiofoundation.catalog.item_states import ItemChange, change_items
from audiofoundation.catalog.tables import Asset, Collection, DatasetItem, DoomedObject, Item, Job, Probe, Run, Shard
from audiofoundation.catalog.tombstones import add_tombstones, content_name, doom, taken_down
from audiofoundation.errors import InvalidRequest, NotFound
from audiofoundation.identifiers import JobId, Sha256
from audiofoundation.ingestion.item_rows import item_id_of
from audiofoundation.ingestion.lineage import chunks, hint_of_files, runs_that_saw
from audiofoundation.ingestion.source import SourceKind, SourceRejected, parse_source
from audiofoundation.ingestion.states import ItemRefused, ItemState, RefusalClass
from audiofoundation.jobs import lease
from audiofoundation.jobs.kinds import JobState
from audiofoundation.jobs.queue import UnitOfWork
from audiofoundation.jobs.removal import enqueue_purge, enqueue_rewrite
from audiofoundation.storage.keys import raw_key

CHANNEL = "channel:"
_COMMITTED, _DONE, _TOMBSTONED = "committed", "done", "tombstoned"  # states of shards and of their items
_QUEUED, _RUNNING = "queued", "running"  # states of runs


@dataclass(frozen=True, slots=True)
class Takedown:
    """What a takedown reaches.

    Attributes:
        items: they are tombstoned.
        assets: their bytes are deleted.
        datasets: they get a version without the items.
        models: they were trained on versions with the items; whether they go is the operator's to say.
        runs: they trained on such versions; those that were not over are cancelled.
        num_pending: objects and samples that are still there; 0 when all is done.
    """

    items: tuple[str, ...]
    assets: tuple[str, ...]
    datasets: tuple[str, ...]
    models: tuple[str, ...]
    runs: tuple[str, ...]
    num_pending: int


@dataclass(frozen=True, slots=True)
class _Target:
    items: tuple[str, ...]
    names: frozenset[str]


def take_down(unit: UnitOfWork, target: str, *, reason: str) -> Takedown:
    """Take down an item, a recording, a source or a channel, by `item_…`, `asset_…`, URL, `youtube:ID`,
    `sha256:HEX` or `channel:NAME`. Other sources of the same bytes go too. Asking again continues and reports.

    Raises:
        NotFound: no such item, asset or channel. A source that is not here is refused from now on.
        SourceRejected: the target names nothing.
    """
    session = unit.session
    found, new_names = _tombstone(session, _resolve(session, target), reason)
    assets = _forget_bytes(unit, found, new_names)
    datasets = _rewrite_shards(unit, found.items)
    runs, models = runs_that_saw(session, found.items)
    _cancel(session, runs)
    num_pending = _num_pending(session, found.items, [*assets, *datasets, *_hashes(found.names)])
    return Takedown(found.items, assets, datasets, models, runs, num_pending)


def require_welcome(session: Session, sha256: Sha256) -> None:
    """Raise ItemRefused when content of this hash was taken down."""
    name = content_name(sha256)
    if reason := taken_down(session, [name]).get(name):
        raise ItemRefused(RefusalClass.TAKEN_DOWN, reason)


def discard_if_taken_down(unit: UnitOfWork, item_id: str, sha256: Sha256) -> bool:
    """Have bytes deleted that came while their takedown was written; return whether they were such.

    Call it in the transaction that would make them count. Bytes that a sound asset names as well stay.
    """
    session = unit.session
    item = session.scalars(select(Item).where(Item.id == item_id).with_for_update()).one()
    names = taken_down(session, [content_name(sha256), item.canonical])
    if not names and item.state != ItemState.TOMBSTONED:
        return False
    reason = next(iter(names.values()), item.error or "")
    change_items(session, Item.id == item_id, ItemChange(ItemState.TOMBSTONED, RefusalClass.TAKEN_DOWN, reason))
    is_sound = (Asset.sha256 == sha256) & Asset.tombstoned_at.is_(None)
    if session.scalar(select(Asset.id).where(is_sound)) is None:
        add_tombstones(session, [content_name(sha256)], reason)
        doom(session, [raw_key(sha256)], owner_id=item_id, is_due=True)
        enqueue_purge(unit, item_id)
    return True


def _resolve(session: Session, target: str) -> _Target:
    """Return the items that are meant, and the sources and contents that are never taken again."""
    if target.startswith(CHANNEL):
        ids = session.scalars(select(Item.id).where(Item.channel == target.removeprefix(CHANNEL))).all()
        if not ids:
            raise NotFound(f"no item is of the channel {target.removeprefix(CHANNEL)!r}", param="target")
        return _with_same_bytes(session, ids, frozenset())
    if target.startswith("asset_"):
        if session.get(Asset, target) is None:
            raise NotFound(f"there is no asset {target!r}", param="target")
        return _with_same_bytes(session, (), frozenset(), assets=(target,))
    if target.startswith("item_"):
        if session.get(Item, target) is None:
            raise NotFound(f"there is no item {target!r}", param="target")
        return _with_same_bytes(session, (target,), frozenset())
    try:
        source = parse_source(target)
    except SourceRejected as error:
        what = "an id (item_…, asset_…), a URL, youtube:ID, sha256:HEX or channel:NAME"
        hint = hint_of_files(session, target)
        raise InvalidRequest(f"{target[:80]!r} is not {what}{hint}", param="target") from error
    ids = [item_id_of(collection, source.canonical) for collection in session.scalars(select(Collection.id))]
    hashes = [source.text] if source.kind is SourceKind.FILE else []
    named = session.scalars(select(Asset.id).where(Asset.sha256.in_(hashes))).all()
    return _with_same_bytes(session, ids, frozenset({source.canonical}), assets=named)


def _with_same_bytes(
    session: Session, ids: Sequence[str], names: frozenset[str], *, assets: Sequence[str] = ()
) -> _Target:
    """Add the other items of the same recordings."""
    asset_ids = set(assets)
    for part in chunks(ids):
        asset_ids.update(session.scalars(select(Item.asset_id).where(Item.id.in_(part), Item.asset_id.is_not(None))))
    items: dict[str, str] = {}
    hashes: set[str] = set()
    for part in chunks(ids):
        items.update({row.id: row.canonical for row in session.execute(_canonicals().where(Item.id.in_(part)))})
    for part in chunks(sorted(asset_ids)):
        items.update({row.id: row.canonical for row in session.execute(_canonicals().where(Item.asset_id.in_(part)))})
        hashes.update(session.scalars(select(Asset.sha256).where(Asset.id.in_(part))))
    return _Target(tuple(sorted(items)), names | set(items.values()) | {content_name(sha) for sha in hashes})


def _tombstone(session: Session, found: _Target, reason: str) -> tuple[_Target, set[str]]:
    """Write the tombstones; return what they cover in the end and the names that are new among them.

    An item's job may have stored its recording just before the item was locked here, and another may wait for the
    recording's row: with both locked one looks again, until nothing is added.
    """
    change = ItemChange(ItemState.TOMBSTONED, RefusalClass.TAKEN_DOWN, reason)
    new_names: set[str] = set()
    while True:
        new_names |= add_tombstones(session, found.names, reason)
        for part in chunks(found.items):
            change_items(session, Item.id.in_(part), change)
            session.execute(delete(Probe).where(Probe.item_id.in_(part)))
        assets: list[str] = []
        for part in chunks(_hashes(found.names)):
            named = select(Asset.id).where(Asset.sha256.in_(part)).order_by(Asset.id)
            assets += session.scalars(named.with_for_update())
        before, found = found, _with_same_bytes(session, found.items, found.names, assets=assets)
        if found == before:
            return found, new_names


def _hashes(names: Iterable[str]) -> list[str]:
    return sorted(name.removeprefix("sha256:") for name in names if name.startswith("sha256:"))


def _forget_bytes(unit: UnitOfWork, found: _Target, new_names: Set[str]) -> tuple[str, ...]:
    """Tombstone the recordings and have their bytes deleted, those of uploads that never became one too."""
    session = unit.session
    asset_ids: list[str] = []
    for sha256 in _hashes(new_names):
        if session.scalar(select(Asset.id).where(Asset.sha256 == sha256)) is None:
            doom(session, [raw_key(Sha256(sha256))], owner_id=sha256, is_due=True)
            enqueue_purge(unit, sha256)
    for part in chunks(_hashes(found.names)):
        rows = session.execute(select(Asset.id, Asset.key, Asset.tombstoned_at).where(Asset.sha256.in_(part))).all()
        for asset_id, key, tombstoned_at in rows:
            asset_ids.append(asset_id)
            if tombstoned_at is None:
                session.execute(update(Asset).where(Asset.id == asset_id).values(tombstoned_at=time.time()))
                doom(session, [key], owner_id=asset_id, is_due=True)
            if session.scalar(select(DoomedObject.key).where(DoomedObject.owner_id == asset_id)) is not None:
                enqueue_purge(unit, asset_id)
    return tuple(asset_ids)


def _rewrite_shards(unit: UnitOfWork, items: Sequence[str]) -> tuple[str, ...]:
    """Have every shard with samples of the items written again; return the datasets.

    A shard's row is locked before it is looked at: its own job does so too and looks for tombstones afterwards, so
    one of the two sees the other.
    """
    session = unit.session
    shards: dict[str, str] = {}
    for part in chunks(items):
        rows = session.execute(
            select(DatasetItem.shard_id, DatasetItem.dataset_id).where(DatasetItem.item_id.in_(part))
        )
        shards.update((shard_id, dataset_id) for shard_id, dataset_id in rows)
    for shard_id in sorted(shards):
        shard = session.scalars(select(Shard).where(Shard.id == shard_id).with_for_update()).one()
        for part in chunks(items):
            never_there = (DatasetItem.shard_id == shard_id) & (DatasetItem.state != _DONE)
            session.execute(
                update(DatasetItem).where(never_there, DatasetItem.item_id.in_(part)).values(state=_TOMBSTONED)
            )
        if shard.state == _COMMITTED:
            enqueue_rewrite(unit, shard_id)
    datasets = tuple(sorted(set(shards.values())))
    for dataset_id in datasets:
        is_left = (DoomedObject.owner_id == dataset_id) & DoomedObject.is_due
        if session.scalar(select(DoomedObject.key).where(is_left)) is not None:
            enqueue_purge(unit, dataset_id)
    return datasets


def _cancel(session: Session, runs: Sequence[str]) -> None:
    """Stop runs that would go on with what was taken down."""
    for run_id in runs:
        run = session.scalars(select(Run).where(Run.id == run_id).with_for_update()).one()
        if run.state not in (_QUEUED, _RUNNING):
            continue
        run.is_cancel_requested = True
        job = session.scalars(select(Job).where(Job.key == f"train.run:{run_id}").with_for_update()).one_or_none()
        if job is not None and job.state == JobState.QUEUED:
            lease.cancel(session, JobId(job.id))
            run.state = "cancelled"


def _num_pending(session: Session, items: Sequence[str], owners: Sequence[str]) -> int:
    num_pending = 0
    for part in chunks([*owners, *items]):
        num_pending += session.scalar(select(func.count()).where(DoomedObject.owner_id.in_(part))) or 0
    for part in chunks(items):
        is_there = DatasetItem.item_id.in_(part) & (DatasetItem.state != _TOMBSTONED)
        num_pending += session.scalar(select(func.count()).where(is_there)) or 0
    return num_pending


def _canonicals() -> Select[str, str]:
    return select(Item.id, Item.canonical)
