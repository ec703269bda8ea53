"""Rows of a dataset and its runs, for tests of the catalog's side."""

from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import Engine

from audiofoundation.catalog.engine import read_session, write_session
from audiofoundation.catalog.tables import Collection, Dataset, Job, Run
from audiofoundation.errors import StorageUnavailable
from audiofoundation.features.mel import get_preset
from audiofoundation.identifiers import JobId, RunId
from audiofoundation.jobs import lease
from audiofoundation.jobs.kinds import JobKind
from audiofoundation.jobs.lease import Claim
from audiofoundation.jobs.owner import current_owner
from audiofoundation.jobs.queue import JobQueue
from audiofoundation.settings import JobSettings
from audiofoundation.training.recipes import OverrideValue
from audiofoundation.training.requests import RunRequest, create_run

DATASET = "ds_rows"
NO_MODELS = Path("/nonexistent")
SETTINGS = JobSettings(max_attempts=3)


class AbsentPublisher:
    """A queue server that is away: rows must do without it."""

    def publish(self, kind: JobKind, job_id: JobId) -> None:  # noqa: ARG002
        raise StorageUnavailable("away")

    def num_waiting(self, kind: JobKind) -> int:  # noqa: ARG002
        raise StorageUnavailable("away")


def create_queue(engine: Engine) -> JobQueue:
    """Return a queue without a server on the catalog."""
    return JobQueue(engine, AbsentPublisher())


def add_dataset(engine: Engine, dataset_id: str = DATASET, **changes: object) -> None:
    """Write a dataset that is ready."""
    values: dict[str, object] = {
        "preset": "vocos24",
        "mel_fingerprint": get_preset("vocos24").fingerprint,
        "config": {"include_waveform": True},
        "state": "ready",
        "manifest_key": "m",
        "manifest_sha256": "0" * 64,
    }
    with write_session(engine) as session:
        session.merge(Collection(id="col", name="col"))
        session.flush()
        session.add(Dataset(id=dataset_id, collection_id="col", **{**values, **changes}))


def ask(
    queue: JobQueue,
    recipe: str = "tiny",
    *,
    dataset_id: str = DATASET,
    overrides: Mapping[str, OverrideValue] | None = None,
    key: str | None = None,
) -> RunId:
    """Ask for a run."""
    request = RunRequest(recipe, dataset_id, overrides or {}, 10, key)
    with queue.unit_of_work() as unit:
        return create_run(unit, request, pretrained_dir=NO_MODELS)


def claim(queue: JobQueue) -> Claim:
    """Claim the run that is due."""
    found = lease.claim_next(queue.engine, JobKind.TRAIN_RUN, owner=current_owner(), settings=SETTINGS)
    assert found is not None
    return found


def run_row(engine: Engine, run_id: RunId) -> Run:
    """Return a run as it is now."""
    with read_session(engine) as session:
        return session.get_one(Run, run_id)


def job_row(engine: Engine, run_id: RunId) -> Job:
    """Return a run's job as it is now."""
    with read_session(engine) as session:
        return session.query(Job).filter(Job.subject_id == run_id).one()
