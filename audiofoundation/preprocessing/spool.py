"""Samples of one recording, in memory while it is short, in a file when it is long."""

import tempfile
from bisect import bisect_left, bisect_right
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

# 64 MiB: eleven minutes of mono at 24 kHz. Three hours would take a gigabyte.
MAX_VALUES_IN_MEMORY = 16 << 20
_BYTES_PER_VALUE = 4


class SampleSpool:
    """Takes blocks float32 [channels, n] and gives any range of them back.

    Args:
        directory: where the file lies when one is needed.
        max_in_memory: samples kept in memory, all channels counted.

    Attributes:
        num_samples: per channel.
    """

    def __init__(self, directory: Path, *, max_in_memory: int = MAX_VALUES_IN_MEMORY) -> None:
        self._directory = directory
        self._max_in_memory = max_in_memory
        self._blocks: list[Float32] = []
        self._starts: list[int] = []  # of the blocks
        self._file: IO[bytes] | None = None
        self._num_channels = 1
        self.num_samples = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all samples."""
        self.num_samples = 0
        self._blocks.clear()
        self._starts.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def append(self, samples: Float32) -> None:
        """Add a block, of as many channels as those before; it must not change afterwards."""
        self._num_channels = samples.shape[0]
        self._starts.append(self.num_samples)
        self.num_samples += samples.shape[1]
        self._blocks.append(samples)
        if self._file is None and self.num_samples * self._num_channels > self._max_in_memory:
            self._file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115 (closed by `clear`)
        if self._file is not None:
            for block in self._blocks:
                self._file.write(np.ascontiguousarray(block.T).data)
            self._blocks.clear()
            self._starts.clear()

    def read(self, start: int, stop: int) -> Float32:
        """Return the samples [start, stop) of each channel, which must exist. The array may be the spool's own."""
        if not 0 <= start <= stop <= self.num_samples:
            raise ValueError(f"[{start}, {stop}) does not lie within {self.num_samples} samples")
        if self._file is not None:
            step = self._num_channels * _BYTES_PER_VALUE
            self._file.seek(start * step)
            data = self._file.read((stop - start) * step)
            return np.frombuffer(data, np.float32).reshape(-1, self._num_channels).T
        first, last = bisect_right(self._starts, start) - 1, bisect_left(self._starts, stop)
        places = zip(self._blocks[first:last], self._starts[first:last], strict=True)
        parts = [block[:, max(0, start - begin) : stop - begin] for block, begin in places]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([np.zeros((self._num_channels, 0), np.float32), *parts], axis=1)
