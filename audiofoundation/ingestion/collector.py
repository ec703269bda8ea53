"""The collector: objects that nothing names are marked, and deleted when nothing names them a day later either.

An object counts when a row of the catalog names it. Whoever writes one names it within minutes or dies: what is
two days old, belongs to no job that may still run and has no row is left over from a crash. The same bytes may come
again at any time, under the same key: `catalog/orphan_marks.py` says how that ends well.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import structlog
from sqlalchemy import ColumnElement, Engine, delete, select, true
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import InstrumentedAttribute, Session

from audiofoundation.catalog import tables
from audiofoundation.catalog.engine import read_session, write_session
from audiofoundation.catalog.orphan_marks import deleting_marked
from audiofoundation.catalog.tables import Asset, Checkpoint, DatasetVersion, DoomedObject, Item, Job, OrphanMark, Shard
from audiofoundation.errors import Conflict
from audiofoundation.identifiers import ItemId, derive_id
from audiofoundation.ingestion.item_rows import item_id_of
from audiofoundation.ingestion.states import PENDING_STATES
from audiofoundation.jobs.kinds import TERMINAL_STATES
from audiofoundation.jobs.queue import UnitOfWork
from audiofoundation.jobs.removal import enqueue_purge
from audiofoundation.jobs.role import Role, holding_role
from audiofoundation.shards.index import index_key
from audiofoundation.storage.keys import MANAGED_PREFIXES, shard_of_key
from audiofoundation.storage.object_store import ListedObject, ObjectStore

_CHUNK = 500
_DELETES_PER_S = 1000 / 60

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CollectorRules:
    """When an object goes.

    Attributes:
        min_age_s: younger objects are left alone.
        min_marked_s: between the mark and the deletion.
        max_share: of all bytes; if more would go, nothing does: something else is wrong.
    """

    min_age_s: float = 48 * 3600.0
    min_marked_s: float = 24 * 3600.0
    max_share: float = 0.05


@dataclass(slots=True)
class Collected:
    """What one pass found and did. Bytes and objects of everything under our prefixes, of orphans, and deleted.

    `is_more`: it stopped for lack of time, and another pass would delete more.
    """

    num_objects: int = 0
    num_bytes: int = 0
    orphans: list[str] = field(default_factory=list)
    num_orphan_bytes: int = 0
    deleted: list[str] = field(default_factory=list)
    is_more: bool = False


@dataclass(frozen=True, slots=True)
class Collector:
    """Finds and removes left-overs.

    Attributes:
        engine: the catalog.
        store: what it looks through.
        rules: when an object goes.
        sleep: waits between deletions; tests need not, and what it raises ends the pass.
        delete_for_s: how long one pass deletes; what is left then is for the next.
    """

    engine: Engine
    store: ObjectStore
    rules: CollectorRules = CollectorRules()
    sleep: Callable[[float], object] = time.sleep
    delete_for_s: float = 40.0

    def collect(self, *, is_applied: bool) -> Collected:
        """Look through the store once. A dry run neither marks nor deletes.

        Raises:
            Conflict: a collector runs already, or more than the allowed share of the bytes would go; nothing was
                deleted.
            StorageUnavailable: the store or the catalog does not answer.
        """
        with holding_role(self.engine, "collector") as role:
            return self._collect(role, is_applied=is_applied)

    def _collect(self, role: Role, *, is_applied: bool) -> Collected:
        found, orphans = Collected(), list[ListedObject]()
        for page in self._pages(found, role):
            orphans += self._unnamed(page)
        found.orphans = [entry.key for entry in orphans]
        found.num_orphan_bytes = sum(entry.size_bytes for entry in orphans)
        if not is_applied:
            return found
        due = self._mark(found.orphans)
        going = [entry for entry in orphans if entry.key in due]
        if sum(entry.size_bytes for entry in going) > self.rules.max_share * found.num_bytes:
            raise Conflict(
                f"{len(going)} objects would be deleted, more than {self.rules.max_share:.0%} of the bytes: is this "
                "the store that belongs to this catalog? Delete by hand if it is"
            )
        stop_at = time.monotonic() + self.delete_for_s
        for entry in going:
            if found.deleted and time.monotonic() >= stop_at:
                found.is_more = True
                break
            role.renew()
            if self._unnamed([entry]) and self._delete(entry):  # a job may have named it since the listing
                found.deleted.append(entry.key)
                _log.info("orphan_deleted", key=entry.key, size_bytes=entry.size_bytes)
                self.sleep(1 / _DELETES_PER_S)
        return found

    def _delete(self, entry: ListedObject) -> bool:
        """Delete the object unless it was written again, or is about to be; return whether it was deleted."""
        if next(self.store.list_objects(entry.key), None) != entry:
            return False
        with deleting_marked(self.engine, entry.key) as is_marked:
            if is_marked:
                self.store.delete_at_once(entry.key)
        return is_marked

    def _pages(self, found: Collected, role: Role) -> Iterator[list[ListedObject]]:
        """Yield objects that are old enough, some hundred at a time, counting all."""
        oldest = time.time() - self.rules.min_age_s
        for prefix in MANAGED_PREFIXES:
            page: list[ListedObject] = []
            for entry in self.store.list_objects(prefix):
                role.renew()
                found.num_objects += 1
                found.num_bytes += entry.size_bytes
                if entry.modified_at <= oldest:
                    page.append(entry)
                if len(page) == _CHUNK:
                    yield page
                    page = []
            if page:
                yield page

    def _unnamed(self, page: Sequence[ListedObject]) -> list[ListedObject]:
        """Return the objects that no row names and no job may still name."""
        keys = [_shard_key(entry.key) for entry in page]
        with read_session(self.engine) as session:
            named: set[str | None] = set(_stored_originals(session, keys))
            for column, is_kept in _NAMING:
                named.update(session.scalars(select(column).where(column.in_(keys), is_kept)))
            named.update(_pending_uploads(session, [key for key in keys if key not in named]))
            owners = {key: _owner_of(key) for key in keys if key not in named}
            is_live = Job.subject_id.in_(sorted(set(owners.values()))) & Job.state.not_in(TERMINAL_STATES)
            live = set(session.scalars(select(Job.subject_id).where(is_live)))
        return [entry for entry, key in zip(page, keys, strict=True) if key in owners and owners[key] not in live]

    def _mark(self, keys: Sequence[str]) -> set[str]:
        """Mark orphans, forget the marks of what is none any more, and return those marked long enough ago."""
        now = time.time()
        with write_session(self.engine) as session:
            marked = {row.key: row.marked_at for row in session.scalars(select(OrphanMark))}
            self._forget(session, sorted(marked.keys() - set(keys)))
            rows = [{"key": key, "marked_at": now} for key in keys if key not in marked]
            if rows:
                insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
                adding = insert(OrphanMark).on_conflict_do_nothing(index_elements=["key"])
                session.connection().execute(adding, rows)
        return {key for key in keys if key in marked and now - marked[key] >= self.rules.min_marked_s}

    @staticmethod
    def _forget(session: Session, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), _CHUNK):
            session.execute(delete(OrphanMark).where(OrphanMark.key.in_(keys[start : start + _CHUNK])))


def resume_purges(unit: UnitOfWork) -> int:
    """Enqueue what a takedown doomed and a job gave up to delete; return for how many owners."""
    owners = unit.session.scalars(select(DoomedObject.owner_id).where(DoomedObject.is_due).distinct()).all()
    for owner_id in owners:
        enqueue_purge(unit, owner_id)
    return len(owners)


# Which columns name objects, besides those of originals. What is doomed is named until its own job has deleted it.
_NAMING: tuple[tuple[InstrumentedAttribute[str] | InstrumentedAttribute[str | None], ColumnElement[bool]], ...] = (
    (Shard.key, true()),
    (DatasetVersion.key, DatasetVersion.deleted_at.is_(None)),
    (tables.Dataset.manifest_key, true()),
    (Checkpoint.key, true()),
    (tables.Model.key, true()),
    (DoomedObject.key, true()),
)


def _shard_key(key: str) -> str:
    """Return the key of the shard that an index belongs to; any other key as it is."""
    suffix = index_key("")
    return key.removesuffix(suffix)


def _owner_of(key: str) -> str:
    """Return the row whose job may still name the object."""
    shard = shard_of_key(key)
    if shard is not None:
        return derive_id("shard", shard[0], str(shard[1]))
    parts = key.split("/")
    return parts[1] if len(parts) > 1 else ""


def _stored_originals(session: Session, keys: Sequence[str]) -> Sequence[str]:
    """Of these original bytes, the ones that an asset names: found by their hashes, which have an index."""
    hashes = [key.rpartition("/")[2] for key in keys if key.startswith("raw/")]
    is_kept = Asset.sha256.in_(hashes) & Asset.tombstoned_at.is_(None)
    return session.scalars(select(Asset.key).where(is_kept)).all() if hashes else ()


def _pending_uploads(session: Session, keys: Sequence[str]) -> set[str]:
    """Of these original bytes, the ones that an item waits for."""
    names = {key: f"sha256:{key.rpartition('/')[2]}" for key in keys if key.startswith("raw/")}
    if not names:
        return set()
    found: set[str] = set()
    for collection_id in session.scalars(select(tables.Collection.id)).all():
        ids = {item_id_of(collection_id, name): key for key, name in names.items()}
        waiting = session.scalars(select(Item.id).where(Item.id.in_(ids), Item.state.in_(PENDING_STATES)))
        found.update(ids[ItemId(item_id)] for item_id in waiting)
    return found
