"""Feeds and lists to items: real catalog, real jobs, loopback HTTP."""

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from audiofoundation.catalog.engine import read_session
from audiofoundation.catalog.tables import Discovery, Item, Job
from audiofoundation.ingestion.sources import feed, http_list, youtube_listing
from audiofoundation.jobs import lease
from audiofoundation.jobs.kinds import JobKind
from audiofoundation.jobs.owner import current_owner
from audiofoundation.storage.object_store import ObjectStore
from tests.data_plane import (
    DataPlane,
    FileServer,
    create_data_plane,
    data_plane_settings,
    serving_files,
    tone,
)
from tests.unit.ingestion.recorded_youtube import RecordedYoutube
from tests.unit.jobs.handlers import make_due

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


def podcast(server: FileServer, *names: str) -> bytes:
    items = "".join(
        f'<item><title>{name}</title><enclosure url="{server.url(f"/{name}.wav")}" type="audio/wav"/></item>'
        for name in names
    )
    return f"<rss><channel><title>Pod</title><license>CC-BY-4.0</license>{items}</channel></rss>".encode()


def discoveries(plane: DataPlane) -> list[dict[str, object]]:
    found = plane.get("/v1/collections/found/discoveries")["discoveries"]
    assert isinstance(found, list)
    return found


def test_a_feed_becomes_stored_recordings_with_provenance(plane: DataPlane, server: FileServer, tmp_path: Path) -> None:
    server.files["/feed.xml"] = podcast(server, "a")
    server.files["/a.wav"] = tone(tmp_path / "a.wav", 31.0).read_bytes()
    answer = plane.post(ITEMS, {"sources": [server.url("/feed.xml")]})
    assert (answer["added"], len(answer["discoveries"])) == (0, 1)  # type: ignore[arg-type]
    assert plane.get("/v1/collections/found")["discoveries"] == {"queued": 1}
    plane.run_jobs()
    (item,) = plane.items("found")
    assert (item["state"], item["title"], item["channel"]) == ("stored", "a", "Pod")
    assert item["discovery_id"] == answer["discoveries"][0]  # type: ignore[index]
    (discovery,) = discoveries(plane)
    assert (discovery["state"], discovery["num_added"], discovery["tool_version"]) == (
        "done",
        1,
        "audiofoundation feed",
    )


def test_reading_again_adds_only_what_is_new(plane: DataPlane, server: FileServer) -> None:
    body = {"sources": [f"feed:{server.url('/feed')}"], "plan": True}
    server.files["/feed"] = podcast(server, "a", "b")
    for expected in (2, 2):  # the second time, the server says that nothing has changed
        plane.post(ITEMS, body)
        plane.run_jobs()
        assert plane.get("/v1/collections/found")["items"] == expected
    server.files["/feed"] = podcast(server, "c", "a", "b")
    plane.post(ITEMS, body)
    plane.run_jobs()
    assert plane.get("/v1/collections/found")["items"] == 3
    (discovery,) = discoveries(plane)
    assert (discovery["num_added"], server.asked) == (1, ["/feed"] * 3)


def test_a_plan_expands_and_fetches_nothing_until_it_is_asked_for_in_earnest(
    plane: DataPlane, server: FileServer, tmp_path: Path
) -> None:
    server.files["/feed"] = podcast(server, "a")
    server.files["/a.wav"] = tone(tmp_path / "a.wav", 31.0).read_bytes()
    body: dict[str, object] = {"sources": [f"feed:{server.url('/feed')}"]}
    plane.post(ITEMS, {**body, "plan": True})
    plane.run_jobs()
    assert plane.get("/v1/collections/found")["states"] == {"queued": 1}
    assert server.asked == ["/feed"]
    plane.post(ITEMS, body)
    plane.run_jobs()
    assert plane.get("/v1/collections/found")["states"] == {"stored": 1}


