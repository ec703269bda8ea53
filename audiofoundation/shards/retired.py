"""Local copies of what a takedown removed. Every process that keeps copies asks now and then.

A corpus lies under the hash of the manifest that it was made of; a run's event files hold clips of recordings.
"""

import shutil
import threading
from pathlib import Path

import structlog
from sqlalchemy import Engine, select

from audiofoundation.catalog.engine import read_session
from audiofoundation.catalog.tables import DatasetVersion, DoomedObject, Job, Run
from audiofoundation.errors import StorageUnavailable
from audiofoundation.jobs.kinds import TERMINAL_STATES

CHECK_EVERY_S = 30.0
_CORPUS_NAME = 32  # characters of the manifest's hash
_RUNNING = "running"

_log = structlog.get_logger(__name__)


def corpus_folder(data_dir: Path, manifest_sha256: str) -> Path:
    """Return where the corpus of a dataset version lies on this machine."""
    return data_dir / "cache" / "corpora" / manifest_sha256[:_CORPUS_NAME]


def drop_retired(engine: Engine, data_dir: Path) -> int:
    """Remove the copies of versions that hold what was taken down, and what killed jobs left; return how many.

    A run that still goes on keeps its folder until it ends; it has been asked to.
    """
    is_retired = DatasetVersion.deleted_at.is_not(None) | DatasetVersion.key.in_(select(DoomedObject.key))
    with read_session(engine) as session:
        versions = session.scalars(select(DatasetVersion.manifest_sha256).where(is_retired)).all()
        runs = session.scalars(
            select(Run.id)
            .join(DatasetVersion, DatasetVersion.manifest_sha256 == Run.manifest_sha256)
            .where(is_retired, Run.state != _RUNNING)
        ).all()
    folders = [corpus_folder(data_dir, sha256) for sha256 in versions] + [data_dir / "runs" / run for run in runs]
    found = [folder for folder in folders if folder.exists()] + _finished_work(engine, data_dir / "work")
    for folder in found:
        shutil.rmtree(folder, ignore_errors=True)
        _log.info("copy_dropped", folder=str(folder))
    return len(found)


def _finished_work(engine: Engine, work_dir: Path) -> list[Path]:
    """Return the folders of jobs that are over: their process was killed here, and another machine ended the job."""
    folders = {folder.name: folder for folder in work_dir.glob("*/job_*")}
    with read_session(engine) as session:
        over = session.scalars(select(Job.id).where(Job.id.in_(folders), Job.state.in_(TERMINAL_STATES)))
        return [folders[job_id] for job_id in over]


class CopyKeeper:
    """Drops retired copies every half minute until stopped."""

    def __init__(self, engine: Engine, data_dir: Path, *, every_s: float = CHECK_EVERY_S) -> None:
        self._engine, self._data_dir, self._every_s = engine, data_dir, every_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="copies", daemon=True)

    def start(self) -> None:
        """Start looking; the first look comes at once."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the look in progress."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                drop_retired(self._engine, self._data_dir)
            except StorageUnavailable as error:
                _log.warning("copies_not_checked", error=error.message)
            if self._stopped.wait(self._every_s):
                return
