"""Collections and items in the catalog: adding sources, uploads, and what becomes of an item."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from audiofoundation.catalog.item_states import ItemChange, add_rows, change_items
from audiofoundation.catalog.tables import Asset, Collection, Item
from audiofoundation.errors import NotFound
from audiofoundation.identifiers import AssetId, ItemId, Sha256, create_id, derive_id
from audiofoundation.ingestion.policy import PolicyScope, policy_for
from audiofoundation.ingestion.source import Source, SourceKind, SourceRejected, parse_source
from audiofoundation.ingestion.states import RETRYABLE_CLASSES, ItemRefused, ItemState
from audiofoundation.jobs.kinds import JobKind
from audiofoundation.jobs.queue import UnitOfWork

_CHUNK = 500
_RETRYABLE_STATES = (ItemState.FAILED, ItemState.DEFERRED)


@dataclass(frozen=True, slots=True)
class SourceLine:
    """One line of a list, with what the list itself says of it."""

    text: str
    title: str | None = None
    channel: str | None = None
    license: str | None = None
    duration_s: float | None = None


@dataclass(frozen=True, slots=True)
class AddedItems:
    """What adding a batch did.

    Attributes:
        num_added: new items.
        num_duplicates: lines that name what the collection has, or what an earlier line names.
        rejected: lines that became no item, by class.
        missing: hashes of files whose bytes the platform does not have yet; upload them.
    """

    num_added: int
    num_duplicates: int
    rejected: Mapping[str, int]
    missing: tuple[Sha256, ...]


@dataclass(slots=True)
class _Batch:
    """Distinct sources of one request, by canonical form."""

    sources: dict[str, tuple[Source, SourceLine]] = field(default_factory=dict)
    num_duplicates: int = 0
    rejected: dict[str, int] = field(default_factory=dict)


def ensure_collection(session: Session, name: str, *, scope: PolicyScope | None = None) -> Collection:
    """Return the collection of that name, made if there is none; a given scope replaces its own."""
    chosen = scope or PolicyScope.CRAWLED
    values = {"id": create_id("col"), "name": name, "policy": chosen.value, "created_at": time.time()}
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    session.execute(insert(Collection).values(**values).on_conflict_do_nothing(index_elements=["name"]))
    collection = session.scalars(select(Collection).where(Collection.name == name)).one()
    if scope is not None:
        collection.policy = scope.value
    return collection


def get_collection(session: Session, id_or_name: str) -> Collection:
    """Return a collection by its id or its name. Raises NotFound."""
    wanted = (Collection.id == id_or_name) | (Collection.name == id_or_name)
    # An id wins over a name that looks like one.
    found = session.scalars(select(Collection).where(wanted).order_by(Collection.id != id_or_name)).first()
    if found is None:
        raise NotFound(f"no collection is called {id_or_name!r}; make it with POST /v1/collections")
    return found


def item_id_of(collection_id: str, canonical: str) -> ItemId:
    """Return the id that this source always has in this collection."""
    return ItemId(derive_id("item", collection_id, canonical))


def add_items(
    unit: UnitOfWork, collection: Collection, lines: Sequence[SourceLine], *, license_policy: str, is_plan: bool = False
) -> AddedItems:
    """Add what the lines name; nothing is added twice.

    Args:
        unit: the transaction.
        collection: where to.
        lines: one source each.
        license_policy: AF_FETCH__LICENSE_POLICY.
        is_plan: write the items, but no jobs.
    """
    batch = _parse(lines)
    files = {key: pair for key, pair in batch.sources.items() if pair[0].kind is SourceKind.FILE}
    known = _assets_of(unit.session, [source.text for source, _ in files.values()])
    missing = {source.text for source, _ in files.values()} - known.keys()
    wanted = {key: pair for key, pair in batch.sources.items() if pair[0].text not in missing}
    num_added = _insert_items(unit.session, collection, wanted, known, license_policy)
    present = _present(unit.session, collection.id, [f"sha256:{sha}" for sha in missing])
    if not is_plan:
        _enqueue(unit, [item_id_of(collection.id, key) for key in [*wanted, *present]])
    return AddedItems(
        num_added=num_added,
        num_duplicates=batch.num_duplicates + len(wanted) - num_added + len(present),
        rejected=batch.rejected,
        missing=tuple(Sha256(sha) for sha in sorted(missing) if f"sha256:{sha}" not in present),
    )


def add_upload(unit: UnitOfWork, collection: Collection, sha256: Sha256, *, name: str) -> tuple[ItemId, bool]:
    """Add an item whose bytes lie in the store already, and its job; an item that failed is tried again.

    Returns:
        The item's id, and whether it is new.
    """
    source = parse_source(f"sha256:{sha256}")
    known = _assets_of(unit.session, [sha256])
    pair = {source.canonical: (source, SourceLine(text=name, title=name))}
    num_added = _insert_items(unit.session, collection, pair, known, license_policy="all")
    item_id = item_id_of(collection.id, source.canonical)
    _enqueue(unit, [item_id])
    return item_id, num_added == 1


def set_state(
    session: Session, item_id: str, state: ItemState, *, error_class: str | None = None, error: str | None = None
) -> None:
    """Write how far an item got; a tombstone is never overwritten."""
    change_items(session, Item.id == item_id, ItemChange(state, error_class, error))


def _parse(lines: Sequence[SourceLine]) -> _Batch:
    batch = _Batch()
    for line in lines:
        try:
            source = parse_source(line.text)
        except SourceRejected as refusal:
            name = refusal.rejection.value
            batch.rejected[name] = batch.rejected.get(name, 0) + 1
            continue
        if source.canonical in batch.sources:
            batch.num_duplicates += 1
        else:
            batch.sources[source.canonical] = (source, line)
    return batch


def _insert_items(
    session: Session,
    collection: Collection,
    wanted: Mapping[str, tuple[Source, SourceLine]],
    known: Mapping[str, AssetId],
    license_policy: str,
) -> int:
    """Insert what is new and return how many that was."""
    scope = PolicyScope(collection.policy)
    now = time.time()
    rows = [_row(collection.id, source, line, known, scope, license_policy, now) for source, line in wanted.values()]
    return len(add_rows(session, rows))


def _row(
    collection_id: str,
    source: Source,
    line: SourceLine,
    known: Mapping[str, AssetId],
    scope: PolicyScope,
    license_policy: str,
    now: float,
) -> dict[str, object]:
    state, error_class, error = _judge(source, line, scope, license_policy)
    asset_id = known.get(source.text) if source.kind is SourceKind.FILE else None
    if asset_id is not None and state is ItemState.QUEUED:
        state = ItemState.STORED
    return {
        "id": item_id_of(collection_id, source.canonical),
        "collection_id": collection_id,
        "canonical": source.canonical,
        "kind": source.kind.value,
        "source": line.title or source.text if source.kind is SourceKind.FILE else source.text,
        "state": state.value,
        "error_class": error_class,
        "error": error,
        "title": line.title,
        "channel": line.channel,
        "license": line.license,
        "duration_s": line.duration_s,
        "asset_id": asset_id,
        "created_at": now,
        "updated_at": now,
    }


def _judge(
    source: Source, line: SourceLine, scope: PolicyScope, license_policy: str
) -> tuple[ItemState, str | None, str | None]:
    """Apply the policy as far as the list itself carries licences and durations."""
    policy = policy_for(source.kind, scope=scope, license_policy=license_policy)
    try:
        if line.license:
            policy.check_license(line.license)
        policy.check_duration(line.duration_s)
    except ItemRefused as refusal:
        return refusal.state, refusal.refusal.value, refusal.message
    return ItemState.QUEUED, None, None


def _assets_of(session: Session, hashes: Sequence[str]) -> dict[str, AssetId]:
    found: dict[str, AssetId] = {}
    for start in range(0, len(hashes), _CHUNK):
        part = hashes[start : start + _CHUNK]
        rows = session.execute(
            select(Asset.sha256, Asset.id).where(Asset.sha256.in_(part), Asset.tombstoned_at.is_(None))
        )
        found.update({sha: AssetId(asset_id) for sha, asset_id in rows})
    return found


def _present(session: Session, collection_id: str, canonicals: Sequence[str]) -> set[str]:
    """Of these uploads, the ones that are here and under way or finished (a failed one is sent again)."""
    found: set[str] = set()
    for start in range(0, len(canonicals), _CHUNK):
        ids = [item_id_of(collection_id, canonical) for canonical in canonicals[start : start + _CHUNK]]
        is_kept = Item.error_class.is_(None) | Item.error_class.not_in(RETRYABLE_CLASSES)
        found.update(session.scalars(select(Item.canonical).where(Item.id.in_(ids), is_kept)))
    return found


def _enqueue(unit: UnitOfWork, ids: Sequence[str]) -> None:
    """Give every waiting item its job, and those that failed by no fault of theirs another one."""
    is_retry = Item.state.in_(_RETRYABLE_STATES) & Item.error_class.in_(RETRYABLE_CLASSES)
    for start in range(0, len(ids), _CHUNK):
        part = ids[start : start + _CHUNK]
        retried = set(change_items(unit.session, Item.id.in_(part) & is_retry, ItemChange(ItemState.QUEUED)))
        for item_id in sorted(retried):
            unit.enqueue(JobKind.INGEST_ITEM, key=_job_key(item_id), subject_id=item_id, is_requeue=True)
        waiting = unit.session.scalars(select(Item.id).where(Item.id.in_(part), Item.state == ItemState.QUEUED))
        unit.enqueue_all(JobKind.INGEST_ITEM, {_job_key(item_id): item_id for item_id in waiting})


def _job_key(item_id: str) -> str:
    return f"ingest.item:{item_id}"
