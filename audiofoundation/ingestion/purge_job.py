"""The job `ingest.purge`: objects that a takedown doomed are deleted, and what lies beside or was copied from them."""

import time
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy import Engine, delete, select, update

from audiofoundation.catalog.engine import read_session
from audiofoundation.catalog.tables import DatasetVersion, DoomedObject, Job, Shard
from audiofoundation.errors import AudioFoundationError, RateLimited
from audiofoundation.identifiers import derive_id
from audiofoundation.jobs.kinds import JobKind, JobState
from audiofoundation.jobs.lease import Claim, Effect
from audiofoundation.jobs.queue import UnitOfWork
from audiofoundation.jobs.removal import enqueue_purge
from audiofoundation.shards.retired import drop_retired
from audiofoundation.storage.keys import shard_of_key
from audiofoundation.storage.object_store import ObjectStore
from audiofoundation.telemetry.failpoints import Failpoint, failpoint
from audiofoundation.telemetry.tracing import span

_RETRY_S = 5.0
_MAKING = (JobKind.PREPROCESS_SHARD, JobKind.PREPROCESS_REWRITE)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Purge:
    """Handles `ingest.purge`.

    Attributes:
        engine: the catalog.
        store: what is doomed lies in it.
        data_dir: caches of this machine lie in it.
    """

    engine: Engine
    store: ObjectStore
    data_dir: Path

    def __call__(self, claim: Claim) -> Effect:
        """Delete the owner's due objects; return what to write."""
        with read_session(self.engine) as session:
            due = (DoomedObject.owner_id == claim.subject_id) & DoomedObject.is_due
            keys = sorted(session.scalars(select(DoomedObject.key).where(due)))
        with span("delete", {"num_objects": len(keys)}):
            for key in keys:
                self._delete(key)
        failpoint(Failpoint.PURGE_DELETED)
        drop_retired(self.engine, self.data_dir)

        def effect(unit: UnitOfWork) -> None:
            session = unit.session
            for key in keys:
                session.execute(delete(DoomedObject).where(DoomedObject.key == key))
                session.execute(
                    update(DatasetVersion)
                    .where(DatasetVersion.key == key, DatasetVersion.deleted_at.is_(None))
                    .values(deleted_at=time.time())
                )
            if session.scalar(select(DoomedObject.key).where(due)) is not None:
                enqueue_purge(unit, claim.subject_id)

        return effect

    def on_failure(self, unit: UnitOfWork, claim: Claim, error: AudioFoundationError) -> None:
        """Nothing to write: the objects stay doomed, and asking for the takedown again tries again."""

    def _delete(self, key: str) -> None:
        shard = shard_of_key(key)
        if shard is not None:
            self._delete_beside(key, *shard)
        self.store.delete(key)
        _log.info("object_deleted", key=key)

    def _delete_beside(self, key: str, dataset_id: str, shard_index: int) -> None:
        """Delete what killed attempts left of the same shard: they hold the same samples.

        They are listed first. What was there then and belongs to no job that runs afterwards, nor to the row, never
        will.
        """
        found = list(self.store.list(key.rpartition("/")[0] + "/"))
        shard_id = derive_id("shard", dataset_id, str(shard_index))
        with read_session(self.engine) as session:
            is_made = (Job.subject_id == shard_id) & Job.kind.in_(_MAKING) & (Job.state == JobState.RUNNING)
            if session.scalar(select(Job.id).where(is_made)) is not None:
                raise RateLimited(f"the shard {shard_id} is being written", retry_after_s=_RETRY_S)
            kept = session.scalar(select(Shard.key).where(Shard.id == shard_id))
        for other in found:
            if kept is None or not other.startswith(kept):  # an index lies under its shard's key with a suffix
                self.store.delete(other)
                _log.info("object_deleted", key=other)
