"""PyAV's audio encoders as a stream of packets; the one file here that knows the vendor."""

from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np

from audiofoundation.audio.encoders.stream_encoder import to_int16
from audiofoundation.audio.waveform import Samples

_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


@dataclass(frozen=True, slots=True)
class CodecSpec:
    """An encoder by ffmpeg's name, with the sample format it takes (`s16`, `flt` or `fltp`)."""

    name: str
    sample_format: str
    bit_rate_bps: int | None = None


class PacketEncoder:
    """Cuts pushed samples into the codec's frames and returns encoded packets.

    Attributes:
        extradata: the codec's header.
        frame_samples: samples per channel in a full packet.
        initial_padding: samples that the codec puts before the first one.
    """

    def __init__(self, spec: CodecSpec, *, sample_rate_hz: int, num_channels: int) -> None:
        context = av.CodecContext.create(spec.name, "w")
        context.sample_rate = sample_rate_hz
        context.layout = _LAYOUTS[num_channels]
        context.format = spec.sample_format
        context.time_base = Fraction(1, sample_rate_hz)
        context.thread_count = 1
        if spec.bit_rate_bps is not None:
            context.bit_rate = spec.bit_rate_bps
        context.open()
        self._context = context
        self._spec = spec
        self._num_channels = num_channels
        self._num_encoded = 0
        self._buffer: Samples = np.zeros((num_channels, 0), np.float32)
        self.extradata = bytes(context.extradata or b"")
        self.frame_samples = int(context.frame_size)

    def push(self, samples: Samples) -> list[bytes]:
        self._buffer = np.concatenate([self._buffer, samples], axis=1)
        packets: list[bytes] = []
        start = 0
        while self._buffer.shape[1] - start >= self.frame_samples:
            packets += self._encode(self._buffer[:, start : start + self.frame_samples])
            start += self.frame_samples
        self._buffer = self._buffer[:, start:]
        return packets

    def finish(self) -> list[bytes]:
        packets = self._encode(self._buffer) if self._buffer.shape[1] else []
        return packets + [bytes(packet) for packet in self._context.encode(None) if packet.size]

    def _encode(self, samples: Samples) -> list[bytes]:
        frame = self._to_frame(samples)
        frame.sample_rate = self._context.sample_rate
        frame.pts = self._num_encoded
        frame.time_base = self._context.time_base
        self._num_encoded += samples.shape[1]
        return [bytes(packet) for packet in self._context.encode(frame) if packet.size]

    def _to_frame(self, samples: Samples) -> "av.AudioFrame":
        form, layout = self._spec.sample_format, _LAYOUTS[self._num_channels]
        if form == "s16":
            values = np.ascontiguousarray(to_int16(samples).T).reshape(1, -1)
            return av.AudioFrame.from_ndarray(values, format=form, layout=layout)
        clean = np.clip(np.nan_to_num(samples, nan=0.0), -1.0, 1.0).astype(np.float32)
        planes = clean if form == "fltp" else clean.T.reshape(1, -1)
        return av.AudioFrame.from_ndarray(np.ascontiguousarray(planes), format=form, layout=layout)
