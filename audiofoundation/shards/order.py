"""In which order an epoch goes through a dataset: shuffled, and with few shards in use at a time.

The shards of an epoch are shuffled, the shuffled shards are taken a few at a time, and the samples of those few
are shuffled together. Where a position leads depends on the seed, the epoch and the position alone, never on who
reads it or when.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_SHARDS, _SAMPLES = 0, 1  # which permutation a generator is for


@dataclass(frozen=True, slots=True)
class Place:
    """A sample: its shard's position in the manifest and its own position in the shard."""

    shard: int
    sample: int


@dataclass(frozen=True)
class ShuffledOrder:
    """The order of every epoch.

    Attributes:
        sizes: samples per shard, at least one sample in all.
        seed: another seed is another order.
        window_shards: shards whose samples are shuffled together, and so the number in use at a time.
    """

    sizes: tuple[int, ...]
    seed: int
    window_shards: int

    @property
    def num_samples(self) -> int:
        return sum(self.sizes)

    def place(self, epoch: int, index: int) -> Place:
        """Return where position `index` (in [0, num_samples)) of an epoch leads."""
        shards, ends = _epoch_plan(self, epoch)
        window = int(np.searchsorted(ends, index, side="right"))
        first = int(ends[window - 1]) if window else 0
        members = shards[window * self.window_shards : (window + 1) * self.window_shards]
        picked = int(_window_permutation(self, epoch, window, int(ends[window]) - first)[index - first])
        for shard in members:
            if picked < self.sizes[shard]:
                return Place(shard, picked)
            picked -= self.sizes[shard]
        raise AssertionError("a window holds the samples of its shards")


@lru_cache(maxsize=4)
def _epoch_plan(order: ShuffledOrder, epoch: int) -> tuple[tuple[int, ...], NDArray[np.int64]]:
    """Return the shards of an epoch in order, and where each window of them ends, in samples."""
    shuffled = np.random.default_rng([order.seed, epoch, _SHARDS]).permutation(len(order.sizes))
    shards = tuple(int(shard) for shard in shuffled)
    counts = np.cumsum([order.sizes[shard] for shard in shards])
    ends = [*range(order.window_shards, len(shards), order.window_shards), len(shards)]
    return shards, counts[np.array(ends) - 1]


@lru_cache(maxsize=4)
def _window_permutation(order: ShuffledOrder, epoch: int, window: int, size: int) -> NDArray[np.int64]:
    return np.random.default_rng([order.seed, epoch, _SAMPLES, window]).permutation(size)
