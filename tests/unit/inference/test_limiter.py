"""The limiter: nothing above the ceiling, everything quiet untouched, the same in any pieces."""

import numpy as np
import pytest

from audiofoundation.features.mel import Float32
from audiofoundation.inference.limiter import StreamingLimiter

CEILING = 10 ** (-0.5 / 20)


def limit(samples: Float32, sizes: list[int]) -> Float32:
    limiter, parts, start = StreamingLimiter(), [], 0
    for size in sizes:
        parts.append(limiter.push(samples[start : start + size]))
        start += size
    return np.concatenate([*parts, limiter.push(samples[start:]), limiter.finish()])


def noise(gain: float, num_samples: int = 30000) -> Float32:
    drawn = np.random.default_rng(0).standard_normal(num_samples)
    swell = 1 + np.sin(np.arange(num_samples) / 3000)
    return (gain * drawn * swell).astype(np.float32)


def test_quiet_sound_passes_bit_for_bit() -> None:
    samples = np.clip(noise(0.1), -0.9, 0.9)

    assert np.array_equal(limit(samples, [1000, 5, 0, 7000]), samples)


@pytest.mark.parametrize("gain", [0.4, 2.0, 50.0])
def test_loud_sound_stays_below_the_ceiling_without_being_clipped(gain: float) -> None:
    samples = noise(gain)

    limited = limit(samples, [])

    assert np.abs(limited).max() <= CEILING * (1 + 1e-5)
    assert np.mean(np.abs(limited) > 0.999 * CEILING) < 0.01
    gains = limited[samples != 0] / samples[samples != 0]
    assert np.abs(np.diff(gains)).max() < 0.05  # turned down smoothly


def test_any_division_gives_the_same() -> None:
    samples = noise(1.5)

    whole = limit(samples, [])

    for sizes in ([1] * 500, [119, 121, 480, 3], [6144] * 4):
        np.testing.assert_allclose(limit(samples, sizes), whole, atol=2e-6)
