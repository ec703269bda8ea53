"""What a report looks at: counts from the catalog and a bounded random sample of the dataset's segments."""

import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray
from sqlalchemy import Engine, select

from audiofoundation.catalog.engine import read_session
from audiofoundation.catalog.tables import Collection, Dataset, DatasetItem
from audiofoundation.errors import Conflict, ObjectCorrupt, ObjectNotFound
from audiofoundation.identifiers import Sha256
from audiofoundation.preprocessing.options import DatasetOptions
from audiofoundation.preprocessing.states import DatasetItemState
from audiofoundation.preprocessing.status import DatasetStatus, dataset_status, get_dataset
from audiofoundation.shards.cache import ShardCache
from audiofoundation.shards.dataset import ShardDataset
from audiofoundation.shards.index import load_index, read_sample
from audiofoundation.shards.manifest import DatasetManifest, ShardRecord, load_manifest
from audiofoundation.shards.sample import Sample, SampleMeta
from audiofoundation.storage.object_store import ObjectStore

NUM_SEGMENTS, NUM_SHARDS, NUM_PICTURES = 300, 12, 6
_NUM_DURATIONS = 20_000

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DatasetSurvey:
    """What was found.

    Attributes:
        collection: the collection's name.
        options: how the dataset was made.
        status: its counts.
        manifest: its version.
        recordings_s: lengths of some recordings' segments together, in seconds [n].
        metas: measures of the segments that were looked at.
        pictured: some of these segments whole.
    """

    collection: str
    options: DatasetOptions
    status: DatasetStatus
    manifest: DatasetManifest
    recordings_s: NDArray[np.float64]
    metas: tuple[SampleMeta, ...]
    pictured: tuple[Sample, ...]


def version_of(engine: Engine, dataset_id: str) -> Sha256:
    """Return the version that a survey would look at.

    Raises:
        NotFound: there is no such dataset.
        Conflict: it is not built yet.
    """
    with read_session(engine) as session:
        return Sha256(_manifest_of(get_dataset(session, dataset_id))[1])


def survey(engine: Engine, store: ObjectStore, dataset_id: str) -> DatasetSurvey:
    """Look at a dataset; the same version always gives the same sample of segments.

    Raises:
        NotFound, Conflict: as `version_of`.
        StorageUnavailable: try again.
    """
    with read_session(engine) as session:
        dataset = get_dataset(session, dataset_id)
        key, sha256 = _manifest_of(dataset)
        collection = session.get_one(Collection, dataset.collection_id).name
        status, options = dataset_status(session, dataset), DatasetOptions.from_config(dataset.config)
        done = select(DatasetItem.duration_s).where(
            DatasetItem.dataset_id == dataset_id, DatasetItem.state == DatasetItemState.DONE
        )
        recordings_s = np.array(session.scalars(done.limit(_NUM_DURATIONS)).all(), np.float64)
    manifest = load_manifest(store, key, Sha256(sha256))
    metas: list[SampleMeta] = []
    pictured: list[Sample] = []
    every = max(1, min(NUM_SEGMENTS, manifest.num_samples) // NUM_PICTURES)
    for number, sample in enumerate(_some_segments(store, manifest)):
        metas.append(sample.meta)
        if number % every == 0 and len(pictured) < NUM_PICTURES:
            pictured.append(sample)
    return DatasetSurvey(collection, options, status, manifest, recordings_s, tuple(metas), tuple(pictured))


def _manifest_of(dataset: Dataset) -> tuple[str, str]:
    if dataset.manifest_key is None or dataset.manifest_sha256 is None:
        raise Conflict(f"the dataset {dataset.id} is still being built; a report needs a version that is ready")
    return dataset.manifest_key, dataset.manifest_sha256


def _some_segments(store: ObjectStore, manifest: DatasetManifest) -> Iterator[Sample]:
    """Yield up to `NUM_SEGMENTS` segments at random, from up to `NUM_SHARDS` shards; unreadable ones are left out."""
    rng = np.random.default_rng(0)
    filled = [record for record in manifest.shards if record.num_samples]
    picked = [filled[n] for n in rng.permutation(len(filled))[:NUM_SHARDS]]
    each = -(-NUM_SEGMENTS // max(1, len(picked)))
    for record in picked:
        places = rng.permutation(record.num_samples)[:each].tolist()
        try:
            yield from _segments_of(store, manifest, record, places)
        except (ObjectCorrupt, ObjectNotFound) as error:
            _log.warning("shard_not_surveyed", key=record.key, error=error.message)


def _segments_of(
    store: ObjectStore, manifest: DatasetManifest, record: ShardRecord, places: list[int]
) -> Iterator[Sample]:
    """Yield samples by their places: by ranges where the shard has an index, else from the whole of it."""
    if record.index_sha256 is not None:
        index = load_index(store, record)
        keys = list(index.samples)
        for place in places:
            yield read_sample(store, record, index, keys[place])
        return
    alone = manifest.model_copy(update={"shards": (record,)})
    with (
        tempfile.TemporaryDirectory(prefix="report-") as folder,
        closing(ShardDataset(ShardCache(store, Path(folder)), alone)) as dataset,
    ):
        wanted = set(places)
        yield from (sample for place, sample in enumerate(dataset.scan()) if place in wanted)
