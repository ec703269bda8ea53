"""Training on a dataset that is larger than the disk: a few shards at a time, joined, and meanwhile the next few.

A pool is some neighbouring shards of the manifest, joined as `shards_corpus` joins a whole dataset. A step trains on
one pool; which one depends on the manifest, the settings, the seed and the step alone, so that a resumed run goes on
where another stopped. An epoch visits every pool once, each for as many steps as its frames fill.
"""

import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import structlog

from audiofoundation.errors import InvalidRequest, ShardCorrupt, StorageUnavailable
from audiofoundation.shards.cache import ShardCache
from audiofoundation.shards.dataset import ShardDataset
from audiofoundation.shards.manifest import DatasetManifest, ShardRecord
from audiofoundation.shards.sample import Sample
from audiofoundation.storage.object_store import ObjectStore
from audiofoundation.training.corpus import Corpus
from audiofoundation.training.shards_corpus import build_corpus

_LEAVE_S = 5.0

_log = structlog.get_logger(__name__)

Pool = tuple[ShardRecord, ...]


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """Which pool each step trains on.

    Attributes:
        num_steps: how long each pool is trained on in every epoch.
        seed: of the order of the pools.
    """

    num_steps: tuple[int, ...]
    seed: int

    def stay(self, step: int) -> tuple[int, int]:
        """Return the pool of a step, and the first step of the pool after it."""
        epoch, within = divmod(step, sum(self.num_steps))
        end = step - within
        for pool in np.random.default_rng([self.seed, epoch]).permutation(len(self.num_steps)):
            end += self.num_steps[pool]
            if step < end:
                return int(pool), end
        raise AssertionError("an epoch holds the steps of its pools")


def plan_pools(
    manifest: DatasetManifest, *, pool_shards: int, frames_per_step: int, seed: int
) -> tuple[tuple[Pool, ...], PoolPlan]:
    """Return the pools of a dataset and when each is trained on.

    Raises:
        InvalidRequest: the dataset is empty.
    """
    shards = tuple(shard for shard in manifest.shards if shard.num_samples)
    if not shards:
        raise InvalidRequest(f"the dataset {manifest.dataset_id} holds no samples", param="dataset")
    pools = tuple(shards[start : start + pool_shards] for start in range(0, len(shards), pool_shards))
    rate_hz = manifest.mel_config().frame_rate_hz
    frames = [rate_hz * sum(shard.duration_s for shard in pool) for pool in pools]
    return pools, PoolPlan(tuple(max(1, round(each / frames_per_step)) for each in frames), seed)


@dataclass(frozen=True, slots=True)
class _Ahead:
    """A pool that is being joined for later, and how to have that left unfinished."""

    number: int
    corpus: "Future[Corpus | None]"
    is_unwanted: threading.Event


def _until(is_unwanted: threading.Event, samples: Iterator[Sample]) -> Iterator[Sample]:
    for sample in samples:
        if is_unwanted.is_set():
            raise CancelledError
        yield sample


