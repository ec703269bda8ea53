"""The tables of the catalog: the system of record (docs/adr/0001).

Times are seconds since the epoch (UTC) as floats, so that SQLite and PostgreSQL compare them alike.
"""

import time
from typing import Any

from sqlalchemy import JSON, BigInteger, Float, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

_Id = String(64)
_TraceParent = String(64)  # 55 characters in version 00 of the W3C's format


class Base(DeclarativeBase):
    type_annotation_map = {dict[str, Any]: JSON, str: Text, float: Float, int: BigInteger}  # noqa: RUF012


class Timestamps:
    created_at: Mapped[float] = mapped_column(default=time.time)
    updated_at: Mapped[float] = mapped_column(default=time.time, onupdate=time.time)


class Collection(Base, Timestamps):
    """A named set of items from the world."""

    __tablename__ = "collections"
    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    policy: Mapped[str] = mapped_column(String(32), default="none")


class Asset(Base, Timestamps):
    """The original bytes of one recording, stored once whatever names it."""

    __tablename__ = "assets"
    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    key: Mapped[str]
    size_bytes: Mapped[int]
    container: Mapped[str] = mapped_column(String(64), default="")
    codec: Mapped[str] = mapped_column(String(64), default="")
    sample_rate_hz: Mapped[int] = mapped_column(Integer, default=0)
    num_channels: Mapped[int] = mapped_column(Integer, default=0)
    duration_s: Mapped[float] = mapped_column(default=0.0)
    damage: Mapped[str | None]
    tombstoned_at: Mapped[float | None]


class Item(Base, Timestamps):
    """One source in a collection: where it came from, how far it got, why it failed."""

    __tablename__ = "items"
    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    collection_id: Mapped[str] = mapped_column(_Id, ForeignKey("collections.id"))
    canonical: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(String(16))
    source: Mapped[str]
    state: Mapped[str] = mapped_column(String(16), default="queued")
    error_class: Mapped[str | None] = mapped_column(String(48))
    error: Mapped[str | None]
    title: Mapped[str | None]
    channel: Mapped[str | None]
    license: Mapped[str | None]
    duration_s: Mapped[float | None]
    policy: Mapped[str | None] = mapped_column(String(64))
    tool_version: Mapped[str | None] = mapped_column(String(64))
    retrieved_at: Mapped[float | None]
    recheck_at: Mapped[float | None]
    num_rechecks: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    asset_id: Mapped[str | None] = mapped_column(_Id, ForeignKey("assets.id"))
    discovery_id: Mapped[str | None] = mapped_column(_Id)
    __table_args__ = (
        UniqueConstraint("collection_id", "canonical"),
        Index("ix_items_state", "collection_id", "state", "id"),
        Index("ix_items_asset", "asset_id"),
    )


class ItemCount(Base):
    """How many items of a collection are in which state; only catalog/item_states.py writes it."""

    __tablename__ = "item_counts"
    collection_id: Mapped[str] = mapped_column(_Id, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    state: Mapped[str] = mapped_column(String(16), primary_key=True)
    error_class: Mapped[str] = mapped_column(String(48), primary_key=True)
    num_items: Mapped[int]


class Discovery(Base, Timestamps):
    """A search, playlist, channel, feed or list whose entries become items of a collection."""

    __tablename__ = "discoveries"
    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    collection_id: Mapped[str] = mapped_column(_Id, ForeignKey("collections.id"))
    kind: Mapped[str] = mapped_column(String(32))
    address: Mapped[str]
    state: Mapped[str] = mapped_column(String(16), default="queued")
    is_plan: Mapped[bool] = mapped_column(default=False)
    num_seen: Mapped[int] = mapped_column(Integer, default=0)
    num_added: Mapped[int] = mapped_column(Integer, default=0)
    num_duplicates: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    num_discoveries: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    rejected: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    examples: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list, server_default="[]")
    license: Mapped[str | None]
    note: Mapped[str | None]
    validators: Mapped[dict[str, Any]] = mapped_column(default=dict)
    tool_version: Mapped[str | None] = mapped_column(String(64))
    error_class: Mapped[str | None] = mapped_column(String(48))
    error: Mapped[str | None]
    __table_args__ = (Index("ix_discoveries_state", "collection_id", "state"),)


