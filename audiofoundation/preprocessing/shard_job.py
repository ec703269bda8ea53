"""The job `preprocess.shard`: some recordings become one immutable shard and the rows that name it."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import structlog
from sqlalchemy import Engine, select, update

from audiofoundation.catalog.engine import read_session
from audiofoundation.catalog.orphan_marks import forget_mark
from audiofoundation.catalog.tables import Asset, Dataset, DatasetItem, Item, Shard
from audiofoundation.errors import (
    AudioFoundationError,
    AudioTooLong,
    DecodeFailed,
    ObjectCorrupt,
    ObjectNotFound,
    PayloadTooLarge,
)
from audiofoundation.features.custom import FeatureFunction
from audiofoundation.features.descriptors import Descriptors, combine
from audiofoundation.identifiers import AssetId, DatasetId, ItemId, Sha256, sha256_of
from audiofoundation.jobs.lease import Claim, Effect
from audiofoundation.jobs.queue import UnitOfWork
from audiofoundation.jobs.removal import enqueue_rewrite
from audiofoundation.preprocessing.allocator import keep_freed_memory
from audiofoundation.preprocessing.cpu_time import CpuClock
from audiofoundation.preprocessing.custom import functions_for
from audiofoundation.preprocessing.job_directory import job_directory
from audiofoundation.preprocessing.options import DatasetOptions
from audiofoundation.preprocessing.plan import enqueue_commit_if_complete
from audiofoundation.preprocessing.recording import RecordingToCut, cut_recording
from audiofoundation.preprocessing.states import DatasetItemState, ShardState
from audiofoundation.preprocessing.versions import tainted_items, tombstone_absent_items
from audiofoundation.shards.index import index_key
from audiofoundation.shards.sample import SampleMeta
from audiofoundation.shards.writer import ShardSummary, ShardWriter
from audiofoundation.storage.keys import shard_key
from audiofoundation.storage.object_store import ObjectStore
from audiofoundation.telemetry.failpoints import Failpoint, failpoint
from audiofoundation.telemetry.metrics import AUDIO_SECONDS, count
from audiofoundation.telemetry.tracing import span

# What is wrong with one recording and not with the platform; the shard goes on without it.
_ITEM_ERRORS = (DecodeFailed, AudioTooLong, PayloadTooLarge, ObjectCorrupt, ObjectNotFound)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ShardToMake:
    """What the job needs to know of its shard."""

    id: str
    dataset_id: DatasetId
    shard_index: int
    options: DatasetOptions
    recordings: tuple[RecordingToCut, ...]


@dataclass(frozen=True, slots=True)
class ItemOutcome:
    """What became of one recording.

    `left_out` counts segments by the threshold that they missed, `features_failed` those kept by the custom features
    that they lack.
    """

    item_id: ItemId
    state: DatasetItemState
    num_segments: int = 0
    num_audio_samples: int = 0
    error_class: str | None = None
    error: str | None = None
    descriptors: Descriptors | None = None
    left_out: Counter[str] = field(default_factory=Counter)
    features_failed: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class ShardPreprocess:
    """Handles `preprocess.shard`.

    Attributes:
        engine: the catalog.
        store: original bytes come from it, shards go to it.
        work_dir: directories of running jobs; a dead attempt's is removed by the next one.
        functions: the operator's custom features by name.
    """

    engine: Engine
    store: ObjectStore
    work_dir: Path
    functions: Mapping[str, FeatureFunction] = field(default_factory=dict)

    def __call__(self, claim: Claim) -> Effect:
        """Make and store the shard; return what to write."""
        shard = self._load(claim.subject_id)
        if shard is None:
            return _nothing
        keep_freed_memory()
        started, clock = time.monotonic(), CpuClock()
        with job_directory(self.work_dir, claim) as directory:
            path = directory / "shard.tar"
            with ShardWriter(path) as writer:
                outcomes = [self._add_traced(writer, recording, shard, directory) for recording in shard.recordings]
                summary = writer.finish()
            seconds = summary.num_audio_samples / shard.options.mel.sample_rate_hz
            count(AUDIO_SECONDS, claim.kind, amount=seconds)
            failpoint(Failpoint.SHARD_WRITTEN)
            stored = _Stored()
            if summary.num_samples:
                key = shard_key(shard.dataset_id, shard.shard_index, claim.attempt, summary.sha256)
                index = writer.index().to_bytes()
                with span("store", {"num_bytes": summary.size_bytes}):
                    forget_mark(self.engine, key, index_key(key))
                    self.store.put_file(key, path)
                    self.store.put_bytes(index_key(key), index, content_type="application/json")
                failpoint(Failpoint.SHARD_STORED)
                stored = _Stored(key, sha256_of(index))
        cost = _Cost(claim.attempt, time.monotonic() - started, clock.elapsed_s())
        return _committed(shard, stored, summary, outcomes, cost)

    def on_failure(self, unit: UnitOfWork, claim: Claim, error: AudioFoundationError) -> None:
        """Mark the shard and its recordings failed; the dataset gets its manifest without them."""
        session = unit.session
        shard = session.get(Shard, claim.subject_id)
        if shard is None:
            return
        shard.state = ShardState.FAILED
        session.execute(
            update(DatasetItem)
            .where(DatasetItem.shard_id == shard.id, DatasetItem.state != DatasetItemState.TOMBSTONED)
            .values(state=DatasetItemState.FAILED, error_class=error.code.value, error=error.message)
        )
        tombstone_absent_items(session, shard.id)
        session.flush()
        enqueue_commit_if_complete(unit, shard.dataset_id)

    def _load(self, shard_id: str) -> ShardToMake | None:
        """Return the shard; None when nothing is left to do for it."""
        with read_session(self.engine) as session:
            shard = session.get(Shard, shard_id)
            if shard is None or shard.state != ShardState.QUEUED:
                return None
            dataset = session.get_one(Dataset, shard.dataset_id)
            rows = session.execute(
                select(DatasetItem.item_id, Asset.id, Asset.sha256, Asset.key)
                .join(Item, Item.id == DatasetItem.item_id)
                .join(Asset, Asset.id == Item.asset_id)
                .where(DatasetItem.shard_id == shard_id, Asset.tombstoned_at.is_(None))
                .order_by(DatasetItem.item_id)
            )
            recordings = tuple(
                RecordingToCut(ItemId(item_id), AssetId(asset_id), Sha256(sha256), key)
                for item_id, asset_id, sha256, key in rows
            )
            options = DatasetOptions.from_config(dataset.config)
            return ShardToMake(shard.id, DatasetId(dataset.id), shard.shard_index, options, recordings)

    def _add_traced(
        self, writer: ShardWriter, recording: RecordingToCut, shard: ShardToMake, directory: Path
    ) -> ItemOutcome:
        with span("recording", {"item_id": recording.item_id}) as step:
            outcome = self._add(writer, recording, shard, directory)
            duration_s = outcome.num_audio_samples / shard.options.mel.sample_rate_hz
            step.set({"num_segments": outcome.num_segments, "duration_s": duration_s, "outcome": outcome.state.value})
            if outcome.state is DatasetItemState.FAILED:
                step.fail(outcome.error_class or "")
            return outcome

    def _add(self, writer: ShardWriter, recording: RecordingToCut, shard: ShardToMake, directory: Path) -> ItemOutcome:
        """Write the segments of one recording; one that cannot be read is reported and left out."""
        path = directory / "original"
        tally = _Tally()
        functions = functions_for(shard.options.custom_features, self.functions)
        try:
            self.store.get_to_file(recording.key, path, sha256=recording.asset_sha256)
            for sample in cut_recording(path, recording, shard.options, work_dir=directory, functions=functions):
                if tally.admit(sample.meta, shard.options):
                    writer.write(sample)
                    failpoint(Failpoint.SHARD_SAMPLE_WRITTEN)
        except _ITEM_ERRORS as error:
            if tally.num_segments:
                raise  # half a recording is in the shard: the whole shard is made again
            _log.warning("recording_left_out", item_id=recording.item_id, error=error.message)
            return ItemOutcome(
                recording.item_id, DatasetItemState.FAILED, error_class=error.code.value, error=error.message
            )
        finally:
            path.unlink(missing_ok=True)
        return tally.outcome(recording.item_id)


@dataclass(slots=True)
class _Tally:
    """Counts the segments of one recording: those kept, and the others by the threshold that they miss."""

    num_segments: int = 0
    num_audio_samples: int = 0
    parts: list[Descriptors] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    features_failed: Counter[str] = field(default_factory=Counter)

    def admit(self, meta: SampleMeta, options: DatasetOptions) -> bool:
        """Count a segment; tell whether it belongs into the shard."""
        missed = None if meta.quality is None else options.thresholds.first_missed(meta.quality)
        if missed is not None:
            self.left_out[missed] += 1
            return False
        self.num_segments += 1
        self.num_audio_samples += meta.num_samples
        self.features_failed.update(set(options.custom_features) - set(meta.custom_features))
        if meta.descriptors is not None:
            self.parts.append(meta.descriptors)
        return True

    def outcome(self, item_id: ItemId) -> ItemOutcome:
        """Return what became of the recording, with a reason where nothing is left of it."""
        if self.num_segments:
            descriptors = combine(self.parts).rounded()
            return ItemOutcome(
                item_id,
                DatasetItemState.DONE,
                self.num_segments,
                self.num_audio_samples,
                descriptors=descriptors,
                left_out=self.left_out,
                features_failed=self.features_failed,
            )
        if not self.left_out:
            error = "the recording is silent or shorter than the shortest segment"
            return ItemOutcome(item_id, DatasetItemState.SKIPPED, error_class="too_short", error=error)
        counts = ", ".join(f"{name}: {count}" for name, count in sorted(self.left_out.items()))
        error = f"every segment of the recording misses a quality threshold ({counts})"
        return ItemOutcome(
            item_id, DatasetItemState.SKIPPED, error_class="low_quality", error=error, left_out=self.left_out
        )


@dataclass(frozen=True, slots=True)
class _Stored:
    """Where the shard lies and its index's hash; both None when no recording gave a sample."""

    key: str | None = None
    index_sha256: Sha256 | None = None


