"""Measures on sound whose properties are known, and on real recordings."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import signal

from audiofoundation.audio.decode import DecodeLimits, decode_file
from audiofoundation.audio.fidelity import Fidelity, measure_fidelity
from audiofoundation.audio.resample import resample
from audiofoundation.audio.waveform import Waveform

RATE = 48_000
DATA = Path(__file__).parents[2] / "data"
Samples = NDArray[np.float64]


def noise(seconds: float = 8.0, *, dbfs: float = -26.0, rate: int = RATE) -> Samples:
    return np.random.default_rng(1).standard_normal(round(seconds * rate)) * 10 ** (dbfs / 20)


def sine(hz: float, *, amplitude: float, seconds: float = 8.0) -> Samples:
    found: Samples = amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)
    return found


def measured(samples: Samples, *, rate: int = RATE) -> Fidelity:
    return measure_fidelity([Waveform(np.atleast_2d(samples).astype(np.float32), rate)])


@pytest.mark.parametrize("hz", [2000, 4000, 8000, 11_025, 16_000, 20_000])
def test_low_passed_noise_ends_at_the_filter(hz: int) -> None:
    sections = signal.ellip(10, 0.1, 80, hz, output="sos", fs=RATE)
    assert measured(signal.sosfilt(sections, noise())).cutoff_hz == pytest.approx(hz, rel=0.05)


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 32_000])
def test_upsampled_sound_ends_at_half_its_first_rate(rate: int) -> None:
    upsampled = resample(Waveform(noise(rate=rate)[None].astype(np.float32), rate), RATE)
    assert measure_fidelity([upsampled]).cutoff_hz == pytest.approx(rate / 2, rel=0.05)


def test_sound_without_a_cliff_reaches_half_the_rate() -> None:
    assert measured(noise()).cutoff_hz == RATE / 2
    spectrum = np.fft.rfft(noise())
    sloping = np.fft.irfft(spectrum / np.maximum(np.arange(len(spectrum)), 1000))
    assert measured(sloping * 1000).cutoff_hz == RATE / 2
    assert measured(sine(440, amplitude=0.2)).cutoff_hz == RATE / 2, "a tone has no band to end"


@pytest.mark.parametrize("mains_hz", [50, 60])
@pytest.mark.parametrize("dbfs", [-50.0, -30.0])
def test_hum_is_measured_at_its_level(mains_hz: int, dbfs: float) -> None:
    amplitude = math.sqrt(2) * 10 ** (dbfs / 20)
    found = measured(noise(dbfs=-40) + sine(mains_hz * 1.001, amplitude=amplitude))
    assert found.hum_hz == mains_hz
    assert found.hum_dbfs == pytest.approx(dbfs, abs=1.0)
    assert found.hum_to_signal_db == pytest.approx(found.hum_dbfs - found.rms_dbfs)


def test_harmonics_count_and_a_missing_fundamental_does_not_hide_them() -> None:
    lines = sum((sine(hz, amplitude=0.01) for hz in (100, 200, 300)), noise(dbfs=-60))
    found = measured(lines)
    assert found.hum_hz == 50
    assert found.hum_dbfs == pytest.approx(10 * math.log10(3 * 0.01**2 / 2), abs=1.0)


def test_notes_are_no_hum() -> None:
    melody = np.concatenate([sine(hz, amplitude=0.3, seconds=1.0) for hz in (49, 55, 62, 98, 49, 73, 120, 55)])
    assert measured(melody + noise(dbfs=-50)).hum_hz == 0
    assert measured(noise()).hum_hz == 0


def test_clipped_samples_are_counted() -> None:
    wave = sine(441, amplitude=2.0)
    share = float((np.abs(wave) >= 0.999).mean())
    assert measured(np.clip(wave, -1, 1)).clipped_ratio == pytest.approx(share, rel=0.02)
    assert measured(wave / 2.1).clipped_ratio == 0
    one_channel = np.stack([np.clip(wave, -1, 1), wave * 0])
    assert measured(one_channel).clipped_ratio == pytest.approx(share / 2, rel=0.02), "mixing would hide it"


@pytest.mark.parametrize("dbfs", [-70.0, -50.0, -25.0])
def test_the_noise_floor_lies_under_sound_that_comes_and_goes(dbfs: float) -> None:
    is_on = np.arange(8 * RATE) % RATE < RATE // 2
    assert measured(noise(dbfs=dbfs) + sine(440, amplitude=0.3) * is_on).noise_floor_dbfs == pytest.approx(dbfs, abs=2)


def test_the_average_frequency() -> None:
    assert measured(noise()).centroid_hz == pytest.approx(RATE / 4, rel=0.02)
    assert measured(sine(1000, amplitude=0.3)).centroid_hz == pytest.approx(1000, rel=0.02)


def test_silence_is_silent() -> None:
    found = measured(np.zeros(RATE * 3))
    assert (found.silence_ratio, found.hum_hz, found.noise_floor_dbfs) == (1.0, 0.0, -140.0)
    half = np.concatenate([noise(4.0), np.zeros(4 * RATE)])
    assert measured(half).silence_ratio == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("num_samples", [1, 7, 100, 5000, 96_001])
def test_every_value_is_finite_however_short(num_samples: int) -> None:
    for samples in (np.zeros(num_samples), np.ones(num_samples), noise()[:num_samples]):
        assert all(math.isfinite(value) for value in dataclasses.astuple(measured(samples)))


def test_excerpts_are_judged_as_one() -> None:
    parts = [Waveform(noise(4.0)[None].astype(np.float32), RATE) for _ in range(3)]
    assert measure_fidelity(parts).measured_s == 12.0
    with pytest.raises(ValueError, match="differ"):
        measure_fidelity([parts[0], Waveform(parts[0].samples, 44_100)])
    with pytest.raises(ValueError, match="nothing"):
        measure_fidelity([])


@pytest.mark.parametrize(
    ("name", "cutoff_hz"),
    [
        ("recordings/speech-pmatthes-LJ001-0001.opus", 12_000),  # made at 24 kHz, in Opus at 48 kHz
        ("recordings/speech-nathalie-nl-rhasspy-105*", 12_000),
        ("recordings/speech-kerstin-de-rhasspy-1561*", 12_000),
        ("recordings/music-opensurge-speed.ogg", 12_000),  # 24 kHz, full band
        ("recordings/music-macleod-night-on-the-docks-sax.ogg", 12_000),  # long notes, little else
        ("originals/speech_8k.flac", 4000),
    ],
)
def test_real_recordings_end_where_they_were_made_to(name: str, cutoff_hz: float) -> None:
    (path,) = DATA.glob(name)
    decoded = decode_file(path, limits=DecodeLimits(max_duration_s=60, max_bytes=1 << 24))
    found = measure_fidelity([decoded.waveform])
    assert found.cutoff_hz == pytest.approx(cutoff_hz, rel=0.05)
    assert found.silence_ratio < 0.5
    assert found.noise_floor_dbfs < -25


def test_a_real_clipped_recording_is_seen() -> None:
    decoded = decode_file(DATA / "originals" / "clipped.wav", limits=DecodeLimits(max_duration_s=60, max_bytes=1 << 24))
    assert measure_fidelity([decoded.waveform]).clipped_ratio > 0.1
