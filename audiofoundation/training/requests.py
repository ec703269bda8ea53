"""What users ask of training: start a run, look at it, resume, cancel, promote its model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from audiofoundation.catalog.tables import Checkpoint, Dataset, Job, Model, Run
from audiofoundation.catalog.tombstones import holds_taken_down
from audiofoundation.errors import Conflict, InvalidRequest, NotFound
from audiofoundation.features.mel import get_preset
from audiofoundation.identifiers import CheckpointId, JobId, RunId, create_id, derive_id
from audiofoundation.jobs import lease
from audiofoundation.jobs.kinds import JobKind, JobState
from audiofoundation.jobs.queue import UnitOfWork
from audiofoundation.models.registry import bundled_models
from audiofoundation.training.recipes import OverrideValue, Recipe, resolve_recipe
from audiofoundation.training.states import OVER, ModelState, RunState
from audiofoundation.training.vocoding import VocodingConfig

_SET, _MANIFEST_KEY, _MANIFEST_SHA256 = "set", "manifest_key", "manifest_sha256"


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A run to start.

    Attributes:
        recipe: its name.
        dataset_id: what to train on.
        overrides: changed settings by name.
        num_steps: steps in all; None is the recipe's number.
        idempotency_key: asking twice with the same key starts one run.
    """

    recipe: str
    dataset_id: str
    overrides: Mapping[str, OverrideValue]
    num_steps: int | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class RunView:
    """A run with what it made so far."""

    run: Run
    overrides: Mapping[str, OverrideValue]
    checkpoint_id: CheckpointId | None
    model: str | None


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a trainer needs to know of a run: everything was fixed when it was asked for."""

    recipe: Recipe
    manifest_key: str
    manifest_sha256: str
    dataset_id: str
    num_steps: int


def create_run(unit: UnitOfWork, request: RunRequest, *, pretrained_dir: Path) -> RunId:
    """Write the run and its job; the recipe, its settings and the version of the dataset are fixed now.

    Raises:
        InvalidRequest: no such recipe or setting, or the dataset lacks what the recipe needs.
        NotFound: no such dataset.
        Conflict: the dataset is not built yet, or a takedown is under way in it.
        MelMismatch: the dataset has another preset than the recipe.
    """
    recipe = resolve_recipe(request.recipe, request.overrides, num_steps=request.num_steps)
    key = request.idempotency_key
    run_id = RunId(derive_id("run", key) if key else create_id("run"))
    if unit.session.get(Run, run_id) is not None:
        return run_id
    dataset = unit.session.get(Dataset, request.dataset_id)
    if dataset is None:
        how = "`audiofoundation preprocess` or POST /v1/datasets"
        raise NotFound(f"there is no dataset {request.dataset_id!r}; make one with {how}", param="dataset")
    _check_dataset(dataset, recipe)
    if holds_taken_down(unit.session, dataset.manifest_sha256 or ""):
        raise Conflict(
            f"a takedown is under way in the dataset {dataset.id}; ask again when it has its new version",
            param="dataset",
        )
    _check_init(unit.session, recipe, pretrained_dir)
    fixed = {
        _SET: dict(request.overrides),
        _MANIFEST_KEY: dataset.manifest_key,
        _MANIFEST_SHA256: dataset.manifest_sha256,
    }
    run = Run(
        id=run_id,
        recipe=recipe.name,
        dataset_id=dataset.id,
        manifest_sha256=dataset.manifest_sha256,
        overrides=fixed,
        num_steps=recipe.trainer.num_steps,
        losses={},
    )
    unit.session.add(run)
    unit.session.flush()
    unit.enqueue(JobKind.TRAIN_RUN, key=job_key(run_id), subject_id=run_id)
    return run_id


def resume_run(unit: UnitOfWork, run_id: RunId) -> RunId:
    """Put a failed or cancelled run back in the queue; one that waits, runs or is done is left alone.

    Raises:
        NotFound: no such run.
        Conflict: a recording in the run's version of the dataset was taken down.
    """
    run = _get_run(unit.session, run_id)
    if run.state in (RunState.FAILED, RunState.CANCELLED):
        if holds_taken_down(unit.session, run.manifest_sha256 or ""):
            raise Conflict("a recording in this run's version of the dataset was taken down; start a new run")
        run.state, run.is_cancel_requested, run.error, run.error_class = RunState.QUEUED, False, None, None
        unit.session.flush()
        unit.enqueue(JobKind.TRAIN_RUN, key=job_key(run_id), subject_id=run_id, is_requeue=True)
    return run_id


def cancel_run(unit: UnitOfWork, run_id: RunId) -> None:
    """Ask a run to stop: one that waits is cancelled at once, one that runs saves first.

    Raises:
        NotFound: no such run.
        Conflict: the run is over.
    """
    run = _get_run(unit.session, run_id)
    if run.state in OVER:
        raise Conflict(f"the run is over: it is {run.state}")
    run.is_cancel_requested = True
    job = unit.session.scalars(select(Job).where(Job.key == job_key(run_id)).with_for_update()).one()
    if job.state == JobState.QUEUED:
        lease.cancel(unit.session, JobId(job.id))
        run.state = RunState.CANCELLED


def promote_run(unit: UnitOfWork, run_id: RunId) -> str:
    """Make the run's model the default of its task and retire the one before; return its name.

    Raises:
        NotFound: no such run.
        Conflict: the run is not done.
    """
    run = _get_run(unit.session, run_id)
    if run.state != RunState.DONE or run.model_id is None:
        raise Conflict(f"only the model of a done run can be promoted; this run is {run.state}")
    model = unit.session.get_one(Model, run.model_id)
    unit.session.execute(
        update(Model)
        .where(Model.task == model.task, Model.state == ModelState.PROMOTED, Model.id != model.id)
        .values(state=ModelState.RETIRED)
    )
    model.state = ModelState.PROMOTED
    return model.name


def demote_run(unit: UnitOfWork, run_id: RunId) -> str:
    """Take back a promotion, so that the bundled model is the default again; return the model's name.

    Raises:
        NotFound: no such run.
        Conflict: its model is not the default.
    """
    run = _get_run(unit.session, run_id)
    model = None if run.model_id is None else unit.session.get_one(Model, run.model_id)
    if model is None or model.state != ModelState.PROMOTED:
        raise Conflict("only a model that was promoted can be demoted, and this run's is not the default")
    model.state = ModelState.CANDIDATE
    return model.name


def get_run(session: Session, run_id: RunId) -> RunView:
    """Return a run. Raises NotFound."""
    return _to_view(session, _get_run(session, run_id))


def list_runs(session: Session, *, limit: int, state: str | None = None) -> list[RunView]:
    """Return the newest runs first."""
    newest = select(Run).order_by(Run.created_at.desc()).limit(limit)
    if state is not None:
        newest = newest.where(Run.state == state)
    return [_to_view(session, run) for run in session.scalars(newest)]


def list_checkpoints(session: Session, run_id: RunId) -> list[Checkpoint]:
    """Return a run's checkpoints, the newest first. Raises NotFound."""
    _get_run(session, run_id)
    rows = select(Checkpoint).where(Checkpoint.run_id == run_id)
    return list(session.scalars(rows.order_by(Checkpoint.step.desc(), Checkpoint.attempt.desc())))


