"""A child's log on disk, rotated by size."""

from io import FileIO
from pathlib import Path


class LogFile:
    """Appends bytes to `path`; past `max_bytes` the file moves to `.1`, `.1` to `.2`, up to `num_kept`.

    A full disk costs log lines, never the platform.
    """

    def __init__(self, path: Path, *, max_bytes: int = 8 << 20, num_kept: int = 3) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._num_kept = num_kept
        self._file = self._open()
        self._tail = b""

    @property
    def path(self) -> Path:
        return self._path

    @property
    def last_line(self) -> str:
        """The last line with anything on it that was written."""
        lines = [line for line in self._tail.decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip() if lines else ""

    def write(self, data: bytes) -> None:
        """Append, rotating first when the file is full."""
        self._tail = (self._tail + data)[-2000:]
        try:
            if self._file.closed:  # the last rotation failed half-way
                self._file = self._open()
            if self._file.tell() + len(data) > self._max_bytes:
                self._rotate()
            self._file.write(data)
        except OSError:
            return

    def close(self) -> None:
        self._file.close()

    def _rotate(self) -> None:
        self._file.close()
        for number in range(self._num_kept - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        self._path.replace(self._numbered(1))
        self._file = self._open()

    def _open(self) -> FileIO:
        return self._path.open("ab", buffering=0)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")
