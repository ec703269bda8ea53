"""What SQLite needs so that many processes can write to one file (docs/adr/0001)."""

import time
from pathlib import Path
from sqlite3 import Connection as DbapiConnection
from sqlite3 import OperationalError as DbapiOperationalError

from sqlalchemy import Connection, Engine, event

from audiofoundation.errors import InvalidRequest

IS_READ = "audiofoundation_is_read"
_BUSY_TIMEOUT_MS = 30_000
_WAL_DEADLINE_S = 30.0
_NETWORK_FILESYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs"})


def prepare(engine: Engine, path: Path) -> None:
    """Make every connection WAL, patient and explicit about its transactions."""
    filesystem = filesystem_of(path.parent)
    if filesystem in _NETWORK_FILESYSTEMS:
        raise InvalidRequest(
            f"The SQLite catalog {path} lies on {filesystem}, where its locks do not hold. "
            "Put it on a local disk or use PostgreSQL."
        )
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)


def filesystem_of(path: Path) -> str:
    """Return the type of the filesystem that holds the path, or "" where the system does not tell."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return ""
    resolved = path.resolve()
    best, filesystem = -1, ""
    for line in mounts.read_text().splitlines():
        _, mount, kind, *_ = line.split()
        point = Path(mount.replace("\\040", " "))
        if resolved.is_relative_to(point) and len(point.parts) >= best:
            best, filesystem = len(point.parts), kind
    return filesystem


def _configure(connection: DbapiConnection, _record: object) -> None:
    connection.isolation_level = None  # we send BEGIN ourselves
    connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
    _set_wal(connection)
    connection.execute("PRAGMA synchronous=FULL")  # an acknowledged job survives a power cut
    connection.execute("PRAGMA foreign_keys=ON")


def _set_wal(connection: DbapiConnection) -> None:
    """Switch to WAL. The switch itself ignores busy_timeout when several processes start at once."""
    deadline = time.monotonic() + _WAL_DEADLINE_S
    while True:
        try:
            if connection.execute("PRAGMA journal_mode=WAL").fetchone()[0] == "wal":
                return
        except DbapiOperationalError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def _begin(connection: Connection) -> None:
    """Open a snapshot for reading, or take the write lock at once.

    A deferred transaction that turns from reading to writing fails with SQLITE_BUSY_SNAPSHOT,
    to which busy_timeout does not apply.
    """
    is_read = bool(connection.get_execution_options().get(IS_READ, False))
    connection.exec_driver_sql(f"PRAGMA query_only={int(is_read)}")
    connection.exec_driver_sql("BEGIN" if is_read else "BEGIN IMMEDIATE")
