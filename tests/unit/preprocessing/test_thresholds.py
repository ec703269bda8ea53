"""What a segment must be like, and what happens to a recording's segments that are not."""

from pathlib import Path

import pytest

from audiofoundation.audio.quality import QualityMeasures
from audiofoundation.errors import InvalidRequest
from audiofoundation.identifiers import AssetId, CollectionId, ItemId, Sha256
from audiofoundation.preprocessing.options import DatasetOptions, dataset_id_of
from audiofoundation.preprocessing.recording import RecordingToCut, cut_recording
from audiofoundation.preprocessing.thresholds import QualityThresholds
from audiofoundation.training.shards_corpus import build_corpus
from tests.data_plane import RECORDINGS

COLLECTION = CollectionId("col_1")
NAME = RecordingToCut(ItemId("item_1"), AssetId("asset_1"), Sha256("0" * 64), "raw/1")
MEASURED = QualityMeasures(
    duration_s=3.0,
    peak=0.5,
    rms_db=-23.0,
    clipped_ratio=0.01,
    silence_ratio=0.25,
    dc_offset=0.0,
    centroid_hz=800.0,
    bandwidth_hz=7000.0,
)
# One that the segment just meets, and one that it just misses.
BOUNDS = {
    "max_silence_ratio": (0.25, 0.24),
    "max_clipped_ratio": (0.01, 0.0),
    "min_rms_dbfs": (-23.0, -22.9),
    "min_centroid_hz": (800.0, 801.0),
    "min_bandwidth_hz": (7000.0, 7001.0),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_a_segment_on_the_threshold_stays_and_one_beyond_misses_it(name: str) -> None:
    met, missed = BOUNDS[name]
    assert QualityThresholds(**{name: met}).first_missed(MEASURED) is None
    assert QualityThresholds(**{name: missed}).first_missed(MEASURED) == name


def test_a_segment_is_counted_under_the_first_threshold_that_it_misses() -> None:
    missed = {name: bounds[1] for name, bounds in BOUNDS.items()}
    assert QualityThresholds(**missed).first_missed(MEASURED) == "max_silence_ratio"
    del missed["max_silence_ratio"], missed["max_clipped_ratio"]
    assert QualityThresholds(**missed).first_missed(MEASURED) == "min_rms_dbfs"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_silence_ratio", -0.1),
        ("max_silence_ratio", float("nan")),
        ("max_clipped_ratio", 1.5),
        ("min_rms_dbfs", 3.0),
        ("min_rms_dbfs", float("-inf")),
        ("min_centroid_hz", -1.0),
        ("min_bandwidth_hz", 12_001.0),  # vocos24 has no sound above 12 kHz
        ("min_bandwidth_hz", float("inf")),
    ],
)
def test_a_threshold_out_of_range_says_which_and_what_may_be(name: str, value: float) -> None:
    with pytest.raises(InvalidRequest, match=rf"{name} is .*, it must lie between .* and .*") as refused:
        DatasetOptions(thresholds=QualityThresholds(**{name: value}))
    assert refused.value.param == name


def test_thresholds_make_another_dataset_and_none_leave_its_id_as_it_was() -> None:
    plain = dataset_id_of(COLLECTION, DatasetOptions())
    assert plain == "ds_ed626e850644e7c60776332cd73f228c", "datasets that are there would be made again"
    ids = {
        dataset_id_of(COLLECTION, DatasetOptions(thresholds=QualityThresholds(**{name: value})))
        for name, bounds in BOUNDS.items()
        for value in bounds
    }
    assert len(ids | {plain}) == 2 * len(BOUNDS) + 1


def test_thresholds_survive_the_catalog_and_those_of_old_datasets_judge_nothing() -> None:
    options = DatasetOptions(thresholds=QualityThresholds(max_clipped_ratio=0.0, min_rms_dbfs=-40.0))
    assert options.to_config()["thresholds"] == {"max_clipped_ratio": 0.0, "min_rms_dbfs": -40.0}
    assert DatasetOptions.from_config(options.to_config()) == options
    assert DatasetOptions.from_config(DatasetOptions().to_config()).thresholds == QualityThresholds()


def test_what_is_left_of_a_recording_is_not_joined_over_the_gaps(tmp_path: Path) -> None:
    options = DatasetOptions(include_waveform=True)
    path = RECORDINGS / "music-macleod-bossa-antigua.ogg"
    whole = list(cut_recording(path, NAME, options, work_dir=tmp_path))
    centroids = [sample.meta.quality.centroid_hz for sample in whole if sample.meta.quality is not None]
    thresholds = QualityThresholds(min_centroid_hz=180.0)
    kept = [s for s in whole if s.meta.quality is not None and thresholds.first_missed(s.meta.quality) is None]
    indices = [sample.meta.segment_index for sample in kept]
    assert indices == [index for index, centroid_hz in enumerate(centroids) if centroid_hz >= 180.0] == [1, 3, 5]
    assert len(build_corpus(whole, options.mel, tmp_path / "whole").recordings) == 1
    assert len(build_corpus(kept, options.mel, tmp_path / "kept").recordings) == 3
