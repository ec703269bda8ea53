"""The steps of jobs that test_traces.py, with its real processes, does not come to; here jobs run in the test's own."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from audiofoundation.ingestion.youtube import YoutubeSource
from audiofoundation.settings import EgressIdentity, FetchSettings, TelemetrySettings
from audiofoundation.storage.object_store import ObjectStore
from audiofoundation.telemetry import tracing
from tests.collector import Collector, collecting
from tests.data_plane import DataPlane, FileServer, create_data_plane, data_plane_settings, serving_files, tone
from tests.unit.ingestion.test_youtube import RECORDED, VIDEO_ID, recorded_site


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found, tracing.tracing(TelemetrySettings(otlp_endpoint=found.endpoint), service="test"):
        yield found


@pytest.fixture
def plane(sqlite_engine: Engine, store: ObjectStore, collector: Collector, tmp_path: Path) -> DataPlane:
    settings = data_plane_settings(tmp_path / "data")
    telemetry = TelemetrySettings(otlp_endpoint=collector.endpoint)
    plane = create_data_plane(sqlite_engine, store, settings.model_copy(update={"telemetry": telemetry}))
    plane.post("/v1/collections", {"name": "clips"})
    return plane


def ingest_video(plane: DataPlane, path: Path, **changes: object) -> None:
    with serving_files(FileServer({"/o": tone(path, 60.0).read_bytes()})) as server:
        sound = {"format_id": "o", "url": server.url("/o"), "vcodec": "none", "acodec": "opus", "ext": "webm"}
        metadata: dict[str, Any] = {**RECORDED, "duration": 60, "formats": [{**sound, "protocol": "http"}], **changes}

        def open_youtube(identity: EgressIdentity) -> YoutubeSource:
            return YoutubeSource(FetchSettings(), identity=identity, create=recorded_site(metadata))

        with_video = replace(plane, ingest=replace(plane.ingest, open_youtube=open_youtube))
        with_video.post("/v1/collections/clips/items", {"sources": [f"youtube:{VIDEO_ID}"]})
        with_video.run_jobs()
    tracing.stop_tracing()


def test_a_video_has_its_metadata_before_its_bytes(plane: DataPlane, collector: Collector, tmp_path: Path) -> None:
    ingest_video(plane, tmp_path / "o.wav")
    job = collector.one("job ingest.item")
    assert collector.children_of(job) == ["metadata", "probe", "fetch", "verify", "store", "commit"]
    assert collector.one("fetch").attributes["num_bytes"] == collector.one("store").attributes["num_bytes"]


def test_what_is_refused_says_by_which_rule(plane: DataPlane, collector: Collector, tmp_path: Path) -> None:
    ingest_video(plane, tmp_path / "o.wav", license="open-sesame")
    job = collector.one("job ingest.item")
    assert (job.attributes["refusal"], job.attributes["outcome"], job.error) == ("license", "done", None)
    assert collector.children_of(job) == ["metadata", "commit"]
    assert b"open-sesame" not in b"".join(collector.bodies)


def test_a_takedown_is_followed_to_the_last_deletion(plane: DataPlane, collector: Collector, tmp_path: Path) -> None:
    for name, hz in (("a", 330.0), ("b", 440.0)):
        plane.upload("clips", tone(tmp_path / f"{name}.wav", 1.2, hz=hz).read_bytes(), name=f"{name}.wav")
    plane.run_jobs()
    plane.post("/v1/datasets", {"collection": "clips", "segment_s": 0.5})
    plane.run_jobs()
    item = plane.items("clips")[0]["id"]
    plane.post("/v1/takedowns", {"target": item})
    plane.run_jobs()
    tracing.stop_tracing()
    request = collector.one("POST /v1/takedowns")
    rewrite = collector.one("job preprocess.rewrite")
    assert collector.children_of(rewrite) == ["fetch", "copy", "store", "commit"]
    purges = collector.named("job ingest.purge")
    assert len(purges) == 2, "of the original at once, and of the shard when a version without it is there"
    for purge in purges:
        assert collector.children_of(purge) == ["delete", "commit"]
    assert {found.trace_id for found in (rewrite, *purges)} == {request.trace_id}


def test_a_recording_that_cannot_be_read_is_told_by_its_code(
    plane: DataPlane, collector: Collector, tmp_path: Path
) -> None:
    plane.upload("clips", tone(tmp_path / "a.wav", 1.2).read_bytes())
    plane.run_jobs()
    for key in plane.store.list("raw/"):
        plane.store.delete(key)
    plane.post("/v1/datasets", {"collection": "clips", "segment_s": 0.5})
    plane.run_jobs()
    tracing.stop_tracing()
    recording = collector.one("recording")
    assert (recording.error, recording.attributes["outcome"]) == ("not_found", "failed")
    assert collector.one("job preprocess.shard").error is None
