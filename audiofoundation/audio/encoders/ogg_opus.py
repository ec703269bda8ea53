"""Opus in Ogg as a stream (RFC 3533, RFC 7845).

ffmpeg's own muxer keeps a second of sound back per page, and libsndfile refuses some of its files; these
pages hold a fifth of a second and state their positions as the RFC asks, which libsndfile reads.
"""

import struct
import zlib

import numpy as np

from audiofoundation.audio.encoders.packets import CodecSpec, PacketEncoder
from audiofoundation.audio.resample import StreamingResampler
from audiofoundation.audio.waveform import Samples

CODEC_RATES_HZ = (8000, 12000, 16000, 24000, 48000)
_CLOCK_HZ = 48000
_BIT_RATE_PER_CHANNEL = 64000
_PACKETS_PER_PAGE = 10
_SERIAL = 0x41465354
_FIRST, _LAST = 0x02, 0x04
_VENDOR = b"audiofoundation"
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class OggOpusEncoder:
    """64 kbit/s and channel, 20 ms packets. Rates that Opus does not know are resampled to 48 kHz."""

    def __init__(self, *, sample_rate_hz: int, num_channels: int) -> None:
        rate_hz = sample_rate_hz if sample_rate_hz in CODEC_RATES_HZ else _CLOCK_HZ
        spec = CodecSpec("libopus", "flt", _BIT_RATE_PER_CHANNEL * num_channels)
        self._resampler = StreamingResampler(sample_rate_hz, rate_hz, num_channels)
        self._packets = PacketEncoder(spec, sample_rate_hz=rate_hz, num_channels=num_channels)
        self._ticks_per_sample = _CLOCK_HZ // rate_hz
        self._packet_ticks = self._packets.frame_samples * self._ticks_per_sample
        self._pre_skip = int.from_bytes(self._packets.extradata[10:12], "little")
        self._num_channels = num_channels
        self._num_samples = 0
        self._pending: list[bytes] = []
        self._num_packets = 0
        self._page_number = 0
        self._has_headers = False

    def push(self, samples: Samples) -> bytes:
        return self._take(self._resampler.push(samples))

    def finish(self) -> bytes:
        """The tail, in a page that ends the stream and states where the sound ends within its last packet."""
        out = self._take(self._resampler.push(_none(self._num_channels), is_last=True))
        end = self._pre_skip + self._num_samples * self._ticks_per_sample
        missing = -(-end // self._packet_ticks) * self._packet_ticks - end
        silence = -(-(self._pre_skip + missing) // self._ticks_per_sample)
        self._pending += self._packets.push(_zeros(self._num_channels, silence)) + self._packets.finish()
        num_needed = -(-end // self._packet_ticks) - self._num_packets
        self._pending = self._pending[: max(0, num_needed)]
        while len(self._pending) > _PACKETS_PER_PAGE:
            out += self._full_page()
        return out + self._headers() + self._page(self._pending, flags=_LAST, position=end)

    def _take(self, samples: Samples) -> bytes:
        self._num_samples += samples.shape[1]
        self._pending += self._packets.push(samples)
        out = self._headers()
        while len(self._pending) > _PACKETS_PER_PAGE:  # the last packet waits for the page that ends the stream
            out += self._full_page()
        return out

    def _full_page(self) -> bytes:
        packets, self._pending = self._pending[:_PACKETS_PER_PAGE], self._pending[_PACKETS_PER_PAGE:]
        self._num_packets += len(packets)
        return self._page(packets, flags=0, position=self._num_packets * self._packet_ticks)

    def _headers(self) -> bytes:
        if self._has_headers:
            return b""
        self._has_headers = True
        tags = b"OpusTags" + struct.pack("<I", len(_VENDOR)) + _VENDOR + struct.pack("<I", 0)
        head = self._page([self._packets.extradata], flags=_FIRST, position=0)
        return head + self._page([tags], flags=0, position=0)

    def _page(self, packets: list[bytes], *, flags: int, position: int) -> bytes:
        lacing = b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets)
        fields = (b"OggS", 0, flags, position, _SERIAL, self._page_number, 0, len(lacing))
        page = struct.pack("<4sBBqIIIB", *fields) + lacing + b"".join(packets)
        self._page_number += 1
        return page[:22] + struct.pack("<I", ogg_checksum(page)) + page[26:]


def ogg_checksum(data: bytes) -> int:
    """CRC-32 of Ogg: zlib's polynomial, most significant bit first, no inversions.

    Reversing the bits of every byte and of the result turns zlib's fast CRC into it.
    """
    raw = zlib.crc32(data.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{raw:032b}"[::-1], 2)


def _none(num_channels: int) -> Samples:
    return _zeros(num_channels, 0)


def _zeros(num_channels: int, num_samples: int) -> Samples:

    return np.zeros((num_channels, num_samples), np.float32)
