"""One item with what was measured of it, and what followed from that."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from audiofoundation.catalog.tables import Asset, Collection, Item, Probe
from audiofoundation.errors import NotFound
from audiofoundation.ingestion.states import ItemState


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """An item as the catalog knows it.

    Attributes:
        item: its row.
        collection_name: where it is.
        damage: what of its recording does not decode; None when all does.
        probe: the decision with its measurements; None when it was not probed, or was taken down.
    """

    item: Item
    collection_name: str
    damage: str | None
    probe: Probe | None


def get_item(session: Session, item_id: str) -> ItemFacts:
    """Return an item's facts. Raises NotFound."""
    item = session.get(Item, item_id)
    if item is None:
        how = "`audiofoundation items -c COLLECTION` or GET /v1/collections/COLLECTION/items"
        raise NotFound(f"there is no item {item_id!r}; see {how}")
    asset = session.get(Asset, item.asset_id) if item.asset_id else None
    is_gone = item.state == ItemState.TOMBSTONED  # a job that was under way may have measured it once more
    return ItemFacts(
        item=item,
        collection_name=session.get_one(Collection, item.collection_id).name,
        damage=asset.damage if asset else None,
        probe=None if is_gone else session.get(Probe, item_id),
    )
