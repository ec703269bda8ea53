"""What must be known of a whole recording before it is cut: loudness, peak, where sound begins and ends."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter, sos2tf

from audiofoundation.audio.clipping import UNCLIPPED, Clipping
from audiofoundation.audio.loudness import gated_loudness, k_weighting
from audiofoundation.audio.survey import survey
from audiofoundation.audio.waveform import mix_to_mono
from audiofoundation.native import kernels

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_FRAME_S = 0.01
# Quieter than this counts as silence at the ends; digital silence and the noise floor of a quiet room.
SILENCE_DBFS = -60.0
_PAD_S = 0.05
_STEP_S, _STEPS_PER_BLOCK = 0.1, 4
_WARM_UP_S = 0.15  # the high-pass at 38 Hz has then forgotten all but 1e-12 of how it began
_PEAK_DBFS = -1.0


@dataclass(frozen=True, slots=True)
class Levels:
    """Measures of a recording, of its mono mix unless said otherwise.

    Attributes:
        loudness_lufs: integrated loudness (BS.1770-4); -inf for silence.
        peak: largest absolute sample of any channel.
        first_sound: where sound begins, in samples; equal to `last_sound` when there is none.
        last_sound: one past its end.
        clipping: of all channels, at the recording's own rate.
    """

    loudness_lufs: float
    peak: float
    first_sound: int
    last_sound: int
    clipping: Clipping = UNCLIPPED

    def gain_to(self, target_lufs: float | None) -> float:
        """Return the factor that brings the recording to a loudness, its peak kept under -1 dBFS."""
        if target_lufs is None or not np.isfinite(self.loudness_lufs) or self.peak == 0.0:
            return 1.0
        wanted = 10.0 ** ((target_lufs - self.loudness_lufs) / 20)
        return float(min(wanted, 10.0 ** (_PEAK_DBFS / 20) / self.peak))


class LevelMeter:
    """Measures a recording that arrives in blocks."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._loudness = _LoudnessMeter(rate_hz)
        self._frame = max(1, round(_FRAME_S * rate_hz))
        self._threshold = self._frame * 10.0 ** (SILENCE_DBFS / 10)
        self._rest = np.zeros(0, np.float32)
        self._num_seen = 0
        self._peak = 0.0
        self._first: int | None = None
        self._last = 0

    def push(self, samples: Float32) -> None:
        """Take float32 samples [channels, n]."""
        if not samples.size:
            return
        mono = mix_to_mono(samples)[0]
        self._loudness.push(mono)
        whole = np.concatenate([self._rest, mono]) if self._rest.size else mono
        num_looked_at = whole.size - whole.size % self._frame
        self._look(whole[:num_looked_at])
        self._rest = whole[num_looked_at:].copy()
        if len(samples) > 1:
            self._peak = max(self._peak, float(samples.max()), -float(samples.min()))

    def finish(self) -> Levels:
        """Return the measures of everything that was pushed, but its clipping, which shows before the rate changes."""
        self._look(self._rest)
        pad = round(_PAD_S * self._rate_hz)
        first = 0 if self._first is None else max(0, self._first - pad)
        last = min(self._num_seen, self._last + pad) if self._first is not None else first
        return Levels(self._loudness.finish(), self._peak, first, last)

    def _look(self, mono: Float32) -> None:
        if not mono.size:
            return
        found = survey(mono[None], self._frame)
        self._peak = max(self._peak, found.peak)
        loud = np.flatnonzero(found.energies[0] > self._threshold)
        if loud.size:
            if self._first is None:
                self._first = self._num_seen + int(loud[0]) * self._frame
            self._last = self._num_seen + (int(loud[-1]) + 1) * self._frame
        self._num_seen += mono.size


class _LoudnessMeter:
    """BS.1770-4 loudness of a mono recording in blocks; equals `integrated_loudness` of the whole."""

    def __init__(self, rate_hz: int) -> None:
        # Both sections as one filter of fourth order: a quarter faster, equal to 1e-12 at the presets' rates.
        self._filter = sos2tf(k_weighting(rate_hz))
        self._step = max(1, round(_STEP_S * rate_hz))
        self._warm_up = round(_WARM_UP_S * rate_hz)
        self._rest = np.zeros(self._warm_up, np.float32)  # silence before the recording, as the standard has it
        self._steps: list[Float64] = []

    def push(self, samples: Float32) -> None:
        own = -self._rest.size % self._step  # the first step that needs nothing of what was kept begins to warm up here
        if samples.size > own + 2 * self._warm_up:  # long: only its beginning is copied
            self._measure(np.concatenate([self._rest, samples[: own + self._warm_up]]))
            self._measure(samples[own:])
        else:
            self._measure(np.concatenate([self._rest, samples]))

    def _measure(self, whole: Float32) -> None:
        num_whole = (whole.size - self._warm_up) // self._step * self._step
        if num_whole:
            self._steps.append(self._weighted_energies(whole[: self._warm_up + num_whole], self._step))
        self._rest = whole[num_whole:].copy()

    def finish(self) -> float:
        steps = np.concatenate([np.zeros(0), *self._steps])
        if steps.size >= _STEPS_PER_BLOCK:
            return gated_loudness(np.convolve(steps, np.full(_STEPS_PER_BLOCK, 1 / _STEPS_PER_BLOCK), "valid"))
        num_rest = self._rest.size - self._warm_up
        num_samples = steps.size * self._step + num_rest
        if not num_samples:
            return float("-inf")
        energy = steps.sum() * self._step
        if num_rest:
            energy += float(self._weighted_energies(self._rest, num_rest)[0]) * num_rest
        return gated_loudness(np.array([energy / num_samples]))

    def _weighted_energies(self, samples: Float32, step: int) -> Float64:
        """Return the mean squares of whole steps of the weighted samples after the warm-up."""
        native = kernels()
        if native is not None:
            return native.step_energies(samples, step, self._warm_up, *self._filter)
        weighted = lfilter(*self._filter, samples.astype(np.float64))[self._warm_up :].reshape(-1, step)
        energies: Float64 = np.einsum("ij,ij->i", weighted, weighted) / step
        return energies
