"""Programme loudness after ITU-R BS.1770-4, for one to eight channels at any rate.

The filters are the standard's analogue prototypes, recovered by De Man ("Evaluation of implementations of
the EBU R128 loudness measurement", 2018), mapped to the waveform's rate by the bilinear transform; at
48 kHz they are the standard's coefficients.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.signal import sosfilt

from audiofoundation.audio.waveform import Waveform

_OFFSET_DB = -0.691
_STEP_S, _STEPS_PER_BLOCK = 0.1, 4
_ABSOLUTE_GATE_LUFS, _RELATIVE_GATE_LU = -70.0, -10.0
_SHELF_HZ, _SHELF_DB, _SHELF_Q, _SHELF_BAND = (
    1681.974450955533,
    3.999843853973347,
    0.7071752369554196,
    0.4996667741545416,
)
_HIGH_PASS_HZ, _HIGH_PASS_Q = 38.13547087602444, 0.5003270373238773
_SURROUND = 1.41
# Weights in ffmpeg's channel order; the low-frequency channel does not count.
_WEIGHTS: dict[int, tuple[float, ...]] = {
    5: (1, 1, 1, _SURROUND, _SURROUND),
    6: (1, 1, 1, 0, _SURROUND, _SURROUND),
    8: (1, 1, 1, 0, _SURROUND, _SURROUND, _SURROUND, _SURROUND),
}


def integrated_loudness(waveform: Waveform) -> float:
    """Gated loudness of the whole waveform.

    Returns:
        LUFS; -inf when nothing is louder than -70 LUFS. Audio under 0.4 s, for which the standard defines
        nothing, counts as one block.
    """
    return gated_loudness(_block_energies(waveform))


def gated_loudness(energies: NDArray[np.float64]) -> float:
    """Loudness of weighted mean squares of overlapping blocks (0.4 s, every 0.1 s), gated twice.

    For recordings that are measured piece by piece. Returns LUFS as `integrated_loudness` does.
    """
    loud = energies[_to_lufs(energies) > _ABSOLUTE_GATE_LUFS]
    if not len(loud):
        return -math.inf
    gate = float(_to_lufs(loud.mean())) + _RELATIVE_GATE_LU
    return float(_to_lufs(loud[_to_lufs(loud) > gate].mean()))


def normalize_loudness(waveform: Waveform, *, target_lufs: float, peak_dbfs: float = -1.0) -> Waveform:
    """Scale to a loudness, but never above a sample peak (so loud transients may end up quieter).

    Silence comes back as it is.
    """
    loudness = integrated_loudness(waveform)
    if not math.isfinite(loudness):
        return waveform
    peak = float(np.abs(waveform.samples).max())
    gain = min(10 ** ((target_lufs - loudness) / 20), 10 ** (peak_dbfs / 20) / peak)
    return Waveform(waveform.samples * np.float32(gain), waveform.sample_rate_hz)


def k_weighting(sample_rate_hz: int) -> NDArray[np.float64]:
    """The two filters before the measurement, as second-order sections [2, 6]."""
    k = math.tan(math.pi * _SHELF_HZ / sample_rate_hz)
    high = 10 ** (_SHELF_DB / 20)
    band = high**_SHELF_BAND
    norm = 1 + k / _SHELF_Q + k * k
    shelf = (high + band * k / _SHELF_Q + k * k, 2 * (k * k - high), high - band * k / _SHELF_Q + k * k)
    shelf_poles = (norm, 2 * (k * k - 1), 1 - k / _SHELF_Q + k * k)
    k = math.tan(math.pi * _HIGH_PASS_HZ / sample_rate_hz)
    high_pass_norm = 1 + k / _HIGH_PASS_Q + k * k
    high_pass_poles = (1.0, 2 * (k * k - 1) / high_pass_norm, (1 - k / _HIGH_PASS_Q + k * k) / high_pass_norm)
    first = [value / norm for value in (*shelf, *shelf_poles)]
    return np.array([first, [1.0, -2.0, 1.0, *high_pass_poles]])


def _block_energies(waveform: Waveform) -> NDArray[np.float64]:
    """Weighted mean squares of blocks of 0.4 s, every 0.1 s."""
    step = max(1, round(_STEP_S * waveform.sample_rate_hz))
    num_steps = waveform.num_samples // step
    weights = _WEIGHTS.get(waveform.num_channels, (1.0,) * waveform.num_channels)
    sections = k_weighting(waveform.sample_rate_hz)
    if not waveform.num_samples:
        return np.zeros(0)
    total = np.zeros(max(1, num_steps - _STEPS_PER_BLOCK + 1))
    for channel, weight in zip(waveform.samples, weights, strict=True):
        squares = sosfilt(sections, channel.astype(np.float64)) ** 2
        if num_steps < _STEPS_PER_BLOCK:
            total += weight * squares.mean()
            continue
        steps = squares[: num_steps * step].reshape(num_steps, step).mean(axis=1)
        total += weight * np.convolve(steps, np.full(_STEPS_PER_BLOCK, 1 / _STEPS_PER_BLOCK), "valid")
    return total


def _to_lufs(energy: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        lufs: NDArray[np.float64] = _OFFSET_DB + 10 * np.log10(energy)
    return lufs
