"""A folder of verified shards, bounded in bytes, for any number of processes that may be killed at any moment.

A shard appears under its name only when all of it has been read and its hash is right, and its hash is taken
again whenever a process opens it. What is open stays readable when it is evicted: the file goes when its last
reader closes it.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import structlog

from audiofoundation.identifiers import sha256_of_stream
from audiofoundation.shards.manifest import ShardRecord
from audiofoundation.storage.object_store import ObjectStore

DEFAULT_CACHE_BYTES = 32 << 30
_PART = ".part"

_log = structlog.get_logger(__name__)


class ShardCache:
    """Gives shards as open files; the least recently opened ones make room.

    Args:
        store: where shards come from.
        folder: what is cached; several processes and caches may share it.
        max_bytes: of all shards in the folder. While shards are being fetched there is one more per process,
            and a shard that is larger than this stays until the next one comes.
    """

    def __init__(self, store: ObjectStore, folder: Path, *, max_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        self._store, self.folder, self._max_bytes = store, folder, max_bytes
        folder.mkdir(parents=True, exist_ok=True)

    def open(self, record: ShardRecord) -> BinaryIO:
        """Return a verified shard; the caller closes it.

        Raises:
            ObjectNotFound: it is gone from the store.
            ObjectCorrupt: what the store holds is not what was written, twice in a row.
            StorageUnavailable: the store does not answer.
        """
        path = self.folder / f"{record.sha256}.tar"
        with self._locked(record.sha256):
            file = _open_verified(path, record)
            if file is None:
                return self._fetch(record, path)
            with suppress(FileNotFoundError):  # evicted just now; the open file stays
                os.utime(path)
            return file

    def _fetch(self, record: ShardRecord, path: Path) -> BinaryIO:
        path.unlink(missing_ok=True)
        self._make_room(record.size_bytes)
        part = path.with_suffix(_PART)
        self._store.get_to_file(record.key, part, sha256=record.sha256)
        file = part.open("rb")  # before it has a name that others may evict
        part.replace(path)
        self._make_room(0, keep=path)
        return file

    def _make_room(self, num_bytes: int, *, keep: Path | None = None) -> None:
        """Remove the oldest shards until `num_bytes` more would fit, and what killed processes left."""
        with self._locked("evict"):
            self._remove_leftovers()
            found = sorted((_time_and_size(path), path) for path in self.folder.glob("*.tar"))
            total = sum(size for (_, size), _ in found)
            for (_, size), path in found:
                if total + num_bytes <= self._max_bytes:
                    return
                if path != keep:
                    path.unlink(missing_ok=True)
                    total -= size

    def _remove_leftovers(self) -> None:
        """Whoever writes a shard holds its lock, so a part whose lock is free has no writer."""
        for part in self.folder.glob(f"*{_PART}"):
            with suppress(BlockingIOError), self._locked(part.name.lstrip("."), flags=fcntl.LOCK_NB):
                part.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, name: str, *, flags: int = 0) -> Iterator[None]:
        """Hold one of seventeen locks: the eviction's, or the one of the shards whose hash begins alike."""
        lock = self.folder / f".lock-{name if name == 'evict' else name[0]}"
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | flags)
            yield
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)  # closing would not do where a fork has the descriptor too
            os.close(fd)


def _open_verified(path: Path, record: ShardRecord) -> BinaryIO | None:
    """Return the file when it is the shard, else None."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    if os.fstat(file.fileno()).st_size == record.size_bytes and sha256_of_stream(file) == record.sha256:
        return file
    file.close()
    _log.warning("cached_shard_corrupt", key=record.key, shard=record.index)
    return None


def _time_and_size(path: Path) -> tuple[float, int]:
    """Return when the shard was opened last and its size; (0, 0) when it has just gone."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0.0, 0
    return status.st_mtime, status.st_size
