"""A streaming peak limiter: what is loud enough to clip is turned down smoothly, the rest is untouched."""

import numpy as np
import scipy.ndimage

from audiofoundation.features.mel import Float32

_CEILING = np.float32(10 ** (-0.5 / 20))  # -0.5 dBFS leaves room for what lossy encoders add
_AHEAD = 120  # 5 ms at 24 kHz
_HOLD = 480  # 20 ms: longer than a period of 50 Hz, so that low notes are not reshaped


class StreamingLimiter:
    """Keep the magnitude of a mono stream at or below -0.5 dBFS.

    The gain that each sample needs is held for 20 ms, taken 5 ms ahead and smoothed by a Hann window of
    the same 5 ms. Every gain that the smoothing averages already suffices for the sample, so the result never
    exceeds the ceiling. Samples leave 120 samples late; `finish` returns the rest.
    """

    def __init__(self) -> None:
        weights = np.hanning(_AHEAD + 3)[1:-1].astype(np.float32)
        self._smoothing = weights / weights.sum()
        self._samples = np.zeros(0, np.float32)
        self._context = np.ones(_AHEAD + _HOLD, np.float32)

    def push(self, samples: Float32) -> Float32:
        """Take float32 samples [n]; return the limited samples [m] that are final."""
        self._samples = np.concatenate([self._samples, samples])
        return self._release(len(self._samples) - _AHEAD)

    def finish(self) -> Float32:
        """Return the last samples; the stream takes no more."""
        num_left = len(self._samples)
        self._samples = np.concatenate([self._samples, np.zeros(_AHEAD, np.float32)])
        return self._release(num_left)

    def _release(self, count: int) -> Float32:
        if count <= 0:
            return np.zeros(0, np.float32)
        magnitude = np.maximum(np.abs(self._samples), _CEILING)
        needed = np.concatenate([self._context, _CEILING / magnitude])
        out = self._samples[:count]
        if needed.min() < 1:
            out = out * self._gains(needed, count)
        self._context = needed[count : count + len(self._context)]
        self._samples = self._samples[count:]
        return np.clip(out, -_CEILING, _CEILING)

    def _gains(self, needed: Float32, count: int) -> Float32:
        """Return the gain of the first `count` waiting samples; sample i is `needed[_AHEAD + _HOLD + i]`."""
        size = _HOLD + _AHEAD + 1
        held = scipy.ndimage.minimum_filter1d(needed, size)[size // 2 : len(needed) - (size - 1 - size // 2)]
        # held[j] is the least of needed[j … j + _HOLD + _AHEAD]: for the sample at _AHEAD + _HOLD + i the
        # windows j = i … i + _AHEAD all contain it and reach up to _AHEAD samples beyond it.
        smooth: Float32 = np.convolve(held[: count + _AHEAD], self._smoothing, mode="valid")
        return smooth[:count].astype(np.float32)
