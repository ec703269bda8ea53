"""The one audio value that all modules pass around."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

# ffmpeg's names of the channels on the left; those on the right have an R for the L.
_LEFT = frozenset(("FL", "BL", "SL", "FLC", "WL", "TFL", "TBL", "TSL", "BFL", "DL", "SDL", "SSL", "TTL"))
_RIGHT = frozenset(name.replace("L", "R") for name in _LEFT)


@dataclass(frozen=True, slots=True)
class Waveform:
    """Sound as numbers.

    Attributes:
        samples: float32 [channels, num_samples], nominally in [-1, 1].
        sample_rate_hz: samples per second and channel.

    Raises:
        ValueError: the array is not float32 [channels, num_samples] or the rate is not positive.
    """

    samples: Samples
    sample_rate_hz: int

    def __post_init__(self) -> None:
        if self.samples.ndim != 2 or self.samples.shape[0] < 1:
            raise ValueError(f"samples must be [channels, num_samples], got shape {self.samples.shape}")
        if self.samples.dtype != np.float32:
            raise ValueError(f"samples must be float32, got {self.samples.dtype}")
        if self.sample_rate_hz <= 0:
            raise ValueError(f"sample_rate_hz must be positive, got {self.sample_rate_hz}")

    @property
    def num_channels(self) -> int:
        return int(self.samples.shape[0])

    @property
    def num_samples(self) -> int:
        """Samples per channel."""
        return int(self.samples.shape[1])

    @property
    def duration_s(self) -> float:
        return self.num_samples / self.sample_rate_hz

    def to_mono(self) -> "Waveform":
        """The mean of the channels, as one channel; the waveform itself when it has one already."""
        if self.num_channels == 1:
            return self
        return Waveform(mix_to_mono(self.samples), self.sample_rate_hz)


def mix_to_mono(samples: Samples) -> Samples:
    """The mean of the channels as float32 [1, n]; several times faster than NumPy's on interleaved rows.

    The array itself when it has one channel already.
    """
    if samples.shape[0] == 1:
        return samples
    total: Samples = samples[0].copy()
    for channel in samples[1:]:
        total += channel
    total *= np.float32(1 / samples.shape[0])
    return total.reshape(1, -1)


def mix_to_stereo(samples: Samples, names: Sequence[str]) -> Samples:
    """Left and right of more than two channels, as float32 [2, n]; one or two stay as they are.

    Every channel counts as much as in `mix_to_mono`, and so the mean of both is that: a channel of one side on its
    side, any other (centre, low frequencies) half on each.

    Args:
        samples: float32 [channels, n].
        names: ffmpeg's name of each channel.
    """
    if samples.shape[0] <= 2:
        return samples
    mixed: Samples = np.zeros((2, samples.shape[1]), np.float32)
    for channel, name in zip(samples, names, strict=True):
        if name in _LEFT:
            mixed[0] += channel
        elif name in _RIGHT:
            mixed[1] += channel
        else:
            mixed += channel * np.float32(0.5)
    mixed *= np.float32(2 / samples.shape[0])
    return mixed
