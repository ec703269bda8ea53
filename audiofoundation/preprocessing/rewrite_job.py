"""The job `preprocess.rewrite`: a shard is written again without what was taken down."""

import time
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from audiofoundation.catalog.engine import read_session
from audiofoundation.catalog.orphan_marks import forget_mark
from audiofoundation.catalog.tables import Dataset, DatasetItem, Shard
from audiofoundation.catalog.tombstones import doom
from audiofoundation.errors import AudioFoundationError, ObjectCorrupt, ObjectNotFound
from audiofoundation.identifiers import DatasetId, Sha256, sha256_of
from audiofoundation.jobs.kinds import JobKind
from audiofoundation.jobs.lease import Claim, Effect
from audiofoundation.jobs.queue import UnitOfWork
from audiofoundation.jobs.removal import enqueue_rewrite
from audiofoundation.preprocessing.job_directory import job_directory
from audiofoundation.preprocessing.options import DatasetOptions
from audiofoundation.preprocessing.states import DatasetItemState, DatasetState, ShardState
from audiofoundation.preprocessing.versions import enqueue_new_version, is_version_missing, tainted_items
from audiofoundation.shards.index import index_key
from audiofoundation.shards.reader import read_shard
from audiofoundation.shards.writer import ShardSummary, ShardWriter
from audiofoundation.storage.keys import shard_key
from audiofoundation.storage.object_store import ObjectStore
from audiofoundation.telemetry.failpoints import Failpoint, failpoint
from audiofoundation.telemetry.tracing import span

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ShardToRewrite:
    """What the job needs to know of its shard."""

    id: str
    dataset_id: DatasetId
    shard_index: int
    generation: int
    key: str
    sha256: Sha256
    rate_hz: int
    removed: frozenset[str]


