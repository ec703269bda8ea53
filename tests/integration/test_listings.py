"""Lists of what there is: collections, datasets and their pages, by HTTP and on the command line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from audiofoundation.cli import create_cli
from audiofoundation.storage.object_store import ObjectStore
from tests.data_plane import DataPlane, at_work, create_data_plane, data_plane_settings, recordings

NAMES = ("first", "zweite ä", "third?")


@pytest.fixture
def plane(engine: Engine, store: ObjectStore, tmp_path: Path) -> DataPlane:
    """Three collections, one with a recording."""
    plane = create_data_plane(engine, store, data_plane_settings(tmp_path / "data"))
    for name in NAMES:
        plane.post("/v1/collections", {"name": name})
    plane.upload("first", recordings(1)[0].read_bytes())
    plane.run_jobs()
    return plane


@pytest.fixture
def at_command(plane: DataPlane, monkeypatch: pytest.MonkeyPatch) -> Iterator[DataPlane]:
    with at_work(plane, monkeypatch):
        yield plane


def run(*arguments: str) -> Result:
    return CliRunner().invoke(create_cli(), arguments)


def run_json(*arguments: str) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def pages(plane: DataPlane, path: str, what: str) -> list[list[dict[str, Any]]]:
    """Every page of at most two entries."""
    found, cursor = [], ""
    while True:
        answer = plane.client.get(path, params={"limit": 2, "cursor": cursor})
        assert answer.status_code == 200, answer.text
        found.append(answer.json()[what])
        if answer.json()["next_cursor"] is None:
            return found
        cursor = answer.json()["next_cursor"]


def test_collections_come_newest_first_in_pages(plane: DataPlane) -> None:
    found = pages(plane, "/v1/collections", "collections")

    assert [[row["name"] for row in page] for page in found] == [["third?", "zweite ä"], ["first"]]
    (first,) = found[1]
    assert (first["id"], first["policy"]) == (plane.get("/v1/collections/first")["id"], "crawled")
    assert [row["items"] for page in found for row in page] == [0, 0, 1]
    assert found[0][0]["created_at"] >= first["created_at"] > 1e9


def test_datasets_come_newest_first_in_pages_with_their_options(plane: DataPlane) -> None:
    orders: list[dict[str, object]] = [
        {"collection": "first"},
        {"collection": "zweite ä", "target_lufs": None},
        {"collection": "first", "segment_s": 1.0, "include_waveform": True, "channels": 2, "trim_silence": False},
    ]
    ids = [plane.post("/v1/datasets", order)["dataset"] for order in orders]

    found = pages(plane, "/v1/datasets", "datasets")

    assert [[row["dataset"] for row in page] for page in found] == [[ids[2], ids[1]], [ids[0]]]
    newest, silent = found[0]
    assert newest["options"].items() >= {key: value for key, value in orders[2].items() if key != "collection"}.items()
    assert (silent["collection_name"], silent["options"]["target_lufs"]) == ("zweite ä", None)
    assert (newest["state"], newest["items"], newest["manifest_sha256"]) == ("building", None, None)
    again = {**newest["options"], "collection": newest["collection"]}
    assert plane.post("/v1/datasets", again)["dataset"] == ids[2], "the options make the same dataset again"


def test_a_ready_datasets_counts_are_those_of_its_version(plane: DataPlane) -> None:
    made = plane.post("/v1/datasets", {"collection": "first"})
    plane.run_jobs()
    plane.post("/v1/datasets", {"collection": "third?"})

    answer = plane.client.get("/v1/datasets", params={"collection": "first"}).json()

    (row,) = answer["datasets"]
    whole = plane.get(f"/v1/datasets/{made['dataset']}")
    assert whole["state"] == "ready"
    assert row.items() >= {name: whole[name] for name in ("dataset", "state", "manifest_sha256", "items")}.items()
    assert (row["segments"], row["hours"]) == (whole["segments"], pytest.approx(whole["hours"]))
    assert plane.client.get("/v1/datasets", params={"collection": "absent"}).status_code == 404


@pytest.mark.parametrize("cursor", ["zzz", "item_", "ITEM_" + "0" * 32, "run_" + "0" * 32, "item_\x00", "%"])
def test_a_cursor_that_no_page_gave_is_refused_in_words(plane: DataPlane, cursor: str) -> None:
    dataset = plane.post("/v1/datasets", {"collection": "first"})["dataset"]
    lists = ("collections", "collections/first/items", "collections/first/discoveries", "datasets")
    for path in (*lists, f"datasets/{dataset}/items"):
        answer = plane.client.get(f"/v1/{path}", params={"cursor": cursor})
        assert answer.status_code == 400, path
        error = answer.json()["error"]
        assert (error["param"], "`next_cursor` of the page before" in error["message"]) == ("cursor", True)


def test_a_datasets_cursor_must_be_there(plane: DataPlane) -> None:
    answer = plane.client.get("/v1/datasets", params={"cursor": "ds_" + "0" * 32})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "cursor")


def test_the_command_lists_collections_a_page_at_a_time(at_command: DataPlane) -> None:
    first = run_json("collections", "--limit", "2")
    rest = run_json("collections", "--cursor", first["next_cursor"])
    assert [row["name"] for row in first["collections"] + rest["collections"]] == list(reversed(NAMES))
    shown = run("collections", "--limit", "2").stdout
    assert f"more with --cursor {first['next_cursor']}" in shown
    assert all(row["id"] in shown and row["name"] in shown for row in first["collections"])
    assert "the cursor 'zzz' is none of this list" in str(run("collections", "--cursor", "zzz").exception)
    assert at_command.get("/v1/collections/first")["id"] == rest["collections"][0]["id"]


def test_the_command_finds_a_lost_dataset_again(at_command: DataPlane) -> None:
    made = run_json("preprocess", "-c", "first", "--wait")
    run_json("preprocess", "-c", "third?")

    (found,) = run_json("dataset", "list", "-c", "first")["datasets"]

    assert (found["dataset"], found["segments"]) == (made["dataset"], made["segments"])
    shown = run("dataset", "list").stdout
    assert made["dataset"] in shown
    assert "third?" in shown
    assert at_command.get(f"/v1/datasets/{found['dataset']}")["state"] == "ready"
