"""Following a collection as its items are fetched."""

from collections.abc import Callable

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from audiofoundation.ingestion.discoveries import DiscoveryState
from audiofoundation.ingestion.states import PENDING_STATES
from audiofoundation.transport.events import Followed, describe_events, follow
from services.ingest.schemas import CollectionOut


def add_event_route(router: APIRouter, read: Callable[[str], CollectionOut]) -> None:
    """Add the route; `read` returns a collection as it is now, by id or name."""

    @router.get(
        "/{collection}/events",
        summary="Follow a collection as server-sent events until nothing waits any more",
        responses=describe_events("collection"),
    )
    async def get_events(request: Request, collection: str) -> StreamingResponse:
        followed = Followed("collection", lambda: read(collection), _is_over, moved=_counts)
        return await follow(request.app, followed)


def _is_over(found: CollectionOut) -> bool:
    is_expanding = found.discoveries.get(DiscoveryState.QUEUED, 0) > 0
    return not is_expanding and not any(found.states.get(state, 0) for state in PENDING_STATES)


def _counts(found: CollectionOut) -> object:
    """The time left always differs; only counts are news."""
    return found.states, found.error_classes, found.discoveries