def read_plan(session: Session, run_id: RunId) -> RunPlan:
    """Return what to train. Raises NotFound, and InvalidRequest when the recipe has changed since."""
    run = _get_run(session, run_id)
    fixed: dict[str, Any] = run.overrides
    return RunPlan(
        recipe=resolve_recipe(run.recipe, fixed[_SET], num_steps=run.num_steps),
        manifest_key=fixed[_MANIFEST_KEY],
        manifest_sha256=fixed[_MANIFEST_SHA256],
        dataset_id=run.dataset_id,
        num_steps=run.num_steps,
    )


def job_key(run_id: RunId) -> str:
    """Return the key of a run's job."""
    return f"train.run:{run_id}"


def _get_run(session: Session, run_id: RunId) -> Run:
    run = session.get(Run, run_id)
    if run is None:
        raise NotFound(f"there is no run {run_id!r}; see `audiofoundation runs list` or GET /v1/runs", param="run")
    return run


def _to_view(session: Session, run: Run) -> RunView:
    newest = select(Checkpoint.id).where(Checkpoint.run_id == run.id)
    checkpoint_id = session.scalars(newest.order_by(Checkpoint.step.desc(), Checkpoint.attempt.desc())).first()
    model = session.get(Model, run.model_id) if run.model_id else None
    return RunView(
        run=run,
        overrides=run.overrides.get(_SET, {}),
        checkpoint_id=CheckpointId(checkpoint_id) if checkpoint_id else None,
        model=model.name if model else None,
    )


def _check_dataset(dataset: Dataset, recipe: Recipe) -> None:
    if dataset.manifest_key is None or dataset.manifest_sha256 is None:
        raise Conflict(
            f"the dataset {dataset.id} is still being built; wait for `audiofoundation preprocess … --wait`",
            param="dataset",
        )
    what = f"dataset {dataset.id} (preset {dataset.preset}), which the recipe {recipe.name} would train on,"
    get_preset(recipe.model.preset).require(dataset.mel_fingerprint, what=what)
    is_read = recipe.data.data != "on_the_fly" and dataset.config.get("include_waveform") is False
    if isinstance(recipe.objective, VocodingConfig) and is_read:
        raise InvalidRequest(
            "this dataset holds no waveforms, which a vocoder learns from; preprocess again with --with-waveform, "
            "or train with data=on_the_fly",
            param="dataset",
        )


def _check_init(session: Session, recipe: Recipe, pretrained_dir: Path) -> None:
    name = recipe.init_name
    if name is None or name in bundled_models(pretrained_dir):
        return
    if session.scalars(select(Model.id).where(Model.name == name)).first() is None:
        known = [*bundled_models(pretrained_dir), *session.scalars(select(Model.name))]
        raise InvalidRequest(f"init: there is no model {name!r}; there is: {', '.join(known) or 'none'}", param="init")
