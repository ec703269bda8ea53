"""The licence gate from lists and feeds to the store: what is named later, by whom, and under which policy."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Engine, update

from audiofoundation.catalog.engine import write_session
from audiofoundation.catalog.tables import Collection, Discovery, Item
from audiofoundation.ingestion.catalog_items import add_items
from audiofoundation.ingestion.discoveries import request_discoveries
from audiofoundation.ingestion.parsed_lines import parse_lines
from audiofoundation.ingestion.source import SourceLine
from audiofoundation.ingestion.sources import feed
from audiofoundation.ingestion.sources.documents import fetch_document
from audiofoundation.ingestion.sources.protocol import DiscoveryAddress, DiscoveryKind
from audiofoundation.jobs import lease
from audiofoundation.jobs.kinds import JobKind
from audiofoundation.jobs.owner import current_owner
from audiofoundation.jobs.queue import JobQueue
from audiofoundation.jobs.runner import run_pending
from audiofoundation.settings import FetchSettings
from audiofoundation.storage.object_store import ObjectStore
from tests.data_plane import (
    LOOPBACK,
    DataPlane,
    FileServer,
    create_data_plane,
    data_plane_settings,
    serving_files,
    tone,
)
from tests.unit.jobs.handlers import Recorder

ITEMS = "/v1/collections/found/items"
RESERVED = "All rights reserved"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    with serving_files(FileServer({"/a": tone(tmp_path / "a.wav", 31.0).read_bytes()})) as server:
        yield server


@pytest.fixture
def plane(engine: Engine, store: ObjectStore, tmp_path: Path) -> DataPlane:
    return plane_under(engine, store, tmp_path, LOOPBACK)


def plane_under(engine: Engine, store: ObjectStore, tmp_path: Path, fetch: FetchSettings) -> DataPlane:
    plane = create_data_plane(engine, store, data_plane_settings(tmp_path / "data", fetch))
    plane.post("/v1/collections", {"name": "found"})
    return plane


def feed_of(server: FileServer, license_text: str = "") -> bytes:
    stated = f"<license>{license_text}</license>" if license_text else ""
    item = f'<item><enclosure url="{server.url("/a")}" type="audio/wav"/></item>'
    return f"<rss><channel><title>Pod</title>{stated}{item}</channel></rss>".encode()


def ask(plane: DataPlane, source: str, license_text: str | None = None) -> dict[str, object]:
    """Ask for a source, run what is due, and return the one item."""
    plane.post(ITEMS, {"sources": [{"source": source, **({"license": license_text} if license_text else {})}]})
    plane.run_jobs()
    (item,) = plane.items("found")
    return item


def test_a_wider_policy_takes_what_was_refused_and_keeps_what_it_stated(
    engine: Engine, store: ObjectStore, plane: DataPlane, server: FileServer, tmp_path: Path
) -> None:
    assert ask(plane, server.url("/a"), RESERVED)["state"] == "rejected"

    wide = plane_under(engine, store, tmp_path, LOOPBACK.model_copy(update={"license_policy": "all"}))
    item = ask(wide, server.url("/a"))

    assert (item["state"], item["license"]) == ("stored", RESERVED)


def test_a_feed_that_has_not_changed_is_judged_by_the_policy_of_today(
    engine: Engine, store: ObjectStore, plane: DataPlane, server: FileServer, tmp_path: Path
) -> None:
    server.files["/feed"] = feed_of(server)
    source = f"feed:{server.url('/feed')}"
    assert ask(plane, source)["error_class"] == "license"
    assert server.asked == ["/feed"]

    wide = plane_under(engine, store, tmp_path, LOOPBACK.model_copy(update={"license_policy": "all"}))

    assert ask(wide, source)["state"] == "stored"


def test_a_licence_named_with_a_feed_is_that_of_entries_without_one(plane: DataPlane, server: FileServer) -> None:
    server.files["/feed"] = feed_of(server)
    source = f"feed:{server.url('/feed')}"
    assert ask(plane, source)["error_class"] == "license"

    item = ask(plane, source, "CC-BY-4.0")

    assert (item["state"], item["license"]) == ("stored", "CC-BY-4.0")


def test_what_a_feed_states_itself_holds_whatever_is_named_with_it(plane: DataPlane, server: FileServer) -> None:
    server.files["/feed"] = feed_of(server, RESERVED)

    item = ask(plane, f"feed:{server.url('/feed')}", "CC-BY-4.0")

    assert (item["state"], item["license"]) == ("rejected", RESERVED)


def test_another_feed_does_not_free_what_its_publisher_reserves_and_the_operator_does(
    plane: DataPlane, server: FileServer
) -> None:
    server.files |= {"/feed": feed_of(server, RESERVED), "/other": feed_of(server, "CC0")}
    first = ask(plane, f"feed:{server.url('/feed')}")

    item = ask(plane, f"feed:{server.url('/other')}")
    assert (item["state"], item["license"], item["discovery_id"]) == ("rejected", RESERVED, first["discovery_id"])

    item = ask(plane, server.url("/a"), "CC0")
    assert (item["state"], item["license"], item["discovery_id"]) == ("stored", "CC0", first["discovery_id"])


def test_what_failed_before_licences_were_asked_for_is_tried_again_with_the_one_that_is_named(
    engine: Engine, store: ObjectStore, plane: DataPlane, server: FileServer, tmp_path: Path
) -> None:
    sound = server.files.pop("/a")
    wide = plane_under(engine, store, tmp_path, LOOPBACK.model_copy(update={"license_policy": "all"}))
    assert ask(wide, server.url("/a"))["state"] == "failed"
    server.files["/a"] = sound

    item = ask(plane, server.url("/a"), "CC-BY-4.0")

    assert (item["state"], item["license"]) == ("stored", "CC-BY-4.0")


def test_a_licence_named_while_a_job_refuses_the_silence_is_not_lost(plane: DataPlane, server: FileServer) -> None:
    plane.post(ITEMS, {"sources": [{"source": server.url("/a"), "license": "CC0"}]})
    with write_session(plane.queue.engine) as session:
        session.execute(update(Item).values(license=None))
    claim = lease.claim_next(
        plane.queue.engine, JobKind.INGEST_ITEM, owner=current_owner(), settings=plane.settings.jobs
    )
    assert claim is not None
    refusal = plane.ingest(claim)

    plane.post(ITEMS, {"sources": [{"source": server.url("/a"), "license": "CC-BY-4.0"}]})
    lease.commit(plane.queue, claim, refusal)
    assert plane.items("found")[0]["state"] == "queued"
    plane.run_jobs()

    (item,) = plane.items("found")
    assert (item["state"], item["license"], item["error"]) == ("stored", "CC-BY-4.0", None)


def test_a_licence_named_with_a_file_is_judged_where_the_policy_judges_files(plane: DataPlane, tmp_path: Path) -> None:
    plane.post("/v1/collections", {"name": "found", "policy": "all"})
    for name, license_text in (("a", RESERVED), ("b", "CC0"), ("c", None)):
        data = tone(tmp_path / f"{name}.wav", 31.0, hz=100.0 + ord(name)).read_bytes()
        plane.upload("found", data, name=name, license_text=license_text)
    plane.run_jobs()

    states = {item["source"]: (item["state"], item["error_class"]) for item in plane.items("found")}

    assert states == {"a": ("rejected", "license"), "b": ("stored", None), "c": ("stored", None)}


@pytest.mark.parametrize(("license_text", "state"), [("CC-BY-4.0", "stored"), (RESERVED, "rejected")])
def test_a_licence_named_with_a_feed_that_still_waits_counts(
    plane: DataPlane, server: FileServer, license_text: str, state: str
) -> None:
    server.files["/feed"] = feed_of(server)
    source = f"feed:{server.url('/feed')}"
    plane.post(
        ITEMS, {"sources": [{"source": source, "license": "CC0"} if state == "rejected" else {"source": source}]}
    )

    item = ask(plane, source, license_text)

    assert (item["state"], item["license"]) == (state, license_text)


def test_a_licence_named_while_a_feed_is_read_is_that_of_its_entries(plane: DataPlane, server: FileServer) -> None:
    server.files["/feed"] = feed_of(server)
    source = f"feed:{server.url('/feed')}"
    plane.post(ITEMS, {"sources": [source]})
    jobs = plane.settings.jobs
    claim = lease.claim_next(plane.queue.engine, JobKind.INGEST_EXPAND, owner=current_owner(), settings=jobs)
    assert claim is not None
    read = plane.expand(claim)

    plane.post(ITEMS, {"sources": [{"source": source, "license": "CC-BY-4.0"}]})
    lease.commit(plane.queue, claim, read)
    plane.run_jobs()

    (item,) = plane.items("found")
    assert (item["state"], item["license"]) == ("stored", "CC-BY-4.0")


def test_a_plan_does_not_take_back_what_was_asked_for_in_earnest(plane: DataPlane, server: FileServer) -> None:
    server.files["/feed"] = feed_of(server)
    source = f"feed:{server.url('/feed')}"
    plane.post(ITEMS, {"sources": [source]})
    plane.post(ITEMS, {"sources": [{"source": source, "license": "CC0"}], "plan": True})

    plane.run_jobs()

    assert plane.items("found")[0]["state"] == "stored"


def test_a_closed_licence_named_by_the_operator_stops_what_waits(plane: DataPlane, server: FileServer) -> None:
    plane.post(ITEMS, {"sources": [{"source": server.url("/a"), "license": "CC0"}]})

    item = ask(plane, server.url("/a"), RESERVED)

    assert (item["state"], item["error_class"], item["license"]) == ("rejected", "license", RESERVED)
    assert server.asked == []


def test_a_closed_licence_named_while_the_bytes_arrive_stops_them(plane: DataPlane, server: FileServer) -> None:
    plane.post(ITEMS, {"sources": [{"source": server.url("/a"), "license": "CC0"}]})
    jobs = plane.settings.jobs
    claim = lease.claim_next(plane.queue.engine, JobKind.INGEST_ITEM, owner=current_owner(), settings=jobs)
    assert claim is not None
    fetched = plane.ingest(claim)

    plane.post(ITEMS, {"sources": [{"source": server.url("/a"), "license": RESERVED}]})
    lease.commit(plane.queue, claim, fetched)
    plane.run_jobs()

    (item,) = plane.items("found")
    assert (item["state"], item["license"]) == ("rejected", RESERVED)


def test_a_licence_named_for_what_is_stored_is_written_down(
    engine: Engine, store: ObjectStore, plane: DataPlane, server: FileServer, tmp_path: Path
) -> None:
    wide = plane_under(engine, store, tmp_path, LOOPBACK.model_copy(update={"license_policy": "all"}))
    assert ask(wide, server.url("/a"))["license"] is None
    asked = list(server.asked)

    for license_text in ("CC0", RESERVED):
        item = ask(plane, server.url("/a"), license_text)
        assert (item["state"], item["license"]) == ("stored", license_text)
    assert server.asked == asked


def test_a_licence_named_with_the_second_of_two_feeds_frees_what_both_name(
    plane: DataPlane, server: FileServer
) -> None:
    server.files |= {"/feed": feed_of(server), "/other": feed_of(server) + b"<!-- -->"}
    for name in ("/feed", "/other"):
        assert ask(plane, f"feed:{server.url(name)}")["state"] == "rejected"

    assert ask(plane, f"feed:{server.url('/other')}", "CC-BY-4.0")["state"] == "stored"


def test_a_wider_policy_takes_what_one_feed_reserves_when_another_names_it(
    engine: Engine, store: ObjectStore, plane: DataPlane, server: FileServer, tmp_path: Path
) -> None:
    server.files |= {"/feed": feed_of(server, RESERVED), "/other": feed_of(server)}
    assert ask(plane, f"feed:{server.url('/feed')}")["state"] == "rejected"
    wide = plane_under(engine, store, tmp_path, LOOPBACK.model_copy(update={"license_policy": "all"}))

    item = ask(wide, f"feed:{server.url('/other')}")

    assert (item["state"], item["license"]) == ("stored", RESERVED)


def test_tracks_and_files_are_judged_again_too(
    engine: Engine, store: ObjectStore, plane: DataPlane, tmp_path: Path
) -> None:
    assert ask(plane, "yandex:123")["error_class"] == "license"
    wide = plane_under(engine, store, tmp_path, LOOPBACK.model_copy(update={"license_policy": "all"}))
    assert ask(wide, "yandex:123")["error_class"] != "license"  # there is no token, though

    plane.post("/v1/collections", {"name": "files", "policy": "all"})
    data = tone(tmp_path / "a.wav", 31.0).read_bytes()
    states = []
    for license_text in (RESERVED, "CC0"):
        plane.upload("files", data, license_text=license_text)
        plane.run_jobs()
        states.append(plane.items("files")[0]["state"])
    assert states == ["rejected", "stored"]


def test_the_line_that_states_a_licence_counts_wherever_it_stands(plane: DataPlane, server: FileServer) -> None:
    lines = [{"source": server.url("/a")}, {"source": server.url("/a"), "license": "CC0"}]
    assert plane.post(ITEMS, {"sources": lines})["duplicates"] == 1

    plane.run_jobs()

    assert plane.items("found")[0]["license"] == "CC0"


@dataclass(slots=True)
class Meanwhile:
    """Has something happen once, while a server answers that its feed has not changed."""

    act: Callable[[], object]
    fetch: Callable[..., object] = fetch_document
    has_acted: bool = False

    def __call__(self, *args: object, **options: object) -> object:
        found = self.fetch(*args, **options)
        if not self.has_acted:
            self.has_acted = True
            assert found is None
            self.act()
        return found


def test_a_licence_named_while_a_feed_has_not_changed_counts(
    engine: Engine, store: ObjectStore, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = plane_under(engine, store, tmp_path, LOOPBACK.model_copy(update={"license_policy": "all"}))
    server.files["/feed"] = feed_of(server)
    source = f"feed:{server.url('/feed')}"
    assert ask(plane, source)["license"] is None
    named = {"sources": [{"source": source, "license": RESERVED}]}
    monkeypatch.setattr(feed, "fetch_document", Meanwhile(lambda: plane.post(ITEMS, named)))

    assert ask(plane, source)["license"] == RESERVED


def test_a_plan_that_is_asked_for_in_earnest_while_its_feed_has_not_changed_begins(
    plane: DataPlane, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/feed"] = feed_of(server, "CC0")
    source = f"feed:{server.url('/feed')}"
    plane.post(ITEMS, {"sources": [source], "plan": True})
    plane.run_jobs()
    monkeypatch.setattr(feed, "fetch_document", Meanwhile(lambda: plane.post(ITEMS, {"sources": [source]})))

    plane.post(ITEMS, {"sources": [source], "plan": True})
    plane.run_jobs()

    assert plane.items("found")[0]["state"] == "stored"


def test_a_list_elsewhere_does_not_free_the_feed_that_the_operator_reserves(
    plane: DataPlane, server: FileServer
) -> None:
    server.files |= {"/p.rss": feed_of(server), "/l.csv": f"url,license\n{server.url('/p.rss')},CC0\n".encode()}
    assert ask(plane, server.url("/p.rss"), RESERVED)["state"] == "rejected"

    item = ask(plane, server.url("/l.csv"))

    assert (item["state"], item["license"]) == ("rejected", RESERVED)
    assert ask(plane, server.url("/p.rss"), "CC0")["state"] == "stored"


def test_a_list_elsewhere_does_not_refuse_the_video_that_the_operator_asked_for(
    plane: DataPlane, server: FileServer
) -> None:
    video = "youtube:abcdefghijk"
    server.files["/l.csv"] = f"url,license\n{video},{RESERVED}\n".encode()
    plane.post(ITEMS, {"sources": [video]})
    plane.post(ITEMS, {"sources": [server.url("/l.csv")]})
    run_pending(plane.queue, {JobKind.INGEST_EXPAND: plane.handlers[JobKind.INGEST_EXPAND]}, plane.settings.jobs)

    (item,) = plane.items("found")
    assert (item["state"], item["license"]) == ("queued", None)


def test_asking_for_many_feeds_again_looks_at_the_refused_items_once(sqlite_engine: Engine) -> None:
    """Counted in steps of SQLite's machine: a look for each feed took feeds times items."""
    steps = [_steps_of_asking(sqlite_engine, f"col_{num_feeds}", num_feeds) for num_feeds in (10, 40)]
    assert steps[1] < 2.5 * steps[0]


def _steps_of_asking(engine: Engine, collection_id: str, num_feeds: int) -> int:
    addresses = dict.fromkeys(DiscoveryAddress(DiscoveryKind.FEED, f"https://x.org/{n}") for n in range(num_feeds))
    queue, steps = JobQueue(engine, Recorder()), list[int]()
    with queue.unit_of_work() as unit:
        unit.session.add(Collection(id=collection_id, name=collection_id, policy="crawled", created_at=0.0))
        unit.session.flush()
        lines = parse_lines([SourceLine(f"https://x.org/{n}.wav") for n in range(4000)])
        collection = unit.session.get_one(Collection, collection_id)
        add_items(unit, collection, lines, license_policy="cc-only", discovery_id="disc_none")
        request_discoveries(unit, collection_id, addresses, is_plan=False)
        unit.session.execute(update(Discovery).values(state="done"))
    with queue.unit_of_work() as unit:
        driver = unit.session.connection().connection.driver_connection
        assert driver is not None
        driver.set_progress_handler(lambda: steps.append(1), 100)
        request_discoveries(unit, collection_id, addresses, is_plan=False)
        driver.set_progress_handler(None, 0)
    return len(steps)
