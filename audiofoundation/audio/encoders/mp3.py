"""MP3 as a stream, with the Info frame that lets players cut the codec's delay and padding."""

import numpy as np

from audiofoundation.audio.encoders.packets import CodecSpec, PacketEncoder
from audiofoundation.audio.resample import StreamingResampler, output_length
from audiofoundation.audio.waveform import Samples

CODEC_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_BIT_RATE_PER_CHANNEL = 64000
_ENCODER_DELAY, _DECODER_DELAY = 576, 529
_MPEG1_MIN_RATE_HZ = 32000
_ALL_FIELDS = 0x0F
_ENCODER_NAME = b"LAME3.100"
_MIN_FRAMES = 2  # decoders refuse a file of one
_PADDING_BIT = 0x02


class Mp3Encoder:
    """64 kbit/s and channel, constant. Rates that MP3 does not know are resampled to 48 kHz.

    With `num_samples` decoders give exactly that many back. Without, the Info frame is left out, as it
    comes first and states the length: decoders then add the codec's delay and padding, under 0.1 s.
    """

    def __init__(self, *, sample_rate_hz: int, num_channels: int, num_samples: int | None) -> None:
        rate_hz = sample_rate_hz if sample_rate_hz in CODEC_RATES_HZ else CODEC_RATES_HZ[-1]
        spec = CodecSpec("libmp3lame", "fltp", _BIT_RATE_PER_CHANNEL * num_channels)
        self._resampler = StreamingResampler(sample_rate_hz, rate_hz, num_channels)
        self._packets = PacketEncoder(spec, sample_rate_hz=rate_hz, num_channels=num_channels)
        self._num_channels = num_channels
        self._rate_hz = rate_hz
        self._num_samples = None if num_samples is None else output_length(num_samples, sample_rate_hz, rate_hz)
        self._num_written = 0

    def push(self, samples: Samples) -> bytes:
        return self._join(self._packets.push(self._resampler.push(samples)))

    def finish(self) -> bytes:
        tail = self._resampler.push(np.zeros((self._num_channels, 0), np.float32), is_last=True)
        return self._join(self._packets.push(tail) + self._packets.finish())

    def _join(self, packets: list[bytes]) -> bytes:
        if self._num_samples is None or not packets:
            return b"".join(packets)
        num_frames = self._num_frames(self._num_samples)
        info = b"" if self._num_written else self._info_frame(packets[0], self._num_samples)
        kept = packets[: num_frames - self._num_written]  # LAME sometimes flushes a frame of nothing
        self._num_written += len(kept)
        return info + b"".join(kept)

    def _num_frames(self, num_samples: int) -> int:
        needed = -(-(num_samples + _ENCODER_DELAY + _DECODER_DELAY) // self._packets.frame_samples)
        return max(needed, _MIN_FRAMES)

    def _info_frame(self, first: bytes, num_samples: int) -> bytes:
        """A silent frame like the first one, holding the Xing/LAME tag with delay, padding and length."""
        num_frames = self._num_frames(num_samples)
        padding = num_frames * self._packets.frame_samples - _ENCODER_DELAY - num_samples
        size = len(first) - bool(first[2] & _PADDING_BIT)
        is_mono = self._num_channels == 1
        side_info_bytes = (17 if is_mono else 32) if self._rate_hz >= _MPEG1_MIN_RATE_HZ else (9 if is_mono else 17)
        header = bytes([first[0], first[1] | 0x01, first[2] & ~_PADDING_BIT, first[3]]) + bytes(side_info_bytes)
        total_bytes = size * (num_frames + 1)
        toc = bytes(256 * step // 100 for step in range(100))
        counts = b"".join(value.to_bytes(4, "big") for value in (_ALL_FIELDS, num_frames, total_bytes))
        delays = ((_ENCODER_DELAY << 12) | min(padding, 0xFFF)).to_bytes(3, "big")
        lame = _ENCODER_NAME + b"\x01" + bytes(11) + delays + bytes(4) + total_bytes.to_bytes(4, "big") + bytes(2)
        frame = header + b"Info" + counts + toc + bytes(4) + lame
        return (frame + crc16(frame).to_bytes(2, "big")).ljust(size, b"\x00")


def crc16(data: bytes) -> int:
    """CRC-16/ARC, with which the LAME tag guards itself."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc
