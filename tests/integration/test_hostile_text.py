"""Text that no name has, in every path and query: refused or not found, and never a failure of ours."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from audiofoundation.identifiers import sha256_of
from audiofoundation.storage.object_store import ObjectStore
from services.train import routes as train_routes
from services.train import wiring as train_wiring
from tests.data_plane import KEY, create_data_plane, data_plane_settings

TEXTS = {"nul": "a\x00b", "half of a pair": "\ud800", "long": "a" * 5000, "c1": "\x9b31m", "nothing but nul": "\x00"}
SHA256 = sha256_of(b"")
ORDINARY = {"sha256": SHA256, "index": "0", "kind": "url"}
BODIES: dict[tuple[str, str], list[dict[str, object]]] = {
    ("post", "/v1/collections"): [{"name": None}],
    ("post", "/v1/collections/{collection}/items"): [
        {"sources": [None]},
        {"sources": [{"source": "https://a.org/a.mp3", "title": None}]},
        {"sources": [{"source": "https://a.org/a.mp3", "license": None}]},
    ],
    ("post", "/v1/datasets"): [{"collection": None}, {"collection": "clips", "preset": None}],
    ("post", "/v1/takedowns"): [{"target": None}, {"target": "item_0", "reason": None}],
    ("post", "/v1/runs"): [{"recipe": None, "dataset": "ds_0"}, {"recipe": "tiny", "dataset": None}, {"resume": None}],
}


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    path: str
    path_names: tuple[str, ...]
    query_names: tuple[str, ...]

    def addresses(self, text: str) -> Iterator[str]:
        """Yield the route's address with the text at each of its places in turn."""
        escaped = quote(text.encode("utf-8", "surrogatepass"), safe="")
        for name in self.path_names:
            yield self._address({name: escaped}, "")
        for name in self.query_names:
            yield self._address({}, f"?name=a&{name}={escaped}")

    def _address(self, given: dict[str, str], query: str) -> str:
        values = {name: given.get(name, ORDINARY.get(name, "clips")) for name in self.path_names}
        return self.path.format(**values) + query


@pytest.fixture
def client(engine: Engine, store: ObjectStore, tmp_path: Path) -> TestClient:
    plane = create_data_plane(engine, store, data_plane_settings(tmp_path / "data"))
    app = plane.client.app
    assert isinstance(app, FastAPI)
    app.include_router(train_routes.create_router(train_wiring.Container(plane.settings, plane.queue)))
    plane.post("/v1/collections", {"name": "clips"})
    return TestClient(app, headers={"Authorization": f"Bearer {KEY}"}, raise_server_exceptions=False)


def routes_of(client: TestClient) -> list[Route]:
    document = client.get("/openapi.json").json()
    found = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            names = [(each["in"], each["name"]) for each in operation.get("parameters", [])]
            path_names = tuple(name for place, name in names if place == "path")
            query_names = tuple(name for place, name in names if place == "query")
            found.append(Route(method, path, path_names, query_names))
    return found


def check(client: TestClient, method: str, address: str, content: str | None = None) -> None:
    headers = {"Content-Type": "application/json"}
    answer = client.request(method, address, content=content, headers=headers)
    assert answer.status_code < 500, (method, address[:100], content and content[:100], answer.text[:300])
    if answer.status_code >= 400:
        assert set(answer.json()) == {"error"}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_no_text_in_an_address_is_a_failure_of_ours(client: TestClient, text: str) -> None:
    routes = routes_of(client)
    assert {"/v1/items/{item}", "/v1/datasets/{dataset}/manifest", "/v1/runs/{run}/cancel"} < {r.path for r in routes}
    num_asked = 0
    for route in routes:
        for address in route.addresses(text):
            check(client, route.method, address)
            num_asked += 1
    assert num_asked > 40


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_no_text_in_a_body_is_a_failure_of_ours(client: TestClient, text: str) -> None:
    for (method, path), bodies in BODIES.items():
        for body in bodies:
            content = json.dumps(body).replace("null", json.dumps(text))
            check(client, method, path.format(collection="clips"), content)
