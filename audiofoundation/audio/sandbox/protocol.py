"""What passes between the caller, the zygote and a decoding child.

Control socket (SOCK_SEQPACKET, caller to zygote): one `DecodeRequest` as JSON per datagram with three
descriptors: the bytes to decode, the pipe for the result, the status socket.
Status socket (SOCK_SEQPACKET, zygote to caller): a datagram with the child's pidfd, then one with its
exit code (negative: the signal that ended it).
Pipe (child to caller): messages of one kind byte, a 32-bit little-endian length and the payload.
"""

import json
import struct
from dataclasses import dataclass
from typing import Literal

HEADER = struct.Struct("<cI")
STATUS = struct.Struct("<i")
MAX_JSON_BYTES = 4096
MAX_SAMPLE_BYTES = 1 << 20
MaxChannels = Literal[0, 1, 2] | None

INFO = b"I"  # JSON of StreamInfo, once, first
SAMPLES = b"S"  # float32 little-endian, interleaved [n, channels]
CLIPPED = b"C"  # float32 little-endian [n], of the clipping's steps; where it is asked for, before DONE
DONE = b"D"  # JSON of StreamEnd, last
ERROR = b"E"  # JSON of StreamError, last


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """What one child is to do and what it may use.

    `expansion_bytes` is the most that may come out, counted as 16-bit samples at the source's rate;
    `decoded_bytes` bounds what is sent to the caller. More than `max_channels` are mixed to as many; None keeps
    all, 0 sends no samples at all. `is_measured`: clipping is measured as well.
    """

    demuxer: str
    max_duration_s: float
    expansion_bytes: float
    decoded_bytes: int
    target_rate_hz: int | None
    max_channels: MaxChannels
    cpu_s: int
    memory_bytes: int
    is_measured: bool = False

    def channels_of(self, num_channels: int) -> int:
        """How many channels are sent of a source with `num_channels`."""
        return num_channels if self.max_channels is None else min(num_channels, self.max_channels)

    def to_json(self) -> bytes:
        return _json_of(self)

    @classmethod
    def from_json(cls, data: bytes) -> "DecodeRequest":
        return cls(**json.loads(data))


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What the child found: the source as it was, and the form in which samples follow."""

    container: str
    codec: str
    sample_rate_hz: int
    num_channels: int
    out_rate_hz: int
    out_channels: int


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """How much there was, in samples per channel at the source's rate, and what was wrong with it."""

    num_source_samples: int
    damage: str | None


@dataclass(frozen=True, slots=True)
class StreamError:
    """Why nothing (more) comes: `kind` is too_long, too_large or undecodable."""

    kind: str
    message: str


def pack(kind: bytes, value: StreamInfo | StreamEnd | StreamError) -> bytes:
    payload = _json_of(value)
    return HEADER.pack(kind, len(payload)) + payload


def _json_of(value: DecodeRequest | StreamInfo | StreamEnd | StreamError) -> bytes:
    """Without `asdict` and its many calls: in a fresh fork each function's first call copies some five pages."""
    return json.dumps({name: getattr(value, name) for name in value.__slots__}).encode()
