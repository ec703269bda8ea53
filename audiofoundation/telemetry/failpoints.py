"""Points at every step of a job where a test may let the process die or fail. Off, a point costs one comparison.

A test names a folder in AF_FAILPOINTS and puts files `POINT.kill` or `POINT.raise` into it. The first process that
passes the point takes the file away and dies by SIGKILL, or raises; everything after it passes.
"""

import os
import signal
from enum import StrEnum
from pathlib import Path


class Failpoint(StrEnum):
    """Where a job may be interrupted."""

    JOB_CLAIMED = "job.claimed"
    JOB_COMMITTING = "job.committing"
    JOB_COMMITTED = "job.committed"
    UPLOAD_STORED = "upload.stored"
    INGEST_FETCHED = "ingest.fetched"
    INGEST_VERIFIED = "ingest.verified"
    INGEST_STORED = "ingest.stored"
    SHARD_SAMPLE_WRITTEN = "shard.sample_written"
    SHARD_WRITTEN = "shard.written"
    SHARD_STORED = "shard.stored"
    MANIFEST_STORED = "manifest.stored"
    REWRITE_WRITTEN = "rewrite.written"
    REWRITE_STORED = "rewrite.stored"
    PURGE_DELETED = "purge.deleted"


class FailpointReached(RuntimeError):
    """What an armed point raises: like any error that nobody foresaw."""


_FOLDER = os.environ.get("AF_FAILPOINTS")


def failpoint(point: Failpoint) -> None:
    """Die or fail here if a test asks for it."""
    if _FOLDER is None:
        return
    if _take(Path(_FOLDER) / f"{point.value}.kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    if _take(Path(_FOLDER) / f"{point.value}.raise"):
        raise FailpointReached(point.value)


def _take(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True
