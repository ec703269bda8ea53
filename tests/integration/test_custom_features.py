"""Datasets with the operator's own features: real catalog, object store and decoder."""

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine, select

from audiofoundation.catalog.engine import read_session
from audiofoundation.catalog.tables import Dataset, Job
from audiofoundation.identifiers import Sha256
from audiofoundation.preprocessing.options import DatasetOptions
from audiofoundation.settings import CustomFeature, PreprocessSettings
from audiofoundation.shards.manifest import load_manifest
from audiofoundation.shards.reader import read_dataset
from audiofoundation.shards.sample import Sample
from audiofoundation.storage.object_store import ObjectStore
from tests.data_plane import DataPlane, create_data_plane, data_plane_settings, recordings

MODULE = """
import sys

import numpy as np

def quarters(samples, sample_rate_hz):
    assert samples.dtype == np.float32 and sample_rate_hz == 24_000
    return np.abs(samples[: samples.size // 4 * 4]).reshape(4, -1).max(axis=1)

def full_only(samples, sample_rate_hz):
    return 1 / (samples.size == 281 * 256)

def leaving(samples, sample_rate_hz):
    sys.exit("the model is missing")
"""
FULL = 281 * 256  # samples of a segment of three seconds


@pytest.fixture
def features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PreprocessSettings:
    (tmp_path / "studio_features.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return settings_of("quarters", "full_only")


def settings_of(*names: str) -> PreprocessSettings:
    found = [CustomFeature(name=name, module="studio_features", function=name) for name in names]
    return PreprocessSettings(custom_features=tuple(found))


def create_plane(engine: Engine, store: ObjectStore, data_dir: Path, features: PreprocessSettings) -> DataPlane:
    settings = data_plane_settings(data_dir).model_copy(update={"preprocess": features})
    return create_data_plane(engine, store, settings)


def build(plane: DataPlane) -> dict[str, object]:
    dataset = plane.post("/v1/datasets", {"collection": "clips", "include_waveform": True})["dataset"]
    plane.run_jobs()
    return plane.get(f"/v1/datasets/{dataset}")


def samples_of(plane: DataPlane, dataset: dict[str, object]) -> list[Sample]:
    manifest = load_manifest(plane.store, str(dataset["manifest_key"]), Sha256(str(dataset["manifest_sha256"])))
    return list(read_dataset(plane.store, manifest))


def test_segments_have_what_the_functions_say_and_lack_what_failed(
    engine: Engine, store: ObjectStore, tmp_path: Path, features: PreprocessSettings
) -> None:
    plane = create_plane(engine, store, tmp_path / "data", features)
    plane.post("/v1/collections", {"name": "clips"})
    for path in recordings(3):
        plane.upload("clips", path.read_bytes(), name=path.name)
    plane.run_jobs()

    found = build(plane)

    assert found["states"] == {"done": 3}
    samples = samples_of(plane, found)
    is_full = [sample.meta.num_samples == FULL for sample in samples]
    assert True in is_full
    assert False in is_full
    assert ["full_only" in sample.meta.custom_features for sample in samples] == is_full
    assert found["features_failed"] == {"full_only": len(samples) - sum(is_full)}
    for sample in samples:
        loudest = sample.meta.custom_features["quarters"]
        assert isinstance(loudest, list)
        assert sample.waveform is not None
        assert len(loudest) == 4
        stored = np.abs(sample.waveform[: sample.waveform.size // 4 * 4]).max() / 32767
        assert max(loudest) == pytest.approx(stored, abs=1e-4)
    with read_session(engine) as session:
        config = session.get_one(Dataset, found["dataset"]).config
    assert config["custom_features"] == ["full_only", "quarters"]
    assert DatasetOptions.from_config(config).custom_features == ("full_only", "quarters")
    page = plane.client.get(f"/v1/datasets/{found['dataset']}/report").text
    assert f"measured of {len(samples)} in {len(samples)} segments" in page
    assert f"measured of {sum(is_full)} in {len(samples)} segments" in page


def test_with_and_without_are_two_datasets_and_requests_choose_neither(
    engine: Engine, store: ObjectStore, tmp_path: Path, features: PreprocessSettings
) -> None:
    plain = create_plane(engine, store, tmp_path / "data", PreprocessSettings())
    plain.post("/v1/collections", {"name": "clips"})
    plain.upload("clips", recordings(1)[0].read_bytes())
    plain.run_jobs()
    without = build(plain)
    extended = create_plane(engine, store, tmp_path / "data", features)

    found = build(extended)

    assert found["dataset"] != without["dataset"]
    assert all(not sample.meta.custom_features for sample in samples_of(plain, without))
    assert all("custom_features" not in sample.meta.model_dump_json() for sample in samples_of(plain, without))
    body = {"collection": "clips", "custom_features": ["quarters"]}
    assert extended.client.post("/v1/datasets", json=body).status_code == 422


def test_a_worker_without_the_functions_says_what_it_lacks(
    engine: Engine, store: ObjectStore, tmp_path: Path, features: PreprocessSettings
) -> None:
    plain = create_plane(engine, store, tmp_path / "data", PreprocessSettings())
    plain.post("/v1/collections", {"name": "clips"})
    plain.upload("clips", recordings(1)[0].read_bytes())
    plain.run_jobs()
    extended = create_plane(engine, store, tmp_path / "data", features)
    dataset = extended.post("/v1/datasets", {"collection": "clips"})["dataset"]

    assert plain.run_jobs() == 1

    with read_session(engine) as session:
        (error,) = session.scalars(select(Job.last_error).where(Job.last_error.is_not(None)))
    assert "custom features full_only, quarters" in str(error)
    assert plain.get(f"/v1/datasets/{dataset}")["state"] == "building"


def test_a_function_that_calls_exit_costs_the_dataset_nothing_else(
    engine: Engine, store: ObjectStore, tmp_path: Path, features: PreprocessSettings
) -> None:
    names = (*features.custom_features, *settings_of("leaving").custom_features)
    plane = create_plane(engine, store, tmp_path / "data", PreprocessSettings(custom_features=names))
    plane.post("/v1/collections", {"name": "clips"})
    plane.upload("clips", recordings(1)[0].read_bytes())
    plane.run_jobs()

    found = build(plane)

    assert (found["state"], found["states"]) == ("ready", {"done": 1})
    assert all("quarters" in sample.meta.custom_features for sample in samples_of(plane, found))
    assert all("leaving" not in sample.meta.custom_features for sample in samples_of(plane, found))
