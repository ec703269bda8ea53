"""The collections that there are, a page at a time."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from audiofoundation.catalog.cursors import check_cursor
from audiofoundation.catalog.tables import Collection, ItemCount

_MAX_PAGE = 1000


@dataclass(frozen=True, slots=True)
class CollectionEntry:
    """A collection and how many items it has, in whatever state."""

    collection: Collection
    num_items: int


@dataclass(frozen=True, slots=True)
class CollectionPage:
    """Some collections, the newest first, and where the next page starts (None: there is none)."""

    entries: tuple[CollectionEntry, ...]
    next_cursor: str | None


def collection_page(session: Session, *, cursor: str | None, limit: int) -> CollectionPage:
    """Return the collections after the cursor; no item is looked at. Raises InvalidRequest for a wrong cursor."""
    limit = min(limit, _MAX_PAGE)
    newest = select(Collection).order_by(Collection.id.desc()).limit(limit + 1)  # their ids are in order of time
    if after := check_cursor(cursor, prefix="col"):
        newest = newest.where(Collection.id < after)
    found = session.scalars(newest).all()
    counting = (
        select(ItemCount.collection_id, func.sum(ItemCount.num_items).label("num_items"))
        .where(ItemCount.collection_id.in_([row.id for row in found]))
        .group_by(ItemCount.collection_id)
    )
    counts = {row.collection_id: int(row.num_items) for row in session.execute(counting)}
    entries = tuple(CollectionEntry(row, counts.get(row.id, 0)) for row in found[:limit])
    return CollectionPage(entries, found[limit - 1].id if len(found) > limit else None)
