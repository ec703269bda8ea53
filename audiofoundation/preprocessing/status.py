"""What a dataset holds and how far it got."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from audiofoundation.catalog.cursors import check_cursor
from audiofoundation.catalog.tables import Dataset, DatasetItem, Shard
from audiofoundation.errors import InvalidRequest, NotFound
from audiofoundation.preprocessing.states import DatasetItemState, ShardState

_MAX_PAGE = 1000


@dataclass(frozen=True, slots=True)
class DatasetStatus:
    """Counts of a dataset.

    Attributes:
        num_items: recordings that gave at least one segment.
        num_segments: segments in committed shards.
        duration_s: their length together.
        num_shards: committed shards; `num_shards_planned` counts those under way and failed ones too.
        states: recordings by state.
        error_classes: recordings without segments, by class.
        left_out: segments that were cut and left out, by the first threshold that each missed; those of recordings
            that were taken down since count too.
        features_failed: segments that are without a custom feature, by its name; likewise.
        wall_s: time during which at least one of the shards was being made.
        cpu_s: CPU seconds of the workers, decoding included.
    """

    id: str
    collection_id: str
    preset: str
    mel_fingerprint: str
    state: str
    manifest_key: str | None
    manifest_sha256: str | None
    num_items: int
    num_segments: int
    duration_s: float
    num_shards: int
    num_shards_planned: int
    states: Mapping[str, int]
    error_classes: Mapping[str, int]
    left_out: Mapping[str, int]
    features_failed: Mapping[str, int]
    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class DatasetItemPage:
    """Some recordings in order of item id, and where the next page starts (None: there is none)."""

    items: tuple[DatasetItem, ...]
    next_cursor: str | None


def get_dataset(session: Session, dataset_id: str) -> Dataset:
    """Return a dataset. Raises NotFound."""
    found = session.get(Dataset, dataset_id)
    if found is None:
        how = "`audiofoundation preprocess` or POST /v1/datasets"
        raise NotFound(f"there is no dataset {dataset_id!r}; make one with {how}")
    return found


def dataset_status(session: Session, dataset: Dataset) -> DatasetStatus:
    """Count what a dataset holds."""
    shards = session.scalars(select(Shard).where(Shard.dataset_id == dataset.id)).all()
    committed = [shard for shard in shards if shard.state == ShardState.COMMITTED]
    counts = session.execute(
        select(DatasetItem.state, DatasetItem.error_class, func.count())
        .where(DatasetItem.dataset_id == dataset.id)
        .group_by(DatasetItem.state, DatasetItem.error_class)
    ).all()
    states: dict[str, int] = {}
    classes: dict[str, int] = {}
    for state, error_class, count in counts:
        states[state] = states.get(state, 0) + count
        if error_class:
            classes[error_class] = classes.get(error_class, 0) + count
    return DatasetStatus(
        id=dataset.id,
        collection_id=dataset.collection_id,
        preset=dataset.preset,
        mel_fingerprint=dataset.mel_fingerprint,
        state=dataset.state,
        manifest_key=dataset.manifest_key,
        manifest_sha256=dataset.manifest_sha256,
        num_items=states.get(DatasetItemState.DONE, 0),
        num_segments=sum(shard.num_samples for shard in committed),
        duration_s=sum(shard.duration_s for shard in committed),
        num_shards=len(committed),
        num_shards_planned=len(shards),
        states=states,
        error_classes=classes,
        left_out=sum((Counter(shard.left_out) for shard in committed), Counter[str]()),
        features_failed=sum((Counter(shard.features_failed) for shard in committed), Counter[str]()),
        wall_s=union_s((shard.updated_at - shard.wall_s, shard.updated_at) for shard in committed),
        cpu_s=sum(shard.cpu_s for shard in committed),
    )


def union_s(spans: Iterable[tuple[float, float]]) -> float:
    """Return how long at least one of the spans lasted."""
    total_s, reached = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total_s += max(0.0, stop - max(start, reached))
        reached = max(reached, stop)
    return total_s


def dataset_item_page(
    session: Session, dataset: Dataset, *, state: str | None, cursor: str | None, limit: int
) -> DatasetItemPage:
    """Return the recordings after the cursor. Raises InvalidRequest when there is no such state or cursor."""
    statement = select(DatasetItem).where(DatasetItem.dataset_id == dataset.id).order_by(DatasetItem.item_id)
    if state is not None:
        if state not in DatasetItemState.__members__.values():
            known = ", ".join(DatasetItemState)
            raise InvalidRequest(f"there is no state {state!r}; choose one of {known}", param="state")
        statement = statement.where(DatasetItem.state == state)
    if after := check_cursor(cursor, prefix="item"):
        statement = statement.where(DatasetItem.item_id > after)
    limit = min(limit, _MAX_PAGE)
    found = tuple(session.scalars(statement.limit(limit + 1)))
    return DatasetItemPage(found[:limit], found[limit - 1].item_id if len(found) > limit else None)
