"""Numbers that tell usable recordings from spoilt ones."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import rfft

from audiofoundation.audio.segment import frame_levels_db
from audiofoundation.audio.waveform import Waveform

_FLOOR_DB = -120.0
_FRAME_S = 0.02
_SILENCE_DBFS = -60.0
_FULL_SCALE = 0.999
_MIN_RUN = 3
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
        clipped_ratio: share of samples at full scale, or in runs of three or more stuck at the peak.
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


def measure_quality(waveform: Waveform) -> QualityMeasures:
    """Measure a waveform; silence and an empty one give zeros."""
    samples = waveform.samples
    if not samples.size:
        return QualityMeasures(0.0, 0.0, _FLOOR_DB, 0.0, 0.0, 0.0, 0.0, 0.0)
    means = samples.mean(axis=1, dtype=np.float64)
    power = float(np.square(samples, dtype=np.float64).mean())
    levels = frame_levels_db(waveform, max(1, round(_FRAME_S * waveform.sample_rate_hz)))
    centroid_hz, bandwidth_hz = _spectral(waveform)
    return QualityMeasures(
        duration_s=waveform.duration_s,
        peak=float(np.abs(samples).max()),
        rms_db=max(_FLOOR_DB, 10 * float(np.log10(max(power, 1e-12)))),
        clipped_ratio=_clipped_ratio(samples),
        silence_ratio=float((levels < _SILENCE_DBFS).mean()),
        dc_offset=float(means[np.abs(means).argmax()]),
        centroid_hz=centroid_hz,
        bandwidth_hz=bandwidth_hz,
    )


def _clipped_ratio(samples: NDArray[np.float32]) -> float:
    magnitudes = np.abs(samples)
    is_clipped = magnitudes >= _FULL_SCALE
    peak = float(magnitudes.max())
    if peak > 0:
        is_clipped |= _in_runs(samples == peak) | _in_runs(samples == -peak)
    return float(is_clipped.mean())


def _in_runs(flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep those flags [channels, n] that stand in runs of at least `_MIN_RUN`."""
    kept = np.zeros_like(flags)
    num_starts = flags.shape[1] - _MIN_RUN + 1
    if num_starts < 1:
        return kept
    starts = np.logical_and.reduce([flags[:, step : step + num_starts] for step in range(_MIN_RUN)])
    for step in range(_MIN_RUN):
        kept[:, step : step + num_starts] |= starts
    return kept


def _spectral(waveform: Waveform) -> tuple[float, float]:
    """Centroid and bandwidth in Hz of the mean power spectrum of the mono mix."""
    spectrum = _mean_spectrum(waveform.to_mono().samples[0])
    hz = np.arange(len(spectrum)) * (waveform.sample_rate_hz / _FFT_SIZE)
    total = float(spectrum.sum())
    if total <= 0:
        return 0.0, 0.0
    is_strong = spectrum >= spectrum.max() * 10 ** (-_BANDWIDTH_DB / 10)
    return float((hz * spectrum).sum() / total), float(hz[np.flatnonzero(is_strong)[-1]])


def _mean_spectrum(mono: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean power [_FFT_SIZE / 2 + 1] of Hann-windowed frames without overlap; the mean is taken off first."""
    padded = np.pad(mono - mono.mean(), (0, -len(mono) % _FFT_SIZE))
    frames = padded.reshape(-1, _FFT_SIZE)
    window = np.hanning(_FFT_SIZE).astype(np.float32)
    total = np.zeros(_FFT_SIZE // 2 + 1)
    for start in range(0, len(frames), _FRAMES_AT_ONCE):
        total += (np.abs(rfft(frames[start : start + _FRAMES_AT_ONCE] * window, axis=1)) ** 2).sum(axis=0)
    return total / len(frames)