@dataclass(frozen=True, slots=True)
class _Cost:
    attempt: int
    wall_s: float
    cpu_s: float


def _committed(
    shard: ShardToMake, stored: "_Stored", summary: ShardSummary, outcomes: Sequence[ItemOutcome], cost: _Cost
) -> Effect:
    rate_hz = shard.options.mel.sample_rate_hz
    left_out = sum((outcome.left_out for outcome in outcomes), Counter[str]())
    features_failed = sum((outcome.features_failed for outcome in outcomes), Counter[str]())

    def effect(unit: UnitOfWork) -> None:
        unit.session.execute(
            update(Shard)
            .where(Shard.id == shard.id)
            .values(
                state=ShardState.COMMITTED,
                attempt=cost.attempt,
                key=stored.key,
                index_sha256=stored.index_sha256,
                size_bytes=summary.size_bytes,
                sha256=summary.sha256,
                num_samples=summary.num_samples,
                duration_s=summary.num_audio_samples / rate_hz,
                wall_s=cost.wall_s,
                cpu_s=cost.cpu_s,
                left_out=dict(left_out) or None,
                features_failed=dict(features_failed) or None,
                updated_at=time.time(),
            )
        )
        for outcome in outcomes:
            unit.session.execute(
                update(DatasetItem)
                .where(DatasetItem.dataset_id == shard.dataset_id, DatasetItem.item_id == outcome.item_id)
                .values(
                    state=outcome.state,
                    error_class=outcome.error_class,
                    error=outcome.error,
                    num_segments=outcome.num_segments,
                    duration_s=outcome.num_audio_samples / rate_hz,
                    descriptors=None if outcome.descriptors is None else asdict(outcome.descriptors),
                    updated_at=time.time(),
                )
            )
        tombstone_absent_items(unit.session, shard.id)
        if tainted_items(unit.session, shard.id):  # taken down while the shard was made
            enqueue_rewrite(unit, shard.id)
        enqueue_commit_if_complete(unit, shard.dataset_id)

    return effect


def _nothing(unit: UnitOfWork) -> None:  # noqa: ARG001
    return
