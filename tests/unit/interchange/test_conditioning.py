import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from librosa.effects import trim

from audiofoundation.errors import AudioFoundationError, DecodeFailed, InvalidRequest
from audiofoundation.interchange.conditioning import Conditioning, condition_file, nonsilent_span
from tests.unit.interchange.folders import ORIGINALS, write_noise

TARGET = Conditioning()
MANIFEST = [json.loads(line) for line in (ORIGINALS / "manifest.jsonl").read_text().splitlines()]
SOUNDS = [row for row in MANIFEST if row["expect_decodes"] and not row["path"].startswith(("silent", "one_", "very_"))]
GOOD = [row["path"] for row in SOUNDS]


@pytest.mark.parametrize("top_db", [20.0, 40.0, 60.0])
@pytest.mark.parametrize("length", [1, 511, 512, 2047, 2048, 33_333])
def test_trimming_is_librosas(length: int, top_db: float) -> None:
    random = np.random.default_rng(length)
    envelope = np.interp(np.arange(length), np.linspace(0, length, 12), random.uniform(0, 1, 12) ** 6)
    samples = (random.normal(0, 0.3, length) * envelope).astype(np.float32)

    span = nonsilent_span(samples, top_db=top_db)

    _, (start, stop) = trim(samples, top_db=top_db)
    assert (span.start, span.stop) == (start, stop)


@pytest.mark.parametrize("name", GOOD)
def test_every_container_rate_and_number_of_channels_becomes_the_same_form(name: str) -> None:
    found = condition_file(ORIGINALS / name, TARGET)

    assert found.samples.dtype == np.float32
    assert found.samples.ndim == 1
    assert 0 < found.samples.size <= 30 * 32_000
    assert np.abs(found.samples).max() == pytest.approx(1.0, abs=1e-6)
    assert np.isfinite(found.samples).all()


def test_there_are_many_kinds_of_files_to_try() -> None:
    assert len(GOOD) > 15


@pytest.mark.parametrize("name", ["truncated.flac", "librivox_p001.flac"])
def test_damage_is_told_and_what_came_before_it_is_used(name: str) -> None:
    assert condition_file(ORIGINALS / name, TARGET).damage is not None


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("very_short_10ms.wav", InvalidRequest, "shorter than one analysis window"),
        ("one_sample.wav", DecodeFailed, "no audio samples"),
        ("silent_3s.wav", InvalidRequest, "silent"),
        ("zero_bytes.wav", DecodeFailed, "empty"),
        ("text_renamed.wav", DecodeFailed, "text"),
        ("truncated_header.wav", DecodeFailed, "damaged"),
    ],
)
def test_what_is_no_sound_is_refused_in_words(name: str, error: type[AudioFoundationError], words: str) -> None:
    with pytest.raises(error, match=words):
        condition_file(ORIGINALS / name, TARGET)


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    samples = np.full(16_000, np.nan, np.float32)
    soundfile.write(tmp_path / "nan.wav", samples, 16_000, subtype="FLOAT")

    with pytest.raises(AudioFoundationError):
        condition_file(tmp_path / "nan.wav", TARGET)


def test_channels_are_mixed_and_a_long_recording_is_cut(tmp_path: Path) -> None:
    found = condition_file(write_noise(tmp_path / "long.wav", 3.0, num_channels=2), Conditioning(max_duration_s=1.5))

    assert found.samples.size == 1.5 * 32_000
    assert found.source_duration_s == pytest.approx(3.0)


def test_silence_at_both_ends_goes(tmp_path: Path) -> None:
    tone = 0.4 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    samples = np.concatenate([np.zeros(16_000), tone, 0.001 * np.ones(16_000)])
    soundfile.write(tmp_path / "padded.wav", samples, 16_000)

    found = condition_file(tmp_path / "padded.wav", TARGET)

    assert found.samples.size / 32_000 == pytest.approx(1.0, abs=2 * 2048 / 32_000)


@pytest.mark.parametrize("wrong", [{"sample_rate_hz": 0}, {"max_duration_s": 0.0}, {"trim_db": 0.0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Conditioning(**wrong)  # type: ignore[arg-type]