class EgressLane(Base):
    """What one egress identity may ask of one site: its bucket, its breaker, the jobs that use it now."""

    __tablename__ = "egress_lanes"
    name: Mapped[str] = mapped_column(String(320), primary_key=True)
    full_at: Mapped[float] = mapped_column(default=0.0)
    resume_at: Mapped[float] = mapped_column(default=0.0)
    is_tripped: Mapped[bool] = mapped_column(default=False)
    open_until: Mapped[float] = mapped_column(default=0.0)
    mean_cost_s: Mapped[float] = mapped_column(default=0.0)
    num_started: Mapped[int] = mapped_column(default=0)
    num_waiting: Mapped[int] = mapped_column(default=0)
    counted_at: Mapped[float] = mapped_column(default=0.0)
    holders: Mapped[dict[str, Any]]


class Probe(Base):
    """What was measured of an item before (or after) its bytes were paid for, and what followed from it."""

    __tablename__ = "probes"
    item_id: Mapped[str] = mapped_column(_Id, ForeignKey("items.id"), primary_key=True)
    stage: Mapped[str] = mapped_column(String(16))
    decision: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str]
    num_bytes: Mapped[int]
    measurements: Mapped[dict[str, Any]]
    thresholds: Mapped[dict[str, Any]]
    probed_at: Mapped[float]


class PolicyDecision(Base):
    """An operator's decision to take more than open licences, with the text that was in force."""

    __tablename__ = "policy_decisions"
    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    policy: Mapped[str] = mapped_column(String(32))
    text_version: Mapped[str] = mapped_column(String(32))
    decided_by: Mapped[str] = mapped_column(String(128))
    owned_channels: Mapped[dict[str, Any]]
    decided_at: Mapped[float]


class Dataset(Base, Timestamps):
    """A collection seen through one preset and one set of options."""

    __tablename__ = "datasets"
    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    collection_id: Mapped[str] = mapped_column(_Id, ForeignKey("collections.id"))
    preset: Mapped[str] = mapped_column(String(32))
    mel_fingerprint: Mapped[str] = mapped_column(String(64))
    config: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16), default="building")
    manifest_key: Mapped[str | None]
    manifest_sha256: Mapped[str | None] = mapped_column(String(64))


class DatasetItem(Base, Timestamps):
    """What became of one item in one dataset."""

    __tablename__ = "dataset_items"
    dataset_id: Mapped[str] = mapped_column(_Id, ForeignKey("datasets.id"), primary_key=True)
    item_id: Mapped[str] = mapped_column(_Id, ForeignKey("items.id"), primary_key=True)
    shard_id: Mapped[str] = mapped_column(_Id)
    removed_generation: Mapped[int | None] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(String(16), default="queued")
    error_class: Mapped[str | None] = mapped_column(String(48))
    error: Mapped[str | None]
    num_segments: Mapped[int] = mapped_column(Integer, default=0)
    duration_s: Mapped[float] = mapped_column(default=0.0)
    descriptors: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    __table_args__ = (
        Index("ix_dataset_items_state", "dataset_id", "state"),
        Index("ix_dataset_items_shard", "shard_id"),
        Index("ix_dataset_items_item", "item_id"),
    )


class Shard(Base, Timestamps):
    """One tar of samples. It exists for readers once its state is `committed`."""

    __tablename__ = "shards"
    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    dataset_id: Mapped[str] = mapped_column(_Id, ForeignKey("datasets.id"))
    shard_index: Mapped[int] = mapped_column(Integer)
    generation: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    state: Mapped[str] = mapped_column(String(16), default="queued")
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    key: Mapped[str | None]
    size_bytes: Mapped[int] = mapped_column(default=0)
    sha256: Mapped[str | None] = mapped_column(String(64))
    index_sha256: Mapped[str | None] = mapped_column(String(64))
    num_samples: Mapped[int] = mapped_column(Integer, default=0)
    duration_s: Mapped[float] = mapped_column(default=0.0)
    wall_s: Mapped[float] = mapped_column(default=0.0)
    cpu_s: Mapped[float] = mapped_column(default=0.0)
    left_out: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    features_failed: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    __table_args__ = (UniqueConstraint("dataset_id", "shard_index"),)


class DatasetVersion(Base):
    """One manifest of a dataset. A run trains on a version; `deleted_at` is when a takedown removed its manifest."""

    __tablename__ = "dataset_versions"
    manifest_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    dataset_id: Mapped[str] = mapped_column(_Id, ForeignKey("datasets.id"))
    key: Mapped[str]
    num_items: Mapped[int]
    num_samples: Mapped[int]
    duration_s: Mapped[float]
    created_at: Mapped[float]
    deleted_at: Mapped[float | None]
    __table_args__ = (Index("ix_dataset_versions_dataset", "dataset_id"),)


