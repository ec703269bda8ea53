"""Functions of a user's own in a build: what they give is kept, and where they fail a file is skipped."""

import json
from pathlib import Path

import numpy as np
import pytest
from datasets import load_from_disk

from audiofoundation.errors import FeatureFailed, InvalidRequest
from audiofoundation.features.custom import FeatureFunction
from audiofoundation.features.mel import Float32
from audiofoundation.interchange.build import BuildReport
from audiofoundation.interchange.pipeline import AudioPreprocessingPipeline
from tests.unit.interchange.folders import create_folder, noise_folder, write_noise

SECONDS = (0.3, 0.6, 0.4)  # lengths by which a function knows a recording


@pytest.fixture
def pipeline() -> AudioPreprocessingPipeline:
    return AudioPreprocessingPipeline(whisper_bands=None)


def build(pipeline: AudioPreprocessingPipeline, tmp_path: Path) -> BuildReport:
    """Build three recordings; only the second is longer than half a second."""
    folder = create_folder(tmp_path / "in", [{"audio_file": f"{i}.wav", "text": "noise"} for i in range(len(SECONDS))])
    for i, seconds in enumerate(SECONDS):
        write_noise(folder / "audio" / f"{i}.wav", seconds, seed=i)
    return pipeline.build_dataset(folder, tmp_path / "out", num_plots=0)


def features(report: BuildReport, part: str = "processed_dataset") -> list[dict[str, object]]:
    return list(load_from_disk(str(report.out / part))["audio_features"])


def except_when_long(usual: object, otherwise: object) -> FeatureFunction:
    def measure(samples: Float32, rate_hz: int) -> float:
        given = otherwise if samples.size > rate_hz / 2 else usual
        if isinstance(given, Exception):
            raise given
        return given  # type: ignore[return-value]  # what a user's function gives is not checked before it runs

    return measure


def test_sequences_and_numbers_of_any_kind_are_kept_as_floats(
    pipeline: AudioPreprocessingPipeline, tmp_path: Path
) -> None:
    pipeline.register_feature("peaks", lambda samples, _: [samples.max(), samples.min()])
    pipeline.register_feature(
        "quarters", lambda samples, _: np.abs(samples[: samples.size // 4 * 4]).reshape(4, -1).max(1)
    )
    pipeline.register_feature("one", lambda *_: (7,))
    pipeline.register_feature("count", lambda samples, _: np.int16(samples.size > 0))

    report = build(pipeline, tmp_path)

    assert not report.skipped
    for row in features(report):
        assert [type(row[name]) for name in ("peaks", "quarters", "one", "count")] == [list, list, list, float]
        assert (row["one"], row["count"]) == ([7.0], 1.0)
        assert max(map(abs, row["peaks"])) == pytest.approx(1.0) == pytest.approx(max(row["quarters"]))  # type: ignore[call-overload]
    summary = json.loads((report.out / "dataset_summary.json").read_text())["audio_features"]
    assert "count" in summary
    assert "peaks" not in summary


@pytest.mark.parametrize(
    ("usual", "otherwise", "reason"),
    [
        (1.0, ZeroDivisionError("nothing\nthere \udc80"), r"failed: ZeroDivisionError: nothing there \\udc80$"),
        (1.0, InvalidRequest("no"), "failed: InvalidRequest: no"),
        (1.0, float("inf"), "gave inf: numbers must be finite"),
        ([1.0, 2.0], [1.0, float("nan")], "gave nan at place 1"),
        (1.0, "1.0", "gave str: it must be a number or a flat sequence"),
        (1.0, None, "gave NoneType"),
        (1.0, 1 + 2j, "gave complex"),
        ([1.0], [0.0] * 4097, "gave 4097 numbers: 4096 are the most"),
        ([1.0], [], r"gave an array of shape \(0,\)"),
        ([1.0], [[1.0]], r"gave an array of shape \(1, 1\)"),
        ([1.0], [[1.0], [1.0, 2.0]], "failed: ValueError"),
        ([1.0, 2.0], [1.0], "gave a sequence of length 1, but a sequence of length 2 the first time"),
        (1.0, [1.0], "gave a sequence of length 1, but a number by itself the first time"),
        ([1.0], 1.0, "gave a number by itself, but a sequence of length 1 the first time"),
    ],
)
def test_a_file_with_which_a_function_fails_is_skipped_by_name_and_reason(
    pipeline: AudioPreprocessingPipeline, tmp_path: Path, usual: object, otherwise: object, reason: str
) -> None:
    pipeline.register_feature("good", lambda *_: 1.0)
    pipeline.register_feature("odd", except_when_long(usual, otherwise))

    report = build(pipeline, tmp_path)

    assert [skip.file for skip in report.skipped] == ["1.wav"]
    with pytest.raises(ValueError, match=f"the feature 'odd' {reason}"):
        raise ValueError(report.skipped[0].reason)
    assert [row["odd"] for row in features(report)] == [usual, usual]
    record = json.loads((report.out / "processing_metadata.json").read_text())
    assert record["skipped"] == [{"file": "1.wav", "reason": report.skipped[0].reason}]


def test_the_first_sample_that_is_kept_says_how_long_a_feature_is(
    pipeline: AudioPreprocessingPipeline, tmp_path: Path
) -> None:
    pipeline.register_feature("length", lambda samples, rate: [1.0] * (1 + (samples.size > rate / 2)))
    write_noise(noise_folder(tmp_path / "in", 3) / "audio" / "0.wav", 0.01)  # too short to become a sample
    write_noise(tmp_path / "in" / "audio" / "1.wav", 0.6)

    report = pipeline.build_dataset(tmp_path / "in", tmp_path / "out", num_plots=0)

    assert [skip.file for skip in report.skipped] == ["0.wav", "2.wav"]
    assert [row["length"] for row in features(report)] == [[1.0, 1.0]]


def test_a_feature_that_fails_with_every_file_is_named_as_the_cause(
    pipeline: AudioPreprocessingPipeline, tmp_path: Path
) -> None:
    pipeline.register_feature("broken", lambda samples, _: samples.absent)  # type: ignore[attr-defined]

    with pytest.raises(InvalidRequest, match=r"the feature 'broken' failed with 3 of 3 recordings.*AttributeError"):
        build(pipeline, tmp_path)

    assert not (tmp_path / "out").exists()


def test_a_function_cannot_change_the_samples_of_others(pipeline: AudioPreprocessingPipeline, tmp_path: Path) -> None:
    def silence(samples: Float32, _rate_hz: int) -> float:
        samples[:] = 0.0
        return 0.0

    pipeline.register_feature("silence", silence)
    pipeline.register_feature("peak", lambda samples, _: float(np.abs(samples).max()))

    report = build(pipeline, tmp_path)

    assert [row["peak"] for row in features(report)] == pytest.approx([1.0] * 3)
    processed = load_from_disk(str(report.out / "processed_dataset"))["processed_audio"]
    assert all(max(samples) > 0 for samples in processed)


def test_one_recording_says_which_feature_failed(pipeline: AudioPreprocessingPipeline, tmp_path: Path) -> None:
    pipeline.register_feature("nothing", lambda *_: None)  # type: ignore[arg-type]

    with pytest.raises(FeatureFailed) as failed:
        pipeline.process(write_noise(tmp_path / "a.wav", 0.3), "noise")

    assert failed.value.feature == "nothing"
