"""Server-sent events about something that changes in the catalog: what it is now, each time it moves, until its end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from audiofoundation.errors import Overloaded, StorageUnavailable
from audiofoundation.transport.health import Health

MAX_LISTENERS = 64
_LOOK_EVERY_S = 0.5
_HEARTBEAT_S = 15.0
_RETRY_AFTER_S = 10.0
_T = TypeVar("_T", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Followed(Generic[_T]):
    """A thing to follow.

    Attributes:
        name: events are called `NAME.progress` and, the last one, `NAME.done`.
        read: returns what it is now; called in a thread.
        is_over: whether that is its end.
        moved: what must differ for another event; the whole unless given (time left, say, always differs).
    """

    name: str
    read: Callable[[], _T]
    is_over: Callable[[_T], bool]
    moved: Callable[[_T], object] = lambda found: found


@dataclass(slots=True)
class Listeners:
    """How many streams this process holds open at once, and how often each looks.

    Attributes:
        most: one more is refused.
        num_open: streams now.
        look_every_s: seconds between looks at the catalog.
        heartbeat_s: a comment is sent after so long a silence, so that proxies keep the connection.
    """

    most: int = MAX_LISTENERS
    num_open: int = 0
    look_every_s: float = _LOOK_EVERY_S
    heartbeat_s: float = _HEARTBEAT_S


def describe_events(name: str) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that answers with events."""
    told = f"`{name}.progress` at every change and, at the end, `{name}.done`"
    return {200: {"description": told, "content": {"text/event-stream": {}}}}


async def follow(app: FastAPI, followed: Followed[_T]) -> StreamingResponse:
    """Return a response that tells every change until the end, until the client leaves or the server drains.

    Raises:
        NotFound: whatever `read` raises for a thing that is not there, before anything is sent.
    """
    await run_in_threadpool(followed.read)
    return _EventStream(app.state.listeners, _events(followed, app.state.listeners, app.state.health))


class _EventStream(StreamingResponse):
    """Counts as a listener for as long as it is being sent."""

    def __init__(self, listeners: Listeners, events: AsyncIterator[str]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._listeners = listeners

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._listeners.num_open >= self._listeners.most:
            raise Overloaded(
                f"{self._listeners.most} event streams are open here already; look again later, or ask for the "
                "state without /events",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._listeners.num_open += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._listeners.num_open -= 1


async def _events(followed: Followed[_T], listeners: Listeners, health: Health) -> AsyncIterator[str]:
    told: object = None
    silent_s = 0.0
    while not health.is_draining:
        found: _T | None
        try:
            found = await run_in_threadpool(followed.read)
        except StorageUnavailable:
            found = None
        if found is not None and followed.moved(found) != told:
            told, silent_s = followed.moved(found), 0.0
            is_over = followed.is_over(found)
            yield f"event: {followed.name}.{'done' if is_over else 'progress'}\ndata: {found.model_dump_json()}\n\n"
            if is_over:
                return
        elif silent_s >= listeners.heartbeat_s:
            yield ": still here\n\n"
            silent_s = 0.0
        await asyncio.sleep(listeners.look_every_s)
        silent_s += listeners.look_every_s
