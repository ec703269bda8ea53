"""Where one attempt at a job keeps its files."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from audiofoundation.jobs.lease import Claim


@contextmanager
def job_directory(work_dir: Path, claim: Claim) -> Iterator[Path]:
    """An empty directory for this attempt; what killed attempts left is removed first and at the end."""
    parent = work_dir / claim.job_id
    shutil.rmtree(parent, ignore_errors=True)
    directory = parent / str(claim.attempt)
    directory.mkdir(parents=True)
    try:
        yield directory
    finally:
        shutil.rmtree(parent, ignore_errors=True)