@dataclass(frozen=True, slots=True)
class ShardRewrite:
    """Handles `preprocess.rewrite`.

    Attributes:
        engine: the catalog.
        store: the shard comes from it and goes back to it, under another key.
        work_dir: directories of running jobs.
    """

    engine: Engine
    store: ObjectStore
    work_dir: Path

    def __call__(self, claim: Claim) -> Effect:
        """Copy the shard sample by sample; return what to write. One that cannot be read is made again."""
        shard = self._load(claim.subject_id)
        if shard is None:
            return _catch_up(claim.subject_id)
        try:
            return _rewritten(shard, self._copy(shard, claim))
        except (ObjectNotFound, ObjectCorrupt) as error:
            _log.warning("shard_unreadable", shard_id=shard.id, key=shard.key, error=error.message)
            return _to_be_made_again(shard)

    def on_failure(self, unit: UnitOfWork, claim: Claim, error: AudioFoundationError) -> None:
        """Nothing to write: the samples stay until the takedown is asked for again."""

    def _copy(self, shard: ShardToRewrite, claim: Claim) -> "Rewritten":
        """Store the shard without the samples. Raises ObjectNotFound and ObjectCorrupt when it cannot be read."""
        with job_directory(self.work_dir, claim) as directory:
            old, new = directory / "old.tar", directory / "new.tar"
            with span("fetch", {"num_removed": len(shard.removed)}):
                self.store.get_to_file(shard.key, old, sha256=shard.sha256)
            with span("copy"), ShardWriter(new) as writer:
                for sample in read_shard(old):
                    if sample.meta.item_id not in shard.removed:
                        writer.write(sample)
                summary = writer.finish()
            failpoint(Failpoint.REWRITE_WRITTEN)
            key, index_sha256 = None, None
            if summary.num_samples:
                key = shard_key(shard.dataset_id, shard.shard_index, claim.attempt, summary.sha256)
                index = writer.index().to_bytes()
                with span("store", {"num_bytes": summary.size_bytes}):
                    forget_mark(self.engine, key, index_key(key))
                    self.store.put_file(key, new)
                    self.store.put_bytes(index_key(key), index, content_type="application/json")
                index_sha256 = sha256_of(index)
            failpoint(Failpoint.REWRITE_STORED)
        return Rewritten(key, index_sha256, summary, claim.attempt)

    def _load(self, shard_id: str) -> ShardToRewrite | None:
        """Return the shard; None when nothing in it was taken down."""
        with read_session(self.engine) as session:
            shard = session.get(Shard, shard_id)
            if shard is None or shard.state != ShardState.COMMITTED or shard.key is None or shard.sha256 is None:
                return None
            removed = frozenset(tainted_items(session, shard_id))
            if not removed:
                return None
            options = DatasetOptions.from_config(session.get_one(Dataset, shard.dataset_id).config)
            return ShardToRewrite(
                id=shard.id,
                dataset_id=DatasetId(shard.dataset_id),
                shard_index=shard.shard_index,
                generation=shard.generation,
                key=shard.key,
                sha256=Sha256(shard.sha256),
                rate_hz=options.mel.sample_rate_hz,
                removed=removed,
            )


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What lies in the store now; no key when nothing was left."""

    key: str | None
    index_sha256: Sha256 | None
    summary: ShardSummary
    attempt: int


def _rewritten(shard: ShardToRewrite, new: Rewritten) -> Effect:
    generation = shard.generation + 1

    def effect(unit: UnitOfWork) -> None:
        session = unit.session
        session.execute(select(Dataset.id).where(Dataset.id == shard.dataset_id).with_for_update())
        session.execute(
            update(Shard)
            .where(Shard.id == shard.id)
            .values(
                generation=generation,
                attempt=new.attempt,
                key=new.key,
                index_sha256=new.index_sha256,
                size_bytes=new.summary.size_bytes,
                sha256=new.summary.sha256,
                num_samples=new.summary.num_samples,
                duration_s=new.summary.num_audio_samples / shard.rate_hz,
                updated_at=time.time(),
            )
        )
        _let_go(session, shard)
        enqueue_new_version(unit, shard.id, shard.dataset_id, generation)
        if tainted_items(session, shard.id):
            enqueue_rewrite(unit, shard.id)

    return effect


def _to_be_made_again(shard: ShardToRewrite) -> Effect:
    """Have a shard that cannot be read made from the originals, which those taken down no longer have.

    The others stay `done`: the versions until now held them, and one taken down meanwhile is looked for among these.
    """

    def effect(unit: UnitOfWork) -> None:
        session = unit.session
        session.execute(select(Dataset.id).where(Dataset.id == shard.dataset_id).with_for_update())
        queued = {"state": ShardState.QUEUED, "generation": shard.generation + 1, "key": None, "index_sha256": None}
        session.execute(update(Shard).where(Shard.id == shard.id).values(**queued, updated_at=time.time()))
        _let_go(session, shard)
        kind = JobKind.PREPROCESS_SHARD
        unit.enqueue(kind, key=f"{kind.value}:{shard.id}", subject_id=shard.id, is_requeue=True)

    return effect


def _let_go(session: Session, shard: ShardToRewrite) -> None:
    """Write what is no longer in the shard, and that its object goes once the dataset has a new manifest."""
    for item_id in sorted(shard.removed):
        session.execute(
            update(DatasetItem)
            .where(DatasetItem.dataset_id == shard.dataset_id, DatasetItem.item_id == item_id)
            .values(state=DatasetItemState.TOMBSTONED, removed_generation=shard.generation + 1, updated_at=time.time())
        )
    doom(session, [shard.key], owner_id=shard.dataset_id, is_due=False)
    session.execute(update(Dataset).where(Dataset.id == shard.dataset_id).values(state=DatasetState.BUILDING))


def _catch_up(shard_id: str) -> Effect:
    """Ask again for a manifest whose job was given up."""

    def effect(unit: UnitOfWork) -> None:
        shard = unit.session.get(Shard, shard_id)
        if shard is not None and is_version_missing(unit.session, shard.dataset_id):
            enqueue_new_version(unit, shard.id, shard.dataset_id, shard.generation)

    return effect
