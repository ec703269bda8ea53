"""The page about a dataset: real recordings, real jobs, pictures that are pictures."""

import base64
import re
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import Engine

from audiofoundation.preprocessing.report import figures
from audiofoundation.preprocessing.report import survey as survey_module
from audiofoundation.preprocessing.report.survey import survey
from audiofoundation.storage.object_store import ObjectStore
from tests.data_plane import DataPlane, create_data_plane, data_plane_settings, recordings

COLLECTION = "clips <script src=x><img onerror=alert(1)>"
_PICTURE = re.compile(r'src="data:image/png;base64,([^"]+)"')


@pytest.fixture
def plane(sqlite_engine: Engine, store: ObjectStore, tmp_path: Path) -> DataPlane:
    """Real recordings in a collection with a hostile name."""
    plane = create_data_plane(sqlite_engine, store, data_plane_settings(tmp_path / "data"))
    collection = str(plane.post("/v1/collections", {"name": COLLECTION})["id"])
    for path in recordings(3):
        plane.upload(collection, path.read_bytes(), name=path.name)
    plane.run_jobs()
    return plane


def test_the_page_is_whole_and_safe(plane: DataPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "_DPI", 40)  # quicker; what is drawn is the same
    dataset = str(plane.post("/v1/datasets", {"collection": COLLECTION, "include_waveform": True})["dataset"])
    unready = plane.client.get(f"/v1/datasets/{dataset}/report")
    assert (unready.status_code, unready.json()["error"]["code"]) == (409, "conflict")
    plane.run_jobs()
    answer = plane.client.get(f"/v1/datasets/{dataset}/report")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    page = answer.text
    assert "<script" not in page
    assert "clips &lt;script src=x&gt;&lt;img onerror" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    pictures = [base64.b64decode(found) for found in _PICTURE.findall(page)]
    assert len(pictures) == 5
    for number, data in enumerate(pictures):
        path = tmp_path / f"{number}.png"
        path.write_bytes(data)
        with Image.open(path) as image:
            colours = image.convert("RGB").getcolors(maxcolors=1 << 20)
        assert colours is not None
        assert len(colours) > 20, "an empty picture"
    assert plane.client.get(f"/v1/datasets/{dataset}/report").text == page
    assert plane.client.get("/v1/datasets/none/report").status_code == 404


def test_the_page_tells_thresholds_and_what_they_left_out(plane: DataPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "_DPI", 40)
    body = {"collection": COLLECTION, "min_rms_dbfs": -24.0, "max_clipped_ratio": 0.05}
    dataset = str(plane.post("/v1/datasets", body)["dataset"])
    plane.run_jobs()
    left_out = plane.get(f"/v1/datasets/{dataset}")["segments_left_out"]
    assert isinstance(left_out, dict)
    assert left_out["min_rms_dbfs"] > 0
    page = plane.client.get(f"/v1/datasets/{dataset}/report").text
    assert "<td>max_clipped_ratio 0.05, min_rms_dbfs -24</td>" in page
    assert f'<td>min_rms_dbfs</td><td class="number">{left_out["min_rms_dbfs"]}</td>' in page


def test_a_survey_is_bounded_and_goes_on_without_a_broken_shard(
    plane: DataPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = str(plane.post("/v1/datasets", {"collection": COLLECTION})["dataset"])
    plane.run_jobs()
    engine, store = plane.queue.engine, plane.store
    whole = survey(engine, store, dataset)
    assert len(whole.metas) == whole.status.num_segments
    monkeypatch.setattr(survey_module, "NUM_SEGMENTS", 2)
    assert 0 < len(survey(engine, store, dataset).metas) < whole.status.num_segments
    assert [m.segment_index for m in survey(engine, store, dataset).metas] == [
        m.segment_index for m in survey(engine, store, dataset).metas
    ]
    without_index = whole.manifest.model_copy(
        update={"shards": tuple(s.model_copy(update={"index_sha256": None}) for s in whole.manifest.shards)}
    )
    assert [s.key for s in survey_module._some_segments(store, without_index)]
    store.delete(whole.manifest.shards[0].key)
    assert len(survey(engine, store, dataset).metas) < whole.status.num_segments
