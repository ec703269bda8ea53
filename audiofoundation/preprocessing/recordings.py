"""The recordings of a dataset one by one, with where they came from: what its manifest for others lists."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, select

from audiofoundation.catalog.bulk import is_one_of
from audiofoundation.catalog.engine import read_session
from audiofoundation.catalog.tables import Asset, DatasetItem, Item, Shard
from audiofoundation.identifiers import AssetId, ItemId, Sha256
from audiofoundation.preprocessing.states import DatasetItemState, ShardState

_PAGE = 500


@dataclass(frozen=True, slots=True)
class DatasetRecording:
    """A recording that is in a committed shard.

    Attributes:
        item_id, asset_id, asset_sha256: the item, the stored original and its content hash.
        kind, source, title, channel, license: where it came from, as ingest found it.
        retrieved_at: when, in seconds since the epoch.
        container, codec, sample_rate_hz, num_channels, duration_s: the original.
        shard_index: where its segments lie.
        num_segments, segments_duration_s: how many there are and how long they are together.
        descriptors: what was measured of the recording, by name in `features.descriptors.Descriptors`.
    """

    item_id: ItemId
    asset_id: AssetId
    asset_sha256: Sha256
    kind: str
    source: str
    title: str | None
    channel: str | None
    license: str | None
    retrieved_at: float | None
    container: str
    codec: str
    sample_rate_hz: int
    num_channels: int
    duration_s: float
    shard_index: int
    num_segments: int
    segments_duration_s: float
    descriptors: Mapping[str, float | list[float] | None] | None


def iterate_recordings(engine: Engine, dataset_id: str) -> Iterator[DatasetRecording]:
    """Yield a dataset's recordings in order of shard and item, a page per transaction: memory stays bounded.

    Recordings that were taken down are not among them, nor are shards that are committed in the meantime.
    """
    for shard_id in _committed_shards(engine, dataset_id):
        ids = _items_of(engine, shard_id)
        for start in range(0, len(ids), _PAGE):
            yield from _read_page(engine, dataset_id, ids[start : start + _PAGE])


def _committed_shards(engine: Engine, dataset_id: str) -> Sequence[str]:
    is_committed = (Shard.dataset_id == dataset_id) & (Shard.state == ShardState.COMMITTED)
    with read_session(engine) as session:
        return session.scalars(select(Shard.id).where(is_committed).order_by(Shard.shard_index)).all()


def _items_of(engine: Engine, shard_id: str) -> Sequence[str]:
    """Return the ids alone, in order: sorting whole rows again for every page of them costs their square."""
    is_done = (DatasetItem.shard_id == shard_id) & (DatasetItem.state == DatasetItemState.DONE)
    with read_session(engine) as session:
        return session.scalars(select(DatasetItem.item_id).where(is_done).order_by(DatasetItem.item_id)).all()


def _read_page(engine: Engine, dataset_id: str, ids: Sequence[str]) -> list[DatasetRecording]:
    with read_session(engine) as session:
        rows = session.execute(
            select(DatasetItem, Item, Asset, Shard)
            .join(Item, Item.id == DatasetItem.item_id)
            .join(Asset, Asset.id == Item.asset_id)
            .join(Shard, Shard.id == DatasetItem.shard_id)
            .where(
                DatasetItem.dataset_id == dataset_id,
                is_one_of(session, DatasetItem.item_id, ids),
                DatasetItem.state == DatasetItemState.DONE,
                DatasetItem.removed_generation.is_(None),
                Asset.tombstoned_at.is_(None),
                Shard.state == ShardState.COMMITTED,
            )
            .order_by(DatasetItem.item_id)
        )
        return [_to_recording(member, item, asset, shard) for member, item, asset, shard in rows]


def _to_recording(member: DatasetItem, item: Item, asset: Asset, shard: Shard) -> DatasetRecording:
    return DatasetRecording(
        item_id=ItemId(item.id),
        asset_id=AssetId(asset.id),
        asset_sha256=Sha256(asset.sha256),
        kind=item.kind,
        source=item.source,
        title=item.title,
        channel=item.channel,
        license=item.license,
        retrieved_at=item.retrieved_at,
        container=asset.container,
        codec=asset.codec,
        sample_rate_hz=asset.sample_rate_hz,
        num_channels=asset.num_channels,
        duration_s=asset.duration_s,
        shard_index=shard.shard_index,
        num_segments=member.num_segments,
        segments_duration_s=member.duration_s,
        descriptors=member.descriptors,
    )
