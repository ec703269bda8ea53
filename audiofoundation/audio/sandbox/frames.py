"""Decoded frames to float32 blocks: each sample is copied once, into a buffer that is used again and again."""

from typing import TYPE_CHECKING, Any

import av
import numpy as np

from audiofoundation.audio.clipping import ClippingMeter
from audiofoundation.audio.sandbox.opening import LOUDEST
from audiofoundation.audio.waveform import Samples, mix_to_mono

if TYPE_CHECKING:
    _Planes = tuple[av.audio.plane.AudioPlane, ...]

_USUAL_FRAME = 4096

_TYPES: dict[str, type[np.number[Any]]] = {
    "u8": np.uint8,
    "s16": np.int16,
    "s32": np.int32,
    "s64": np.int64,
    "flt": np.float32,
    "dbl": np.float64,
}
_SCALES = {np.uint8: 2.0**-7, np.int16: 2.0**-15, np.int32: 2.0**-31, np.int64: 2.0**-63}  # full scale is 1


class FrameGatherer:
    """Gathers frames until a block is taken.

    Args:
        first: the frame whose rate, format and number of channels all others must have.
        num_values: values that fill a block; the frame that fills it may exceed them.
        is_mixed: whether blocks are the mean of the channels.

    Attributes:
        num_channels: of the first frame and so of all.
        num_samples: samples per channel gathered since the last block.
        block_samples: as many fill a block.
        has_nonsense: whether there were samples that are no numbers of a sound; they were made silent.
    """

    def __init__(self, first: "av.AudioFrame", num_values: int, *, is_mixed: bool) -> None:
        self.num_channels = int(first.layout.nb_channels)
        self.num_samples = 0
        self.has_nonsense = False
        self._is_mixed = is_mixed
        self._rate_hz, self._format = first.sample_rate, first.format.name
        self._type = _TYPES[self._format.removesuffix("p")]
        self._scale = _SCALES.get(self._type)
        self._is_planar = bool(first.format.is_planar)
        self._num_planes = self.num_channels if self._is_planar else 1
        self.block_samples = -(-num_values // self.num_channels)
        spare = max(first.samples, _USUAL_FRAME)  # the first frame of an mp3 is a short one
        self._use(np.empty((self.num_channels, self.block_samples + spare), np.float32))

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
            more = np.empty((len(self._buffer), count), np.float32)
            self._use(np.concatenate([self._buffer[:, :start], more], axis=1))
        planes = frame.planes
        if len(planes) != self._num_planes:
            planes = self._own(planes)
        self._copy(planes, start, stop)
        self.num_samples = stop
        return True

    def _use(self, buffer: Samples) -> None:
        self._buffer = buffer
        self._rows = [row.data.cast("B") for row in buffer]

    def _own(self, planes: "_Planes") -> "_Planes":
        """The frame's planes and no more: of eight, PyAV gives nine, and the ninth is no memory of the frame's."""
        if len(planes) < self._num_planes:
            raise ValueError("a frame lacks channels")
        return planes[: self._num_planes]

    def _copy(self, planes: "_Planes", start: int, stop: int) -> None:
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

    def take(self, meter: ClippingMeter | None = None) -> Samples:
        """What has been gathered, as float32 [channels, n] or [1, n]; integers are scaled so that full scale is 1.

        The block may be a view of the buffer: it holds until the next frame is added. A meter sees the channels before
        they are mixed.
        """
        samples: Samples = self._buffer[:, : self.num_samples]
        self.num_samples = 0
        if self._type is np.uint8:
            samples -= np.float32(128)
        if self._scale is not None:
            samples *= self._scale
        samples = self._without_nonsense(samples)
        if meter is not None:
            meter.push(samples)
        return mix_to_mono(samples) if self._is_mixed else samples

    def _without_nonsense(self, samples: Samples) -> Samples:
        with np.errstate(over="ignore", invalid="ignore"):
            energy = sum(np.dot(row, row) for row in samples)  # tells much faster; it is NaN when a sample is
        if energy <= LOUDEST**2:
            return samples
        is_sound = np.abs(samples) <= LOUDEST
        self.has_nonsense |= not is_sound.all()
        return np.where(is_sound, samples, np.float32(0))
