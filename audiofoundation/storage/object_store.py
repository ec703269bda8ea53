"""Objects in one bucket of any S3 server. Writes are checked by size, reads by SHA-256 where one is given."""

import hashlib
import io
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import urllib3
from minio import Minio
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from audiofoundation.errors import ObjectCorrupt, ObjectNotFound
from audiofoundation.identifiers import Sha256, sha256_of
from audiofoundation.settings import StorageSettings
from audiofoundation.storage.s3_errors import TransientStorageError, translated_errors, with_retries

OCTET_STREAM = "application/octet-stream"
_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S = 5.0, 60.0
_HURRIED_TIMEOUT_S = 5.0
_MAX_CONNECTIONS = 16
_PART_BYTES = 64 << 20
_BLOCK_BYTES = 1 << 20
# A mismatch is read again once: the wire may have failed rather than the disk.
_NUM_READS = 2


class _Response(Protocol):
    headers: dict[str, str]

    def stream(self, amt: int) -> Iterator[bytes]: ...
    def close(self) -> None: ...
    def release_conn(self) -> None: ...


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What the store says of an object."""

    size_bytes: int


@dataclass(frozen=True, slots=True)
class ListedObject:
    """An entry of a listing; `modified_at` in seconds since the epoch, as the server says."""

    key: str
    size_bytes: int
    modified_at: float


class ObjectStore:
    """Reads and writes the objects of one bucket; safe to share between threads and across a fork.

    Every call survives a server that restarts: it tries again for about 20 s.

    Raises (every method):
        StorageUnavailable: the server did not answer or refused.
    """

    def __init__(self, settings: StorageSettings) -> None:
        self.settings = settings
        self._bucket = settings.bucket
        self._connected: tuple[int, Minio] | None = None

    def ensure_bucket(self) -> None:
        """Make the bucket unless it exists."""

        def ensure() -> None:
            with translated_errors(self._bucket):
                if not self._client.bucket_exists(self._bucket):
                    self._client.make_bucket(self._bucket, location=self.settings.region)

        with_retries(ensure)

    def put_bytes(self, key: str, data: bytes, *, content_type: str = OCTET_STREAM) -> ObjectInfo:
        """Store the bytes under the key; on return the server has acknowledged all of them."""
        return self._put(key, lambda: io.BytesIO(data), len(data), content_type)

    def put_file(self, key: str, path: Path, *, content_type: str = OCTET_STREAM) -> ObjectInfo:
        """Store a file under the key, in parts of 64 MiB."""
        return self._put(key, lambda: path.open("rb"), path.stat().st_size, content_type)

    def get_bytes(self, key: str, *, sha256: Sha256 | None = None) -> bytes:
        """Return the whole object.

        Raises:
            ObjectNotFound: there is none.
            ObjectCorrupt: its SHA-256 is not the given one.
        """

        def read() -> bytes:
            return b"".join(self._stream(key))

        for _ in range(_NUM_READS):
            data = with_retries(read)
            if sha256 is None or sha256_of(data) == sha256:
                return data
        raise _corrupt(key)

    def get_to_file(self, key: str, path: Path, *, sha256: Sha256 | None = None) -> None:
        """Write the object to the path, which appears whole and verified or not at all.

        Raises:
            ObjectNotFound: there is none.
            ObjectCorrupt: its SHA-256 is not the given one.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
        try:
            for _ in range(_NUM_READS):
                digest = with_retries(lambda: self._download(key, partial))
                if sha256 is None or digest == sha256:
                    partial.replace(path)
                    return
        finally:
            partial.unlink(missing_ok=True)
        raise _corrupt(key)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset` on; fewer where the object ends.

        Raises:
            InvalidRequest: the object ends before `offset`.
        """
        if offset < 0 or length < 1:
            raise ValueError(f"offset must be >= 0 and length >= 1, got {offset} and {length}")
        return with_retries(lambda: b"".join(self._stream(key, offset=offset, length=length)))

    def stat(self, key: str) -> ObjectInfo:
        """Return the object's size. Raises ObjectNotFound when there is none."""

        def stat() -> ObjectInfo:
            try:
                with translated_errors(key):
                    found = self._client.stat_object(self._bucket, key)
            except ValueError as error:  # of a date that is not whole
                raise _cut_off(key) from error
            _require_all_headers(key, found.metadata or {})
            return ObjectInfo(size_bytes=int(found.size))

        return with_retries(stat)

    def exists(self, key: str) -> bool:
        """Return whether an object lies under the key (the catalog says whether it counts)."""
        try:
            self.stat(key)
        except ObjectNotFound:
            return False
        return True

    def delete(self, key: str) -> None:
        """Delete the object; deleting what is not there is no error."""

        def delete() -> None:
            with translated_errors(key):
                self._client.remove_object(self._bucket, key)

        with_retries(delete)

    def delete_at_once(self, key: str) -> None:
        """As `delete`, but tried once and for a few seconds: for who holds a lock meanwhile."""
        with translated_errors(key):
            _connect(self.settings, read_timeout_s=_HURRIED_TIMEOUT_S).remove_object(self._bucket, key)

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys under the prefix. For garbage collection only: readers follow the catalog."""
        return (entry.key for entry in self.list_objects(prefix))

    def list_objects(self, prefix: str) -> Iterator[ListedObject]:
        """Yield the objects under the prefix, a page of the server's at a time."""
        with translated_errors(prefix):
            for entry in self._client.list_objects(self._bucket, prefix=prefix, recursive=True):
                modified_at = entry.last_modified.timestamp() if entry.last_modified else time.time()
                yield ListedObject(entry.object_name, int(entry.size or 0), modified_at)

    def _put(self, key: str, opened: Callable[[], BinaryIO], size_bytes: int, content_type: str) -> ObjectInfo:
        def put() -> None:
            with translated_errors(key), opened() as stream:
                self._client.put_object(
                    self._bucket, key, stream, size_bytes, content_type=content_type, part_size=_PART_BYTES
                )

        def put_and_check() -> ObjectInfo:
            put()
            info = self.stat(key)
            if info.size_bytes != size_bytes:
                raise TransientStorageError(
                    f"The object store kept {info.size_bytes} of {size_bytes} bytes of {key!r}. Try again."
                )
            return info

        return with_retries(put_and_check)

    def _download(self, key: str, path: Path) -> str:
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for block in self._stream(key):
                digest.update(block)
                file.write(block)
        return digest.hexdigest()

    def _stream(self, key: str, *, offset: int = 0, length: int = 0) -> Iterator[bytes]:
        """Yield the object in blocks; a body that ends early raises TransientStorageError."""
        with translated_errors(key):
            response: _Response = self._client.get_object(self._bucket, key, offset=offset, length=length)
            try:
                _require_all_headers(key, response.headers)
                yield from response.stream(_BLOCK_BYTES)
            finally:
                response.close()
                response.release_conn()

    @property
    def _client(self) -> Minio:
        """The client of this process: sockets opened before a fork belong to the parent."""
        connected = self._connected
        if connected is None or connected[0] != os.getpid():
            self._connected = connected = (os.getpid(), _connect(self.settings))
        return connected[1]


def _require_all_headers(key: str, headers: Mapping[str, str]) -> None:
    """Raise TransientStorageError where an answer does not say how long it is.

    http.client takes headers that are cut off by a lost connection for all of them, and the body for an empty one.
    """
    found = {name.lower(): value for name, value in headers.items()}
    if not found.get("content-length", "").isdigit() and found.get("transfer-encoding") != "chunked":
        raise _cut_off(key)


def _cut_off(key: str) -> TransientStorageError:
    return TransientStorageError(f"The object store's answer for {key!r} was cut off. Try again.")


class _Patient(HTTPConnection):
    """Gives each block that is sent as long as one that is read.

    urllib3 2 lets the connect timeout govern sending, and a socket's timeout is for all of what it is given.
    """

    def send(self, data: Any) -> None:
        if not isinstance(data, bytes) or len(data) <= _BLOCK_BYTES:
            self._send_block(data)
            return
        whole = memoryview(data)
        for start in range(0, len(data), _BLOCK_BYTES):
            self._send_block(whole[start : start + _BLOCK_BYTES])

    def _send_block(self, data: Any) -> None:
        if self.sock is not None:
            self.sock.settimeout(_READ_TIMEOUT_S)
        super().send(data)


class _PatientTls(_Patient, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Patient


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _PatientTls


def _connect(settings: StorageSettings, *, read_timeout_s: float = _READ_TIMEOUT_S) -> Minio:
    pool = urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=_CONNECT_TIMEOUT_S, read=read_timeout_s),
        maxsize=_MAX_CONNECTIONS,
        retries=False,  # with_retries is the one retry authority
    )
    pool.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
    return Minio(
        settings.endpoint,
        access_key=settings.access_key.get_secret_value(),
        secret_key=settings.secret_key.get_secret_value(),
        secure=settings.is_secure,
        region=settings.region,
        http_client=pool,
    )


def _corrupt(key: str) -> ObjectCorrupt:
    return ObjectCorrupt(f"The object {key!r} is not what was written: its SHA-256 differs.")
