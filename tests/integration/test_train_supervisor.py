"""Runs through the real queue, catalog and store, with a real supervisor and real trainers."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from sqlalchemy import func, select

from audiofoundation.catalog.engine import create_catalog_engine, read_session
from audiofoundation.catalog.tables import Checkpoint, Job, Model, Run
from audiofoundation.identifiers import RunId, Sha256
from audiofoundation.jobs import lease
from audiofoundation.jobs.kinds import JobKind, JobState
from audiofoundation.jobs.owner import current_owner
from audiofoundation.preprocessing.levelled import read_levelled
from audiofoundation.settings import CatalogSettings, ModelSettings, QueueSettings, Settings, StorageSettings
from audiofoundation.storage.object_store import ObjectStore
from audiofoundation.training.checkpoints import checkpoint_prefix
from audiofoundation.training.holding import begin
from audiofoundation.training.ledger import RunLedger
from audiofoundation.training.requests import cancel_run, resume_run
from audiofoundation.training.run_process import Attempt
from audiofoundation.training.states import OVER, ExitCode, RunState
from audiofoundation.training.supervisor import SupervisorOptions
from tests.training_stage import TINY, Stage, trainers_of

pytestmark = pytest.mark.slow

NUM_STEPS = 250
# Slow enough to be caught in the middle, quick enough to test.
CATCHABLE = {**TINY, "save_every_s": 0.3, "evaluate_every": 0}


@pytest.fixture
def stage(
    tmp_path: Path,
    s3_settings: StorageSettings,
    store: ObjectStore,
    queue_settings: QueueSettings,
    sqlite_catalog: CatalogSettings,
) -> Iterator[Stage]:
    settings = Settings(
        data_dir=tmp_path / "data",
        storage=s3_settings.model_copy(update={"bucket": store._bucket}),
        queue=queue_settings,
        catalog=sqlite_catalog,
        models=ModelSettings(cache_dir=tmp_path / "cache"),
    )
    engine = create_catalog_engine(sqlite_catalog)
    yield Stage.create(settings, engine, store)
    engine.dispose()


def test_a_run_goes_through_the_queue_and_ends_with_a_model_that_loads(stage: Stage) -> None:
    run_id = stage.ask("tiny", 20, TINY)
    with stage.supervisor():
        run = stage.wait(run_id, lambda run: run.state in OVER)
    assert run.state == RunState.DONE, run.error
    assert run.step == 20
    assert run.losses["model/total"] > 0
    assert run.losses["validation/energy_score"] > 0
    weights = load_file(download_model(stage, run_id))
    assert {"mean_F", "encoder.skip.weight"} <= set(weights)
    assert list((stage.settings.data_dir / "runs" / run_id / "tensorboard").iterdir())


def test_killed_trainers_and_supervisors_cost_no_exactness(stage: Stage) -> None:
    """`kill -9` of a trainer, then of a supervisor: the run ends by itself, with the weights of a calm one."""
    calm = stage.ask("tiny", NUM_STEPS, CATCHABLE)
    train_here(stage, calm)
    stormy = stage.ask("tiny", NUM_STEPS, CATCHABLE)
    with stage.supervisor() as first:
        wait_for_checkpoint(stage, stormy, attempt=1)
        for pid in trainers_of(first):
            os.kill(pid, signal.SIGKILL)
        wait_for_checkpoint(stage, stormy, attempt=2)
        first.kill()  # its trainer dies with it
        first.wait()
        assert stage.run(stormy).state == RunState.RUNNING
        with stage.supervisor():
            run = stage.wait(stormy, lambda run: run.state in OVER)
    assert (run.state, run.step) == (RunState.DONE, NUM_STEPS), run.error
    assert run.attempt == 3
    expected, actual = load_file(download_model(stage, calm)), load_file(download_model(stage, stormy))
    different = [name for name, value in expected.items() if not np.array_equal(value, actual[name])]
    assert not different
    with read_session(stage.engine) as session:
        assert session.scalar(select(func.count()).select_from(Model).where(Model.run_id == stormy)) == 1
        rows = session.scalars(select(Checkpoint).where(Checkpoint.run_id == stormy)).all()
    assert {row.key for row in rows} == set(stage.store.list(checkpoint_prefix(stormy)))


def test_a_run_that_is_cancelled_leaves_no_streamed_data(stage: Stage) -> None:
    run_id = stage.ask("tiny", 100_000, {**CATCHABLE, "data": "stream", "pool_shards": 1})
    with stage.supervisor():
        wait_for_checkpoint(stage, run_id, attempt=1)
        with stage.queue.unit_of_work() as unit:
            cancel_run(unit, run_id)
        stage.wait(run_id, lambda run: run.state in OVER)
    assert [path for path in stage.settings.data_dir.rglob("*.npy") if "pools" in path.parts] == []


def test_a_stopping_supervisor_gives_its_run_back_saved(stage: Stage) -> None:
    run_id = stage.ask("tiny", 100_000, CATCHABLE)
    with stage.supervisor() as supervisor:
        wait_for_checkpoint(stage, run_id, attempt=1)
        started = time.monotonic()
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(timeout=60) == 0
        assert time.monotonic() - started < 20
    job, run = job_of(stage, run_id), stage.run(run_id)
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)
    with read_session(stage.engine) as session:
        newest = session.scalar(select(func.max(Checkpoint.step)).where(Checkpoint.run_id == run_id))
    assert newest == run.step > 0


def test_a_cancelled_run_saves_ends_and_can_be_resumed(stage: Stage) -> None:
    run_id = stage.ask("tiny", 100_000, CATCHABLE)
    with stage.supervisor():
        wait_for_checkpoint(stage, run_id, attempt=1)
        with stage.queue.unit_of_work() as unit:
            cancel_run(unit, run_id)
        cancelled = stage.wait(run_id, lambda run: run.state in OVER)
        assert cancelled.state == RunState.CANCELLED
        assert job_of(stage, run_id).state == JobState.CANCELLED
        assert stage.view(run_id).checkpoint_id is not None
        with stage.queue.unit_of_work() as unit:
            resume_run(unit, run_id)
        resumed = stage.wait(run_id, lambda run: run.attempt == 2 and run.step > cancelled.step)
        assert resumed.state == RunState.RUNNING


def test_a_run_that_cannot_be_trained_fails_in_words_at_once(stage: Stage) -> None:
    run_id = stage.ask("classifier-tiny", 10, {"labels": "cat,dog"})
    with stage.supervisor():
        run = stage.wait(run_id, lambda run: run.state in OVER)
    assert run.state == RunState.FAILED
    assert run.attempt == 1
    assert run.error
    assert "at least two of cat, dog" in run.error


def train_here(stage: Stage, run_id: RunId) -> None:
    """Train a run in this process, without a supervisor."""
    torch.set_num_threads(stage.settings.models.num_threads)
    settings = SupervisorOptions().to_job_settings(stage.settings.jobs)
    claim = lease.claim_next(stage.engine, JobKind.TRAIN_RUN, owner=current_owner(), settings=settings)
    assert claim is not None
    held = begin(stage.queue, claim, settings)
    assert held is not None
    assert held.run_id == run_id
    attempt = Attempt(stage.settings, stage.store, RunLedger(stage.engine, run_id, held.attempt), read_levelled)
    assert attempt.train(threading.Event()) == ExitCode.DONE
    lease.commit(stage.queue, held.claim, lambda _: None)


def wait_for_checkpoint(stage: Stage, run_id: RunId, *, attempt: int) -> None:
    def has_saved(_: Run) -> bool:
        saved = select(func.count()).select_from(Checkpoint)
        with read_session(stage.engine) as session:
            return bool(session.scalar(saved.where(Checkpoint.run_id == run_id, Checkpoint.attempt == attempt)))

    run = stage.wait(run_id, has_saved, timeout_s=600)
    assert run.state == RunState.RUNNING, "the run was over before it could be caught"


def job_of(stage: Stage, run_id: RunId) -> Job:
    with read_session(stage.engine) as session:
        return session.scalars(select(Job).where(Job.subject_id == run_id)).one()


def download_model(stage: Stage, run_id: RunId) -> Path:
    with read_session(stage.engine) as session:
        (row,) = session.scalars(select(Model).where(Model.run_id == run_id)).all()
    path = stage.settings.data_dir / f"{run_id}.safetensors"
    stage.store.get_to_file(row.key, path, sha256=Sha256(row.sha256))
    return path
