"""Batches of a dataset's samples for any number of ranks and workers, in one order that does not depend on them.

Batches run through the epochs without a break: the one in which an epoch ends begins the next. So every batch is
full and each sample comes once an epoch, whatever the sizes, and a loader goes on exactly where another stopped,
be it of another rank count.
"""

import itertools
import signal
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from audiofoundation.errors import InvalidRequest
from audiofoundation.shards.dataset import ShardDataset
from audiofoundation.shards.sample import Sample

Batch = tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of every batch a process takes: each `world_size`-th sample from `rank` on."""

    rank: int = 0
    world_size: int = 1


class ShardLoader:
    """Iterates over this rank's share of every batch, for ever or for some epochs.

    A share is shorter where a shard was set aside, and at the very end of the last epoch.

    Args:
        dataset: what to read.
        batch_size: samples per step, of all ranks together.
        share: this process's part.
        num_workers: processes that read ahead; 0 reads here.
        num_epochs: how many in all, counted from the first; None never ends.
    """

    def __init__(
        self,
        dataset: ShardDataset,
        *,
        batch_size: int,
        share: Share = Share(),
        num_workers: int = 0,
        num_epochs: int | None = None,
    ) -> None:
        self._dataset, self._batch_size, self._share, self._num_workers = dataset, batch_size, share, num_workers
        self._stop = None if num_epochs is None else num_epochs * dataset.num_samples
        self._position = 0

    def __iter__(self) -> Iterator[Batch]:
        """Yield from where the loader stands; `state_dict` is where it stood after the last batch yielded."""
        ahead = _Batches(self._dataset, self._position, self._stop, self._batch_size, self._share)
        loader: DataLoader[Batch] = DataLoader(
            ahead,
            batch_size=None,
            num_workers=self._num_workers,
            collate_fn=_as_is,
            worker_init_fn=_ignore_sigterm,
            generator=torch.Generator(),  # else each iteration would draw from the trainer's own generator
        )
        for batch in loader:
            self._position += self._batch_size
            if self._stop is not None:
                self._position = min(self._position, self._stop)
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return what a loader of any rank, world size and number of workers needs to go on."""
        epoch, sample_in_epoch = divmod(self._position, self._dataset.num_samples)
        return {"seed": self._dataset.seed, "epoch": epoch, "sample_in_epoch": sample_in_epoch}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where the state was taken.

        Raises:
            InvalidRequest: the state is of another order or another dataset.
        """
        num_samples = self._dataset.num_samples
        if state["seed"] != self._dataset.seed or not 0 <= state["sample_in_epoch"] < num_samples:
            raise InvalidRequest(
                f"the loader's state {dict(state)} is not of this dataset ({num_samples} samples) and "
                f"seed ({self._dataset.seed})"
            )
        self._position = state["epoch"] * num_samples + state["sample_in_epoch"]


class _Batches(IterableDataset[Batch]):
    """One worker's batches: each `num_workers`-th. torch collects them from the workers in turn, so in order."""

    def __init__(self, dataset: ShardDataset, start: int, stop: int | None, batch_size: int, share: Share) -> None:
        self._dataset, self._start, self._stop = dataset, start, stop
        self._batch_size, self._share = batch_size, share

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        with closing(self._dataset):
            for number in itertools.count(first, step):
                begin = self._start + number * self._batch_size
                if self._stop is not None and begin >= self._stop:
                    return
                yield self._read(begin)

    def _read(self, begin: int) -> Batch:
        end = begin + self._batch_size if self._stop is None else min(begin + self._batch_size, self._stop)
        positions = range(begin + self._share.rank, end, self._share.world_size)
        found = (self._dataset.sample(position) for position in positions)
        return tuple(sample for sample in found if sample is not None)


def _as_is(batch: Any) -> Any:
    return batch


def _ignore_sigterm(worker: int) -> None:  # noqa: ARG001
    """The trainer saves when it is asked to leave; its readers must not die before that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
