"""16-bit FLAC as a stream (RFC 9639)."""

from audiofoundation.audio.encoders.packets import CodecSpec, PacketEncoder
from audiofoundation.audio.waveform import Samples

_STREAMINFO_BYTES = 34
_LAST_BLOCK_STREAMINFO = 0x80
_MAX_SAMPLES = (1 << 36) - 1


class FlacEncoder:
    """Without `num_samples` the header leaves the length open: ffmpeg and browsers read on to the end,
    libsndfile does not."""

    def __init__(self, *, sample_rate_hz: int, num_channels: int, num_samples: int | None) -> None:
        self._packets = PacketEncoder(
            CodecSpec("flac", "s16"), sample_rate_hz=sample_rate_hz, num_channels=num_channels
        )
        self._header = _header(self._packets.extradata, num_samples or 0)

    def push(self, samples: Samples) -> bytes:
        return self._with_header(self._packets.push(samples))

    def finish(self) -> bytes:
        return self._with_header(self._packets.finish())

    def _with_header(self, packets: list[bytes]) -> bytes:
        header, self._header = self._header, b""
        return header + b"".join(packets)


def _header(streaminfo: bytes, num_samples: int) -> bytes:
    """The marker and the STREAMINFO block with the total number of samples, 36 bits from bit 108."""
    assert len(streaminfo) == _STREAMINFO_BYTES
    fields = int.from_bytes(streaminfo, "big")
    shift = 8 * _STREAMINFO_BYTES - 144
    fields = fields & ~(_MAX_SAMPLES << shift) | (num_samples & _MAX_SAMPLES) << shift
    block = bytes([_LAST_BLOCK_STREAMINFO]) + _STREAMINFO_BYTES.to_bytes(3, "big")
    return b"fLaC" + block + fields.to_bytes(_STREAMINFO_BYTES, "big")
