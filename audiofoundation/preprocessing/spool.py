"""Samples of one recording, in memory while it is short, in a file when it is long."""

import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

# 64 MiB: eleven minutes at 24 kHz. A three-hour recording would take a gigabyte.
MAX_SAMPLES_IN_MEMORY = 16 << 20
_BYTES_PER_SAMPLE = 4


class SampleSpool:
    """Takes float32 samples in blocks and gives any range of them back.

    Args:
        directory: where the file lies when one is needed.
        max_in_memory: samples kept in memory.
    """

    def __init__(self, directory: Path, *, max_in_memory: int = MAX_SAMPLES_IN_MEMORY) -> None:
        self._directory = directory
        self._max_in_memory = max_in_memory
        self._blocks: list[Float32] = []
        self._file: IO[bytes] | None = None
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
        if self._file is not None:
            self._file.close()
            self._file = None

    def append(self, samples: Float32) -> None:
        """Add a block [n]; it must not change afterwards."""
        self.num_samples += samples.size
        if self._file is not None:
            self._file.write(np.ascontiguousarray(samples).data)
            return
        self._blocks.append(samples)
        if self.num_samples > self._max_in_memory:
            self._file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115 (closed by `clear`)
            for block in self._blocks:
                self._file.write(np.ascontiguousarray(block).data)
            self._blocks.clear()

    def read(self, start: int, stop: int) -> Float32:
        """Return the samples [start, stop), which must exist. The array may share memory with the spool."""
        if not 0 <= start <= stop <= self.num_samples:
            raise ValueError(f"[{start}, {stop}) does not lie within {self.num_samples} samples")
        if self._file is not None:
            self._file.seek(start * _BYTES_PER_SAMPLE)
            data = self._file.read((stop - start) * _BYTES_PER_SAMPLE)
            return np.frombuffer(data, np.float32)
        if len(self._blocks) != 1:
            self._blocks = [np.concatenate(self._blocks)] if self._blocks else [np.zeros(0, np.float32)]
        return self._blocks[0][start:stop]
