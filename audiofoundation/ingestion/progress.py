"""How far a collection got: counts, honest time left, pages of items."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from audiofoundation.catalog.tables import Collection, Item, ItemCount
from audiofoundation.errors import InvalidRequest
from audiofoundation.ingestion.source import SourceKind
from audiofoundation.ingestion.states import PENDING_STATES, ItemState

# yt-dlp's wiki: a guest session gets about 300 videos an hour before YouTube asks it to wait.
YOUTUBE_PER_HOUR = 250.0
_SECONDS_PER_ITEM = {SourceKind.YOUTUBE: 3600.0 / YOUTUBE_PER_HOUR, SourceKind.URL: 2.0, SourceKind.FILE: 0.3}
_MAX_PAGE = 1000


@dataclass(frozen=True, slots=True)
class CollectionProgress:
    """Counts of a collection.

    Attributes:
        states: items by state.
        error_classes: items that were not taken, by class.
        eta_s: estimated seconds until nothing waits any more; 0 when nothing does.
    """

    id: str
    name: str
    policy: str
    num_items: int
    states: Mapping[str, int]
    error_classes: Mapping[str, int]
    eta_s: float


@dataclass(frozen=True, slots=True)
class ItemPage:
    """Some items in order of id, and where the next page starts (None: there is none)."""

    items: tuple[Item, ...]
    next_cursor: str | None


def collection_progress(session: Session, collection: Collection) -> CollectionProgress:
    """Return a collection's counts as of the last commit; no item is looked at."""
    counts = session.execute(
        select(ItemCount.state, ItemCount.error_class, ItemCount.kind, ItemCount.num_items).where(
            ItemCount.collection_id == collection.id, ItemCount.num_items > 0
        )
    ).all()
    states: dict[str, int] = {}
    classes: dict[str, int] = {}
    eta_s = 0.0
    for state, error_class, kind, count in counts:
        states[state] = states.get(state, 0) + count
        if error_class:
            classes[error_class] = classes.get(error_class, 0) + count
        if state in PENDING_STATES:
            eta_s += count * _SECONDS_PER_ITEM[SourceKind(kind)]
    return CollectionProgress(
        collection.id, collection.name, collection.policy, sum(states.values()), states, classes, eta_s
    )


def item_page(
    session: Session, collection: Collection, *, state: str | None, cursor: str | None, limit: int
) -> ItemPage:
    """Return the items after the cursor. Raises InvalidRequest when there is no such state."""
    statement = select(Item).where(Item.collection_id == collection.id).order_by(Item.id)
    if state is not None:
        if state not in ItemState.__members__.values():
            known = ", ".join(ItemState)
            raise InvalidRequest(f"there is no state {state!r}; choose one of {known}", param="state")
        statement = statement.where(Item.state == state)
    if cursor:
        statement = statement.where(Item.id > cursor)
    limit = min(limit, _MAX_PAGE)
    found = tuple(session.scalars(statement.limit(limit + 1)))
    return ItemPage(found[:limit], found[limit - 1].id if len(found) > limit else None)