def test_what_failed_is_tried_again_though_its_feed_has_not_changed(
    plane: DataPlane, server: FileServer, tmp_path: Path
) -> None:
    server.files["/feed"] = podcast(server, "a")
    body: dict[str, object] = {"sources": [f"feed:{server.url('/feed')}"]}
    plane.post(ITEMS, body)
    plane.run_jobs()
    assert plane.get("/v1/collections/found")["states"] == {"failed": 1}
    server.files["/a.wav"] = tone(tmp_path / "a.wav", 31.0).read_bytes()
    plane.post(ITEMS, body)
    plane.run_jobs()
    assert plane.get("/v1/collections/found")["states"] == {"stored": 1}


class Killed(BaseException):
    """The process ends here."""


def kill_at_third_page(plane: DataPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the expansion that waits until it is about to write its third page; leave its job to another worker."""
    claim = lease.claim_next(
        plane.queue.engine, JobKind.INGEST_EXPAND, owner=current_owner(), settings=plane.settings.jobs
    )
    assert claim is not None
    num_pages = 0
    record = lease.record

    def record_two(*args: object, **kwargs: object) -> None:
        nonlocal num_pages
        num_pages += 1
        if num_pages == 3:
            raise Killed
        record(*args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(lease, "record", record_two)
        with pytest.raises(Killed):
            plane.expand(claim)
    lease.release(plane.queue.engine, claim)
    make_due(plane.queue.engine)


def test_an_expansion_that_is_killed_goes_on_where_it_stopped(
    plane: DataPlane, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_ENTRIES_PER_PAGE", 2)
    server.files["/feed"] = podcast(server, *"abcdefg")
    plane.post(ITEMS, {"sources": [f"feed:{server.url('/feed')}"], "plan": True})
    kill_at_third_page(plane, monkeypatch)
    (discovery,) = discoveries(plane)
    assert (discovery["state"], discovery["num_seen"], discovery["num_added"]) == ("queued", 4, 4)
    plane.run_jobs()
    (discovery,) = discoveries(plane)
    assert (discovery["state"], discovery["num_seen"], discovery["num_added"]) == ("done", 7, 7)
    assert plane.get("/v1/collections/found")["items"] == 7


def test_what_a_killed_expansion_had_rejected_is_counted_once(
    plane: DataPlane, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_list, "_LINES_PER_PAGE", 2)
    lines = ["https://x.org/a", "bad", "https://x.org/b", "https://x.org/a", "ftp://x.org/c", "https://x.org/b"]
    server.files["/list.txt"] = "\n".join(lines).encode()
    plane.post(ITEMS, {"sources": [server.url("/list.txt")], "plan": True})
    kill_at_third_page(plane, monkeypatch)
    (discovery,) = discoveries(plane)
    assert (discovery["num_seen"], discovery["num_duplicates"], discovery["rejected"]) == (4, 1, {"not_a_url": 1})
    plane.run_jobs()
    (discovery,) = discoveries(plane)
    assert (discovery["num_seen"], discovery["num_added"], discovery["num_duplicates"]) == (6, 2, 2)
    assert discovery["rejected"] == {"not_a_url": 1, "unsupported_scheme": 1}
    assert numbers_of(discovery) == [2, 5]


def test_an_expansion_that_starts_over_meanwhile_counts_each_line_once(
    plane: DataPlane, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_list, "_LINES_PER_PAGE", 2)
    server.files["/list.txt"] = "\n".join([server.url("/a"), "bad", server.url("/a"), "worse"]).encode()
    body: dict[str, object] = {"sources": [server.url("/list.txt")]}
    plane.post(ITEMS, {**body, "plan": True})
    record, num_pages = lease.record, 0

    def ask_before_the_second(*args: object, **kwargs: object) -> None:
        nonlocal num_pages
        num_pages += 1
        if num_pages == 2:
            plane.post(ITEMS, body)  # in earnest: it is read from its start again
        record(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(lease, "record", ask_before_the_second)
    plane.run_jobs()
    (discovery,) = discoveries(plane)
    assert (discovery["state"], discovery["num_seen"], discovery["num_duplicates"]) == ("done", 4, 2)
    assert (discovery["rejected"], numbers_of(discovery)) == ({"not_a_url": 2}, [2, 4])


def numbers_of(discovery: dict[str, object]) -> list[object]:
    examples = discovery["examples"]
    assert isinstance(examples, list)
    return [example["number"] for example in examples]


def test_lines_of_a_list_that_became_no_item_are_counted_and_explained(plane: DataPlane, server: FileServer) -> None:
    lines = ["url,title", "https://x.org/a,", "https://x.org/a,again", "", f"sha256:{'0' * 64},", *["bad,"] * 12]
    server.files["/list.csv"] = "\n".join(lines).encode()
    for num_added, num_duplicates in ((1, 1), (0, 2)):
        server.files["/list.csv"] += b"\n"  # another list than before
        plane.post(ITEMS, {"sources": [server.url("/list.csv")], "plan": True})
        plane.run_jobs()
        (discovery,) = discoveries(plane)
        assert (discovery["num_added"], discovery["num_duplicates"]) == (num_added, num_duplicates)
        assert discovery["rejected"] == {"not_a_url": 12, "foreign_upload": 1}
        assert (numbers_of(discovery), discovery["note"]) == (list(range(5, 15)), None)
    assert "'bad' is no URL" in str(discovery["examples"])


def test_an_entry_of_a_feed_that_became_no_item_is_explained(plane: DataPlane, server: FileServer) -> None:
    entries = "<item/><item><enclosure url='ftp://x.org/a'/></item><item><enclosure url='https://x.org/b'/></item>"
    server.files["/feed"] = f"<rss><channel>{entries}</channel></rss>".encode()
    plane.post(ITEMS, {"sources": [f"feed:{server.url('/feed')}"], "plan": True})
    plane.run_jobs()
    (discovery,) = discoveries(plane)
    assert (discovery["num_seen"], discovery["num_added"], discovery["num_duplicates"]) == (3, 1, 0)
    assert (discovery["rejected"], numbers_of(discovery)) == ({"unsupported_scheme": 1}, [2])


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("/feed.xml", b"<rss><channel><item/><item/></channel></rss>", "no entry has an enclosure"),
        ("/feed.xml", b"<rss><channel/></rss>", "(entries read: 0)"),
        ("/list.csv", b"url,title\n", "the list names nothing"),
        ("/list.txt", b"# nothing yet\n", "the list names nothing"),
    ],
)
def test_what_names_nothing_says_so_until_it_names_something(
    plane: DataPlane, server: FileServer, name: str, body: bytes, words: str
) -> None:
    source: dict[str, object] = {"sources": [server.url(name)], "plan": True}
    server.files[name] = body
    plane.post(ITEMS, source)
    plane.run_jobs()
    (discovery,) = discoveries(plane)
    assert discovery["state"] == "done"
    assert words in str(discovery["note"])
    plane.post(ITEMS, source)
    plane.run_jobs()
    (discovery,) = discoveries(plane)
    assert "not changed" in str(discovery["note"])
    server.files[name] = podcast(server, "a") if name == "/feed.xml" else body + b"https://x.org/a\n"
    plane.post(ITEMS, source)
    plane.run_jobs()
    (discovery,) = discoveries(plane)
    assert (discovery["num_added"], discovery["note"]) == (1, None)


def test_one_that_takes_long_is_continued_by_its_next_run(
    plane: DataPlane, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audiofoundation.ingestion.expand_job._WALL_S", -1.0)
    monkeypatch.setattr(feed, "_ENTRIES_PER_PAGE", 3)
    server.files["/feed"] = podcast(server, *"abcdefg")
    plane.post(ITEMS, {"sources": [f"feed:{server.url('/feed')}"], "plan": True})
    assert plane.run_jobs() > 2
    assert plane.get("/v1/collections/found")["items"] == 7
    with read_session(plane.queue.engine) as session:
        assert session.scalars(select(Job.state)).all() == ["done"]


def test_a_list_on_the_web_may_name_feeds_but_no_further_lists(plane: DataPlane, server: FileServer) -> None:
    lines = [
        "url,title",
        f"{server.url('/feed.xml')},",
        "https://x.org/a.wav,Rain",
        f"{server.url('/list.csv')},",
        "zz,",
    ]
    server.files["/list.csv"] = "\n".join(lines).encode()
    server.files["/feed.xml"] = podcast(server, "a", "b")
    plane.post(ITEMS, {"sources": [server.url("/list.csv")], "plan": True})
    plane.run_jobs()
    found = {str(item["source"]) for item in plane.items("found")}
    assert found == {server.url("/a.wav"), server.url("/b.wav"), "https://x.org/a.wav", server.url("/list.csv")}
    assert plane.get("/v1/collections/found")["discoveries"] == {"done": 2}
    listed = next(discovery for discovery in discoveries(plane) if discovery["kind"] == "list")
    assert (listed["num_added"], listed["num_discoveries"], listed["rejected"]) == (2, 1, {"not_a_url": 1})


def test_a_list_of_feeds_alone_names_something(plane: DataPlane, server: FileServer) -> None:
    server.files["/list.txt"] = f"feed:{server.url('/feed')}".encode()
    server.files["/feed"] = podcast(server, "a")
    plane.post(ITEMS, {"sources": [server.url("/list.txt")], "plan": True})
    plane.run_jobs()
    assert sorted((row["kind"], row["num_discoveries"], row["note"]) for row in discoveries(plane)) == [
        ("feed", 0, None),
        ("list", 1, None),
    ]


@pytest.mark.parametrize(
    ("body", "error_class"),
    [(None, "fetch_failed"), (b"<html></html>", "fetch_failed"), (b"<rss>", "fetch_failed")],
)
def test_what_cannot_be_expanded_says_why(
    plane: DataPlane, server: FileServer, body: bytes | None, error_class: str
) -> None:
    if body is not None:
        server.files["/feed.xml"] = body
    plane.post(ITEMS, {"sources": [server.url("/feed.xml")]})
    plane.run_jobs()
    (discovery,) = discoveries(plane)
    assert (discovery["state"], discovery["error_class"]) == ("failed", error_class)
    assert len(str(discovery["error"])) > 20


def test_an_address_of_ours_is_not_read(engine: Engine, store: ObjectStore, tmp_path: Path, server: FileServer) -> None:
    from audiofoundation.settings import FetchSettings

    strict = create_data_plane(engine, store, data_plane_settings(tmp_path / "data", FetchSettings()))
    strict.post("/v1/collections", {"name": "found"})
    server.files["/feed.xml"] = podcast(server, "a")
    strict.post(ITEMS, {"sources": [server.url("/feed.xml")]})
    strict.run_jobs()
    assert server.asked == []
    with read_session(engine) as session:
        assert session.scalars(select(Discovery.error_class)).one() == "unsafe_url"
        assert session.scalars(select(Item)).all() == []


def test_rejected_lines_are_shown_with_their_place(plane: DataPlane) -> None:
    answer = plane.post(ITEMS, {"sources": ["https://x.org/a", "nonsense", "ytsearch0:x"], "plan": True})
    examples = answer["examples"]
    assert isinstance(examples, list)
    assert [(example["index"], example["rejection"]) for example in examples] == [(1, "not_a_url"), (2, "not_a_url")]


def test_a_track_that_states_no_licence_is_not_asked_for(plane: DataPlane) -> None:
    plane.post(ITEMS, {"sources": ["yandex:5"]})
    plane.run_jobs()
    (item,) = plane.items("found")
    assert (item["kind"], item["state"], item["error_class"]) == ("yandex", "rejected", "license")


def test_channels_become_items_one_listing_at_a_time(plane: DataPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RecordedYoutube, "num_videos", 8)
    recorded = functools.partial(youtube_listing.YoutubeListing, create=RecordedYoutube)
    monkeypatch.setattr(youtube_listing, "YoutubeListing", recorded)
    channels = ["https://www.youtube.com/@someone", "https://www.youtube.com/@another"]
    plane.post(ITEMS, {"sources": channels, "plan": True})
    plane.run_jobs()
    found = plane.get("/v1/collections/found")
    # The second waits until this address has rested; its job goes back to the queue.
    assert found["discoveries"] == {"done": 1, "queued": 1}
    assert (found["items"], found["states"]) == (8, {"queued": 8})
    item = plane.items("found")[0]
    assert (item["kind"], item["channel"], item["duration_s"]) == ("youtube", "Someone", 90.0)