class VersionShard(Base):
    """A version names a shard as it was in that generation: with every item that was not removed before it."""

    __tablename__ = "version_shards"
    manifest_sha256: Mapped[str] = mapped_column(
        String(64), ForeignKey("dataset_versions.manifest_sha256"), primary_key=True
    )
    shard_id: Mapped[str] = mapped_column(_Id, primary_key=True)
    generation: Mapped[int] = mapped_column(Integer)
    __table_args__ = (Index("ix_version_shards_shard", "shard_id"),)


class Tombstone(Base):
    """A source (`url:…`, `youtube:…`) or content (`sha256:…`) that was taken down and is never taken again."""

    __tablename__ = "tombstones"
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    reason: Mapped[str]
    created_at: Mapped[float]


class DoomedObject(Base):
    """An object that must go: at once when it is due, else when its dataset has a manifest that does not name it."""

    __tablename__ = "doomed_objects"
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    owner_id: Mapped[str] = mapped_column(_Id)
    is_due: Mapped[bool]
    created_at: Mapped[float]
    __table_args__ = (Index("ix_doomed_objects_owner", "owner_id"),)


class OrphanMark(Base):
    """An object that nothing named when the collector passed; the next pass but a day later deletes it."""

    __tablename__ = "orphan_marks"
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    marked_at: Mapped[float]


class Job(Base, Timestamps):
    """One piece of work. The row is the truth; a queue message is a hint (docs/adr/0003)."""

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    kind: Mapped[str] = mapped_column(String(48))
    key: Mapped[str] = mapped_column(String(200), unique=True)
    subject_id: Mapped[str] = mapped_column(_Id)
    state: Mapped[str] = mapped_column(String(16), default="queued")
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    lease_owner: Mapped[str | None] = mapped_column(String(128))
    lease_until: Mapped[float | None]
    not_before: Mapped[float] = mapped_column(default=0.0)
    published_at: Mapped[float] = mapped_column(default=0.0)
    last_error_class: Mapped[str | None] = mapped_column(String(48))
    last_error: Mapped[str | None]
    traceparent: Mapped[str | None] = mapped_column(_TraceParent)
    trace_link: Mapped[str | None] = mapped_column(_TraceParent)
    __table_args__ = (
        Index("ix_jobs_state", "state", "kind", "not_before", "id"),
        Index("ix_jobs_lease", "state", "lease_until"),
        Index("ix_jobs_subject", "subject_id"),
    )


class Lease(Base):
    """A named singleton role, such as the sweeper: whoever holds the row until `lease_until` has it."""

    __tablename__ = "leases"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    owner: Mapped[str] = mapped_column(String(128))
    lease_until: Mapped[float]


class Run(Base, Timestamps):
    """A training run: what was asked, how far it got."""

    __tablename__ = "runs"
    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    recipe: Mapped[str] = mapped_column(String(64))
    dataset_id: Mapped[str] = mapped_column(_Id, ForeignKey("datasets.id"))
    manifest_sha256: Mapped[str | None] = mapped_column(String(64), index=True)
    overrides: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16), default="queued")
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    step: Mapped[int] = mapped_column(Integer, default=0)
    num_steps: Mapped[int] = mapped_column(Integer, default=0)
    losses: Mapped[dict[str, Any]]
    is_cancel_requested: Mapped[bool] = mapped_column(default=False)
    error_class: Mapped[str | None] = mapped_column(String(48))
    error: Mapped[str | None]
    model_id: Mapped[str | None] = mapped_column(_Id)


class Checkpoint(Base, Timestamps):
    """A committed, verified training state; the newest is where a run resumes."""

    __tablename__ = "checkpoints"
    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    run_id: Mapped[str] = mapped_column(_Id, ForeignKey("runs.id"))
    step: Mapped[int] = mapped_column(Integer)
    attempt: Mapped[int] = mapped_column(Integer)
    key: Mapped[str]
    size_bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64))
    losses: Mapped[dict[str, Any]]
    __table_args__ = (UniqueConstraint("run_id", "step", "attempt"),)


class Model(Base, Timestamps):
    """A servable model: one immutable safetensors object."""

    __tablename__ = "models"
    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    task: Mapped[str] = mapped_column(String(32))
    kind: Mapped[str] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(16), default="candidate")
    run_id: Mapped[str | None] = mapped_column(_Id, ForeignKey("runs.id"))
    dataset_id: Mapped[str | None] = mapped_column(_Id)
    mel_fingerprint: Mapped[str] = mapped_column(String(64))
    key: Mapped[str]
    size_bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64))
    metrics: Mapped[dict[str, Any]]
