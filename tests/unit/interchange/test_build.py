"""Folders to dataset folders, with the sandboxed decoder, without target models."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from datasets import DatasetDict, load_from_disk
from PIL import Image

from audiofoundation.errors import Conflict, InvalidRequest
from audiofoundation.interchange.pipeline import AudioPreprocessingPipeline
from audiofoundation.interchange.samples import STANDARD_FEATURES
from tests.unit.interchange.folders import ORIGINALS, create_folder, noise_folder, write_noise

PARTS = {
    "processed_dataset",
    "train_val_split",
    "visualizations",
    "dataset_summary.json",
    "processing_metadata.json",
}


@pytest.fixture
def pipeline() -> AudioPreprocessingPipeline:
    return AudioPreprocessingPipeline(whisper_bands=None)


def test_odd_files_become_samples_or_reasons(pipeline: AudioPreprocessingPipeline, tmp_path: Path) -> None:
    good = [
        "speech_8k.flac",
        "ünïcode näme 音声.ogg",
        "kerstin_original.webm",
        "big_buck_bunny_small.mp4",
        "truncated.flac",
    ]
    bad = ["zero_bytes.wav", "silent_3s.wav", "very_short_10ms.wav", "text_renamed.wav"]
    rows = [
        {"audio_file": name, "text": f"about {name}", "emotion": None, "bpm": 60 + i, "tags": ["x", "y"]}
        for i, name in enumerate([*bad, *good])
    ]
    files = {name: ORIGINALS / name for name in [*good, *bad]}
    folder = create_folder(tmp_path / "in", [*rows, {"audio_file": "absent.wav", "text": "x"}], files=files)

    report = pipeline.build_dataset(folder, tmp_path / "out", num_plots=0, val_split=0.2)

    assert {path.name for path in report.out.iterdir()} == PARTS
    assert [skip.file for skip in report.skipped] == ["absent.wav", *bad]
    assert [damage.file for damage in report.damaged] == ["truncated.flac"]
    dataset = load_from_disk(str(report.out / "processed_dataset"))
    assert [row["audio_file"] for row in dataset] == good
    for row, source in zip(dataset, rows[len(bad) :], strict=True):
        assert {name: row[name] for name in source} == source
        samples = np.asarray(row["processed_audio"], np.float32)
        assert row["sample_rate"] == 32_000
        assert np.abs(samples).max() == pytest.approx(1.0, abs=1e-6)
        assert row["audio_features"]["duration"] == pytest.approx(samples.size / 32_000)
        assert set(row["audio_features"]) == STANDARD_FEATURES
        assert len(row["audio_features"]["mfcc_mean"]) == len(row["audio_features"]["mfcc_std"]) == 13
        assert all(np.isfinite(np.asarray(value)).all() for value in row["audio_features"].values())


def test_the_split_holds_every_sample_once(pipeline: AudioPreprocessingPipeline, tmp_path: Path) -> None:
    report = pipeline.build_dataset(noise_folder(tmp_path / "in", 7), tmp_path / "out", num_plots=0, val_split=0.25)

    split = load_from_disk(str(report.out / "train_val_split"))
    assert isinstance(split, DatasetDict)
    assert (report.num_train, report.num_validation) == (len(split["train"]), len(split["validation"])) == (5, 2)
    texts = [*split["train"]["text"], *split["validation"]["text"]]
    assert sorted(texts) == [f"noise {i}" for i in range(7)]


@pytest.mark.parametrize(("count", "share"), [(1, 0.5), (3, 0.0)])
def test_nothing_may_validate(pipeline: AudioPreprocessingPipeline, tmp_path: Path, count: int, share: float) -> None:
    report = pipeline.build_dataset(
        noise_folder(tmp_path / "in", count), tmp_path / "out", num_plots=0, val_split=share
    )

    split = load_from_disk(str(report.out / "train_val_split"))
    assert (len(split["train"]), len(split["validation"])) == (count, 0)
    assert split["validation"].features == split["train"].features


def test_the_summary_counts_and_the_record_says_how(pipeline: AudioPreprocessingPipeline, tmp_path: Path) -> None:
    folder = noise_folder(tmp_path / "in", 3)
    write_noise(folder / "audio" / "extra.wav", 0.2)

    out = pipeline.build_dataset(folder, tmp_path / "out", num_plots=0).out

    summary = json.loads((out / "dataset_summary.json").read_text())
    assert (summary["samples"], summary["train"], summary["validation"], summary["skipped"]) == (3, 2, 1, 0)
    assert summary["style_distribution"] == {"a": 2, "b": 1}
    assert summary["emotion_distribution"] == {"unknown": 3}
    assert summary["total_duration_s"] == pytest.approx(0.9, abs=1e-3)
    centroid = summary["audio_features"]["spectral_centroid"]
    assert centroid["min"] <= centroid["mean"] <= centroid["max"]
    record = json.loads((out / "processing_metadata.json").read_text())
    assert record["settings"]["sample_rate_hz"] == 32_000
    assert record["unlisted"] == ["extra.wav"]
    assert {"audiofoundation", "datasets", "pyarrow"} <= set(record["versions"])
    assert [file["file"] for file in record["files"]] == ["0.wav", "1.wav", "2.wav"]


def test_the_same_bytes_twice_are_one_sample(pipeline: AudioPreprocessingPipeline, tmp_path: Path) -> None:
    folder = noise_folder(tmp_path / "in", 3)
    shutil.copy(folder / "audio" / "0.wav", folder / "audio" / "2.wav")

    report = pipeline.build_dataset(folder, tmp_path / "out", num_plots=0)

    assert [(skip.file, "'0.wav'" in skip.reason) for skip in report.skipped] == [("2.wav", True)]


def test_each_picture_shows_something(pipeline: AudioPreprocessingPipeline, tmp_path: Path) -> None:
    rows = [{"audio_file": f"{i}.wav", "text": "half a $ and 音声 " * 20, "what": "$x$" * 50} for i in range(3)]
    folder = create_folder(tmp_path / "in", rows)
    for i in range(3):
        write_noise(folder / "audio" / f"{i}.wav", 0.3, seed=i)

    out = pipeline.build_dataset(folder, tmp_path / "out", num_plots=2).out

    pictures = sorted((out / "visualizations").iterdir())
    assert [path.name for path in pictures] == ["sample_0_features.png", "sample_1_features.png"]
    with Image.open(pictures[0]) as image:
        width, height = image.size
        pixels = np.asarray(image.convert("RGB"))
    for top, left in ((0, 0), (0, 1), (1, 0), (1, 1)):
        panel = pixels[top * height // 2 :, left * width // 2 :][: height // 2, : width // 2]
        assert panel.std() > 5, "a panel is empty"


def test_a_custom_feature_is_measured_on_the_processed_audio(
    pipeline: AudioPreprocessingPipeline, tmp_path: Path
) -> None:
    pipeline.register_feature("peak", lambda samples, rate_hz: float(np.abs(samples).max()) * rate_hz)

    out = pipeline.build_dataset(noise_folder(tmp_path / "in", 2), tmp_path / "out", num_plots=0).out

    features = load_from_disk(str(out / "processed_dataset"))["audio_features"]
    assert [row["peak"] for row in features] == pytest.approx([32_000.0, 32_000.0])
    assert "peak" in json.loads((out / "dataset_summary.json").read_text())["audio_features"]


@pytest.mark.parametrize("name", ["tempo", "mfcc_mean", "", "two words", "1st"])
def test_a_custom_feature_needs_a_name_of_its_own(pipeline: AudioPreprocessingPipeline, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be named"):
        pipeline.register_feature(name, lambda _samples, _rate_hz: 0.0)


def test_a_second_build_replaces_the_first(pipeline: AudioPreprocessingPipeline, tmp_path: Path) -> None:
    pipeline.build_dataset(noise_folder(tmp_path / "in", 3), tmp_path / "out", num_plots=0)

    report = pipeline.build_dataset(noise_folder(tmp_path / "again", 2), tmp_path / "out", num_plots=0)

    assert len(load_from_disk(str(report.out / "processed_dataset"))) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "in", "out"]


def test_nothing_usable_is_an_error_and_leaves_the_earlier_result(
    pipeline: AudioPreprocessingPipeline, tmp_path: Path
) -> None:
    pipeline.build_dataset(noise_folder(tmp_path / "in", 2), tmp_path / "out", num_plots=0)
    empty = create_folder(tmp_path / "empty", [{"audio_file": "a.wav", "text": "x"}])

    with pytest.raises(InvalidRequest, match="no such file"):
        pipeline.build_dataset(empty, tmp_path / "out", num_plots=0)

    assert len(load_from_disk(str(tmp_path / "out" / "processed_dataset"))) == 2


def test_a_folder_of_somebody_else_is_not_touched(pipeline: AudioPreprocessingPipeline, tmp_path: Path) -> None:
    folder = noise_folder(tmp_path / "in", 1)

    for out in (folder, tmp_path, folder / "audio"):
        with pytest.raises(Conflict):
            pipeline.build_dataset(folder, out)

    assert sorted(path.name for path in folder.iterdir()) == ["audio", "metadata.json"]


def test_progress_is_told(pipeline: AudioPreprocessingPipeline, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    pipeline.build_dataset(
        noise_folder(tmp_path / "in", 2),
        tmp_path / "out",
        num_plots=0,
        on_progress=lambda done, total: told.append((done, total)),
    )

    assert told == [(0, 2), (1, 2), (2, 2)]
