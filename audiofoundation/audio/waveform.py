"""The one audio value that all modules pass around."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


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
    """The mean of the channels as float32 [1, n]; several times faster than NumPy's on interleaved rows."""
    total: Samples = samples[0].copy()
    for channel in samples[1:]:
        total += channel
    total *= np.float32(1 / samples.shape[0])
    return total.reshape(1, -1)
