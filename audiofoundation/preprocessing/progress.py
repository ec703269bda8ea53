"""How far a dataset got, from its shards alone: cheap enough to look at every second."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from audiofoundation.catalog.tables import Dataset, Shard
from audiofoundation.preprocessing.states import ShardState


@dataclass(frozen=True, slots=True)
class DatasetProgress:
    """Counts of a dataset's shards.

    Attributes:
        shard_states: shards by state.
        num_segments: segments in committed shards.
        duration_s: their length together.
        size_bytes: of committed shards.
    """

    id: str
    state: str
    shard_states: Mapping[str, int]
    num_segments: int
    duration_s: float
    size_bytes: int


def dataset_progress(session: Session, dataset: Dataset) -> DatasetProgress:
    """Count the shards of a dataset; no recording is looked at."""
    rows = session.execute(
        select(
            Shard.state,
            func.count(),
            func.sum(Shard.num_samples),
            func.sum(Shard.duration_s),
            func.sum(Shard.size_bytes),
        )
        .where(Shard.dataset_id == dataset.id)
        .group_by(Shard.state)
    ).all()
    committed = next((row for row in rows if row[0] == ShardState.COMMITTED), (None, 0, 0, 0.0, 0))
    return DatasetProgress(
        id=dataset.id,
        state=dataset.state,
        shard_states={row[0]: row[1] for row in rows},
        num_segments=int(committed[2]),
        duration_s=float(committed[3]),
        size_bytes=int(committed[4]),
    )
