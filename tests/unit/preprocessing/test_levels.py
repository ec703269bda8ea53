from collections.abc import Iterator

import numpy as np
import pytest

from audiofoundation.audio.loudness import integrated_loudness
from audiofoundation.audio.waveform import Waveform
from audiofoundation.native import OFF, kernels
from audiofoundation.preprocessing.levels import Float32, LevelMeter, Levels

RATE_HZ = 24_000


@pytest.fixture(params=["compiled", "numpy"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(OFF, "0" if request.param == "numpy" else "1")
    kernels.cache_clear()
    yield
    kernels.cache_clear()


def noise(seconds: float, *, level: float = 0.1, seed: int = 0) -> Float32:
    rng = np.random.default_rng(seed)
    return (level * rng.standard_normal(round(seconds * RATE_HZ))).astype(np.float32)


def measure(samples: Float32, block: int) -> Levels:
    meter = LevelMeter(RATE_HZ)
    for start in range(0, samples.size, block):
        meter.push(samples[None, start : start + block])
    return meter.finish()


@pytest.mark.parametrize("block", [777, 24_000, 10**6])
@pytest.mark.parametrize("seconds", [0.01, 0.39, 0.4, 3.21])
def test_blocks_give_the_loudness_of_the_whole(block: int, seconds: float) -> None:
    samples = noise(seconds)
    whole = integrated_loudness(Waveform(samples[None], RATE_HZ))
    assert measure(samples, block).loudness_lufs == pytest.approx(whole, abs=1e-6)


def test_the_ends_of_sound_are_found_within_their_margin() -> None:
    samples = np.concatenate([np.zeros(12_345, np.float32), noise(1.0), np.zeros(54_321, np.float32)])
    levels = measure(samples, 1000)
    margin = round(0.05 * RATE_HZ)
    assert 12_345 - margin - 240 <= levels.first_sound <= 12_345
    assert 36_345 <= levels.last_sound <= 36_345 + margin + 240


def test_a_quiet_hiss_is_silence_and_a_soft_voice_is_not() -> None:
    hiss, voice = noise(1.0, level=10 ** (-70 / 20)), noise(1.0, level=10 ** (-50 / 20))
    assert measure(hiss, 1000).first_sound == measure(hiss, 1000).last_sound
    assert (measure(voice, 1000).first_sound, measure(voice, 1000).last_sound) == (0, RATE_HZ)


def test_nothing_has_no_sound() -> None:
    levels = measure(np.zeros(0, np.float32), 10)
    assert levels == Levels(float("-inf"), 0.0, 0, 0)
    assert levels.gain_to(-23.0) == 1.0


def test_channels_are_measured_as_their_mix_but_for_the_peak() -> None:
    left, right = noise(1.0, level=0.2), noise(1.0, level=0.01, seed=1)
    meter = LevelMeter(RATE_HZ)
    meter.push(np.stack([left, right]))
    found, mix = meter.finish(), measure((left + right) / np.float32(2), 10**6)

    assert found.loudness_lufs == pytest.approx(mix.loudness_lufs, abs=1e-5)
    assert (found.first_sound, found.last_sound) == (mix.first_sound, mix.last_sound)
    assert found.peak == np.abs(left).max() > mix.peak


def test_gain_reaches_the_target_unless_the_peak_forbids() -> None:
    quiet = Levels(loudness_lufs=-43.0, peak=0.01, first_sound=0, last_sound=1)
    assert quiet.gain_to(-23.0) == pytest.approx(10.0)
    spiky = Levels(loudness_lufs=-43.0, peak=0.5, first_sound=0, last_sound=1)
    assert spiky.gain_to(-23.0) * 0.5 == pytest.approx(10 ** (-1 / 20))
    assert spiky.gain_to(None) == 1.0
