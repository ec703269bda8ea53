"""The one way to write an item's state: rows and the counts of their collections, in one transaction.

`item_counts` answers "how many items of a collection are in which state" without looking at the items. It is
right because nothing else writes `items.state` (tests/architecture), and because both are committed together.
Counts are written at the very end of the transaction and in order of their keys: on PostgreSQL a transaction
then never waits for an item while it holds a count, so two of them cannot wait for each other.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, event, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from audiofoundation.catalog.bulk import insert_new
from audiofoundation.catalog.tables import Item, ItemCount
from audiofoundation.catalog.tombstones import taken_down

_INFO = "audiofoundation_item_counts"
_TOMBSTONED = "tombstoned"
_CHUNK = 500
_Key = tuple[str, str, str, str]  # collection, kind, state, error class


@dataclass(frozen=True, slots=True)
class ItemChange:
    """What becomes of items.

    Attributes:
        state: their new state.
        error_class: why they are not taken; None clears it.
        error: the same in words.
        columns: further columns and their values.
    """

    state: str
    error_class: str | None = None
    error: str | None = None
    columns: Mapping[str, object] = field(default_factory=dict)


def add_rows(session: Session, rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Insert items and return the ids of those that are new; the others are left as they are.

    What was taken down once is inserted as a tombstone.
    """
    if not rows:
        return []
    rows = _without_taken_down(session, rows)
    rows = sorted(rows, key=lambda row: str(row["id"]))  # two inserts of the same rows cannot wait for each other
    added = insert_new(session, Item, rows, unique=["collection_id", "canonical"])
    counts = _pending(session)
    for row in rows:
        if row["id"] in added:
            counts[_key(row["collection_id"], row["kind"], row["state"], row["error_class"])] += 1
    return list(added)


def _without_taken_down(session: Session, rows: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
    reasons = taken_down(session, [str(row["canonical"]) for row in rows])
    tombstone = {"state": _TOMBSTONED, "error_class": "taken_down", "asset_id": None}
    return [
        {**row, **tombstone, "error": reasons[str(row["canonical"])]} if row["canonical"] in reasons else row
        for row in rows
    ]


def change_items(session: Session, which: ColumnElement[bool], change: ItemChange) -> list[str]:
    """Change every item that fits the condition and return their ids; a tombstone is never overwritten.

    Items are locked in order of id, so that two changes of several items cannot wait for each other.

    Args:
        session: a write session; counts follow when it commits.
        which: a condition on `Item`, its state included where that matters.
        change: what to write.
    """
    found = session.execute(
        select(Item.id, Item.collection_id, Item.kind, Item.state, Item.error_class)
        .where(which, Item.state != _TOMBSTONED)
        .order_by(Item.id)
        .with_for_update()
    ).all()
    counts = _pending(session)
    for row in found:
        counts[_key(row.collection_id, row.kind, row.state, row.error_class)] -= 1
        counts[_key(row.collection_id, row.kind, change.state, change.error_class)] += 1
    ids = [row.id for row in found]
    values = {"state": change.state, "error_class": change.error_class, "error": change.error}
    for start in range(0, len(ids), _CHUNK):
        session.execute(
            update(Item)
            .where(Item.id.in_(ids[start : start + _CHUNK]))
            .values(**values, updated_at=time.time(), **change.columns)
            .execution_options(synchronize_session=False)
        )
    return ids


def _pending(session: Session) -> Counter[_Key]:
    """The differences that this transaction has made so far."""
    if _INFO not in session.info:
        session.info[_INFO] = Counter[_Key]()
        event.listen(session, "before_commit", _write)
        event.listen(session, "after_rollback", _forget)
    pending: Counter[_Key] = session.info[_INFO]
    return pending


def _write(session: Session) -> None:
    pending: Counter[_Key] = session.info[_INFO]
    rows = [(*key, difference) for key, difference in sorted(pending.items()) if difference]
    pending.clear()
    if not rows:
        return
    names = ("collection_id", "kind", "state", "error_class", "num_items")
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    adding = dialect.insert(ItemCount).values([dict(zip(names, row, strict=True)) for row in rows])
    session.execute(
        adding.on_conflict_do_update(
            index_elements=names[:4], set_={"num_items": ItemCount.num_items + adding.excluded.num_items}
        )
    )


def _forget(session: Session) -> None:
    session.info[_INFO].clear()


def _key(collection_id: object, kind: object, state: object, error_class: object) -> _Key:
    return str(collection_id), str(kind), str(state), "" if error_class is None else str(error_class)
