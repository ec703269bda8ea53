"""Collections and datasets as server-sent events, over a real socket."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import Engine

from audiofoundation.catalog.engine import write_session
from audiofoundation.catalog.tables import Discovery
from audiofoundation.storage.object_store import ObjectStore
from audiofoundation.transport.events import Listeners
from tests.data_plane import KEY, DataPlane, create_data_plane, data_plane_settings, tone
from tests.unit.transport.serving import served

DEADLINE_S = 20.0


@pytest.fixture
def plane(sqlite_engine: Engine, store: ObjectStore, tmp_path: Path) -> DataPlane:
    plane = create_data_plane(sqlite_engine, store, data_plane_settings(tmp_path / "data"))
    plane.post("/v1/collections", {"name": "clips"})
    return plane


def app_of(plane: DataPlane) -> FastAPI:
    app = plane.client.app
    assert isinstance(app, FastAPI)
    return app


@pytest.fixture
def client(plane: DataPlane) -> Iterator[httpx.Client]:
    app_of(plane).state.listeners = Listeners(most=2, look_every_s=0.02, heartbeat_s=0.1)
    headers = {"Authorization": f"Bearer {KEY}"}
    with (
        served(app_of(plane)) as address,
        httpx.Client(base_url=address, headers=headers, timeout=DEADLINE_S) as client,
    ):
        yield client


def events(answer: httpx.Response) -> Iterator[tuple[str, dict[str, object]]]:
    name = ""
    for line in answer.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def listeners(plane: DataPlane) -> Listeners:
    found = app_of(plane).state.listeners
    assert isinstance(found, Listeners)
    return found


def wait_for_listeners(plane: DataPlane, number: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while listeners(plane).num_open != number:
        assert time.monotonic() < deadline, f"{listeners(plane).num_open} listeners, not {number}"
        time.sleep(0.01)


def test_a_collection_and_its_dataset_are_told_until_they_are_done(
    plane: DataPlane, client: httpx.Client, tmp_path: Path
) -> None:
    plane.upload("clips", tone(tmp_path / "a.wav", 2.0).read_bytes())
    with client.stream("GET", "/v1/collections/clips/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        told = events(answer)
        name, first = next(told)
        assert (name, first["states"]) == ("collection.progress", {"queued": 1})
        plane.run_jobs()
        rest = list(told)
    assert rest[-1][0] == "collection.done"
    assert rest[-1][1]["states"] == {"stored": 1}
    dataset = plane.post("/v1/datasets", {"collection": "clips"})["dataset"]
    with client.stream("GET", f"/v1/datasets/{dataset}/events") as answer:
        told = events(answer)
        name, first = next(told)
        assert (name, first["shards"]) == ("dataset.progress", {"queued": 1})
        plane.run_jobs()
        rest = list(told)
    assert rest[-1][0] == "dataset.done"
    assert rest[-1][1]["shards"] == {"committed": 1}
    assert rest[-1][1]["segments"] == 1
    wait_for_listeners(plane, 0)


def test_a_collection_whose_lists_are_being_expanded_is_not_done(plane: DataPlane, client: httpx.Client) -> None:
    collection = str(plane.get("/v1/collections/clips")["id"])
    with write_session(plane.queue.engine) as session:
        session.add(Discovery(id="d", collection_id=collection, kind="feed", address="http://127.0.0.1/feed"))
    with client.stream("GET", "/v1/collections/clips/events") as answer:
        told = events(answer)
        assert next(told)[0] == "collection.progress"
        with write_session(plane.queue.engine) as session:
            session.get_one(Discovery, "d").state = "done"
        assert [name for name, _ in told] == ["collection.done"]


def test_a_silent_stream_has_heartbeats_and_the_server_lets_go_when_it_drains(
    plane: DataPlane, client: httpx.Client, tmp_path: Path
) -> None:
    plane.upload("clips", tone(tmp_path / "a.wav", 1.0).read_bytes())
    with client.stream("GET", "/v1/collections/clips/events") as answer:
        lines = answer.iter_lines()
        assert next(line for line in lines if line.startswith(":"))
        app_of(plane).state.health.is_draining = True
        assert not [line for line in lines if line.startswith("event")]
    wait_for_listeners(plane, 0)


def test_listeners_are_bounded_and_one_that_leaves_makes_room(
    plane: DataPlane, client: httpx.Client, tmp_path: Path
) -> None:
    plane.upload("clips", tone(tmp_path / "a.wav", 1.0).read_bytes())
    path = "/v1/collections/clips/events"
    with client.stream("GET", path) as first, client.stream("GET", path) as second:
        told = (events(first), events(second))  # kept: a generator that goes closes its stream
        for one in told:
            next(one)
        refused = client.get(path)
        assert refused.status_code == 503
        assert "Retry-After" in refused.headers
        assert refused.json()["error"]["code"] == "overloaded"
    wait_for_listeners(plane, 0)
    with client.stream("GET", path) as third:
        assert next(events(third))


@pytest.mark.parametrize("path", ["/v1/collections/none/events", "/v1/datasets/none/events"])
def test_what_is_not_there_is_a_404_and_keys_are_needed(path: str, client: httpx.Client) -> None:
    assert client.get(path).status_code == 404
    assert client.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401
