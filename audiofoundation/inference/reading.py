"""From a caller's bytes to a waveform: decoded in the sandbox, a few at a time, outside the event loop."""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from audiofoundation.audio.decode import Decoded, DecodeLimits, decode, decode_file
from audiofoundation.audio.waveform import Waveform
from audiofoundation.errors import AudioTooLong, DecodeFailed, InvalidRequest
from audiofoundation.inference.threads import BoundedThreads

_MAX_CHANNELS = 8
_MIN_RATE_HZ, _MAX_RATE_HZ = 4000, 192000


@dataclass(frozen=True, slots=True)
class Recording:
    """A decoded recording.

    Attributes:
        waveform: mono, at the rate asked for.
        damage: a sentence, when bytes after some point did not decode and what came before is used.
    """

    waveform: Waveform
    damage: str | None = None


@dataclass(frozen=True, slots=True)
class PcmLayout:
    """What 16-bit samples without a header mean."""

    sample_rate_hz: int
    num_channels: int = 1

    def validate(self) -> None:
        """Raise InvalidRequest when a value is out of range."""
        if not _MIN_RATE_HZ <= self.sample_rate_hz <= _MAX_RATE_HZ:
            raise InvalidRequest(
                f"the sample rate must lie between {_MIN_RATE_HZ} and {_MAX_RATE_HZ} Hz, not {self.sample_rate_hz}",
                param="sample_rate",
            )
        if not 1 <= self.num_channels <= _MAX_CHANNELS:
            raise InvalidRequest(
                f"there must be 1 to {_MAX_CHANNELS} channels, not {self.num_channels}", param="channels"
            )


class RecordingReader:
    """Decodes what callers send.

    Args:
        limits: what a recording may cost.
        max_concurrent: sandboxes that run at the same time.
        max_waiting: recordings that may wait for one; one more is refused with Overloaded.
    """

    def __init__(self, limits: DecodeLimits, *, max_concurrent: int = 4, max_waiting: int = 32) -> None:
        self._limits = limits
        self._threads = BoundedThreads("decoding", num_threads=max_concurrent, max_waiting=max_waiting)

    async def read(self, data: bytes, *, rate_hz: int) -> Recording:
        """Decode a whole file of any container.

        Raises:
            DecodeFailed: it is not audio; the message says what it is.
            AudioTooLong: it is longer than the limit.
        """
        return await self._threads.run(lambda: self._decode(data, rate_hz))

    async def read_stream(self, stream: BinaryIO, *, rate_hz: int) -> Recording:
        """As `read`, for an upload that lies on disk: one that waits takes no memory."""
        return await self._threads.run(lambda: self._decode(stream.read(), rate_hz))

    async def read_file(self, path: Path, *, rate_hz: int) -> Recording:
        """As `read`, for a file of ours."""

        def work() -> Recording:
            return _recording(decode_file(path, limits=self._limits, target_rate_hz=rate_hz, is_mono=True))

        return await self._threads.run(work)

    def _decode(self, data: bytes, rate_hz: int) -> Recording:
        return _recording(decode(data, limits=self._limits, target_rate_hz=rate_hz, is_mono=True))

    async def read_pcm16(self, data: bytes, layout: PcmLayout) -> Recording:
        """Take samples without a header.

        Raises:
            InvalidRequest: the layout is out of range.
            DecodeFailed: there are no whole samples.
            AudioTooLong: they last longer than the limit.
        """
        layout.validate()
        frame_bytes = 2 * layout.num_channels
        if len(data) < frame_bytes or len(data) % frame_bytes:
            raise DecodeFailed(
                f"{len(data)} bytes are not a whole number of 16-bit samples in {layout.num_channels} channels"
            )
        if len(data) / frame_bytes / layout.sample_rate_hz > self._limits.max_duration_s:
            raise AudioTooLong(f"the recording is longer than {self._limits.max_duration_s:g} s")
        return await self._threads.run(lambda: Recording(_from_pcm16(data, layout)))


def _from_pcm16(data: bytes, layout: PcmLayout) -> Waveform:
    samples = np.frombuffer(data, "<i2").reshape(-1, layout.num_channels).T
    scaled = np.ascontiguousarray(samples, np.float32) / np.float32(32768)
    return Waveform(scaled, layout.sample_rate_hz).to_mono()


def _recording(decoded: Decoded) -> Recording:
    return Recording(decoded.waveform, decoded.damage)
