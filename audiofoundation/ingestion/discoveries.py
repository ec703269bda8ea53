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
    unit: UnitOfWork, collection_id: str, addresses: Mapping[DiscoveryAddress, str | None], *, is_plan: bool
) -> list[str]:
    """Have the addresses expanded from their start, again if that was done before; return their ids.

    Each comes with the licence of what states none there; None leaves the one that was named before.

    What an expansion finds that is there already is not added again. One that is under way starts over when it
    was planned only and is now asked for in earnest.
    """
    ids = []
    for discovery_id, address in sorted((discovery_id_of(collection_id, address), address) for address in addresses):
        wanted = {"is_plan": is_plan, **({"license": license_text} if (license_text := addresses[address]) else {})}
        _write_request(unit.session, discovery_id, collection_id, address, wanted)
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


def _write_request(
    session: Session, discovery_id: str, collection_id: str, address: DiscoveryAddress, wanted: Mapping[str, object]
) -> None:
    now = time.time()
    fresh: dict[str, object] = {
        "id": discovery_id,
        "collection_id": collection_id,
        "kind": address.kind.value,
        "address": address.address,
        "state": DiscoveryState.QUEUED.value,
        **wanted,
        **_NO_COUNTS,
        "validators": {},
        "created_at": now,
        "updated_at": now,
    }
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    inserting = dialect.insert(Discovery).values(fresh).on_conflict_do_nothing(index_elements=["id"])
    if session.execute(inserting.returning(Discovery.id)).one_or_none() is not None:
        return
    found = session.scalars(select(Discovery).where(Discovery.id == discovery_id).with_for_update()).one()
    becomes_real = found.is_plan and not wanted["is_plan"]
    if found.state == DiscoveryState.QUEUED and not becomes_real:
        return
    values = {"state": DiscoveryState.QUEUED.value, **wanted, **_NO_COUNTS}
    # "Not changed since" would leave items without jobs that have none yet, or whose licence is to be judged again.
    if becomes_real or _has_refused_licenses(session, found):
        values["validators"] = {}
    values |= {"error_class": None, "error": None, "updated_at": now}
    writing = update(Discovery).where(Discovery.id == discovery_id).values(**values)
    session.execute(writing.execution_options(synchronize_session="fetch"))


def _has_refused_licenses(session: Session, discovery: Discovery) -> bool:
    is_refused = (Item.state == ItemState.REJECTED) & (Item.error_class == RefusalClass.LICENSE.value)
    is_its = (Item.collection_id == discovery.collection_id) & (Item.discovery_id == discovery.id)
    return session.scalar(select(Item.id).where(is_its, is_refused).limit(1)) is not None
