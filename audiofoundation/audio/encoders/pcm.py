"""Samples without compression: bare, and as WAV."""

import struct

from audiofoundation.audio.encoders.stream_encoder import to_int16
from audiofoundation.audio.waveform import Samples

_UNKNOWN_BYTES = 0xFFFFFFFF
_HEADER_BYTES = 44
_PCM_TAG, _SAMPLE_BYTES = 1, 2


class PcmEncoder:
    """Signed 16-bit little-endian, channels interleaved, no header."""

    def push(self, samples: Samples) -> bytes:
        return to_int16(samples).T.astype("<i2", order="C").tobytes()

    def finish(self) -> bytes:
        return b""


class WavEncoder:
    """16-bit WAV. Without `num_samples` the header states the largest size, as streamed WAV does."""

    def __init__(self, *, sample_rate_hz: int, num_channels: int, num_samples: int | None) -> None:
        self._pcm = PcmEncoder()
        frame_bytes = _SAMPLE_BYTES * num_channels
        data_bytes = _UNKNOWN_BYTES if num_samples is None else num_samples * frame_bytes
        self._pending = _header(sample_rate_hz, num_channels, min(data_bytes, _UNKNOWN_BYTES))

    def push(self, samples: Samples) -> bytes:
        header, self._pending = self._pending, b""
        return header + self._pcm.push(samples)

    def finish(self) -> bytes:
        header, self._pending = self._pending, b""
        return header


def _header(sample_rate_hz: int, num_channels: int, data_bytes: int) -> bytes:
    frame_bytes = _SAMPLE_BYTES * num_channels
    riff_bytes = min(data_bytes + _HEADER_BYTES - 8, _UNKNOWN_BYTES)
    fmt = (16, _PCM_TAG, num_channels, sample_rate_hz, sample_rate_hz * frame_bytes, frame_bytes, 16)
    return struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", riff_bytes, b"WAVE", b"fmt ", *fmt, b"data", data_bytes)
