"""Descriptors equal librosa's; tones, clicks and silence give what they must."""

import librosa
import numpy as np
import pytest
from librosa.effects import hpss
from numpy.typing import NDArray

from audiofoundation.errors import FeatureFailed
from audiofoundation.features.custom import measure_custom
from audiofoundation.features.descriptors import Descriptors, combine, describe, describe_briefly

Wave = NDArray[np.float32]


def band_like(seconds: float, sample_rate_hz: int, *, bpm: float = 96.0) -> Wave:
    """Chords over clicks at a tempo, some noise, a silent beginning."""
    rng = np.random.default_rng(7)
    t = np.arange(int(seconds * sample_rate_hz)) / sample_rate_hz
    chord = sum(np.sin(2 * np.pi * f * t * (1 + 0.5 * (t // 2))) for f in (110.0, 138.6, 164.8))
    clicks = rng.standard_normal(t.size) * np.exp(-60 * (t % (60 / bpm)))
    wave = 0.08 * chord + 0.3 * clicks + 0.001 * rng.standard_normal(t.size)
    wave[: sample_rate_hz // 3] = 0
    return np.asarray(wave, np.float32)


def by_librosa(wave: Wave, rate_hz: int) -> dict[str, float]:
    harmonic, percussive = hpss(wave)
    energy = float(np.square(harmonic).sum())
    return {
        "spectral_centroid_hz": librosa.feature.spectral_centroid(y=wave, sr=rate_hz).mean(),
        "spectral_bandwidth_hz": librosa.feature.spectral_bandwidth(y=wave, sr=rate_hz).mean(),
        "spectral_rolloff_hz": librosa.feature.spectral_rolloff(y=wave, sr=rate_hz).mean(),
        "zero_crossing_rate": librosa.feature.zero_crossing_rate(wave).mean(),
        "rms": librosa.feature.rms(y=wave).mean(),
        "tempo_bpm": librosa.feature.tempo(y=wave, sr=rate_hz)[0],
        "duration_s": wave.size / rate_hz,
        "harmonic_ratio": energy / (energy + float(np.square(percussive).sum())),
    }


@pytest.mark.parametrize(("rate_hz", "seconds"), [(24000, 6.0), (32000, 10.3), (22050, 1.0)])
def test_every_descriptor_equals_librosa(rate_hz: int, seconds: float) -> None:
    wave = band_like(seconds, rate_hz)
    ours = describe(wave, rate_hz)
    for name, value in by_librosa(wave, rate_hz).items():
        # librosa adds the parts up as waveforms, where overlapping frames interfere a little.
        tolerance = 0.02 if name == "harmonic_ratio" else 1e-4
        assert getattr(ours, name) == pytest.approx(value, rel=tolerance), name
    mfcc = librosa.feature.mfcc(y=wave, sr=rate_hz, n_mfcc=13)
    np.testing.assert_allclose(ours.mfcc_mean, mfcc.mean(axis=1), atol=2e-3)
    np.testing.assert_allclose(ours.mfcc_std, mfcc.std(axis=1), atol=2e-3)


def test_a_beat_is_counted_and_a_tone_is_harmonic() -> None:
    assert describe(band_like(12, 24000, bpm=100), 24000).tempo_bpm == pytest.approx(100, rel=0.03)
    t = np.arange(48000) / 24000
    tone = np.asarray(0.5 * np.sin(2 * np.pi * 440 * t), np.float32)
    clicks = np.zeros(48000, np.float32)
    clicks[6000::12000] = 0.9
    sustained, sudden = describe(tone, 24000).harmonic_ratio, describe(clicks, 24000).harmonic_ratio
    assert sustained is not None
    assert sudden is not None
    assert sustained > 0.95
    assert sudden < 0.05


@pytest.mark.parametrize("num_samples", [1, 300, 24000])
def test_silence_and_scraps_give_finite_numbers(num_samples: int) -> None:
    found = describe(np.zeros(num_samples, np.float32), 24000)
    assert (found.spectral_centroid_hz, found.rms, found.tempo_bpm, found.harmonic_ratio) == (0.0, 0.0, 0.0, 0.0)
    assert np.isfinite(found.mfcc_mean).all()


@pytest.mark.parametrize("num_samples", [300, 24000, 72000])
def test_the_cepstrum_of_silence_is_its_level_and_nothing_else(num_samples: int) -> None:
    silence = np.zeros(num_samples, np.float32)
    for found in (describe(silence, 24000), describe_briefly(silence, 24000)[0]):
        assert found.mfcc_mean == (pytest.approx(-100 * np.sqrt(128)), *([0.0] * 12))
        assert found.mfcc_std == (0.0,) * 13


def test_rhythm_is_left_out_when_not_wanted() -> None:
    found: Descriptors = describe(band_like(1, 24000), 24000, has_rhythm=False)
    assert found.tempo_bpm is None
    assert found.harmonic_ratio is None


def test_custom_features_must_be_finite_numbers() -> None:
    wave = band_like(1, 24000)
    assert measure_custom(wave, 24000, {"peak": lambda x, _: float(x.max())}) == {"peak": float(wave.max())}
    with pytest.raises(FeatureFailed, match="'bad'"):
        measure_custom(wave, 24000, {"bad": lambda *_: float("nan")})
    with pytest.raises(ValueError, match="mono"):
        describe(np.zeros((2, 5), np.float32), 24000)


def test_brief_parts_add_up_to_about_the_whole() -> None:
    wave = band_like(12, 24000)
    parts = [describe_briefly(wave[start : start + 72000], 24000)[0] for start in range(0, wave.size, 72000)]
    whole, brief = describe(wave, 24000, has_rhythm=False), combine(parts)
    assert brief.duration_s == pytest.approx(whole.duration_s)
    for name in ("spectral_centroid_hz", "spectral_bandwidth_hz", "spectral_rolloff_hz", "zero_crossing_rate", "rms"):
        # A fourth of the frames: an estimate of the same means.
        assert getattr(brief, name) == pytest.approx(getattr(whole, name), rel=0.1), name
    np.testing.assert_allclose(brief.mfcc_mean[1:], whole.mfcc_mean[1:], atol=6)
    one, other = parts[0], parts[1]
    both = combine([one, other])
    mean = np.mean([one.mfcc_mean, other.mfcc_mean], axis=0)
    square = np.mean([np.square(p.mfcc_mean) + np.square(p.mfcc_std) for p in (one, other)], axis=0)
    np.testing.assert_allclose(both.mfcc_std, np.sqrt(square - mean**2), rtol=1e-9)


def test_a_brief_description_of_a_scrap_is_finite_and_comes_with_its_spectrum() -> None:
    found, power = describe_briefly(np.full(10, 0.5, np.float32), 24000)
    assert found.duration_s == pytest.approx(10 / 24000)
    assert power.shape == (1025,)
    assert all(np.isfinite(value).all() for value in (power, found.mfcc_mean, found.mfcc_std))
    assert found.rounded().rms == pytest.approx(found.rms, rel=1e-5)
