"""Decoded frames to float32 blocks: each sample is copied once, into a buffer that is used again and again."""

from collections.abc import Sequence
from typing import Any

import av
import numpy as np

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
    """Gathers frames until a block is taken.

    Args:
        first: the frame whose rate, format and number of channels all others must have.
        num_values: values that fill a block; the frame that fills it may exceed them.

    Attributes:
        num_channels: of the first frame and so of all.
        num_samples: samples per channel gathered since the last block.
    """

    def __init__(self, first: "av.AudioFrame", num_values: int) -> None:
        self.num_channels = int(first.layout.nb_channels)
        self.num_samples = 0
        self._rate_hz, self._format = first.sample_rate, first.format.name
        self._type = _TYPES[self._format.removesuffix("p")]
        self._is_planar = bool(first.format.is_planar)
        self._block_samples = -(-num_values // self.num_channels)
        self._use(np.empty((self.num_channels, self._block_samples + first.samples), np.float32))

    @property
    def is_full(self) -> bool:
        return self.num_samples >= self._block_samples

    def add(self, frame: "av.AudioFrame") -> bool:
        """Gather a frame; False when it has another rate, format or number of channels."""
        if (frame.sample_rate, frame.layout.nb_channels, frame.format.name) != (
            self._rate_hz,
            self.num_channels,
            self._format,
        ):
            return False
        count, start = frame.samples, self.num_samples
        stop = start + count
        if stop > self._buffer.shape[1]:
            more = np.empty((self.num_channels, count), np.float32)
            self._use(np.concatenate([self._buffer[:, :start], more], axis=1))
        self._copy(frame.planes, start, stop)
        self.num_samples = stop
        return True

    def _use(self, buffer: Samples) -> None:
        self._buffer, self._rows = buffer, [row.data.cast("B") for row in buffer]

    def _copy(self, planes: "Sequence[av.audio.plane.AudioPlane]", start: int, stop: int) -> None:
        count = stop - start
        if not self._is_planar:
            values = np.frombuffer(planes[0], self._type, count * self.num_channels)
            self._buffer[:, start:stop] = values.reshape(count, self.num_channels).T
        elif self._type is np.float32:  # bytes to bytes: a quarter of the time that an array around each plane takes
            for row, plane in zip(self._rows, planes, strict=True):
                row[4 * start : 4 * stop] = memoryview(plane)[: 4 * count]
        else:
            for values, plane in zip(self._buffer, planes, strict=True):
                values[start:stop] = np.frombuffer(plane, self._type, count)

    def take(self) -> Samples:
        """What has been gathered, as float32 [channels, n]; integers are scaled so that full scale is 1.

        The block is a view of the buffer: it holds until the next frame is added.
        """
        samples: Samples = self._buffer[:, : self.num_samples]
        self.num_samples = 0
        if self._type is np.uint8:
            samples -= np.float32(128)
        if np.issubdtype(self._type, np.integer):
            samples *= np.float32(2.0 ** (1 - 8 * np.dtype(self._type).itemsize))
        return samples
