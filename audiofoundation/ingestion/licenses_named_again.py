"""Items that are named again: who may say what their licence is, and what follows from it (docs/adr/0012).

The operator's own line may, and so may the list or feed that named the licence before, or anybody where none was.
An item that only its licence had kept out is queued again when today's policy takes it; one that waits is refused when
a closed licence is named for it; one that is stored keeps its bytes, and its row says what was named. Refused videos
stay as they are: their own pages decide, and cost a start to be asked; of videos that wait only the operator, or who
named them first, says more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import and_, or_, select

from audiofoundation.catalog.bulk import is_one_of
from audiofoundation.catalog.item_states import ItemChange, change_items
from audiofoundation.catalog.tables import Item
from audiofoundation.ingestion.item_queue import queue_again
from audiofoundation.ingestion.item_rows import RowContext
from audiofoundation.ingestion.policy import policy_for
from audiofoundation.ingestion.source import SourceKind
from audiofoundation.ingestion.states import ItemRefused, ItemState, RefusalClass
from audiofoundation.jobs.queue import UnitOfWork

_CHUNK = 5000
_WAITING = (ItemState.QUEUED, ItemState.FAILED, ItemState.DEFERRED)
_IS_REFUSED = and_(Item.state == ItemState.REJECTED, Item.error_class == RefusalClass.LICENSE.value)
_JUDGED = select(Item.id, Item.kind, Item.state, Item.error_class, Item.error, Item.license, Item.discovery_id).where(
    or_(_IS_REFUSED, Item.state.in_((*_WAITING, ItemState.FETCHING, ItemState.STORED)))
)


@dataclass(frozen=True, slots=True)
class _Known:
    """An item as it is."""

    id: str
    kind: str
    state: str
    error_class: str | None
    error: str | None
    license: str | None
    discovery_id: str | None


@dataclass(frozen=True, slots=True)
class _Named:
    """What a line says of an item, and the discovery that said it; None is the operator."""

    license: str | None
    discovery_id: str | None

    def columns(self, known: _Known) -> dict[str, object]:
        """Return what the item's row learns of the line."""
        is_theirs = self.discovery_id not in (None, known.discovery_id)
        if not self.license or self.license == known.license or (is_theirs and known.license):
            return {}
        return {"license": self.license, **({"discovery_id": self.discovery_id} if self.discovery_id else {})}


def judge_licenses_again(unit: UnitOfWork, rows: Sequence[Mapping[str, object]], context: RowContext) -> None:
    """Judge items that are there already by what is named for them now.

    Args:
        unit: the transaction.
        rows: what `item_rows` makes of the lines that name them.
        context: the collection and the policy.
    """
    named = {str(row["id"]): _Named(_text(row["license"]), _text(row["discovery_id"])) for row in rows}
    ids = sorted(named)
    for start in range(0, len(ids), _CHUNK):
        found = _read(unit, ids[start : start + _CHUNK])
        due = [known.id for known in found if _change_of(known, named[known.id], context) is not None]
        # Read again, now locked: a job may have ended meanwhile.
        for known in _read(unit, due, is_locked=True) if due else ():
            change = _change_of(known, named[known.id], context)
            if change is not None and change.state == ItemState.QUEUED and known.state == ItemState.REJECTED:
                queue_again(unit, Item.id == known.id, change)
            elif change is not None:
                change_items(unit.session, Item.id == known.id, change)


def _read(unit: UnitOfWork, ids: Sequence[str], *, is_locked: bool = False) -> list[_Known]:
    reading = _JUDGED.where(is_one_of(unit.session, Item.id, ids)).order_by(Item.id)
    found = unit.session.execute(reading.with_for_update() if is_locked else reading)
    return [_Known(*row) for row in found]


def _change_of(known: _Known, named: _Named, context: RowContext) -> ItemChange | None:
    """Return what becomes of an item by what is named for it; None where nothing does."""
    columns, kind, is_refused = named.columns(known), SourceKind(known.kind), known.state == ItemState.REJECTED
    is_theirs = named.discovery_id not in (None, known.discovery_id)
    if kind is SourceKind.YOUTUBE and (is_refused or is_theirs):
        return None
    policy = policy_for(kind, scope=context.scope, license_policy=context.license_policy)
    as_it_is = ItemChange(known.state, known.error_class, known.error, columns) if columns else None
    try:
        policy.check_listed_license(_text(columns.get("license")) or known.license)
    except ItemRefused as refusal:
        if not columns or known.state not in (*_WAITING, ItemState.REJECTED):
            return as_it_is
        judged = {**columns, "policy": policy.name}
        return ItemChange(refusal.state, refusal.refusal.value, refusal.message, judged)
    return ItemChange(ItemState.QUEUED, columns=columns) if is_refused else as_it_is


def _text(value: object) -> str | None:
    return None if value is None else str(value)