class PoolSource:
    """Gives each step its pool as a corpus, memory-mapped in a folder; the next one is being joined meanwhile.

    Args:
        store: where the shards lie.
        manifest: of the dataset.
        pools: shards that are trained on together.
        plan: when.
        folder: for the pools at hand, which this object alone uses.
    """

    def __init__(
        self, store: ObjectStore, manifest: DatasetManifest, pools: Sequence[Pool], plan: PoolPlan, folder: Path
    ) -> None:
        self._store, self._manifest, self._pools, self._plan = store, manifest, pools, plan
        self._folder = folder
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="next-pool")
        self._number, self._corpus = -1, None  # type: tuple[int, Corpus | None]
        self._ahead: _Ahead | None = None

    def at(self, step: int) -> Corpus | None:
        """Return what the step trains on; None where its pool cannot be used.

        Raises:
            StorageUnavailable: the store does not answer.
        """
        number, end = self._plan.stay(step)
        if number != self._number:
            self._number, self._corpus = number, self._take(number)
            following, _ = self._plan.stay(end)
            if following != number:
                is_unwanted = threading.Event()
                joining = self._threads.submit(self._join, following, is_unwanted)
                self._ahead = _Ahead(following, joining, is_unwanted)
            self._tidy({number, following})
        return self._corpus

    def close(self) -> None:
        """Leave the pool that is being joined unfinished, and nothing on disk. Corpora that are in use stay so."""
        if self._ahead is not None:
            self._ahead.is_unwanted.set()
            wait([self._ahead.corpus], timeout=_LEAVE_S)
        self._threads.shutdown(wait=False, cancel_futures=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def first(self) -> Corpus:
        """Return the first pool in the order of training that can be used.

        Raises:
            InvalidRequest: no pool holds a usable segment.
            StorageUnavailable: the store does not answer.
        """
        step, tried = 0, set[int]()
        while len(tried) < len(self._pools):
            number, end = self._plan.stay(step)
            tried.add(number)
            if (corpus := self.at(step)) is not None:
                return corpus
            step = end
        raise InvalidRequest("no shard of the dataset can be used; preprocess its recordings again", param="dataset")

    def _take(self, number: int) -> Corpus | None:
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead.number != number:
            if ahead is not None:
                ahead.is_unwanted.set()
            return self._join(number, threading.Event())
        try:
            return ahead.corpus.result()
        except StorageUnavailable:  # it was away then; it may be back
            return self._join(number, threading.Event())

    def _join(self, number: int, is_unwanted: threading.Event) -> Corpus | None:
        folder = self._folder_of(number)
        shutil.rmtree(folder, ignore_errors=True)
        pool = self._manifest.model_copy(update={"shards": self._pools[number]})
        try:
            # Each shard is read once: the cache holds one at a time, and one is open.
            cache = ShardCache(self._store, folder / "shards", max_bytes=1)
            with closing(ShardDataset(cache, pool, window_shards=1)) as dataset:
                corpus = build_corpus(_until(is_unwanted, dataset.scan()), dataset.mel, folder)
        except (InvalidRequest, ShardCorrupt) as error:
            _log.warning("pool_left_out", pool=number, error=error.message)
            return None
        shutil.rmtree(folder / "shards")
        return corpus

    def _tidy(self, kept: set[int]) -> None:
        """Remove the pools that are over; what of them is still mapped stays until it is let go."""
        for number in set(range(len(self._pools))) - kept:
            shutil.rmtree(self._folder_of(number), ignore_errors=True)

    def _folder_of(self, number: int) -> Path:
        return self._folder / f"pool-{number}"


@dataclass(frozen=True, slots=True)
class StreamedCorpus(Corpus):
    """The first pool, for statistics and validation; `at` gives each step its own.

    Held-out recordings of other pools are neither trained on nor validated with.

    Attributes:
        source: of the pools.
        splits: what `select` kept; None is everything.
        is_generative: likewise.
    """

    source: PoolSource
    splits: tuple[str, ...] | None = None
    is_generative: bool | None = None
    _latest: list[tuple[Corpus, Corpus]] = field(default_factory=list)

    def select(self, *splits: str, is_generative: bool | None = None) -> Self:
        """As the base, for all pools."""
        # `super()` without arguments does not work in dataclasses with slots.
        kept = super(StreamedCorpus, self).select(*splits, is_generative=is_generative)
        return type(self)(
            kept.mel, kept.wave, kept.recordings, kept.preset, kept.hop_length, self.source, splits, is_generative
        )

    def close(self) -> None:
        """As the base."""
        self.source.close()

    def at(self, step: int) -> Corpus:
        """Return what the step trains on; the first pool, where its own holds nothing of use."""
        pool = self.source.at(step)
        if pool is None:
            return self
        if not self._latest or self._latest[0][0] is not pool:
            splits = self.splits
            kept = pool if splits is None else pool.select(*splits, is_generative=self.is_generative)
            self._latest[:] = [(pool, kept)]
        return self._latest[0][1]


def stream_corpus(
    store: ObjectStore, manifest: DatasetManifest, folder: Path, *, pool_shards: int, frames_per_step: int, seed: int
) -> StreamedCorpus:
    """Return a dataset as a corpus that is read while it is trained on.

    Args:
        store: where the shards lie.
        manifest: which shards.
        folder: for three pools at most: the first, the one at hand and the next.
        pool_shards: shards of a pool.
        frames_per_step: frames of a step's windows together.
        seed: of the order of the pools.

    Raises:
        InvalidRequest: no shard can be used.
        MelMismatch: the dataset's preset has changed since.
        StorageUnavailable: try again.
    """
    pools, plan = plan_pools(manifest, pool_shards=pool_shards, frames_per_step=frames_per_step, seed=seed)
    source = PoolSource(store, manifest, pools, plan, folder)
    first = source.first()
    return StreamedCorpus(first.mel, first.wave, first.recordings, first.preset, first.hop_length, source)
