"""Following a dataset as its shards are made."""

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from audiofoundation.catalog.engine import read_session
from audiofoundation.preprocessing.progress import dataset_progress
from audiofoundation.preprocessing.states import DatasetState
from audiofoundation.preprocessing.status import get_dataset
from audiofoundation.transport.events import Followed, describe_events, follow
from services.preprocess.wiring import Container


class DatasetProgressOut(BaseModel):
    dataset: str
    state: str = Field(description="`building` or `ready`")
    shards: dict[str, int] = Field(description="Shards by state")
    segments: int = Field(description="In committed shards")
    hours: float
    bytes: int


def add_event_route(router: APIRouter, container: Container) -> None:
    """Add the route."""

    @router.get(
        "/{dataset}/events",
        summary="Follow a dataset as server-sent events until it is ready",
        responses=describe_events("dataset"),
    )
    async def get_events(request: Request, dataset: str) -> StreamingResponse:
        followed = Followed("dataset", lambda: _read(container, dataset), _is_over)
        return await follow(request.app, followed)


def _is_over(found: DatasetProgressOut) -> bool:
    return found.state == DatasetState.READY


def _read(container: Container, dataset: str) -> DatasetProgressOut:
    with read_session(container.queue.engine) as session:
        found = dataset_progress(session, get_dataset(session, dataset))
    return DatasetProgressOut(
        dataset=found.id,
        state=found.state,
        shards=dict(found.shard_states),
        segments=found.num_segments,
        hours=found.duration_s / 3600,
        bytes=found.size_bytes,
    )
