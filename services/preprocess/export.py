"""A dataset for others: its shards as they are, and a manifest of where every recording came from."""

from collections.abc import Iterator

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from audiofoundation.catalog.engine import read_session
from audiofoundation.errors import Conflict, NotFound
from audiofoundation.identifiers import Sha256
from audiofoundation.preprocessing.recordings import DatasetRecording, iterate_recordings
from audiofoundation.preprocessing.status import get_dataset
from audiofoundation.shards.manifest import DatasetManifest, ShardRecord, load_manifest
from audiofoundation.storage.object_store import ObjectStore
from services.preprocess.wiring import Container

_BLOCK_BYTES = 4 << 20
_JSON_LINES, _TAR = "application/x-ndjson", "application/x-tar"


class ShardOut(BaseModel):
    index: int
    url: str
    size_bytes: int
    sha256: str
    segments: int
    hours: float


class ShardsOut(BaseModel):
    dataset: str
    manifest_sha256: str = Field(description="The version of the dataset")
    preset: str
    mel_fingerprint: str
    has_waveform: bool = Field(description="Whether segments carry int16 audio")
    shards: list[ShardOut]


class RecordingOut(BaseModel):
    """One line of the manifest."""

    item_id: str
    asset_id: str
    sha256: str = Field(description="Of the original's bytes")
    kind: str
    source: str
    title: str | None
    channel: str | None
    license: str | None
    retrieved_at: float | None
    container: str
    codec: str
    sample_rate: int
    channels: int
    duration: float = Field(description="Seconds of the original")
    segments: int
    segments_duration: float
    descriptors: dict[str, float | list[float] | None] | None
    shard: int
    shard_sha256: str
    shard_url: str


def add_export_routes(router: APIRouter, container: Container) -> None:
    """Add the routes."""

    @router.get("/{dataset}/shards", summary="List the shards of a dataset's present version")
    def get_shards(dataset: str) -> ShardsOut:
        manifest, sha256 = _load(container, dataset)
        return ShardsOut(
            dataset=manifest.dataset_id,
            manifest_sha256=sha256,
            preset=manifest.mel_preset,
            mel_fingerprint=manifest.mel_fingerprint,
            has_waveform=manifest.has_waveform,
            shards=[_to_shard(dataset, record) for record in manifest.shards],
        )

    @router.get(
        "/{dataset}/shards/{index}",
        summary="Get a shard: a WebDataset tar",
        response_class=Response,
        responses={200: {"content": {_TAR: {}}, "description": "The bytes; their SHA-256 is in `X-Content-SHA256`"}},
    )
    def get_shard(dataset: str, index: int) -> StreamingResponse:
        manifest, _ = _load(container, dataset)
        record = next((record for record in manifest.shards if record.index == index), None)
        if record is None:
            raise NotFound(f"the dataset {dataset} has no shard {index}")
        headers = {"Content-Length": str(record.size_bytes), "X-Content-SHA256": record.sha256}
        return StreamingResponse(_blocks(container.store, record), media_type=_TAR, headers=headers)

    @router.get(
        "/{dataset}/manifest",
        summary="List every recording with its origin, licence and descriptors, as JSON Lines",
        response_class=Response,
        responses={200: {"content": {_JSON_LINES: {}}, "description": "One object a line, in order of shard and item"}},
    )
    def get_manifest(dataset: str) -> StreamingResponse:
        manifest, _ = _load(container, dataset)
        return StreamingResponse(_lines(container, manifest), media_type=_JSON_LINES)


def _load(container: Container, dataset_id: str) -> tuple[DatasetManifest, Sha256]:
    with read_session(container.queue.engine) as session:
        found = get_dataset(session, dataset_id)
        key, sha256 = found.manifest_key, found.manifest_sha256
    if key is None or sha256 is None:
        raise Conflict(f"the dataset {dataset_id} is not ready: wait until its state is `ready`")
    return load_manifest(container.store, key, Sha256(sha256)), Sha256(sha256)


def _to_shard(dataset_id: str, record: ShardRecord) -> ShardOut:
    return ShardOut(
        index=record.index,
        url=_shard_url(dataset_id, record.index),
        size_bytes=record.size_bytes,
        sha256=record.sha256,
        segments=record.num_samples,
        hours=record.duration_s / 3600,
    )


def _shard_url(dataset_id: str, index: int) -> str:
    return f"/v1/datasets/{dataset_id}/shards/{index}"


def _blocks(store: ObjectStore, record: ShardRecord) -> Iterator[bytes]:
    for offset in range(0, record.size_bytes, _BLOCK_BYTES):
        yield store.get_range(record.key, offset, min(_BLOCK_BYTES, record.size_bytes - offset))


def _lines(container: Container, manifest: DatasetManifest) -> Iterator[str]:
    """Yield a line per recording of the version; the catalog may already know shards of the next one."""
    shards = {record.index: record for record in manifest.shards}
    for recording in iterate_recordings(container.queue.engine, manifest.dataset_id):
        if (record := shards.get(recording.shard_index)) is not None:
            yield _to_line(manifest.dataset_id, recording, record).model_dump_json() + "\n"


def _to_line(dataset_id: str, found: DatasetRecording, shard: ShardRecord) -> RecordingOut:
    return RecordingOut(
        item_id=found.item_id,
        asset_id=found.asset_id,
        sha256=found.asset_sha256,
        kind=found.kind,
        source=found.source,
        title=found.title,
        channel=found.channel,
        license=found.license,
        retrieved_at=found.retrieved_at,
        container=found.container,
        codec=found.codec,
        sample_rate=found.sample_rate_hz,
        channels=found.num_channels,
        duration=found.duration_s,
        segments=found.num_segments,
        segments_duration=found.segments_duration_s,
        descriptors=None if found.descriptors is None else dict(found.descriptors),
        shard=shard.index,
        shard_sha256=shard.sha256,
        shard_url=_shard_url(dataset_id, shard.index),
    )
