"""The jobs of items: each item has one, which is put back in the queue when the item is to be tried again."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement

from audiofoundation.catalog.item_states import ItemChange, change_items
from audiofoundation.jobs.kinds import JobKind
from audiofoundation.jobs.queue import UnitOfWork


def enqueue_items(unit: UnitOfWork, ids: Sequence[str]) -> None:
    """Give items their jobs, unless they have them."""
    unit.enqueue_all(JobKind.INGEST_ITEM, {_job_key(item_id): item_id for item_id in ids})


def queue_again(unit: UnitOfWork, which: ColumnElement[bool], change: ItemChange) -> None:
    """Change the items that fit the condition and have them tried again."""
    for item_id in sorted(change_items(unit.session, which, change)):
        unit.enqueue(JobKind.INGEST_ITEM, key=_job_key(item_id), subject_id=item_id, is_requeue=True)


def _job_key(item_id: str) -> str:
    return f"ingest.item:{item_id}"
