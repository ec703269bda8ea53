"""Discoveries in the catalog: what was asked to be expanded, and how far that got."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from audiofoundation.catalog.cursors import check_cursor
from audiofoundation.catalog.tables import Discovery, Item
from audiofoundation.identifiers import derive_id
from audiofoundation.ingestion.sources.protocol import DiscoveryAddress
from audiofoundation.ingestion.states import ItemState, RefusalClass
from audiofoundation.jobs.kinds import JobKind
from audiofoundation.jobs.queue import UnitOfWork

_MAX_PAGE = 1000
_NO_COUNTS: Mapping[str, object] = {
    "num_seen": 0,
    "num_added": 0,
    "num_duplicates": 0,
    "num_discoveries": 0,
    "rejected": {},
    "examples": [],
    "note": None,
}


class DiscoveryState(StrEnum):
    """How far a discovery got."""

    QUEUED = "queued"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class DiscoveryPage:
    """Some discoveries in order of id, and where the next page starts (None: there is none)."""

    discoveries: tuple[Discovery, ...]
    next_cursor: str | None


def discovery_id_of(collection_id: str, address: DiscoveryAddress) -> str:
    """Return the id that this address always has in this collection."""
    return derive_id("disc", collection_id, address.kind.value, address.address)


def request_discoveries(
    unit: UnitOfWork,
    collection_id: str,
    addresses: Mapping[DiscoveryAddress, str | None],
    *,
    is_plan: bool,
    is_operators: bool = True,
) -> list[str]:
    """Have the addresses expanded from their start, again if that was done before; return their ids.

    Each comes with the licence of what states none there; None leaves the one that was named before, and so does what
    a list elsewhere says (`is_operators` is False then).

    What an expansion finds that is there already is not added again. One that is under way starts over when it
    was planned only and is now asked for in earnest, or when another licence is named with it.
    """
    if not addresses:
        return []
    now, refused = time.time(), _with_refused_licenses(unit.session, collection_id)
    ids = []
    for discovery_id, address in sorted((discovery_id_of(collection_id, address), address) for address in addresses):
        wanted = _Wanted(is_plan, addresses[address], is_operators, discovery_id in refused)
        if not _is_new(unit.session, discovery_id, collection_id, address, wanted, now):
            _ask_again(unit.session, discovery_id, wanted, now)
        enqueue_expansion(unit, discovery_id)
        ids.append(discovery_id)
    return ids


def enqueue_expansion(unit: UnitOfWork, discovery_id: str) -> None:
    """Enqueue the discovery's job, unless it waits or runs already."""
    key = f"ingest.expand:{discovery_id}"
    unit.enqueue(JobKind.INGEST_EXPAND, key=key, subject_id=discovery_id, is_requeue=True)


def count_discoveries(session: Session, collection_id: str) -> Mapping[str, int]:
    """Return a collection's discoveries by state."""
    rows = session.execute(
        select(Discovery.state, func.count().label("num"))
        .where(Discovery.collection_id == collection_id)
        .group_by(Discovery.state)
    )
    return {row.state: row.num for row in rows}


def discovery_page(session: Session, collection_id: str, *, cursor: str | None, limit: int) -> DiscoveryPage:
    """Return the discoveries after the cursor. Raises InvalidRequest for a wrong cursor."""
    limit = min(limit, _MAX_PAGE)
    is_next = (Discovery.collection_id == collection_id) & (Discovery.id > check_cursor(cursor, prefix="disc"))
    found: Sequence[Discovery] = session.scalars(
        select(Discovery).where(is_next).order_by(Discovery.id).limit(limit + 1)
    ).all()
    return DiscoveryPage(tuple(found[:limit]), found[limit - 1].id if len(found) > limit else None)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is asked of a discovery, and whether by the operator.

    `is_judged_again`: some of its items only their licence has kept out.
    """

    is_plan: bool
    license: str | None
    is_operators: bool
    is_judged_again: bool


def _is_new(
    session: Session, discovery_id: str, collection_id: str, address: DiscoveryAddress, wanted: _Wanted, now: float
) -> bool:
    """Write the discovery, unless it was written before."""
    fresh: dict[str, object] = {
        "id": discovery_id,
        "collection_id": collection_id,
        "kind": address.kind.value,
        "address": address.address,
        "state": DiscoveryState.QUEUED.value,
        "is_plan": wanted.is_plan,
        "license": wanted.license,
        **_NO_COUNTS,
        "validators": {},
        "created_at": now,
        "updated_at": now,
    }
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    inserting = dialect.insert(Discovery).values(fresh).on_conflict_do_nothing(index_elements=["id"])
    return session.execute(inserting.returning(Discovery.id)).one_or_none() is not None


def _ask_again(session: Session, discovery_id: str, wanted: _Wanted, now: float) -> None:
    found = session.scalars(select(Discovery).where(Discovery.id == discovery_id).with_for_update()).one()
    may_name = wanted.is_operators or found.license is None
    license_text = (wanted.license if may_name else None) or found.license
    is_under_way = found.state == DiscoveryState.QUEUED
    becomes_real, is_relicensed = found.is_plan and not wanted.is_plan, license_text != found.license
    if is_under_way and not becomes_real and not is_relicensed:
        return
    values: dict[str, object] = {
        "state": DiscoveryState.QUEUED.value,
        "is_plan": wanted.is_plan and (found.is_plan or not is_under_way),
        "license": license_text,
        **_NO_COUNTS,
        "error_class": None,
        "error": None,
        "updated_at": now,
    }
    # "Not changed since" would leave items without jobs that have none yet, or whose licence is to be judged again.
    if becomes_real or is_relicensed or wanted.is_judged_again:
        values["validators"] = {}
    writing = update(Discovery).where(Discovery.id == discovery_id).values(**values)
    session.execute(writing.execution_options(synchronize_session="fetch"))


def _with_refused_licenses(session: Session, collection_id: str) -> set[str | None]:
    """Return the collection's discoveries with items that only their licence has kept out: one look for all of them."""
    is_refused = (Item.state == ItemState.REJECTED) & (Item.error_class == RefusalClass.LICENSE.value)
    found = select(Item.discovery_id).where(Item.collection_id == collection_id, is_refused).distinct()
    return set(session.scalars(found))
