"""Real recordings through the real probe: what they sound like is stored, and decides where a setting says so."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from sqlalchemy import Engine, select
from typer.testing import CliRunner

from audiofoundation.catalog.engine import read_session
from audiofoundation.catalog.tables import Item, Probe
from audiofoundation.cli import create_cli
from audiofoundation.cli.probe_report import draw, summary_of, to_page
from audiofoundation.ingestion.item_job import ItemIngest
from audiofoundation.ingestion.probe_labels import open_labeller
from audiofoundation.jobs.kinds import JobKind
from audiofoundation.settings import CatalogSettings, ModelSettings, ProbeSettings, Settings, StorageSettings
from audiofoundation.storage.object_store import ObjectStore
from services.ingest.tasks import create_handlers
from tests.data_plane import (
    RECORDINGS,
    DataPlane,
    at_work,
    create_data_plane,
    data_plane_settings,
    open_source,
)
from tests.range_server import RangeServer, serving_ranges

RATE = 24_000
PROBE = ProbeSettings(range_bytes=64 << 10)
ONLY_MUSIC = PROBE.model_copy(update={"allowed_labels": ("music",)})
SPEECH = ("speech-pmatthes-*.opus", "speech-kerstin-*.opus")
MUSIC = ("music-macleod-*.ogg", "music-opensurge-speed.ogg")


def create_plane(engine: Engine, store: ObjectStore, data_dir: Path, probe: ProbeSettings) -> DataPlane:
    settings = data_plane_settings(data_dir).model_copy(update={"probe": probe})
    plane = create_data_plane(engine, store, settings)
    labeller = open_labeller(settings.models.pretrained_dir, probe)
    plane = replace(plane, ingest=replace(plane.ingest, probe=probe, labeller=labeller))
    plane.post("/v1/collections", {"name": "clips"})
    return plane


@pytest.fixture
def plane(sqlite_engine: Engine, store: ObjectStore, tmp_path: Path) -> DataPlane:
    return create_plane(sqlite_engine, store, tmp_path / "data", PROBE)


@pytest.fixture
def strict(sqlite_engine: Engine, store: ObjectStore, tmp_path: Path) -> DataPlane:
    return create_plane(sqlite_engine, store, tmp_path / "data", ONLY_MUSIC)


@pytest.fixture
def server() -> Iterator[RangeServer]:
    with serving_ranges(RangeServer()) as server:
        server.files = {"/speech": joined(SPEECH), "/music": joined(MUSIC)}
        yield server


def joined(patterns: tuple[str, ...], *, form: str = "WAV") -> bytes:
    """Recordings one after another: the shortest that is taken from the web has half a minute."""
    paths = [path for pattern in patterns for path in sorted(RECORDINGS.glob(pattern))]
    parts: list[NDArray[np.float32]] = [
        soundfile.read(path, dtype="float32", always_2d=True)[0][:, 0] for path in paths
    ]
    samples = np.concatenate(parts)
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", RATE, 1, format=form) as writer:
        for start in range(0, len(samples), RATE):  # libsndfile's Vorbis dies of long writes
            writer.write(samples[start : start + RATE])
    return file.getvalue()


def ingest(plane: DataPlane, server: RangeServer) -> dict[str, Item]:
    plane.post("/v1/collections/clips/items", {"sources": [open_source(server.url(path)) for path in server.files]})
    plane.run_jobs()
    with read_session(plane.queue.engine) as session:
        return {item.source.removeprefix(server.url("/")): item for item in session.scalars(select(Item))}


def probe_of(plane: DataPlane, item: Item) -> Probe:
    with read_session(plane.queue.engine) as session:
        return session.get_one(Probe, item.id)


@pytest.mark.parametrize(("form", "stage"), [("WAV", "ranges"), ("OGG", "whole")])
def test_speech_and_music_are_told_apart_and_kept(plane: DataPlane, server: RangeServer, form: str, stage: str) -> None:
    server.files = {"/speech": joined(SPEECH, form=form), "/music": joined(MUSIC, form=form)}
    items = ingest(plane, server)
    for label in ("speech", "music"):
        assert items[label].state == "stored", items[label].error
        probe = probe_of(plane, items[label])
        assert (probe.stage, probe.decision, probe.measurements["label"]) == (stage, "kept", label)
        assert probe.measurements["label_probabilities"].keys() == {"speech", "music", "other"}
        assert probe.measurements["label_probabilities"][label] > 0.7
        assert probe.measurements["label_model"].startswith("classifier-tiny@")
        assert probe.thresholds["allowed_labels"] == []


def test_a_setting_that_takes_only_music_refuses_speech_for_a_few_ranges(
    strict: DataPlane, server: RangeServer
) -> None:
    items = ingest(strict, server)
    assert items["music"].state == "stored"
    speech, probe = items["speech"], probe_of(strict, items["speech"])
    assert (speech.state, speech.error_class) == ("rejected", "wrong_label")
    assert str(speech.error).startswith("it sounds like speech (9")
    assert str(speech.error).endswith("AF_PROBE__ALLOWED_LABELS takes only music")
    assert (probe.decision, probe.reason) == ("refused", speech.error)
    assert probe.thresholds["allowed_labels"] == ["music"]


def test_an_item_is_shown_with_its_label_and_the_labels_that_pass(
    strict: DataPlane, server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    speech = ingest(strict, server)["speech"]
    found: dict[str, Any] = strict.get(f"/v1/items/{speech.id}")
    assert found["probe"]["label"] == "speech"
    with at_work(strict, monkeypatch):
        shown = CliRunner().invoke(create_cli(), ["item", speech.id]).stdout
    share = found["probe"]["measurements"]["label_probabilities"]["speech"]
    (row,) = [line.split() for line in shown.splitlines() if line.split()[:1] == ["label"]]
    assert row[1:] == ["speech", f"({share:.0%})", "music"]
    assert server.sent["/speech"] < len(server.files["/speech"]) / 3


def test_the_report_counts_labels(plane: DataPlane, server: RangeServer) -> None:
    server.files["/silence"] = server.files["/speech"][:100] + bytes(80 * RATE)
    ingest(plane, server)
    report: dict[str, Any] = plane.get("/v1/collections/clips/probe-report")
    assert report["labels"] == {
        "counts": {"speech": 1, "music": 1}, "unlabelled": 1, "allowed": [], "num_kept": 3,
    }  # fmt: skip
    assert "heard: 1 music, 1 speech, 1 without a label" in summary_of(report)
    assert "<td>label</td><td>AF_PROBE__ALLOWED_LABELS</td><td>all</td><td>3</td>" in to_page(report, draw(report))


def test_the_report_says_what_todays_labels_keep(
    plane: DataPlane, server: RangeServer, sqlite_engine: Engine, store: ObjectStore, tmp_path: Path
) -> None:
    ingest(plane, server)
    settings = data_plane_settings(tmp_path / "data").model_copy(update={"probe": ONLY_MUSIC})
    today = create_data_plane(sqlite_engine, store, settings)
    report: dict[str, Any] = today.get("/v1/collections/clips/probe-report")
    assert report["decisions"] == {"kept": 2}
    assert (report["kept_now"], report["labels"]["num_kept"], report["labels"]["allowed"]) == (1, 1, ["music"])
    assert "<td>music</td><td>1</td><td>50.0%</td>" in to_page(report, draw(report))


def test_what_was_probed_without_a_classifier_is_stored_and_reported(plane: DataPlane, server: RangeServer) -> None:
    deaf = replace(plane, ingest=replace(plane.ingest, probe=ONLY_MUSIC, labeller=None))
    items = ingest(deaf, server)
    assert {item.state for item in items.values()} == {"stored"}
    assert "label" not in probe_of(deaf, items["speech"]).measurements
    report: dict[str, Any] = deaf.get("/v1/collections/clips/probe-report")
    assert (report["labels"]["counts"], report["labels"]["unlabelled"]) == ({}, 2)
    assert "heard" not in summary_of(report)
    assert draw(report).startswith(b"\x89PNG")


def test_the_worker_listens_with_the_bundled_classifier(
    sqlite_catalog: CatalogSettings, s3_settings: StorageSettings, tmp_path: Path
) -> None:
    settings = Settings(data_dir=tmp_path, catalog=sqlite_catalog, storage=s3_settings)
    without = settings.model_copy(update={"models": ModelSettings(pretrained_dir=tmp_path / "absent")})
    for chosen, is_heard in ((settings, True), (without, False)):
        handler = create_handlers(chosen)[JobKind.INGEST_ITEM].handle
        assert isinstance(handler, ItemIngest)
        assert (handler.labeller is not None) == is_heard
