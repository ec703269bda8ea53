"""Tempo and the share of sustained sound, by librosa's definitions.

Tempo: the autocorrelation of onset strength in windows of eight seconds, its mean weighted by a log-normal
prior around 120 beats a minute (Ellis, "Beat tracking by dynamic programming", 2007). Harmonic ratio:
median filters along time and along frequency make two soft masks (Fitzgerald, "Harmonic/percussive
separation using median filtering", 2010).

Shape letters: T frames, K frequency bins, F mel bands.
"""

from collections.abc import Iterable

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import median_filter

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_WINDOW_S, _START_BPM, _MAX_BPM, _PRIOR_OCTAVES = 8.0, 120.0, 320.0, 1.0
_LAG, _CENTRE = 1, 2  # frames by which onsets are moved: the difference's, and half a transform's
_WINDOWS_AT_ONCE = 256
_KERNEL = 31


def estimate_tempo(bands_db_TF: Float32, frame_rate_hz: float) -> float:
    """Return beats a minute; 0 when nothing begins.

    Args:
        bands_db_TF: mel bands in decibels.
        frame_rate_hz: frames a second.
    """
    onsets = _onset_strength(bands_db_TF)
    if not onsets.any():
        return 0.0
    window = int(_WINDOW_S * frame_rate_hz)
    periodicity = _mean_autocorrelation(onsets, window)
    bpm = np.full(window, np.inf)
    bpm[1:] = 60.0 * frame_rate_hz / np.arange(1, window)
    prior = -0.5 * ((np.log2(bpm) - np.log2(_START_BPM)) / _PRIOR_OCTAVES) ** 2
    prior[: int(np.argmax(bpm < _MAX_BPM))] = -np.inf
    return float(bpm[np.argmax(np.log1p(1e6 * periodicity) + prior)])


def _onset_strength(bands_db_TF: Float32) -> Float64:
    rises = np.maximum(0.0, bands_db_TF[_LAG:] - bands_db_TF[:-_LAG]).mean(axis=1, dtype=np.float64)
    return np.pad(rises, (_LAG + _CENTRE, 0))[: len(bands_db_TF)]


def _mean_autocorrelation(onsets: Float64, window: int) -> Float64:
    """Return the mean [window] of the autocorrelations around each frame, each scaled to a maximum of 1."""
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    padded = np.pad(onsets, window // 2, mode="linear_ramp", end_values=0)
    views = np.lib.stride_tricks.sliding_window_view(padded, window)[: onsets.size]
    size = scipy.fft.next_fast_len(2 * window - 1, real=True)
    total = np.zeros(window)
    for start in range(0, len(views), _WINDOWS_AT_ONCE):
        spectrum = scipy.fft.rfft(views[start : start + _WINDOWS_AT_ONCE] * taper, size, axis=1)
        found = scipy.fft.irfft(spectrum.real**2 + spectrum.imag**2, size, axis=1)[:, :window]
        largest = np.abs(found).max(axis=1, keepdims=True)
        total += (found / np.where(largest < np.finfo(np.float64).tiny, 1.0, largest)).sum(axis=0)
    return total / len(views)


def measure_harmonic_ratio(blocks_TK: Iterable[Float32]) -> float:
    """Return the energy of sustained partials over that of both parts, in [0, 1]; 0 for silence.

    Args:
        blocks_TK: magnitudes in consecutive blocks.
    """
    magnitudes_KT = np.concatenate(list(blocks_TK)).T
    sustained = np.square(_running_median(magnitudes_KT))
    sudden = np.square(_running_median(magnitudes_KT.T).T)
    both = sustained + sudden
    share = np.divide(sustained, both, out=np.full_like(both, 0.5), where=both > 0)
    power = np.square(magnitudes_KT)
    harmonic = float((power * share**2).sum(dtype=np.float64))
    percussive = float((power * (1 - share) ** 2).sum(dtype=np.float64))
    return harmonic / (harmonic + percussive) if harmonic + percussive > 0 else 0.0


def _running_median(rows: Float32) -> Float32:
    """Return each row's running median over 31 values, its ends reflected.

    All rows as one line: SciPy's filter for a single dimension is ten times as fast as its general one.
    """
    half = _KERNEL // 2
    line = np.pad(rows, ((0, 0), (half, half)), mode="symmetric")
    filtered: Float32 = median_filter(line.ravel(), _KERNEL).reshape(line.shape)[:, half:-half]
    return filtered
