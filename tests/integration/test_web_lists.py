"""Lists on the web: what they may name, and what is told of those that name nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from audiofoundation.identifiers import sha256_of
from audiofoundation.storage.object_store import ObjectStore
from tests.data_plane import (
    DataPlane,
    FileServer,
    create_data_plane,
    data_plane_settings,
    recordings,
    serving_files,
)

ITEMS = "/v1/collections/found/items"


@pytest.fixture
def plane(engine: Engine, store: ObjectStore, tmp_path: Path) -> DataPlane:
    plane = create_data_plane(engine, store, data_plane_settings(tmp_path / "data"))
    plane.post("/v1/collections", {"name": "found"})
    return plane


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving_files(FileServer()) as server:
        yield server


def discoveries(plane: DataPlane) -> list[dict[str, object]]:
    found = plane.get("/v1/collections/found/discoveries")["discoveries"]
    assert isinstance(found, list)
    return found


def test_a_list_from_elsewhere_does_not_reach_what_was_uploaded(plane: DataPlane, server: FileServer) -> None:
    data = recordings(1)[0].read_bytes()
    plane.post("/v1/collections", {"name": "private"})
    plane.upload("private", data)
    line = f"sha256:{sha256_of(data)}"
    server.files |= {
        "/list.txt": line.encode(),
        "/feed": f"<rss><channel><item><enclosure url='{line}'/></item></channel></rss>".encode(),
    }

    plane.post(ITEMS, {"sources": [server.url("/list.txt"), f"feed:{server.url('/feed')}"]})
    plane.run_jobs()

    assert plane.items("found") == []
    assert [row["rejected"] for row in discoveries(plane)] == [{"foreign_upload": 1}] * 2
    assert plane.post(ITEMS, {"sources": [line]})["added"] == 1


PAGES = ("<!DOCTYPE HTML>\n<a href='a.wav'>a</a>", "\ufeff <html><body>sign in</body></html>")


@pytest.mark.parametrize("page", PAGES)
def test_a_web_page_is_told_from_a_list(plane: DataPlane, server: FileServer, page: str) -> None:
    server.files["/audio"] = page.encode()
    plane.post(ITEMS, {"sources": [f"list:{server.url('/audio')}"]})
    plane.run_jobs()
    (discovery,) = discoveries(plane)
    assert (discovery["state"], discovery["rejected"]) == ("failed", {})
    assert "is a web page (HTML) and no list" in str(discovery["error"])


def test_lines_of_json_that_name_nothing_say_what_is_missing(plane: DataPlane, server: FileServer) -> None:
    server.files["/list.jsonl"] = b'{"url": "https://x.org/a"\n{"uri": "https://x.org/a"}\n'
    plane.post(ITEMS, {"sources": [server.url("/list.jsonl")], "plan": True})
    plane.run_jobs()
    (discovery,) = discoveries(plane)
    assert discovery["rejected"] == {"not_a_url": 1, "empty": 1}
    said = str(discovery["examples"])
    assert "nor a whole JSON object on one line" in said
    assert "none of the fields url, source, link and video_id" in said
