"""Small handlers whose effect is a row that counts: a job done twice shows as a 2."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import Engine, select, update

from audiofoundation.catalog.engine import read_session, write_session
from audiofoundation.catalog.tables import Collection, Job
from audiofoundation.errors import AudioFoundationError, StorageUnavailable
from audiofoundation.identifiers import JobId
from audiofoundation.jobs.kinds import JobKind
from audiofoundation.jobs.lease import Claim, Effect
from audiofoundation.jobs.queue import JobQueue, UnitOfWork
from audiofoundation.jobs.runner import HandlerSpec


@dataclass(slots=True)
class Recorder:
    """A publisher that remembers; `is_up` False is a queue server that is away."""

    published: list[JobId] = field(default_factory=list)
    is_up: bool = True

    def publish(self, _kind: JobKind, job_id: JobId) -> None:
        if not self.is_up:
            raise StorageUnavailable("The queue server did not answer.")
        self.published.append(job_id)

    def num_waiting(self, _kind: JobKind) -> int:
        if not self.is_up:
            raise StorageUnavailable("The queue server did not answer.")
        return 0


def add_jobs(queue: JobQueue, num_jobs: int = 1) -> list[JobId]:
    """Add jobs, each about a collection of its own whose policy counts its effects."""
    with queue.unit_of_work() as unit:
        for index in range(num_jobs):
            unit.session.add(Collection(id=f"c{index}", name=f"c{index}", policy="0"))
        return [unit.enqueue(JobKind.NOOP, key=f"k{index}", subject_id=f"c{index}") for index in range(num_jobs)]


def count_effect(claim: Claim) -> Effect:
    """Return an effect that adds one to the subject's count."""

    def effect(unit: UnitOfWork) -> None:
        seen = unit.session.scalars(select(Collection.policy).where(Collection.id == claim.subject_id)).one()
        write = update(Collection).where(Collection.id == claim.subject_id)
        unit.session.execute(write.values(policy=str(int(seen) + 1)))

    return effect


def mark_failed(unit: UnitOfWork, claim: Claim, error: AudioFoundationError) -> None:
    """Write the failure beside the job."""
    write = update(Collection).where(Collection.id == claim.subject_id)
    unit.session.execute(write.values(policy=f"failed: {error.code.value}"))


COUNTING: Mapping[JobKind, HandlerSpec] = {JobKind.NOOP: HandlerSpec(count_effect, mark_failed)}


def effects(engine: Engine) -> list[str]:
    """Return each subject's count, in the order of the jobs."""
    with read_session(engine) as session:
        return list(session.scalars(select(Collection.policy).order_by(Collection.id)))


def job_of(engine: Engine, job_id: JobId) -> Job:
    """Return the job's row as it is now."""
    with read_session(engine) as session:
        job = session.get_one(Job, job_id)
        session.expunge(job)
        return job


def expire(engine: Engine, job_id: JobId) -> None:
    """Let the job's lease run out."""
    with write_session(engine) as session:
        session.execute(update(Job).where(Job.id == job_id).values(lease_until=1.0))


def make_due(engine: Engine) -> None:
    """Let every delay be over."""
    with write_session(engine) as session:
        session.execute(update(Job).values(not_before=0.0))
