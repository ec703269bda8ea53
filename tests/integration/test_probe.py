"""Probing over real loopback HTTP and the real decoder: what fails a threshold costs a few short ranges."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from scipy import signal
from sqlalchemy import Engine, func, select
from typer.testing import CliRunner

from audiofoundation.audio.waveform import Waveform
from audiofoundation.catalog.engine import read_session, write_session
from audiofoundation.catalog.tables import Asset, EgressLane, Item, Job, Probe
from audiofoundation.cli import create_cli
from audiofoundation.cli.probe_report import draw, summary_of, to_page
from audiofoundation.ingestion.probe import Stage, judge, write_verdict
from audiofoundation.ingestion.youtube import YoutubeSource
from audiofoundation.settings import EgressIdentity, FetchSettings, ProbeSettings
from audiofoundation.storage.object_store import ObjectStore
from tests.data_plane import (
    LOOPBACK,
    DataPlane,
    at_work,
    create_data_plane,
    data_plane_settings,
    open_source,
)
from tests.range_server import RangeServer, serving_ranges
from tests.unit.ingestion.test_youtube import RECORDED, VIDEO_ID, recorded_site

RATE = 24_000
SETTINGS = ProbeSettings(range_bytes=64 << 10)
RANGES = SETTINGS.num_ranges * (64 << 10) + 200_000  # what sockets hold when the client stops reading


@pytest.fixture
def plane(sqlite_engine: Engine, store: ObjectStore, tmp_path: Path) -> DataPlane:
    plane = create_data_plane(sqlite_engine, store, data_plane_settings(tmp_path / "data"))
    plane = replace(plane, ingest=replace(plane.ingest, probe=SETTINGS))
    plane.post("/v1/collections", {"name": "clips"})
    return plane


@pytest.fixture
def server() -> Iterator[RangeServer]:
    with serving_ranges(RangeServer()) as server:
        yield server


def noise(seconds: float = 60.0, *, cutoff_hz: float | None = None) -> NDArray[np.float64]:
    samples = np.random.default_rng(1).standard_normal(round(seconds * RATE)) * 0.03
    if cutoff_hz is None:
        return samples
    filtered: NDArray[np.float64] = signal.sosfilt(signal.ellip(10, 0.1, 80, cutoff_hz, output="sos", fs=RATE), samples)
    return filtered


def encoded(samples: NDArray[np.float64], form: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", RATE, 1, format=form, subtype=subtype) as writer:
        for start in range(0, len(samples), RATE):  # libsndfile's Vorbis dies of long writes
            writer.write(samples[start : start + RATE])
    return file.getvalue()


def probes(plane: DataPlane) -> list[Probe]:
    with read_session(plane.queue.engine) as session:
        return list(session.scalars(select(Probe)))


def ingest(plane: DataPlane, server: RangeServer, data: bytes) -> dict[str, object]:
    server.files["/a"] = data
    plane.post("/v1/collections/clips/items", {"sources": [open_source(server.url("/a"))]})
    plane.run_jobs()
    (item,) = plane.items("clips")
    return item


BAD = {
    "low_cutoff": noise(cutoff_hz=2000),
    "hum": noise() * 0.01 + 0.2 * np.sin(2 * np.pi * 50 * np.arange(60 * RATE) / RATE),
    "clipped": np.clip(noise() * 40, -1, 1),
    "silent": np.zeros(60 * RATE),
    "noisy": noise() * 8,
    "low_centroid": signal.sosfilt(signal.butter(4, 25, output="sos", fs=RATE), noise()) * 20 + noise() * 1e-3,
}


@pytest.mark.parametrize("error_class", sorted(BAD))
def test_what_fails_a_threshold_is_refused_for_a_few_ranges(
    plane: DataPlane, server: RangeServer, error_class: str
) -> None:
    item = ingest(plane, server, encoded(BAD[error_class]))
    assert (item["state"], item["error_class"]) == ("rejected", error_class)
    assert server.sent["/a"] < RANGES < len(server.files["/a"]) / 3
    (probe,) = probes(plane)
    assert (probe.stage, probe.decision) == ("ranges", "refused")
    assert str(item["error"]) in probe.reason
    assert probe.thresholds["min_cutoff_hz"] == 3000
    with read_session(plane.queue.engine) as session:
        assert session.scalar(select(func.count()).select_from(Asset)) == 0


@pytest.mark.parametrize(
    ("form", "subtype", "num_parts"),
    [("WAV", "PCM_24", 3), ("FLAC", "PCM_16", 3), ("OGG", "VORBIS", 3), ("MP3", None, 3)],
)
def test_ranges_of_common_formats_tell_what_the_whole_does(
    plane: DataPlane, server: RangeServer, form: str, subtype: str | None, num_parts: int
) -> None:
    item = ingest(plane, server, encoded(noise(120.0, cutoff_hz=8000), form, subtype))
    assert item["state"] == "stored", item
    (probe,) = probes(plane)
    assert (probe.stage, probe.decision) == ("ranges", "kept")
    assert probe.num_bytes <= num_parts * (64 << 10) + 1
    assert probe.measurements["cutoff_hz"] == pytest.approx(8000, rel=0.05)
    assert probe.measurements["rms_dbfs"] == pytest.approx(20 * np.log10(0.03) + 10 * np.log10(8 / 12), abs=1.0)
    assert probe.measurements["clipped_ratio"] < 1e-3, "ranges are put together at whole samples"


def test_later_parts_are_heard(plane: DataPlane, server: RangeServer) -> None:
    samples = noise(120.0)
    samples[30 * RATE :] = 0
    ingest(plane, server, encoded(samples))
    (probe,) = probes(plane)
    assert 0.4 < probe.measurements["silence_ratio"] < 0.8


@pytest.mark.parametrize("reason", ["no ranges", "a short file"])
def test_where_ranges_do_not_tell_the_whole_is_judged(plane: DataPlane, server: RangeServer, reason: str) -> None:
    server.has_ranges = reason != "no ranges"
    samples = noise(60.0 if reason == "no ranges" else 31.0, cutoff_hz=2000)
    item = ingest(plane, server, encoded(samples, "WAV" if reason == "no ranges" else "OGG"))
    assert item["error_class"] == "low_cutoff"
    (probe,) = probes(plane)
    assert (probe.stage, probe.decision, probe.num_bytes) == ("whole", "refused", len(server.files["/a"]))


def test_the_operators_files_are_probed_when_the_policy_judges_all(plane: DataPlane) -> None:
    data = encoded(noise(40.0, cutoff_hz=2000))
    plane.upload("clips", data)
    plane.post("/v1/collections", {"name": "strict", "policy": "all"})
    plane.run_jobs()
    assert plane.get("/v1/collections/clips")["states"] == {"stored": 1}
    assert probes(plane) == []
    plane.upload("strict", encoded(noise(40.0, cutoff_hz=2100)))
    plane.run_jobs()
    assert plane.get("/v1/collections/strict")["error_classes"] == {"low_cutoff": 1}


def test_probing_can_be_turned_off(plane: DataPlane, server: RangeServer) -> None:
    off = replace(plane, ingest=replace(plane.ingest, probe=ProbeSettings(is_enabled=False)))
    assert ingest(off, server, encoded(noise(cutoff_hz=2000)))["state"] == "stored"
    assert probes(plane) == []


@pytest.mark.parametrize("cutoff_hz", [2000.0, 8000.0])
def test_a_decision_is_shown_with_its_measurements(plane: DataPlane, server: RangeServer, cutoff_hz: float) -> None:
    item = ingest(plane, server, encoded(noise(cutoff_hz=cutoff_hz)))

    found: dict[str, Any] = plane.get(f"/v1/items/{item['id']}")

    assert {name: found[name] for name in item} == item
    assert found["collection_name"] == "clips"
    assert found["policy"] == "cc-only;30-3600s", "under which it was taken or refused"
    probe, (stored,) = found["probe"], probes(plane)
    is_kept = cutoff_hz > SETTINGS.min_cutoff_hz
    assert (probe["decision"], found["state"]) == (("kept", "stored") if is_kept else ("refused", "rejected"))
    assert probe["measurements"]["cutoff_hz"] == pytest.approx(cutoff_hz, rel=0.05)
    assert probe["thresholds"]["min_cutoff_hz"] == SETTINGS.min_cutoff_hz
    assert (probe["stage"], probe["num_bytes"], probe["label"]) == ("ranges", stored.num_bytes, None)
    assert probe["reason"] == ("" if is_kept else found["error"])


def test_a_probe_that_ends_after_the_takedown_leaves_nothing(plane: DataPlane, server: RangeServer) -> None:
    item = ingest(plane, server, encoded(noise()))
    seconds = np.arange(24_000) / 24_000
    sound = Waveform(np.sin(2 * np.pi * 440 * seconds, dtype=np.float32)[None], 24_000)
    verdict = judge([sound], SETTINGS, stage=Stage.WHOLE, num_bytes=1)
    plane.post("/v1/takedowns", {"target": item["id"]})

    with write_session(plane.queue.engine) as session:
        write_verdict(session, str(item["id"]), verdict, SETTINGS)

    assert probes(plane) == []


def test_an_item_that_was_taken_down_shows_no_measurements(plane: DataPlane, server: RangeServer) -> None:
    item = ingest(plane, server, encoded(noise()))
    (kept,) = probes(plane)
    plane.post("/v1/takedowns", {"target": item["id"]})
    with write_session(plane.queue.engine) as session:  # as a probe that was under way would write it
        session.merge(kept)

    found = plane.get(f"/v1/items/{item['id']}")

    assert (found["state"], found["probe"]) == ("tombstoned", None)
    assert plane.client.get(f"/v1/items/item_{'0' * 32}").status_code == 404
    assert plane.client.get("/v1/items/x").json()["error"]["code"] == "not_found"


def test_what_a_list_says_is_refused_under_its_policy(plane: DataPlane) -> None:
    lines = [{**open_source("https://example.com/a"), "duration_s": 1.0}, open_source("https://example.com/b")]
    plane.post("/v1/collections/clips/items", {"sources": lines, "plan": True})
    policies = {item["state"]: item["policy"] for item in plane.items("clips")}
    assert policies == {"rejected": "cc-only;30-3600s", "queued": None}
    (refused,) = [item for item in plane.items("clips") if item["state"] == "rejected"]
    assert plane.get(f"/v1/items/{refused['id']}")["probe"] is None


def test_the_command_shows_an_item_and_its_probe(
    plane: DataPlane, server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = ingest(plane, server, encoded(BAD["low_cutoff"]))
    found: dict[str, Any] = plane.get(f"/v1/items/{item['id']}")
    with at_work(plane, monkeypatch):
        shown = CliRunner().invoke(create_cli(), ["item", str(item["id"])])
        as_json = CliRunner().invoke(create_cli(), ["item", str(item["id"]), "--json"])
        absent = CliRunner().invoke(create_cli(), ["item", "item_0/1"])
    assert json.loads(as_json.stdout.splitlines()[-1]) == found
    assert f"why not: low_cutoff: {found['error']}" in shown.stdout
    assert "policy: cc-only;30-3600s" in shown.stdout
    (row,) = [line.split() for line in shown.stdout.splitlines() if "cutoff_hz" in line]
    assert float(row[1]) == pytest.approx(2000, rel=0.05)
    assert row[2:] == ["≥", "3000"]
    assert absent.exit_code == 1


def with_video(plane: DataPlane, server: RangeServer, **changes: object) -> DataPlane:
    sound = {"format_id": "o", "url": server.url("/o"), "vcodec": "none", "acodec": "opus", "ext": "webm"}
    metadata: dict[str, Any] = {**RECORDED, "duration": 60, "formats": [{**sound, "protocol": "http"}], **changes}

    def open_youtube(identity: EgressIdentity) -> YoutubeSource:
        return YoutubeSource(FetchSettings(), identity=identity, create=recorded_site(metadata))

    fetch = LOOPBACK.model_copy(update={"video_min_gap_s": 0.0, "video_max_gap_s": 0.0, "videos_per_hour": 10**6})
    return replace(plane, ingest=replace(plane.ingest, settings=fetch, open_youtube=open_youtube))


def ingest_video(plane: DataPlane) -> dict[str, object]:
    plane.post("/v1/collections/clips/items", {"sources": [f"youtube:{VIDEO_ID}"]})
    plane.run_jobs()
    (item,) = plane.items("clips")
    return item


def test_a_videos_sound_is_probed_through_the_same_session(plane: DataPlane, server: RangeServer) -> None:
    server.files["/o"] = encoded(noise(cutoff_hz=2000))
    item = ingest_video(with_video(plane, server))
    assert (item["state"], item["error_class"]) == ("rejected", "low_cutoff")
    assert server.sent["/o"] < RANGES


def test_a_good_video_is_stored_with_its_provenance(plane: DataPlane, server: RangeServer) -> None:
    server.files["/o"] = encoded(noise())
    item = ingest_video(with_video(plane, server))
    assert (item["state"], item["title"], item["policy"]) == ("stored", RECORDED["title"], "cc-only;30-3600s")
    assert [probe.stage for probe in probes(plane)] == ["ranges"]
    with read_session(plane.queue.engine) as session:
        lane = session.scalars(select(EgressLane)).one()
    assert (lane.name, lane.num_started, lane.holders) == ("youtube|direct", 1, {})


def test_an_announced_video_is_looked_at_again_a_day_after_it_is_expected(
    plane: DataPlane, server: RangeServer
) -> None:
    ready_at = 4e9
    live = with_video(plane, server, live_status="is_upcoming", release_timestamp=ready_at)
    assert ingest_video(live)["state"] == "deferred"
    with read_session(plane.queue.engine) as session:
        job, item = session.scalars(select(Job)).one(), session.scalars(select(Item)).one()
    assert (job.state, job.not_before, job.attempt) == ("queued", ready_at + 86_400, 0)
    assert (item.recheck_at, item.num_rechecks) == (ready_at + 86_400, 1)
    server.files["/o"] = encoded(noise())
    assert ingest_video(with_video(plane, server))["state"] == "stored", "asking again does not wait for it"


def test_a_video_of_another_licence_costs_no_byte(plane: DataPlane, server: RangeServer) -> None:
    server.files["/o"] = encoded(noise())
    assert ingest_video(with_video(plane, server, license=None))["error_class"] == "license"
    assert server.sent.total() == 0


def test_the_report_counts_what_each_threshold_keeps(plane: DataPlane, server: RangeServer) -> None:
    server.files = {
        "/good": encoded(noise()),
        "/dull": encoded(BAD["low_cutoff"]),
        "/hum": encoded(BAD["hum"]),
        "/short": encoded(noise(31.0), "OGG"),
    }
    plane.post("/v1/collections/clips/items", {"sources": [open_source(server.url(path)) for path in server.files]})
    plane.run_jobs()
    report: dict[str, Any] = plane.get("/v1/collections/clips/probe-report")
    assert (report["probed"], report["kept_now"]) == (4, 2)
    assert report["decisions"] == {"kept": 2, "refused": 2}
    assert report["stages"] == {"ranges": 3, "whole": 1}
    measures = {measure["name"]: measure for measure in report["measures"]}
    assert [measures[name]["num_kept"] for name in ("cutoff_hz", "hum_to_signal_db", "clipped_ratio")] == [3, 3, 4]
    for measure in measures.values():
        assert sum(measure["counts"]) == 4
        assert len(measure["edges"]) == len(measure["counts"]) + 1
    page = to_page(report, draw(report))
    assert "AF_PROBE__MIN_CUTOFF_HZ" in page
    assert plane.client.get("/v1/collections/absent/probe-report").status_code == 404


def test_a_report_on_nothing_is_still_one(plane: DataPlane) -> None:
    report: dict[str, Any] = plane.get("/v1/collections/clips/probe-report")
    assert (report["probed"], report["kept_now"], report["stages"]) == (0, 0, {})
    assert draw(report).startswith(b"\x89PNG")
    assert summary_of(report).startswith("No recording was probed")
