"""The job table under any order of events: terminal once, effect exactly when done."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, consumes, invariant, multiple, rule
from pydantic import SecretStr
from sqlalchemy import select, update

from audiofoundation.catalog.engine import create_catalog_engine, read_session, write_session
from audiofoundation.catalog.tables import Base, Collection, Job
from audiofoundation.errors import DecodeFailed, FetchFailed, LeaseLost
from audiofoundation.identifiers import JobId
from audiofoundation.jobs import lease
from audiofoundation.jobs.kinds import TERMINAL_STATES, JobKind, JobState
from audiofoundation.jobs.queue import JobQueue
from audiofoundation.jobs.sweeper import sweep
from audiofoundation.settings import CatalogSettings, JobSettings

from .handlers import Recorder, count_effect, mark_failed

SETTINGS = JobSettings(max_attempts=3)
JOBS = st.integers(min_value=0, max_value=2)


Claimed = MultipleResults[lease.Claim] | lease.Claim


class JobTable(RuleBasedStateMachine):
    """Three jobs, any number of workers, and everything that can happen to them."""

    claims: Bundle[lease.Claim] = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        url = SecretStr(f"sqlite:///{self.directory.name}/catalog.db")
        self.engine = create_catalog_engine(CatalogSettings(url=url))
        Base.metadata.create_all(self.engine)
        self.publisher = Recorder()
        self.queue = JobQueue(self.engine, self.publisher)
        self.ended: dict[str, str] = {}
        self.current: dict[str, lease.Claim] = {}

    def teardown(self) -> None:
        self.engine.dispose()
        self.directory.cleanup()

    def job_id(self, index: int) -> JobId | None:
        with read_session(self.engine) as session:
            found = session.scalar(select(Job.id).where(Job.key == f"k{index}"))
        return None if found is None else JobId(found)

    @rule(index=JOBS)
    def enqueue(self, index: int) -> None:
        with self.queue.unit_of_work() as unit:
            if unit.session.get(Collection, f"c{index}") is None:
                unit.session.add(Collection(id=f"c{index}", name=f"c{index}", policy="0"))
            unit.enqueue(JobKind.NOOP, key=f"k{index}", subject_id=f"c{index}")

    @rule(target=claims, index=JOBS)
    def claim(self, index: int) -> Claimed:
        job_id = self.job_id(index)
        if job_id is None:
            return multiple()
        claim = lease.claim(self.engine, job_id, owner="elsewhere", settings=SETTINGS)
        return multiple() if claim is None else self._hold(claim)

    @rule(target=claims)
    def claim_next(self) -> Claimed:
        claim = lease.claim_next(self.engine, JobKind.NOOP, owner="elsewhere", settings=SETTINGS)
        return multiple() if claim is None else self._hold(claim)

    def _hold(self, claim: lease.Claim) -> lease.Claim:
        assert claim.job_id not in self.ended
        assert 1 <= claim.attempt <= SETTINGS.max_attempts
        self.current[claim.job_id] = claim
        return claim

    def _may_write(self, claim: lease.Claim) -> bool:
        return self.current.get(claim.job_id) == claim and claim.job_id not in self.ended

    @rule(claim=claims)
    def commit(self, claim: lease.Claim) -> None:
        may_write = self._may_write(claim)
        try:
            lease.commit(self.queue, claim, count_effect(claim))
        except LeaseLost:
            assert not may_write
        else:
            assert may_write
            self.ended[claim.job_id] = JobState.DONE

    @rule(claim=claims, is_lasting=st.booleans())
    def fail(self, claim: lease.Claim, is_lasting: bool) -> None:
        may_write = self._may_write(claim)
        error = DecodeFailed("no audio") if is_lasting else FetchFailed("away")
        try:
            state = lease.fail(self.queue, claim, error, settings=SETTINGS, on_failure=mark_failed)
        except LeaseLost:
            assert not may_write
            return
        assert may_write
        del self.current[claim.job_id]
        if state in TERMINAL_STATES:
            self.ended[claim.job_id] = state

    @rule(claim=claims)
    def renew(self, claim: lease.Claim) -> None:
        may_write = self._may_write(claim)
        try:
            lease.renew(self.engine, claim, settings=SETTINGS)
        except LeaseLost:
            assert not may_write
        else:
            assert may_write

    @rule(claim=consumes(claims))
    def release(self, claim: lease.Claim) -> None:
        may_write = self._may_write(claim)
        try:
            lease.release(self.engine, claim)
        except LeaseLost:
            assert not may_write
        else:
            assert may_write
            del self.current[claim.job_id]

    @rule(seconds=st.sampled_from([-3600.0, -31.0, 31.0, 3600.0]))
    def clock_jumps(self, seconds: float) -> None:
        """Another machine's clock, or time that passes: all stored times move against ours."""
        with write_session(self.engine) as session:
            session.execute(
                update(Job).values(lease_until=Job.lease_until - seconds, not_before=Job.not_before - seconds)
            )

    @rule()
    def sweep(self) -> None:
        sweep(self.engine, self.publisher, SETTINGS)
        with read_session(self.engine) as session:
            running = set(session.scalars(select(Job.id).where(Job.state == JobState.RUNNING)))
        self.current = {job_id: claim for job_id, claim in self.current.items() if job_id in running}

    @rule(index=JOBS)
    def bury(self, index: int) -> None:
        job_id = self.job_id(index)
        if job_id is not None and lease.bury(self.queue, job_id, settings=SETTINGS, on_failure=mark_failed):
            assert job_id not in self.ended
            self.ended[job_id] = JobState.DEAD

    @rule(index=JOBS)
    def cancel(self, index: int) -> None:
        job_id = self.job_id(index)
        if job_id is None:
            return
        with write_session(self.engine) as session:
            is_cancelled = lease.cancel(session, job_id)
        assert is_cancelled == (job_id not in self.ended)
        if is_cancelled:
            self.ended[job_id] = JobState.CANCELLED

    @invariant()
    def rows_tell_the_truth(self) -> None:
        with read_session(self.engine) as session:
            rows = session.execute(
                select(Job.id, Job.state, Job.attempt, Job.lease_owner, Collection.policy).join(
                    Collection, Collection.id == Job.subject_id
                )
            ).all()
        for row in rows:
            assert self.ended.get(row.id) == (row.state if row.state in TERMINAL_STATES else None)
            assert 0 <= row.attempt <= SETTINGS.max_attempts
            assert (row.lease_owner is not None) == (row.state == JobState.RUNNING)
            assert (row.policy == "1") == (row.state == JobState.DONE)
            assert row.policy.startswith("failed") == (row.state in (JobState.FAILED, JobState.DEAD))


TestJobTable = pytest.mark.slow(JobTable.TestCase)
TestJobTable.settings = settings(
    max_examples=int(os.environ.get("AF_TEST_EXAMPLES", "60")),
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
