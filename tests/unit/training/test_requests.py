"""Starting, resuming, cancelling and promoting runs."""

import pytest
from sqlalchemy import Engine, select

from audiofoundation.catalog.engine import read_session, write_session
from audiofoundation.catalog.tables import Model, Run
from audiofoundation.errors import Conflict, InvalidRequest, MelMismatch, NotFound
from audiofoundation.features.mel import get_preset
from audiofoundation.identifiers import RunId
from audiofoundation.jobs import lease
from audiofoundation.jobs.kinds import JobState
from audiofoundation.training.requests import cancel_run, demote_run, get_run, promote_run, read_plan, resume_run
from audiofoundation.training.states import ModelState, RunState
from tests.unit.training.rows import SETTINGS, add_dataset, ask, claim, create_queue, job_row, run_row


def test_a_run_is_written_with_its_job_and_everything_that_decides_it(engine: Engine) -> None:
    add_dataset(engine)
    run_id = ask(create_queue(engine), overrides={"batch": "4"})
    with read_session(engine) as session:
        plan = read_plan(session, run_id)
        view = get_run(session, run_id)
    assert (plan.recipe.objective.batch, plan.num_steps, plan.manifest_sha256) == (4, 10, "0" * 64)
    assert (view.run.state, view.overrides, view.model) == (RunState.QUEUED, {"batch": "4"}, None)
    assert job_row(engine, run_id).state == JobState.QUEUED


def test_the_same_key_finds_the_same_run(engine: Engine) -> None:
    add_dataset(engine)
    queue = create_queue(engine)
    assert ask(queue, key="key-number-1") == ask(queue, key="key-number-1") != ask(queue)


def test_what_cannot_be_trained_is_refused_before_anything_is_written(engine: Engine) -> None:
    add_dataset(engine)
    add_dataset(engine, "ds_building", manifest_key=None, manifest_sha256=None)
    hifigan = get_preset("hifigan22")
    add_dataset(engine, "ds_hifigan", preset=hifigan.name, mel_fingerprint=hifigan.fingerprint)
    add_dataset(engine, "ds_mels", config={"include_waveform": False})
    queue = create_queue(engine)
    with pytest.raises(NotFound, match="ds_none"):
        ask(queue, dataset_id="ds_none")
    with pytest.raises(Conflict, match="still being built"):
        ask(queue, dataset_id="ds_building")
    with pytest.raises(MelMismatch, match="hifigan22"):
        ask(queue, dataset_id="ds_hifigan")
    with pytest.raises(InvalidRequest, match="no waveforms"):
        ask(queue, "vocoder-tiny", dataset_id="ds_mels")
    with pytest.raises(InvalidRequest, match="there is no model 'ghost'"):
        ask(queue, overrides={"init": "ghost"})
    with read_session(engine) as session:
        assert session.scalars(select(Run)).all() == []


def test_a_waiting_run_is_cancelled_at_once_and_can_be_resumed(engine: Engine) -> None:
    add_dataset(engine)
    queue = create_queue(engine)
    run_id = ask(queue)
    with queue.unit_of_work() as unit:
        cancel_run(unit, run_id)
    assert run_row(engine, run_id).state == RunState.CANCELLED
    assert job_row(engine, run_id).state == JobState.CANCELLED
    with queue.unit_of_work() as unit:
        resume_run(unit, run_id)
    assert (run_row(engine, run_id).state, run_row(engine, run_id).is_cancel_requested) == (RunState.QUEUED, False)
    assert claim(queue).subject_id == run_id


def test_a_held_run_is_only_asked_to_stop(engine: Engine) -> None:
    add_dataset(engine)
    queue = create_queue(engine)
    run_id = ask(queue)
    held = claim(queue)
    with queue.unit_of_work() as unit:
        cancel_run(unit, run_id)
    run = run_row(engine, run_id)
    assert (run.state, run.is_cancel_requested) == (RunState.QUEUED, True)
    lease.renew(engine, held, settings=SETTINGS)


def test_a_run_that_is_over_cannot_be_cancelled(engine: Engine) -> None:
    add_dataset(engine)
    queue = create_queue(engine)
    run_id = ask(queue)
    set_state(engine, run_id, RunState.DONE)
    with pytest.raises(Conflict, match="done"), queue.unit_of_work() as unit:
        cancel_run(unit, run_id)


def test_promoting_retires_the_one_before_and_needs_a_done_run(engine: Engine) -> None:
    add_dataset(engine)
    queue = create_queue(engine)
    first, second, third = (ask(queue) for _ in range(3))
    for run_id in (first, second):
        set_state(engine, run_id, RunState.DONE)
        add_model(engine, run_id)
    for run_id in (first, second, second):
        with queue.unit_of_work() as unit:
            assert promote_run(unit, run_id) == f"m-{run_id}"
    with read_session(engine) as session:
        states = {model.run_id: model.state for model in session.scalars(select(Model))}
    assert states == {first: ModelState.RETIRED, second: ModelState.PROMOTED}
    with pytest.raises(Conflict, match="queued"), queue.unit_of_work() as unit:
        promote_run(unit, third)


def test_a_promotion_can_be_taken_back(engine: Engine) -> None:
    add_dataset(engine)
    queue = create_queue(engine)
    run_id, other = ask(queue), ask(queue)
    set_state(engine, run_id, RunState.DONE)
    add_model(engine, run_id)
    with queue.unit_of_work() as unit:
        promote_run(unit, run_id)

    with queue.unit_of_work() as unit:
        assert demote_run(unit, run_id) == f"m-{run_id}"

    with read_session(engine) as session:
        assert session.scalars(select(Model.state)).all() == [ModelState.CANDIDATE]
    for without in (run_id, other):
        with pytest.raises(Conflict, match="not the default"), queue.unit_of_work() as unit:
            demote_run(unit, without)


def set_state(engine: Engine, run_id: RunId, state: RunState) -> None:
    with write_session(engine) as session:
        session.get_one(Run, run_id).state = state


def add_model(engine: Engine, run_id: RunId) -> None:
    with write_session(engine) as session:
        model_id = f"model_{run_id}"
        row = Model(id=model_id, name=f"m-{run_id}", task="continuation", kind="mel_transformer", run_id=run_id)
        row.mel_fingerprint, row.key, row.size_bytes, row.sha256, row.metrics = "f", "k", 1, "0" * 64, {}
        session.add(row)
        session.get_one(Run, run_id).model_id = model_id
