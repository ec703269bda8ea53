"""A NumPy file that grows row by row, so that an array larger than memory can be written."""

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import DTypeLike, NDArray


class ArrayFile:
    """Writes an array [rows, *shape]; closing it completes the file, which `np.load` reads.

    NumPy leaves room in the header for the first axis to grow, so the header keeps its length.
    """

    def __init__(self, path: Path, dtype: DTypeLike, shape: tuple[int, ...] = ()) -> None:
        self._dtype, self._shape, self._num_rows = np.dtype(dtype), shape, 0
        self._file = path.open("wb")
        self._write_header()
        self._header_bytes = self._file.tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.seek(0)
        self._write_header()
        assert self._file.tell() == self._header_bytes
        self._file.close()

    def append(self, rows: NDArray[np.generic]) -> None:
        """Add rows [n, *shape] of the file's type."""
        if rows.shape[1:] != self._shape or rows.dtype != self._dtype:
            raise ValueError(f"rows are {rows.dtype}{rows.shape[1:]}, the file holds {self._dtype}{self._shape}")
        self._file.write(np.ascontiguousarray(rows).data)
        self._num_rows += len(rows)

    def _write_header(self) -> None:
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._num_rows, *self._shape),
        }
        np.lib.format.write_array_header_1_0(self._file, header)
