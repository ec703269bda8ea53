"""What killed workers left on this machine's disk."""

import shutil
import time
from pathlib import Path

from sqlalchemy import Engine, select

from audiofoundation.catalog.engine import read_session
from audiofoundation.catalog.tables import Job
from audiofoundation.jobs.kinds import JobState


def remove_leftovers(work_dir: Path, engine: Engine) -> int:
    """Remove the directories of jobs that no live worker holds; return how many.

    A job that is tried again here removes its own; this is for those that went on elsewhere.

    Args:
        work_dir: holds one directory per job, named by its id.
        engine: the catalog.
    """
    if not work_dir.is_dir():
        return 0
    found = list(work_dir.iterdir())  # before asking: a job that is claimed in between makes a directory that stays
    with read_session(engine) as session:
        is_held = (Job.state == JobState.RUNNING) & (Job.lease_until > time.time())
        held = set(session.scalars(select(Job.id).where(is_held)))
    left = [path for path in found if path.name not in held]
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
    return len(left)
