"""The datasets that there are, a page at a time."""

from dataclasses import dataclass

from sqlalchemy import Select, select, tuple_
from sqlalchemy.orm import Session

from audiofoundation.catalog.cursors import check_cursor, wrong_cursor
from audiofoundation.catalog.tables import Collection, Dataset, DatasetVersion

_MAX_PAGE = 1000


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """A dataset, its collection's name, and its newest version (None: it has none yet)."""

    dataset: Dataset
    collection_name: str
    version: DatasetVersion | None


@dataclass(frozen=True, slots=True)
class DatasetPage:
    """Some datasets, the newest first, and where the next page starts (None: there is none)."""

    entries: tuple[DatasetEntry, ...]
    next_cursor: str | None


def dataset_page(
    session: Session, *, collection: Collection | None = None, cursor: str | None, limit: int
) -> DatasetPage:
    """Return the datasets after the cursor; no shard and no item is looked at.

    Args:
        session: the catalog.
        collection: only datasets of this one; None is all.
        cursor: id of the dataset with which the page before ended.
        limit: how many at most.

    Raises:
        InvalidRequest: the cursor is no dataset's id.
    """
    limit = min(limit, _MAX_PAGE)
    newest = _after(session, check_cursor(cursor, prefix="ds"))
    if collection is not None:
        newest = newest.where(Dataset.collection_id == collection.id)
    rows = session.execute(newest.limit(limit + 1)).all()
    entries = tuple(DatasetEntry(*row) for row in rows[:limit])
    return DatasetPage(entries, entries[-1].dataset.id if len(rows) > limit else None)


def _after(session: Session, cursor: str) -> Select[Dataset, str, DatasetVersion | None]:
    """Ids of datasets are hashes: the row at the cursor says where in time it stands."""
    newest = (
        select(Dataset, Collection.name, DatasetVersion)
        .join(Collection, Collection.id == Dataset.collection_id)
        .outerjoin(DatasetVersion, DatasetVersion.manifest_sha256 == Dataset.manifest_sha256)
        .order_by(Dataset.created_at.desc(), Dataset.id.desc())
    )
    if not cursor:
        return newest
    last = session.get(Dataset, cursor)
    if last is None:
        raise wrong_cursor(cursor)
    return newest.where(tuple_(Dataset.created_at, Dataset.id) < tuple_(last.created_at, last.id))
