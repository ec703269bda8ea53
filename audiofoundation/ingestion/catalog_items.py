"""Collections and items in the catalog: adding sources, uploads, and what becomes of an item."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from audiofoundation.catalog.bulk import is_one_of
from audiofoundation.catalog.item_states import ItemChange, add_rows, change_items
from audiofoundation.catalog.tables import Asset, Collection, Item
from audiofoundation.catalog.tombstones import taken_down
from audiofoundation.errors import InvalidRequest, NotFound
from audiofoundation.identifiers import AssetId, ItemId, Sha256, create_id
from audiofoundation.ingestion.discoveries import request_discoveries
from audiofoundation.ingestion.item_queue import enqueue_items, queue_again
from audiofoundation.ingestion.item_rows import KnownAsset, RowContext, item_id_of, item_rows
from audiofoundation.ingestion.licenses_named_again import judge_licenses_again
from audiofoundation.ingestion.parsed_lines import ParsedLines, RejectedLine
from audiofoundation.ingestion.policy import PolicyScope
from audiofoundation.ingestion.source import SourceKind, SourceLine, parse_source
from audiofoundation.ingestion.states import RETRYABLE_CLASSES, ItemState
from audiofoundation.jobs.queue import UnitOfWork

_CHUNK = 5000
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_RETRYABLE_STATES = (ItemState.FAILED, ItemState.DEFERRED)


@dataclass(frozen=True, slots=True)
class AddedItems:
    """What adding a batch did.

    Attributes:
        num_added: new items.
        num_duplicates: lines that name what the collection has, or what an earlier line names.
        rejected: lines that became no item, by class.
        examples: the first of those.
        missing: hashes of files whose bytes the platform does not have yet; upload them.
        discoveries: ids of what is being expanded into further items.
    """

    num_added: int
    num_duplicates: int
    rejected: Mapping[str, int]
    examples: tuple[RejectedLine, ...]
    missing: tuple[Sha256, ...]
    discoveries: tuple[str, ...]


def ensure_collection(session: Session, name: str, *, scope: PolicyScope | None = None) -> Collection:
    """Return the collection of that name, made if there is none; a given scope replaces its own.

    Raises:
        InvalidRequest: there is none, and an address could not carry the name.
    """
    is_known = not _CONTROL.search(name) and session.scalar(select(Collection.id).where(Collection.name == name))
    if not is_known and (_CONTROL.search(name) or "/" in name or name in (".", "..")):
        raise InvalidRequest(
            "a collection's name stands in addresses: it holds no / and no control character, and is not . or ..",
            param="name",
        )
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
        how = "`audiofoundation ingest` or POST /v1/collections"
        raise NotFound(f"no collection is called {id_or_name!r}; make it with {how}")
    return found


def add_items(
    unit: UnitOfWork,
    collection: Collection,
    parsed: ParsedLines,
    *,
    license_policy: str,
    is_plan: bool = False,
    discovery_id: str | None = None,
) -> AddedItems:
    """Add what the lines name and have expanded what names more; nothing is added twice.

    Args:
        unit: the transaction.
        collection: where to.
        parsed: the lines; reading them takes as long as writing them, so it happens before the transaction.
        license_policy: AF_FETCH__LICENSE_POLICY.
        is_plan: write the items, but no jobs that fetch them.
        discovery_id: what found the lines; None when somebody named them.
    """
    hashes = [source.text for source, _ in parsed.sources.values() if source.kind is SourceKind.FILE]
    assets = _assets_of(unit.session, hashes)
    gone = taken_down(unit.session, [f"sha256:{sha}" for sha in hashes])
    missing = {sha for sha in hashes if sha not in assets and f"sha256:{sha}" not in gone}
    wanted = {key: pair for key, pair in parsed.sources.items() if pair[0].text not in missing}
    context = RowContext(collection.id, PolicyScope(collection.policy), license_policy, assets, discovery_id)
    rows = item_rows(wanted.values(), context)
    added = set(add_rows(unit.session, rows))
    present = _present(unit.session, collection.id, [f"sha256:{sha}" for sha in missing])
    if not is_plan:
        new = [str(row["id"]) for row in rows if row["id"] in added and row["state"] == ItemState.QUEUED]
        enqueue_items(unit, new)
        there = [str(row["id"]) for row in rows if row["id"] not in added]
        judge_licenses_again(unit, [row for row in rows if row["id"] not in added], context)
        _enqueue_again(unit, [*there, *(item_id_of(collection.id, key) for key in present)])
    return AddedItems(
        num_added=len(added),
        num_duplicates=parsed.num_duplicates + len(wanted) - len(added) + len(present),
        rejected=parsed.rejected,
        examples=tuple(parsed.examples),
        missing=tuple(Sha256(sha) for sha in sorted(missing) if f"sha256:{sha}" not in present),
        discoveries=tuple(
            request_discoveries(
                unit, collection.id, parsed.discoveries, is_plan=is_plan, is_operators=discovery_id is None
            )
        ),
    )


def add_upload(
    unit: UnitOfWork, collection: Collection, sha256: Sha256, line: SourceLine, *, license_policy: str
) -> tuple[ItemId, bool]:
    """Add an item whose bytes lie in the store already, and its job; an item that failed is tried again.

    Args:
        unit: the transaction.
        collection: where to.
        sha256: of the bytes.
        line: what the operator says of them.
        license_policy: AF_FETCH__LICENSE_POLICY.

    Returns:
        The item's id, and whether it is new.
    """
    source = parse_source(f"sha256:{sha256}")
    assets = _assets_of(unit.session, [sha256])
    context = RowContext(collection.id, PolicyScope(collection.policy), license_policy, assets)
    rows = item_rows([(source, line)], context)
    added = add_rows(unit.session, rows)
    if not added:
        judge_licenses_again(unit, rows, context)
    item_id = item_id_of(collection.id, source.canonical)
    _enqueue_again(unit, [item_id])
    return item_id, bool(added)


def retry_found(unit: UnitOfWork, collection_id: str, discovery_id: str) -> None:
    """Queue again what a discovery had found and what failed by no fault of its own."""
    is_its = (Item.collection_id == collection_id) & (Item.discovery_id == discovery_id)
    failed = unit.session.scalars(select(Item.id).where(is_its, Item.state.in_(_RETRYABLE_STATES))).all()
    _enqueue_again(unit, failed)


def set_state(
    session: Session, item_id: str, state: ItemState, *, error_class: str | None = None, error: str | None = None
) -> None:
    """Write how far an item got; a tombstone is never overwritten."""
    change_items(session, Item.id == item_id, ItemChange(state, error_class, error))


def _assets_of(session: Session, hashes: Sequence[str]) -> dict[str, KnownAsset]:
    found: dict[str, KnownAsset] = {}
    for start in range(0, len(hashes), _CHUNK):
        part = hashes[start : start + _CHUNK]
        is_kept = is_one_of(session, Asset.sha256, part) & Asset.tombstoned_at.is_(None)
        rows = session.execute(select(Asset.sha256, Asset.id, Asset.duration_s).where(is_kept))
        found.update({row.sha256: KnownAsset(AssetId(row.id), row.duration_s or None) for row in rows})
    return found


def _present(session: Session, collection_id: str, canonicals: Sequence[str]) -> set[str]:
    """Of these uploads, the ones that are here and under way or finished (a failed one is sent again)."""
    found: set[str] = set()
    for start in range(0, len(canonicals), _CHUNK):
        ids = [item_id_of(collection_id, canonical) for canonical in canonicals[start : start + _CHUNK]]
        is_kept = Item.error_class.is_(None) | Item.error_class.not_in(RETRYABLE_CLASSES)
        found.update(session.scalars(select(Item.canonical).where(Item.id.in_(ids), is_kept)))
    return found


def _enqueue_again(unit: UnitOfWork, ids: Sequence[str]) -> None:
    """Give every waiting item its job, and those that failed by no fault of theirs another one."""
    is_open = Item.state.in_((ItemState.QUEUED, *_RETRYABLE_STATES))
    for start in range(0, len(ids), _CHUNK):
        is_here = is_one_of(unit.session, Item.id, ids[start : start + _CHUNK])
        found = unit.session.execute(select(Item.id, Item.state, Item.error_class).where(is_here, is_open)).all()
        enqueue_items(unit, [row.id for row in found if row.state == ItemState.QUEUED])
        failed = [row.id for row in found if row.state in _RETRYABLE_STATES and row.error_class in RETRYABLE_CLASSES]
        _retry(unit, failed)


def _retry(unit: UnitOfWork, ids: Sequence[str]) -> None:
    if ids:
        is_failed = is_one_of(unit.session, Item.id, ids) & Item.state.in_(_RETRYABLE_STATES)
        queue_again(unit, is_failed, ItemChange(ItemState.QUEUED))
