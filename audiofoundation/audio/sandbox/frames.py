"""Decoded frames to float32 blocks, with a few NumPy calls per block instead of per frame."""

from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from audiofoundation.audio.waveform import Samples

_TYPES: dict[str, type[np.number[Any]]] = {
    "u8": np.uint8,
    "s16": np.int16,
    "s32": np.int32,
    "s64": np.int64,
    "flt": np.float32,
    "dbl": np.float64,
}


class FrameGatherer:
    """Keeps views of frames' planes until a block is taken.

    Attributes:
        num_channels: of the first frame and so of all.
        num_values: values gathered since the last block.
    """

    def __init__(self, first: "av.AudioFrame") -> None:
        self._layout = _layout_of(first)
        self.num_channels = int(first.layout.nb_channels)
        self._type = _TYPES[first.format.name.removesuffix("p")]
        self._is_planar = bool(first.format.is_planar)
        self._planes: list[list[NDArray[np.number[Any]]]] = [[] for _ in first.planes]
        self.num_values = 0

    def add(self, frame: "av.AudioFrame") -> bool:
        """Gather a frame; False when it has another rate, format or number of channels."""
        if _layout_of(frame) != self._layout:
            return False
        count = frame.samples * (1 if self._is_planar else self.num_channels)
        for gathered, plane in zip(self._planes, frame.planes, strict=True):
            gathered.append(np.frombuffer(plane, self._type, count))
        self.num_values += frame.samples * self.num_channels
        return True

    def take(self) -> Samples:
        """What has been gathered, as float32 [channels, n]; integers are scaled so that full scale is 1."""
        rows = [np.concatenate(gathered) for gathered in self._planes]
        values = np.stack(rows) if self._is_planar else rows[0].reshape(-1, self.num_channels).T
        for gathered in self._planes:
            gathered.clear()
        self.num_values = 0
        samples: Samples = values.astype(np.float32)
        if self._type is np.uint8:
            samples -= np.float32(128)
        if np.issubdtype(self._type, np.integer):
            samples *= np.float32(2.0 ** (1 - 8 * np.dtype(self._type).itemsize))
        return samples


def _layout_of(frame: "av.AudioFrame") -> tuple[int, int, str]:
    return frame.sample_rate, frame.layout.nb_channels, frame.format.name
