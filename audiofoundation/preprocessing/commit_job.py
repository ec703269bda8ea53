"""The job `preprocess.commit`: a dataset's committed shards get a manifest, which makes it ready."""

import time
from dataclasses import dataclass

from sqlalchemy import Engine, func, select, update

from audiofoundation.catalog.engine import read_session
from audiofoundation.catalog.orphan_marks import forget_mark
from audiofoundation.catalog.tables import Dataset, DatasetItem, Shard
from audiofoundation.errors import AudioFoundationError, NotFound
from audiofoundation.identifiers import CollectionId, DatasetId, Sha256, sha256_of
from audiofoundation.jobs.lease import Claim, Effect
from audiofoundation.jobs.queue import UnitOfWork
from audiofoundation.preprocessing.options import DatasetOptions
from audiofoundation.preprocessing.states import DatasetItemState, DatasetState, ShardState
from audiofoundation.preprocessing.versions import ShardsAsOf, record_version, shards_as_of
from audiofoundation.shards.manifest import DatasetManifest, ShardRecord
from audiofoundation.storage.keys import manifest_key
from audiofoundation.storage.object_store import ObjectStore
from audiofoundation.telemetry.failpoints import Failpoint, failpoint
from audiofoundation.telemetry.tracing import span


@dataclass(frozen=True, slots=True)
class DatasetCommit:
    """Handles `preprocess.commit`."""

    engine: Engine
    store: ObjectStore

    def __call__(self, claim: Claim) -> Effect:
        """Store the manifest of what is committed now; return what to write."""
        manifest, as_of = self._describe(DatasetId(claim.subject_id))
        data = manifest.to_bytes()
        digest = sha256_of(data)
        key = manifest_key(manifest.dataset_id, digest)
        forget_mark(self.engine, key)
        with span("store", {"num_bytes": len(data), "num_shards": len(manifest.shards)}):
            self.store.put_bytes(key, data, content_type="application/json")
        failpoint(Failpoint.MANIFEST_STORED)

        def effect(unit: UnitOfWork) -> None:
            _lock(unit, manifest.dataset_id)
            if shards_as_of(unit.session, manifest.dataset_id) != as_of:
                return  # another shard came meanwhile, or was written again, and brings a commit of its own
            record_version(unit, manifest, key, digest)
            is_building = _num_queued(unit, manifest.dataset_id) > 0
            unit.session.execute(
                update(Dataset)
                .where(Dataset.id == manifest.dataset_id)
                .values(
                    state=DatasetState.BUILDING if is_building else DatasetState.READY,
                    manifest_key=key,
                    manifest_sha256=digest,
                    updated_at=time.time(),
                )
            )

        return effect

    def on_failure(self, unit: UnitOfWork, claim: Claim, error: AudioFoundationError) -> None:
        """Nothing to write: the dataset stays `building`, and asking for it again tries again."""

    def _describe(self, dataset_id: DatasetId) -> tuple[DatasetManifest, ShardsAsOf]:
        with read_session(self.engine) as session:
            dataset = session.get(Dataset, dataset_id)
            if dataset is None:
                raise NotFound(f"there is no dataset {dataset_id}")
            options = DatasetOptions.from_config(dataset.config)
            committed = session.scalars(
                select(Shard)
                .where(Shard.dataset_id == dataset_id, Shard.state == ShardState.COMMITTED)
                .order_by(Shard.shard_index)
            ).all()
            shards = tuple(_to_record(shard) for shard in committed if shard.key is not None)
            is_done = (DatasetItem.dataset_id == dataset_id) & (DatasetItem.state == DatasetItemState.DONE)
            num_items = session.scalar(select(func.count()).where(is_done)) or 0
            manifest = DatasetManifest(
                dataset_id=dataset_id,
                collection_id=CollectionId(dataset.collection_id),
                mel_preset=dataset.preset,
                mel_fingerprint=dataset.mel_fingerprint,
                segment_s=options.segment_s,
                has_waveform=options.include_waveform,
                num_items=num_items,
                num_samples=sum(record.num_samples for record in shards),
                duration_s=sum(record.duration_s for record in shards),
                shards=shards,
            )
            return manifest, shards_as_of(session, dataset_id)


def _to_record(shard: Shard) -> ShardRecord:
    assert shard.key is not None
    assert shard.sha256 is not None
    return ShardRecord(
        index=shard.shard_index,
        key=shard.key,
        size_bytes=shard.size_bytes,
        sha256=Sha256(shard.sha256),
        num_samples=shard.num_samples,
        duration_s=shard.duration_s,
        index_sha256=None if shard.index_sha256 is None else Sha256(shard.index_sha256),
    )


def _lock(unit: UnitOfWork, dataset_id: str) -> None:
    unit.session.execute(select(Dataset.id).where(Dataset.id == dataset_id).with_for_update())


def _num_queued(unit: UnitOfWork, dataset_id: str) -> int:
    is_queued = (Shard.dataset_id == dataset_id) & (Shard.state == ShardState.QUEUED)
    return unit.session.scalar(select(func.count()).where(is_queued)) or 0
