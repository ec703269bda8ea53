"""Numbers that tell usable recordings from spoilt ones."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import rfft

from audiofoundation.audio import clipping
from audiofoundation.audio.survey import survey
from audiofoundation.audio.waveform import Waveform

_FLOOR_DB = -120.0
_FRAME_S = 0.02
_SILENCE_DBFS = -60.0
_FFT_SIZE = 2048
_BANDWIDTH_DB = 60.0
_FRAMES_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class QualityMeasures:
    """Measures of a waveform; every value is finite.

    Attributes:
        duration_s: length.
        peak: largest magnitude.
        rms_db: level in dBFS, not below -120.
        clipped_ratio: share of samples that were cut off at a ceiling (`audiofoundation.audio.clipping`); true of a
            sound at the rate at which it was found.
        silence_ratio: share of 20 ms frames under -60 dBFS.
        dc_offset: mean, of the channel where it is farthest from zero.
        centroid_hz: centre of gravity of the mean power spectrum.
        bandwidth_hz: highest frequency within 60 dB of the spectrum's peak: far below half the rate in
            recordings that were once band-limited.
    """

    duration_s: float
    peak: float
    rms_db: float
    clipped_ratio: float
    silence_ratio: float
    dc_offset: float
    centroid_hz: float
    bandwidth_hz: float


def measure_quality(
    waveform: Waveform, *, power_spectrum: NDArray[np.floating] | None = None, clipped_ratio: float | None = None
) -> QualityMeasures:
    """Measure a waveform; silence and an empty one give zeros.

    Args:
        waveform: what to measure.
        power_spectrum: its mean power [K] from 0 Hz to half the rate, where somebody has it already.
        clipped_ratio: what was measured before the sound got this rate and level; None measures the sound itself.
    """
    samples = waveform.samples
    if not samples.size:
        return QualityMeasures(0.0, 0.0, _FLOOR_DB, 0.0, 0.0, 0.0, 0.0, 0.0)
    frame = max(1, round(_FRAME_S * waveform.sample_rate_hz))
    found = survey(samples, frame)
    power = float(found.energies.sum()) / samples.size
    spectrum = _mean_spectrum(waveform.to_mono().samples[0]) if power_spectrum is None else power_spectrum
    centroid_hz, bandwidth_hz = _spectral(spectrum, waveform.sample_rate_hz)
    return QualityMeasures(
        duration_s=waveform.duration_s,
        peak=found.peak,
        rms_db=max(_FLOOR_DB, 10 * float(np.log10(max(power, 1e-12)))),
        clipped_ratio=clipping.clipped_ratio(samples) if clipped_ratio is None else clipped_ratio,
        silence_ratio=float((found.powers() < 10 ** (_SILENCE_DBFS / 10)).mean()),
        dc_offset=float(max(found.means, key=abs)),
        centroid_hz=centroid_hz,
        bandwidth_hz=bandwidth_hz,
    )


def _spectral(spectrum: NDArray[np.floating], sample_rate_hz: int) -> tuple[float, float]:
    """Centroid and bandwidth in Hz of a mean power spectrum [K]."""
    total = float(spectrum.sum())
    if total <= 0:
        return 0.0, 0.0
    highest_hz, highest_bin = sample_rate_hz / 2, max(1, len(spectrum) - 1)
    is_strong = spectrum >= spectrum.max() * 10 ** (-_BANDWIDTH_DB / 10)
    centroid = float(spectrum @ np.arange(len(spectrum))) / total
    return centroid * highest_hz / highest_bin, float(np.flatnonzero(is_strong)[-1]) * highest_hz / highest_bin


def _mean_spectrum(mono: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean power [_FFT_SIZE / 2 + 1] of Hann-windowed frames without overlap; the mean is taken off first."""
    padded = np.pad(mono - mono.mean(), (0, -len(mono) % _FFT_SIZE))
    frames = padded.reshape(-1, _FFT_SIZE)
    window = np.hanning(_FFT_SIZE).astype(np.float32)
    total = np.zeros(_FFT_SIZE // 2 + 1)
    for start in range(0, len(frames), _FRAMES_AT_ONCE):
        total += (np.abs(rfft(frames[start : start + _FRAMES_AT_ONCE] * window, axis=1)) ** 2).sum(axis=0)
    return total / len(frames)
