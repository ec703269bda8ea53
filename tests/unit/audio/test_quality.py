from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from audiofoundation.audio.decode import DecodeLimits, decode_file
from audiofoundation.audio.quality import measure_quality
from audiofoundation.audio.waveform import Waveform

RATE_HZ = 24000


def tone(hz: float, amplitude: float = 0.5) -> Waveform:
    return Waveform(
        (amplitude * np.sin(2 * np.pi * hz * np.arange(RATE_HZ) / RATE_HZ)).astype(np.float32)[None], RATE_HZ
    )


def test_tone() -> None:
    measures = measure_quality(tone(1000))

    assert measures.duration_s == 1
    assert measures.peak == pytest.approx(0.5, abs=1e-3)
    assert measures.rms_db == pytest.approx(20 * np.log10(0.5) - 3.01, abs=0.01)
    assert measures.silence_ratio == measures.clipped_ratio == 0
    assert measures.centroid_hz == pytest.approx(1000, abs=15)


def test_hard_clipping_shows_at_any_level() -> None:
    clipped = np.clip(tone(200).samples, -0.3, 0.3)

    assert measure_quality(Waveform(clipped, RATE_HZ)).clipped_ratio > 0.3
    assert measure_quality(tone(200)).clipped_ratio < 0.01


def test_clipped_recording_is_told_from_its_clean_kin(originals: Path, limits: DecodeLimits) -> None:
    clipped = measure_quality(decode_file(originals / "clipped.wav", limits=limits).waveform)
    clean = measure_quality(decode_file(originals / "speech_s16_44k1.wav", limits=limits).waveform)

    assert clipped.clipped_ratio > 0.01 > clean.clipped_ratio


def test_offset_and_silence() -> None:
    half = np.concatenate([np.zeros(12000), np.full(12000, 0.2)]).astype(np.float32)

    measures = measure_quality(Waveform(half[None], RATE_HZ))

    assert measures.dc_offset == pytest.approx(0.1, abs=1e-6)
    assert measures.silence_ratio == 0.5


def test_bandwidth_tells_upsampled_audio() -> None:
    from audiofoundation.audio.resample import resample

    noise = Waveform(0.1 * np.random.default_rng(0).standard_normal((1, 16000)).astype(np.float32), 8000)

    assert measure_quality(resample(noise, RATE_HZ)).bandwidth_hz < 4500
    full = Waveform(0.1 * np.random.default_rng(0).standard_normal((1, 48000)).astype(np.float32), RATE_HZ)
    assert measure_quality(full).bandwidth_hz > 11500


@pytest.mark.parametrize("num_samples", [0, 1, 2, 5, 24000])
def test_every_value_is_finite_for_silence(num_samples: int) -> None:
    measures = measure_quality(Waveform(np.zeros((2, num_samples), np.float32), RATE_HZ))

    assert np.isfinite(astuple(measures)).all()
    assert measures.rms_db == -120
