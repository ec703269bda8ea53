"""Sources to verified objects: real catalog, object store, decoder and loopback HTTP."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select, update

from audiofoundation.catalog.engine import read_session, write_session
from audiofoundation.catalog.tables import Asset, Item, Job
from audiofoundation.identifiers import sha256_of
from audiofoundation.settings import FetchSettings
from audiofoundation.storage.keys import raw_key
from audiofoundation.storage.object_store import ObjectStore
from tests.data_plane import (
    DataPlane,
    FileServer,
    create_data_plane,
    data_plane_settings,
    open_source,
    recordings,
    serving_files,
    tone,
)

VIDEO = "https://www.youtube.com/watch?v=dQw4w9WgXcQ"


@pytest.fixture
def plane(engine: Engine, store: ObjectStore, tmp_path: Path) -> DataPlane:
    plane = create_data_plane(engine, store, data_plane_settings(tmp_path / "data"))
    plane.post("/v1/collections", {"name": "clips"})
    return plane


def test_a_collection_is_made_once_and_found_by_name_and_id(plane: DataPlane) -> None:
    first, again = (plane.post("/v1/collections", {"name": "other"}) for _ in range(2))
    assert first["id"] == again["id"]
    assert plane.get(f"/v1/collections/{first['id']}") == plane.get("/v1/collections/other")
    assert plane.client.get("/v1/collections/absent").status_code == 404


def test_an_upload_becomes_a_stored_item_with_provenance(plane: DataPlane) -> None:
    path = recordings(1)[0]
    data = path.read_bytes()
    assert plane.upload("clips", data, name=path.name)["added"] is True
    assert plane.get("/v1/collections/clips")["states"] == {"queued": 1}
    assert plane.run_jobs() == 1
    (item,) = plane.items("clips")
    assert (item["state"], item["source"], item["tool_version"]) == ("stored", path.name, "upload")
    assert item["duration_s"] == pytest.approx(item["duration_s"])
    assert plane.store.get_bytes(raw_key(sha256_of(data))) == data
    with read_session(plane.queue.engine) as session:
        asset = session.scalars(select(Asset)).one()
    assert (asset.id, asset.codec, asset.size_bytes) == (item["asset_id"], "opus", len(data))
    assert asset.duration_s > 0.5


def test_uploading_again_adds_nothing(plane: DataPlane) -> None:
    data = recordings(1)[0].read_bytes()
    plane.upload("clips", data)
    plane.run_jobs()
    assert plane.upload("clips", data)["added"] is False
    assert plane.run_jobs() == 0
    body = {"sources": [f"sha256:{sha256_of(data)}"]}
    assert plane.post("/v1/collections/clips/items", body)["duplicates"] == 1


def test_known_bytes_join_another_collection_without_travelling(plane: DataPlane) -> None:
    data = recordings(1)[0].read_bytes()
    digest = sha256_of(data)
    plane.post("/v1/collections", {"name": "other"})
    unknown = plane.post("/v1/collections/other/items", {"sources": [f"sha256:{digest}"]})
    assert (unknown["missing"], unknown["added"]) == ([digest], 0)
    plane.upload("clips", data)
    plane.run_jobs()
    known = plane.post("/v1/collections/other/items", {"sources": [f"sha256:{digest}"]})
    assert (known["missing"], known["added"]) == ([], 1)
    assert plane.get("/v1/collections/other")["states"] == {"stored": 1}


def test_known_bytes_are_judged_where_the_policy_judges_uploads(plane: DataPlane, tmp_path: Path) -> None:
    files = (tone(tmp_path / "a.wav", 2.0), tone(tmp_path / "b.wav", 31.0), tone(tmp_path / "c.wav", 32.0, hz=50.0))
    for path in files:
        plane.upload("clips", path.read_bytes())
    plane.run_jobs()
    plane.post("/v1/collections", {"name": "strict", "policy": "all"})
    sources = {"sources": [f"sha256:{sha256_of(path.read_bytes())}" for path in files]}
    plane.post("/v1/collections/strict/items", sources)
    assert plane.get("/v1/collections/strict")["error_classes"] == {"too_short": 1}
    assert plane.run_jobs() == 2
    found = {item["duration_s"]: item["error_class"] for item in plane.items("strict")}
    assert found == {2.0: "too_short", 31.0: None, 32.0: "low_centroid"}
    plane.post("/v1/collections", {"name": "other"})
    plane.post("/v1/collections/other/items", sources)
    assert plane.get("/v1/collections/other")["states"] == {"stored": 3}
    assert {item["duration_s"] for item in plane.items("other")} == {2.0, 31.0, 32.0}


def test_bytes_that_changed_on_the_way_are_refused(plane: DataPlane) -> None:
    digest = sha256_of(b"what was meant")
    answer = plane.client.put(f"/v1/collections/clips/files/{digest}", params={"name": "a"}, content=b"what came")
    assert answer.status_code == 400
    assert "SHA-256" in answer.json()["error"]["message"]
    assert not plane.store.exists(raw_key(digest))
    assert plane.items("clips") == []


def test_an_upload_into_no_collection_stores_nothing(plane: DataPlane) -> None:
    data = recordings(1)[0].read_bytes()
    answer = plane.client.put(f"/v1/collections/none/files/{sha256_of(data)}", params={"name": "a"}, content=data)
    assert answer.status_code == 404
    assert not plane.store.exists(raw_key(sha256_of(data)))


@pytest.mark.parametrize("data", [b"", b"just some text, no audio", b"RIFF\x24\x00\x00\x00WAVEfmt "])
def test_what_is_no_audio_fails_with_a_sentence(plane: DataPlane, data: bytes) -> None:
    plane.upload("clips", data, name="odd.wav")
    plane.run_jobs()
    (item,) = plane.items("clips")
    assert (item["state"], item["error_class"]) == ("failed", "undecodable_audio")
    assert len(str(item["error"])) > 20
    plane.upload("clips", data, name="odd.wav")
    assert plane.run_jobs() == 0, "a second try would not make it audio"


def test_a_damaged_object_is_noticed_and_a_new_upload_heals_it(plane: DataPlane) -> None:
    data = recordings(1)[0].read_bytes()
    digest = sha256_of(data)
    plane.upload("clips", data)
    plane.store.put_bytes(raw_key(digest), data[:-1] + b"x")
    plane.run_jobs()
    assert plane.items("clips")[0]["error_class"] == "object_corrupt"
    assert plane.post("/v1/collections/clips/items", {"sources": [f"sha256:{digest}"]})["missing"] == [digest]
    plane.upload("clips", data)
    plane.run_jobs()
    assert plane.get("/v1/collections/clips")["states"] == {"stored": 1}


def test_lines_are_added_once_and_counted_by_class(plane: DataPlane) -> None:
    lines = [
        VIDEO,
        "https://youtu.be/dQw4w9WgXcQ",
        "https://example.com/a.wav",
        "nonsense",
        "ftp://x.org/a",
        "http://127.1/",
    ]
    expected = {"not_a_url": 1, "unsupported_scheme": 1, "unsafe_url": 1}
    first = plane.post("/v1/collections/clips/items", {"sources": lines, "plan": True})
    again = plane.post("/v1/collections/clips/items", {"sources": lines, "plan": True})
    assert (first["added"], first["duplicates"], first["rejected"]) == (2, 1, expected)
    assert (again["added"], again["duplicates"], again["rejected"]) == (0, 3, expected)


def test_a_plan_fetches_nothing_and_says_how_long_it_takes(plane: DataPlane) -> None:
    videos = [f"youtube:{number:011d}" for number in range(250)]
    plane.post("/v1/collections/clips/items", {"sources": videos, "plan": True})
    progress = plane.get("/v1/collections/clips")
    assert (progress["states"], progress["eta_s"]) == ({"queued": 250}, pytest.approx(250 * (15.0 + 0.5)))
    with read_session(plane.queue.engine) as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 0
    plane.post("/v1/collections/clips/items", {"sources": videos[:3]})
    with read_session(plane.queue.engine) as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 3


def test_the_list_itself_may_rule_an_item_out(plane: DataPlane) -> None:
    lines = [
        {**open_source("https://example.com/1"), "duration_s": 12.0},
        {**open_source("https://example.com/2"), "duration_s": 4000.0},
        {"source": "https://example.com/3", "license": "All rights reserved"},
        {"source": "https://example.com/4", "license": "CC-BY 4.0", "duration_s": 60.0},
    ]
    plane.post("/v1/collections/clips/items", {"sources": lines, "plan": True})
    progress = plane.get("/v1/collections/clips")
    assert progress["states"] == {"rejected": 3, "queued": 1}
    assert progress["error_classes"] == {"too_short": 1, "too_long": 1, "license": 1}


def test_a_url_is_fetched_verified_and_stored(plane: DataPlane, tmp_path: Path) -> None:
    data = tone(tmp_path / "long.wav", 31.0).read_bytes()
    with serving_files(FileServer({"/long.wav": data})) as server:
        plane.post("/v1/collections/clips/items", {"sources": [open_source(server.url("/long.wav"))]})
        plane.run_jobs()
    (item,) = plane.items("clips")
    assert (item["state"], item["duration_s"]) == ("stored", pytest.approx(31.0))
    assert item["policy"] == "cc-only;30-3600s"
    assert plane.store.get_bytes(raw_key(sha256_of(data))) == data


@pytest.mark.parametrize(
    ("prepare", "state", "error_class"),
    [
        (lambda server, data: server.files.update({"/a": data}), "rejected", "too_short"),
        (lambda server, _: server.files.update({"/a": b"<html>gone</html>" * 9}), "failed", "undecodable_audio"),
        (lambda server, _: server.files.clear(), "failed", "fetch_failed"),
        (
            lambda server, data: (server.files.update({"/a": data}), server.headers.update({"X-Robots-Tag": "noai"})),
            "rejected",
            "robots",
        ),
    ],
)
def test_a_url_that_is_not_taken_says_why(
    plane: DataPlane,
    tmp_path: Path,
    prepare: Callable[[FileServer, bytes], object],
    state: str,
    error_class: str,
) -> None:
    server = FileServer()
    prepare(server, tone(tmp_path / "short.wav", 2.0).read_bytes())
    with serving_files(server):
        plane.post("/v1/collections/clips/items", {"sources": [open_source(server.url("/a"))]})
        plane.run_jobs()
    (item,) = plane.items("clips")
    assert (item["state"], item["error_class"]) == (state, error_class)
    assert len(str(item["error"])) > 10
    with read_session(plane.queue.engine) as session:
        assert session.scalar(select(func.count()).select_from(Asset)) == 0


def test_an_address_of_ours_is_refused_before_it_is_asked(engine: Engine, store: ObjectStore, tmp_path: Path) -> None:
    strict = create_data_plane(engine, store, data_plane_settings(tmp_path / "data", FetchSettings()))
    strict.post("/v1/collections", {"name": "clips"})
    with serving_files(FileServer({"/a": b"secret"})) as server:
        strict.post("/v1/collections/clips/items", {"sources": [open_source(server.url("/a"))]})
        strict.run_jobs()
    assert server.asked == []
    assert strict.items("clips")[0]["error_class"] == "unsafe_url"


def test_a_failed_fetch_is_tried_again_when_it_is_asked_for_again(plane: DataPlane, tmp_path: Path) -> None:
    with serving_files(FileServer()) as server:
        body = {"sources": [open_source(server.url("/a"))]}
        plane.post("/v1/collections/clips/items", body)
        plane.run_jobs()
        assert plane.get("/v1/collections/clips")["states"] == {"failed": 1}
        server.files["/a"] = tone(tmp_path / "a.wav", 31.0).read_bytes()
        plane.post("/v1/collections/clips/items", body)
        plane.run_jobs()
    assert plane.get("/v1/collections/clips")["states"] == {"stored": 1}


@pytest.mark.parametrize(("listed_s", "error_class"), [(44.0, None), (32.0, None), (60.0, "incomplete")])
def test_a_recording_much_shorter_than_its_list_says_is_incomplete(
    plane: DataPlane, tmp_path: Path, listed_s: float, error_class: str | None
) -> None:
    plane.post("/v1/collections", {"name": "clips", "policy": "crawled"})
    with serving_files(FileServer({"/a": tone(tmp_path / "a.wav", 40.0).read_bytes()})) as server:
        listed = {**open_source(server.url("/a")), "duration_s": listed_s}
        plane.post("/v1/collections/clips/items", {"sources": [listed]})
        plane.run_jobs()

    (item,) = plane.items("clips")

    assert item["error_class"] == error_class


def test_what_states_no_licence_is_not_asked_until_a_list_names_one(plane: DataPlane, tmp_path: Path) -> None:
    with serving_files(FileServer({"/a": tone(tmp_path / "a.wav", 31.0).read_bytes()})) as server:
        silent = {"sources": [server.url("/a")]}
        closed = {"sources": [{"source": server.url("/a"), "license": "not CC BY"}]}
        for body, why in ((silent, "states no licence"), (closed, "'not CC BY'"), (silent, "'not CC BY'")):
            plane.post("/v1/collections/clips/items", body)
            plane.run_jobs()
            (item,) = plane.items("clips")
            assert (item["state"], item["error_class"], server.asked) == ("rejected", "license", [])
            assert why in str(item["error"])

        plane.post("/v1/collections/clips/items", {"sources": [open_source(server.url("/a"))]})
        plane.run_jobs()

    (item,) = plane.items("clips")
    assert (item["state"], item["license"], item["error"]) == ("stored", "CC-BY-4.0", None)


def test_what_waited_without_a_licence_is_refused_before_it_is_asked(plane: DataPlane, tmp_path: Path) -> None:
    with serving_files(FileServer({"/a": tone(tmp_path / "a.wav", 31.0).read_bytes()})) as server:
        plane.post("/v1/collections/clips/items", {"sources": [open_source(server.url("/a"))]})
        with write_session(plane.queue.engine) as session:
            session.execute(update(Item).values(license=None))
        plane.run_jobs()

        assert plane.get("/v1/collections/clips")["states"] == {"rejected": 1}
        assert server.asked == []


def test_items_come_in_pages_and_by_state(plane: DataPlane) -> None:
    lines: list[object] = [open_source(f"https://example.com/{number}") for number in range(7)]
    lines.append({**open_source("https://example.com/short"), "duration_s": 1.0})
    plane.post("/v1/collections/clips/items", {"sources": lines, "plan": True})
    seen: list[str] = []
    cursor = ""
    while True:
        page = plane.client.get("/v1/collections/clips/items", params={"limit": 3, "cursor": cursor}).json()
        seen += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = page["next_cursor"]
    assert len(seen) == len(set(seen)) == 8
    rejected = plane.client.get("/v1/collections/clips/items", params={"state": "rejected"}).json()["items"]
    assert [item["source"] for item in rejected] == ["https://example.com/short"]
    assert plane.client.get("/v1/collections/clips/items", params={"state": "odd"}).status_code == 400


def test_the_policy_judges_uploads_when_the_collection_says_so(plane: DataPlane, tmp_path: Path) -> None:
    plane.post("/v1/collections", {"name": "strict", "policy": "all"})
    plane.upload("strict", tone(tmp_path / "a.wav", 2.0).read_bytes())
    plane.run_jobs()
    assert plane.get("/v1/collections/strict")["error_classes"] == {"too_short": 1}


@pytest.mark.parametrize("name", ["a\x00b", "a\x9b31m", "", "x" * 501])
def test_names_that_no_catalog_takes_are_refused(plane: DataPlane, name: str) -> None:
    digest = sha256_of(b"x")
    answer = plane.client.put(f"/v1/collections/clips/files/{digest}", params={"name": name}, content=b"x")
    assert answer.status_code in (400, 422)


@pytest.mark.parametrize("name", ["title", "channel", "license"])
@pytest.mark.parametrize("text", ["a\x00b", "\x1b[31m", "\x9b31m", "\x85"])
def test_what_terminals_obey_is_no_text_of_a_source(plane: DataPlane, name: str, text: str) -> None:
    body = {"sources": [{"source": "https://example.com/a.mp3", name: text}]}
    answer = plane.client.post("/v1/collections/clips/items", json=body)
    assert answer.status_code == 422
    assert plane.items("clips") == []


def test_nothing_is_left_behind_on_the_worker(plane: DataPlane) -> None:
    plane.upload("clips", recordings(1)[0].read_bytes())
    plane.upload("clips", b"no audio")
    plane.run_jobs()
    left = [path for path in plane.settings.data_dir.rglob("*") if path.is_file() and path.suffix != ".db"]
    assert left == []
