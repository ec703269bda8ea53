"""What one pass over samples tells: extremes, means, the energies of frames."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audiofoundation.audio.waveform import Samples
from audiofoundation.native import kernels


@dataclass(frozen=True, slots=True)
class Survey:
    """Of samples [channels, n].

    Attributes:
        num_samples: n.
        frame_samples: length of a frame; the last may be shorter.
        lowest, highest: the extremes of all channels.
        means: float64 [channels].
        energies: float64 [channels, frames], sums of squares.
    """

    num_samples: int
    frame_samples: int
    lowest: float
    highest: float
    means: NDArray[np.float64]
    energies: NDArray[np.float64]

    @property
    def peak(self) -> float:
        """The largest magnitude."""
        return max(self.highest, -self.lowest)

    def powers(self) -> NDArray[np.float64]:
        """Return the mean square of each frame [frames], of its loudest channel."""
        lengths = np.full(self.energies.shape[1], self.frame_samples)
        lengths[-1] -= lengths.size * self.frame_samples - self.num_samples
        loudest: NDArray[np.float64] = self.energies.max(axis=0) / lengths
        return loudest


def survey(samples: Samples, frame_samples: int) -> Survey:
    """Look over finite samples [channels, n] in frames of `frame_samples`.

    Raises:
        ValueError: there are none.
    """
    if not samples.size:
        raise ValueError("there are no samples")
    sizes = samples.shape[1], frame_samples
    native = kernels()
    if native is None:
        means = samples.mean(axis=1, dtype=np.float64)
        return Survey(*sizes, float(samples.min()), float(samples.max()), means, _energies(samples, frame_samples))
    found = [native.survey(np.ascontiguousarray(channel), frame_samples) for channel in samples]
    lowest, highest, totals, energies = zip(*found, strict=True)
    return Survey(*sizes, min(lowest), max(highest), np.array(totals) / samples.shape[1], np.stack(energies))


def _energies(samples: Samples, frame_samples: int) -> NDArray[np.float64]:
    num_channels, num_samples = samples.shape
    whole = num_samples - num_samples % frame_samples
    frames = samples[:, :whole].reshape(num_channels, -1, frame_samples)
    energies: NDArray[np.float64] = np.einsum("cij,cij->ci", frames, frames).astype(np.float64)
    if whole == num_samples:
        return energies
    rest = samples[:, whole:]
    return np.concatenate([energies, np.einsum("ci,ci->c", rest, rest)[:, None]], axis=1)
