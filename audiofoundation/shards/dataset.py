"""A dataset's samples by position, read from its shards as they are needed.

Positions count through all epochs: position `n` is sample `n % num_samples` of epoch `n // num_samples`. Any
process may ask for any position; together that is the split by rank and worker, and resuming.
"""

import os
import tarfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import structlog

from audiofoundation.errors import InvalidRequest, ObjectCorrupt, ObjectNotFound, ShardCorrupt
from audiofoundation.shards.cache import ShardCache
from audiofoundation.shards.manifest import DatasetManifest, ShardRecord
from audiofoundation.shards.order import ShuffledOrder
from audiofoundation.shards.reader import to_sample
from audiofoundation.shards.sample import Sample

DEFAULT_WINDOW_SHARDS = 8
# Each fetch reads twice before it gives up: the first time and three more.
_NUM_FETCHES = 2

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Member:
    """Where the bytes of one file of a sample lie in the shard."""

    suffix: str
    offset: int
    size: int


class OpenShard:
    """A shard of which any sample can be read.

    Raises:
        ShardCorrupt: it is not a tar, or holds another number of samples than the manifest says.
    """

    def __init__(self, file: BinaryIO, record: ShardRecord) -> None:
        self._file, self._path = file, Path(record.key)
        self._samples = _index(file, record)
        if len(self._samples) != record.num_samples:
            file.close()
            raise ShardCorrupt(f"the shard {record.key} holds {len(self._samples)} samples, not {record.num_samples}")

    def sample(self, number: int) -> Sample:
        """Return a sample by its position in the shard. Raises ShardCorrupt."""
        key, members = self._samples[number]
        descriptor = self._file.fileno()
        return to_sample(key, {m.suffix: os.pread(descriptor, m.size, m.offset) for m in members}, self._path)

    def close(self) -> None:
        """Let the file go."""
        self._file.close()


class ShardDataset:
    """The samples of a manifest in shuffled order.

    Shards that stay corrupt, or are gone, are set aside: their positions give None from then on, in every
    epoch, and all other positions give what they always did.

    Args:
        cache: where shards are read from; it needs room for `window_shards` per process.
        manifest: which shards.
        seed: of the order.
        window_shards: shards whose samples are shuffled together.

    Raises:
        InvalidRequest: the dataset is empty.
        MelMismatch: its preset has changed since.
    """

    def __init__(
        self,
        cache: ShardCache,
        manifest: DatasetManifest,
        *,
        seed: int = 0,
        window_shards: int = DEFAULT_WINDOW_SHARDS,
    ) -> None:
        self.mel = manifest.mel_config()
        self.manifest, self.seed = manifest, seed
        self.order = ShuffledOrder(tuple(shard.num_samples for shard in manifest.shards), seed, window_shards)
        if not self.order.num_samples:
            raise InvalidRequest(f"the dataset {manifest.dataset_id} holds no samples", param="dataset")
        self._cache = cache
        self._open: OrderedDict[int, OpenShard] = OrderedDict()
        self.quarantined: set[int] = set()

    @property
    def num_samples(self) -> int:
        """Samples of one epoch, those of shards that were set aside too."""
        return self.order.num_samples

    def sample(self, position: int) -> Sample | None:
        """Return the sample at a position, None where its shard was set aside.

        Raises:
            ShardCorrupt: every shard was set aside.
            StorageUnavailable: the store does not answer.
        """
        epoch, index = divmod(position, self.num_samples)
        place = self.order.place(epoch, index)
        if place.shard in self.quarantined:
            return None
        try:
            return self._opened(place.shard).sample(place.sample)
        except (ObjectCorrupt, ObjectNotFound) as error:
            self._set_aside(place.shard, error)
            return None

    def scan(self) -> Iterator[Sample]:
        """Yield every sample in the order in which it was written; shards that cannot be read are set aside.

        Raises:
            ShardCorrupt: every shard was set aside.
            StorageUnavailable: the store does not answer.
        """
        for number, size in enumerate(self.order.sizes):
            try:
                for place in range(size):
                    yield self._opened(number).sample(place)
            except (ObjectCorrupt, ObjectNotFound) as error:
                self._set_aside(number, error)

    def close(self) -> None:
        """Let all files go."""
        while self._open:
            self._open.popitem()[1].close()

    def _opened(self, number: int) -> OpenShard:
        """Return a shard; those of one window stay open."""
        if number not in self._open:
            self._open[number] = self._fetch(self.manifest.shards[number])
            while len(self._open) > self.order.window_shards:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(number)
        return self._open[number]

    def _fetch(self, record: ShardRecord) -> OpenShard:
        for is_last in (*(False,) * (_NUM_FETCHES - 1), True):
            try:
                return OpenShard(self._cache.open(record), record)
            except ShardCorrupt:
                raise  # these are the bytes that were written
            except ObjectCorrupt as error:
                if is_last:
                    raise
                _log.warning("shard_fetch_retried", key=record.key, error=error.message)
        raise AssertionError("the last try returns or raises")

    def _set_aside(self, number: int, error: ObjectCorrupt | ObjectNotFound) -> None:
        if number in self._open:
            self._open.pop(number).close()
        self.quarantined.add(number)
        record = self.manifest.shards[number]
        _log.error("shard_quarantined", key=record.key, num_samples=record.num_samples, error=error.message)
        if all(n in self.quarantined for n, size in enumerate(self.order.sizes) if size):
            raise ShardCorrupt(f"no shard of the dataset {self.manifest.dataset_id} can be read") from error


def _index(file: BinaryIO, record: ShardRecord) -> list[tuple[str, list[_Member]]]:
    """Return each key of a tar with its members; those of one key lie together."""
    found: list[tuple[str, list[_Member]]] = []
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for info in archive:
                stem, _, suffix = info.name.partition(".")
                if not found or found[-1][0] != stem:
                    found.append((stem, []))
                found[-1][1].append(_Member(suffix, info.offset_data, info.size))
    except (tarfile.TarError, EOFError) as error:
        file.close()
        raise ShardCorrupt(f"the shard {record.key} is not a whole tar: {error}") from error
    return found
