"""Names of what was taken down, and the objects that have to go with it."""

import time
from collections.abc import Iterable, Sequence

from sqlalchemy import or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from audiofoundation.catalog.tables import DatasetItem, DoomedObject, Item, Tombstone, VersionShard

_CHUNK = 500
_TOMBSTONED = "tombstoned"  # state of items


def content_name(sha256: str) -> str:
    """Return the name under which content is taken down."""
    return f"sha256:{sha256}"


def taken_down(session: Session, names: Sequence[str]) -> dict[str, str]:
    """Return, of these sources and contents, the ones that were taken down, with the reason given."""
    found: dict[str, str] = {}
    for start in range(0, len(names), _CHUNK):
        rows = select(Tombstone.name, Tombstone.reason).where(Tombstone.name.in_(names[start : start + _CHUNK]))
        found.update((name, reason) for name, reason in session.execute(rows))
    return found


def holds_taken_down(session: Session, manifest_sha256: str) -> bool:
    """Tell whether this version of a dataset holds, or held, a recording that was taken down."""
    is_held = or_(DatasetItem.removed_generation.is_(None), VersionShard.generation < DatasetItem.removed_generation)
    found = (
        select(Item.id)
        .join(DatasetItem, DatasetItem.item_id == Item.id)
        .join(VersionShard, VersionShard.shard_id == DatasetItem.shard_id)
        .where(VersionShard.manifest_sha256 == manifest_sha256, DatasetItem.num_segments > 0, is_held)
        .where(Item.state == _TOMBSTONED)
    )
    return session.scalar(found.limit(1)) is not None


def add_tombstones(session: Session, names: Iterable[str], reason: str) -> set[str]:
    """Write that these sources and contents are never taken again; return those that were taken until now."""
    now = time.time()
    rows = [{"name": name, "reason": reason, "created_at": now} for name in sorted(set(names))]
    if not rows:
        return set()
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    adding = insert(Tombstone).on_conflict_do_nothing(index_elements=["name"]).returning(Tombstone.name)
    return set(session.connection().execute(adding, rows).scalars())


def doom(session: Session, keys: Iterable[str], *, owner_id: str, is_due: bool) -> None:
    """Write that these objects have to go."""
    now = time.time()
    rows = [{"key": key, "owner_id": owner_id, "is_due": is_due, "created_at": now} for key in sorted(set(keys))]
    if rows:
        insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
        session.connection().execute(insert(DoomedObject).on_conflict_do_nothing(index_elements=["key"]), rows)


def let_go(session: Session, owner_id: str) -> bool:
    """Make the owner's doomed objects due; return whether there are any."""
    due = update(DoomedObject).where(DoomedObject.owner_id == owner_id).values(is_due=True)
    found = session.execute(due.returning(DoomedObject.key).execution_options(synchronize_session=False))
    return bool(found.scalars().all())
