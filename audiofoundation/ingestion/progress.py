"""How far a collection got: counts, honest time left, pages of items."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from audiofoundation.catalog.cursors import check_cursor
from audiofoundation.catalog.tables import Asset, Collection, Item, ItemCount
from audiofoundation.errors import InvalidRequest
from audiofoundation.ingestion.discoveries import count_discoveries
from audiofoundation.ingestion.source import SourceKind
from audiofoundation.ingestion.states import PENDING_STATES, ItemState
from audiofoundation.ingestion.time_left import time_left_s
from audiofoundation.settings import FetchSettings

_MAX_PAGE = 1000


@dataclass(frozen=True, slots=True)
class CollectionProgress:
    """Counts of a collection.

    Attributes:
        states: items by state.
        error_classes: items that were not taken, by class.
        discoveries: searches, channels, feeds and lists by state.
        eta_s: estimated seconds until nothing waits any more; 0 when nothing does.
    """

    id: str
    name: str
    policy: str
    num_items: int
    states: Mapping[str, int]
    error_classes: Mapping[str, int]
    discoveries: Mapping[str, int]
    eta_s: float


@dataclass(frozen=True, slots=True)
class ItemPage:
    """Some items in order of id, where the next page starts (None: there is none), and their assets' damage by id."""

    items: tuple[Item, ...]
    next_cursor: str | None
    damage: Mapping[str, str]


def collection_progress(session: Session, collection: Collection, *, fetch: FetchSettings) -> CollectionProgress:
    """Return a collection's counts as of the last commit; no item is looked at."""
    counts = session.execute(
        select(ItemCount.state, ItemCount.error_class, ItemCount.kind, ItemCount.num_items).where(
            ItemCount.collection_id == collection.id, ItemCount.num_items > 0
        )
    ).all()
    states: dict[str, int] = {}
    classes: dict[str, int] = {}
    pending: Counter[SourceKind] = Counter()
    for state, error_class, kind, count in counts:
        states[state] = states.get(state, 0) + count
        if error_class:
            classes[error_class] = classes.get(error_class, 0) + count
        if state in PENDING_STATES:
            pending[SourceKind.URL if kind == SourceKind.YANDEX else SourceKind(kind)] += count
    eta_s = time_left_s(session, pending, settings=fetch)
    discoveries = count_discoveries(session, collection.id)
    total = sum(states.values())
    return CollectionProgress(
        collection.id, collection.name, collection.policy, total, states, classes, discoveries, eta_s
    )


def item_page(
    session: Session, collection: Collection, *, state: str | None, cursor: str | None, limit: int
) -> ItemPage:
    """Return the items after the cursor. Raises InvalidRequest when there is no such state or cursor."""
    if state is not None and state not in ItemState.__members__.values():
        known = ", ".join(ItemState)
        raise InvalidRequest(f"there is no state {state!r}; choose one of {known}", param="state")
    after = check_cursor(cursor, prefix="item")
    limit = min(limit, _MAX_PAGE)
    found: list[Item] = []
    # One stretch of the index (collection, state, id) per state: an index without the state would cost every insert.
    for wanted in ItemState if state is None else (state,):
        is_next = (Item.collection_id == collection.id) & (Item.state == wanted) & (Item.id > after)
        found += session.scalars(select(Item).where(is_next).order_by(Item.id).limit(limit + 1))
    found.sort(key=lambda item: item.id)
    page = tuple(found[:limit])
    damaged = select(Asset.id, Asset.damage).where(
        Asset.id.in_([item.asset_id for item in page if item.asset_id]), Asset.damage.is_not(None)
    )
    damage = {asset_id: words or "" for asset_id, words in session.execute(damaged)}
    return ItemPage(page, page[-1].id if len(found) > limit else None, damage)
