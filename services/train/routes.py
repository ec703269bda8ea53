"""HTTP routes of the train service."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from audiofoundation.catalog.engine import read_session
from audiofoundation.errors import InvalidRequest
from audiofoundation.identifiers import RunId
from audiofoundation.jobs.queue import UnitOfWork
from audiofoundation.training.requests import (
    RunRequest,
    cancel_run,
    create_run,
    demote_run,
    get_run,
    list_checkpoints,
    list_runs,
    promote_run,
    resume_run,
)
from audiofoundation.training.states import OVER, RunState
from audiofoundation.transport.events import Followed, describe_events, follow
from services.train.schemas import (
    CheckpointListOut,
    PromotedOut,
    RunIn,
    RunListOut,
    RunOut,
    to_checkpoint_out,
    to_run_out,
)
from services.train.wiring import Container


def create_router(container: Container) -> APIRouter:
    """Return the routes under /v1/runs."""
    router = APIRouter(prefix="/v1/runs", tags=["train"])
    _add_run_routes(router, container)
    _add_action_routes(router, container)
    _add_event_route(router, container)
    return router


def _add_run_routes(router: APIRouter, container: Container) -> None:
    @router.post("", summary="Start a run, or go on with one")
    def post_run(body: RunIn) -> RunOut:
        with container.queue.unit_of_work() as unit:
            return to_run_out(get_run(unit.session, _start(unit, body, container)))

    @router.get("", summary="List runs, the newest first")
    def get_runs(state: RunState | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> RunListOut:
        with read_session(container.queue.engine) as session:
            return RunListOut(data=[to_run_out(view) for view in list_runs(session, limit=limit, state=state)])

    @router.get("/{run}", summary="How far a run is")
    def get_one(run: str) -> RunOut:
        return _read(container, run)

    @router.get("/{run}/checkpoints", summary="Where a run could go on, the newest first")
    def get_checkpoints(run: str) -> CheckpointListOut:
        with read_session(container.queue.engine) as session:
            rows = list_checkpoints(session, RunId(run))
            return CheckpointListOut(data=[to_checkpoint_out(row) for row in rows])


def _add_action_routes(router: APIRouter, container: Container) -> None:
    @router.post("/{run}/cancel", summary="Stop a run; a running one saves first")
    def post_cancel(run: str) -> RunOut:
        with container.queue.unit_of_work() as unit:
            cancel_run(unit, RunId(run))
        return _read(container, run)

    @router.post("/{run}/promote", summary="Make the model of a done run the default of its task")
    def post_promote(run: str) -> PromotedOut:
        with container.queue.unit_of_work() as unit:
            return PromotedOut(run=run, model=promote_run(unit, RunId(run)))

    @router.post("/{run}/demote", summary="Take back a promotion: the bundled model is the default again")
    def post_demote(run: str) -> PromotedOut:
        with container.queue.unit_of_work() as unit:
            return PromotedOut(run=run, model=demote_run(unit, RunId(run)), state="candidate")


def _add_event_route(router: APIRouter, container: Container) -> None:
    @router.get("/{run}/events", summary="Follow a run as server-sent events", responses=describe_events("run"))
    async def get_events(request: Request, run: str) -> StreamingResponse:
        return await follow(
            request.app, Followed("run", lambda: _read(container, run), lambda found: found.state in OVER)
        )


def _start(unit: UnitOfWork, body: RunIn, container: Container) -> RunId:
    if body.resume is not None:
        if body.overrides or body.steps is not None:
            raise InvalidRequest("a resumed run keeps its settings and steps; start a new one to change them")
        return resume_run(unit, RunId(body.resume))
    if body.recipe is None or body.dataset is None:
        missing = "recipe" if body.recipe is None else "dataset"
        raise InvalidRequest(f"{missing} is missing: a run needs a recipe and a dataset", param=missing)
    request = RunRequest(
        recipe=body.recipe,
        dataset_id=body.dataset,
        overrides=dict(body.overrides),
        num_steps=body.steps,
        idempotency_key=body.idempotency_key,
    )
    return create_run(unit, request, pretrained_dir=container.settings.models.pretrained_dir)


def _read(container: Container, run: str) -> RunOut:
    with read_session(container.queue.engine) as session:
        return to_run_out(get_run(session, RunId(run)))
