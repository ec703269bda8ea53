"""BS.1770-4 against the standard's reference values and EBU Tech 3341's test signals."""

import math

import numpy as np
import pytest

from audiofoundation.audio.loudness import integrated_loudness, k_weighting, normalize_loudness
from audiofoundation.audio.waveform import Waveform


def sine(
    level_dbfs: float, duration_s: float, *, rate_hz: int = 48000, hz: float = 1000, channels: int = 2
) -> Waveform:
    time_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    tone = 10 ** (level_dbfs / 20) * np.sin(2 * np.pi * hz * time_s)
    return Waveform(np.tile(tone.astype(np.float32), (channels, 1)), rate_hz)


def joined(*parts: Waveform) -> Waveform:
    return Waveform(np.hstack([part.samples for part in parts]), parts[0].sample_rate_hz)


def test_filters_at_48_khz_are_those_of_the_standard() -> None:
    shelf = [1.53512485958697, -2.69169618940638, 1.19839281085285, 1.0, -1.69065929318241, 0.73248077421585]
    high_pass = [1.0, -2.0, 1.0, 1.0, -1.99004745483398, 0.99007225036621]

    np.testing.assert_allclose(k_weighting(48000), [shelf, high_pass], atol=1e-8)


def test_full_scale_sine_in_one_channel() -> None:
    """BS.1770-4: 0 dB FS at 997 Hz in one channel reads -3.01 LKFS."""
    assert integrated_loudness(sine(0, 5, hz=997, channels=1)) == pytest.approx(-3.01, abs=0.005)


@pytest.mark.parametrize("rate_hz", [8000, 16000, 22050, 24000, 32000, 44100, 96000])
def test_other_rates_agree(rate_hz: int) -> None:
    """The bilinear transform bends the shelf a little at low rates; the EBU tolerates 0.1 LU."""
    assert integrated_loudness(sine(0, 5, hz=997, channels=1, rate_hz=rate_hz)) == pytest.approx(-3.01, abs=0.05)


@pytest.mark.parametrize("level", [-23.0, -33.0])
def test_ebu_3341_cases_1_and_2_steady_tone(level: float) -> None:
    assert integrated_loudness(sine(level, 20)) == pytest.approx(level, abs=0.1)


def test_ebu_3341_case_3_relative_gate() -> None:
    programme = joined(sine(-36, 10), sine(-23, 60), sine(-36, 10))

    assert integrated_loudness(programme) == pytest.approx(-23, abs=0.1)


def test_ebu_3341_case_4_absolute_and_relative_gate() -> None:
    programme = joined(sine(-72, 10), sine(-36, 10), sine(-23, 60), sine(-36, 10), sine(-72, 10))

    assert integrated_loudness(programme) == pytest.approx(-23, abs=0.1)


def test_ebu_3341_case_5_relative_gate_with_loud_parts() -> None:
    programme = joined(sine(-26, 20), sine(-20, 20.1), sine(-26, 20))

    assert integrated_loudness(programme) == pytest.approx(-23, abs=0.1)


def test_ebu_3341_case_6_surround_weights() -> None:
    """5.0 with -28 dBFS left and right, -24 centre, -30 surrounds; here in 5.1, whose LFE does not count."""
    levels = (-28.0, -28.0, -24.0, 0.0, -30.0, -30.0)
    channels = [sine(level, 20, channels=1).samples for level in levels]

    assert integrated_loudness(Waveform(np.vstack(channels), 48000)) == pytest.approx(-23, abs=0.1)


def test_silence_has_no_loudness() -> None:
    assert integrated_loudness(Waveform(np.zeros((1, 48000), np.float32), 48000)) == -math.inf
    assert integrated_loudness(Waveform(np.zeros((1, 0), np.float32), 48000)) == -math.inf
    assert integrated_loudness(sine(-80, 5)) == -math.inf


def test_shorter_than_a_block_counts_as_one() -> None:
    assert integrated_loudness(sine(-23, 0.3)) == pytest.approx(-23, abs=0.3)


def test_normalising_reaches_the_target() -> None:
    assert integrated_loudness(normalize_loudness(sine(-40, 5), target_lufs=-18)) == pytest.approx(-18, abs=0.01)


def test_normalising_stops_at_the_peak() -> None:
    samples = sine(-40, 5).samples.copy()
    samples[:, 100] = 0.5

    loud = normalize_loudness(Waveform(samples, 48000), target_lufs=-10, peak_dbfs=-1)

    assert np.abs(loud.samples).max() == pytest.approx(10 ** (-1 / 20), rel=1e-5)


def test_normalising_silence_changes_nothing() -> None:
    silence = Waveform(np.zeros((1, 48000), np.float32), 48000)

    assert normalize_loudness(silence, target_lufs=-18) is silence
