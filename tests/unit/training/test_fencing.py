"""Attempts are fencing tokens: what an older one writes is refused, whatever it writes."""

import pytest
from sqlalchemy import Engine, func, select, update

from audiofoundation.catalog.engine import read_session, write_session
from audiofoundation.catalog.tables import Checkpoint, Job, Model
from audiofoundation.errors import InvalidRequest, LeaseLost
from audiofoundation.identifiers import Sha256
from audiofoundation.jobs import lease
from audiofoundation.jobs.kinds import JobState
from audiofoundation.models.checkpoint import ModelHeader
from audiofoundation.models.registry import ModelKind
from audiofoundation.training.holding import HeldRun, begin, cancel, has_advanced, mark_failed
from audiofoundation.training.ledger import NUM_KEPT, RunLedger, StoredObject
from audiofoundation.training.requests import cancel_run
from audiofoundation.training.states import RunState
from tests.unit.training.rows import SETTINGS, add_dataset, ask, claim, create_queue, job_row, run_row

HEADER = ModelHeader(
    name="tiny-x",
    kind=ModelKind.MEL_TRANSFORMER,
    task="continuation",
    preset="vocos24",
    mel_fingerprint="f",
    config={},
)


def stored(name: str) -> StoredObject:
    return StoredObject(name, 1, Sha256("0" * 64))


def held_run(engine: Engine) -> HeldRun:
    add_dataset(engine)
    queue = create_queue(engine)
    ask(queue)
    held = begin(queue, claim(queue), SETTINGS)
    assert held is not None
    return held


def taken_over(engine: Engine, held: HeldRun) -> HeldRun:
    """Another supervisor takes the run over, as it does once the lease has run out."""
    lease.release(engine, held.claim)
    queue = create_queue(engine)
    newer = begin(queue, claim(queue), SETTINGS)
    assert newer is not None
    return newer


def ledger_of(engine: Engine, held: HeldRun) -> RunLedger:
    return RunLedger(engine, held.run_id, held.attempt)


def test_a_stale_attempt_registers_nothing(engine: Engine) -> None:
    held = held_run(engine)
    stale = ledger_of(engine, held)
    newer = taken_over(engine, held)
    assert newer.attempt == held.attempt + 1
    with pytest.raises(LeaseLost):
        stale.register_checkpoint(5, stored("late"), {})
    with pytest.raises(LeaseLost):
        stale.write_progress(5, {"model/total": 1.0})
    with pytest.raises(LeaseLost):
        stale.complete(HEADER, stored("late"), {})
    with pytest.raises(LeaseLost):
        stale.note_error(InvalidRequest("late"))
    run = run_row(engine, held.run_id)
    assert (run.step, run.state, run.error, run.model_id) == (0, RunState.RUNNING, None, None)
    with read_session(engine) as session:
        assert session.scalar(select(func.count()).select_from(Checkpoint)) == 0
        assert session.scalar(select(func.count()).select_from(Model)) == 0
    ledger_of(engine, newer).register_checkpoint(5, stored("good"), {})


def test_the_last_checkpoints_are_kept_and_the_others_named(engine: Engine) -> None:
    ledger = ledger_of(engine, held_run(engine))
    dropped = [ledger.register_checkpoint(step, stored(str(step)), {}) for step in range(1, NUM_KEPT + 3)]
    assert [[o.key for o in some] for some in dropped[-2:]] == [["1"], ["2"]]
    assert [saved.step for saved in ledger.checkpoints()] == [5, 4, 3]


def test_a_model_is_registered_with_the_end_of_the_run_and_only_once(engine: Engine) -> None:
    ledger = ledger_of(engine, held_run(engine))
    ledger.complete(HEADER, stored("model"), {"model/total": float("nan")})
    run = run_row(engine, ledger.run_id)
    assert (run.state, run.losses) == (RunState.DONE, {"model/total": None})
    with pytest.raises(LeaseLost):
        ledger.complete(HEADER, stored("model"), {})


def test_a_run_that_is_done_is_not_begun_again(engine: Engine) -> None:
    """The supervisor died after its trainer had finished: the job ends, nothing else happens."""
    held = held_run(engine)
    ledger_of(engine, held).complete(HEADER, stored("model"), {})
    lease.release(engine, held.claim)
    queue = create_queue(engine)
    assert begin(queue, claim(queue), SETTINGS) is None
    assert job_row(engine, held.run_id).state == JobState.DONE
    assert run_row(engine, held.run_id).attempt == held.attempt


def test_crashes_count_in_a_row_only(engine: Engine) -> None:
    """Attempts that saved a checkpoint before they died use nothing up."""
    held, queue = held_run(engine), create_queue(engine)
    for _ in range(2 * SETTINGS.max_attempts):
        ledger_of(engine, held).register_checkpoint(held.attempt, stored(str(held.attempt)), {})
        assert has_advanced(engine, held)
        crash(engine, held)
        begun = begin(queue, claim(queue), SETTINGS)
        assert begun is not None
        held = begun
    for _ in range(SETTINGS.max_attempts - 1):
        assert not has_advanced(engine, held)
        crash(engine, held)
        begun = begin(queue, claim(queue), SETTINGS)
        assert begun is not None
        held = begun
    assert held.claim.attempt == SETTINGS.max_attempts


def crash(engine: Engine, held: HeldRun) -> None:
    """What the sweeper does with a job whose holder died: back to the queue, the attempt used up."""
    with write_session(engine) as session:
        session.execute(update(Job).where(Job.id == held.claim.job_id).values(state=JobState.QUEUED, lease_until=None))


def test_a_run_cancelled_while_nobody_held_it_is_not_begun(engine: Engine) -> None:
    add_dataset(engine)
    queue = create_queue(engine)
    run_id = ask(queue)
    taken = claim(queue)
    with queue.unit_of_work() as unit:
        cancel_run(unit, run_id)
    assert begin(queue, taken, SETTINGS) is None
    assert run_row(engine, run_id).state == RunState.CANCELLED


def test_cancelling_a_held_run_ends_its_job_too(engine: Engine) -> None:
    held = held_run(engine)
    queue = create_queue(engine)
    lease.record(queue, held.claim, cancel(held), settings=SETTINGS)
    assert (run_row(engine, held.run_id).state, job_row(engine, held.run_id).state) == ("cancelled", "cancelled")
    with pytest.raises(LeaseLost):
        ledger_of(engine, held).write_progress(9, {})


def test_what_the_trainer_noted_is_why_the_run_failed(engine: Engine) -> None:
    held = held_run(engine)
    queue = create_queue(engine)
    ledger_of(engine, held).note_error(InvalidRequest("the recordings are too short"))
    refusal = InvalidRequest("exit code 64")
    state = lease.fail(queue, held.claim, refusal, settings=SETTINGS, on_failure=mark_failed)
    run = run_row(engine, held.run_id)
    assert (state, run.state, run.error) == (JobState.FAILED, RunState.FAILED, "the recordings are too short")
