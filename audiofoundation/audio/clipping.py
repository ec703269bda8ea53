"""Clipping: how much of a sound was cut off at a ceiling, wherever that lies now.

A sound that was cut off dwells at its ceiling: magnitudes crowd there, in runs, and are rare beneath. Later gain moves
the ceiling, lossy coding and changes of rate smear it, which is why magnitudes are looked at in windows of several
widths, and at the rate and level at which a recording was found: afterwards less can be told. A sine, whose magnitudes
crowd at its peak by nature, stays far from the bounds below (of two windows at its peak, the upper one holds 2.4 times
what the lower one does), and so do limited music and what was coded louder than full scale. Lossy coding smears a
ceiling so far that only at full scale, where it is expected, less is enough to tell it; a third to a half of what was
cut off is not recognised then, and of a ceiling that lies elsewhere only what is severe.

`native/clipping.c` does the same in the reader's pass over the samples.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audiofoundation.audio.waveform import Samples

Float32 = NDArray[np.float32]

STEP_SAMPLES = 1 << 14  # measured at once
_STRIDE, _PHASE = 11, 3  # every so manieth sample is looked at, which is no fraction of the periods of usual tones
_NUM_BINS = 128  # up to the step's peak
_LEAST = 6
_QUIETEST_PEAK = 1 / 32
# Widths of windows in bins; how many times what lies in the two windows beneath must lie in the one at the ceiling.
_WINDOWS = ((1, 1.75), (2, 1.75), (4, 1.75), (8, 2.0), (16, 4.5), (24, 5.0))
_FULL_SCALE_BOUNDS = (0.78, 0.93, 1.001, 1.08)
_GAIN = 1.25  # a wider window must find so much more than a narrower one


@dataclass(frozen=True, slots=True, eq=False)
class Clipping:
    """A recording's clipping through time.

    Attributes:
        step_s: length of a step.
        shares: float32 [steps], share of each step's samples that were cut off, the mean of the channels.
    """

    step_s: float
    shares: Float32

    def ratio(self, start_s: float, stop_s: float) -> float:
        """Return the share of clipped samples between two times, to the resolution of steps."""
        first, last = start_s / self.step_s, stop_s / self.step_s
        steps = np.arange(int(first), min(int(np.ceil(last)), len(self.shares)))
        overlaps = np.minimum(steps + 1, last) - np.maximum(steps, first)
        return float(np.dot(overlaps, self.shares[steps])) / (last - first) if steps.size else 0.0


UNCLIPPED = Clipping(1.0, np.zeros(0, np.float32))


class ClippingMeter:
    """Measures a recording that arrives in blocks.

    Args:
        shares: gets the share of each step's clipped samples, the mean of the channels.
    """

    def __init__(self, shares: list[float]) -> None:
        self._shares = shares
        self._rest: Samples | None = None

    def push(self, samples: Samples) -> None:
        """Take float32 samples [channels, n] at the rate of the recording."""
        whole = samples if self._rest is None else np.concatenate([self._rest, samples], axis=1)
        num_whole = whole.shape[1] - whole.shape[1] % STEP_SAMPLES
        self._shares += (_share(whole[:, at : at + STEP_SAMPLES]) for at in range(0, num_whole, STEP_SAMPLES))
        self._rest = whole[:, num_whole:].copy()

    def finish(self) -> None:
        """Measure what does not fill a step."""
        if self._rest is not None and self._rest.size:
            self._shares.append(_share(self._rest))
        self._rest = None


def clipped_ratio(samples: Samples) -> float:
    """Return the share of clipped samples of a sound [channels, n]."""
    starts = range(0, samples.shape[1], STEP_SAMPLES)
    parts = [samples[:, start : start + STEP_SAMPLES] for start in starts]
    return float(sum(_share(part) * part.shape[1] for part in parts) / max(1, samples.shape[1]))


def _share(step: Samples) -> float:
    """The share of clipped samples of a step [channels, n]."""
    return sum((_share_of_channel(channel) for channel in step), 0.0) / len(step)


def _share_of_channel(samples: Float32) -> float:
    """How many more are in the window at the ceiling and above it than flanks as those beneath it would bring there."""
    picks = np.arange(_PHASE, len(samples) - 1, _STRIDE)
    levels = np.abs(samples[picks])
    peak = levels.max(initial=0.0)
    if peak < _QUIETEST_PEAK:
        return 0.0
    around = np.stack([samples[picks - 1], samples[picks], samples[picks + 1]])
    flats = np.maximum(np.maximum(around.min(axis=0), -around.max(axis=0)), 0)  # what three in a row do not fall under
    at_level, in_run = _cumulated(levels, peak), _cumulated(flats, peak)
    # Of sound in few bits the levels lie some bins apart, and windows between them are empty by nature.
    num_levels = int(np.count_nonzero(np.diff(at_level[_NUM_BINS // 2 :])))
    best = 0
    for width, ratio in _WINDOWS:
        if 4 * num_levels <= _NUM_BINS and width * num_levels < _NUM_BINS:
            continue  # narrower than two steps
        low = np.arange(_NUM_BINS // 2, _NUM_BINS - width + 1)
        here, beneath = at_level[low + width] - at_level[low], at_level[low] - at_level[low - 2 * width]
        above, flat = at_level[-1] - at_level[low + width], in_run[low + width] - in_run[low]
        is_ceiling = (flat >= ratio * beneath + _LEAST) & (2 * above <= flat)
        found = int(np.where(is_ceiling, here + above - beneath // 2, 0).max())
        best = found if found > _GAIN * best else best
    return float(max(best, _num_about_full_scale(levels)) / len(picks))


def _num_about_full_scale(levels: Float32) -> int:
    """How many lie about full scale, above it too: where lossy coding has smeared what was cut off there."""
    beneath, below, beyond, above = (int((levels >= bound).sum()) for bound in _FULL_SCALE_BOUNDS)
    beneath, here = beneath - below, below - above
    is_ceiling = 2 * here >= 3 * beneath + 2 * _LEAST and 4 * (beyond - above) >= here and 2 * above <= here
    return here + above - beneath if is_ceiling else 0


def _cumulated(values: Float32, peak: np.float32) -> NDArray[np.int64]:
    """How many values lie beneath each bin [bins + 1]."""
    bins = (values * (np.float32(_NUM_BINS - 0.5) / peak)).astype(np.int64)
    return np.concatenate([[0], np.cumsum(np.bincount(bins, minlength=_NUM_BINS))])
