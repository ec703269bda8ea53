"""From the engine's blocks to the bytes that a caller asked for, encoded outside the event loop."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator

import numpy as np

from audiofoundation.audio.encode import AudioFormat, StreamEncoder, create_encoder
from audiofoundation.audio.resample import StreamingResampler, output_length
from audiofoundation.features.mel import Float32
from audiofoundation.inference.streaming import RunningContinuation

# A prompt that is included comes in one block. WebSocket clients refuse messages over 1 MiB unless told otherwise,
# gRPC clients over 4 MiB.
_MAX_CHUNK_BYTES = 1 << 18


class Delivery:
    """Encodes one continuation.

    Every door uses this, so that all give the same bytes for the same request.

    Attributes:
        sample_rate_hz: of the encoded audio.
        num_samples: how many were encoded.
        num_bytes: how many bytes were yielded.
    """

    def __init__(self, running: RunningContinuation, fmt: AudioFormat, *, sample_rate_hz: int | None = None) -> None:
        self._running = running
        self._format, self._wanted_rate_hz = fmt, sample_rate_hz
        self._first: Float32 | None = None
        self._resampler: StreamingResampler | None = None
        self._digest = hashlib.sha256()
        self.sample_rate_hz = 0
        self.num_samples = 0
        self.num_bytes = 0

    @property
    def duration_s(self) -> float:
        return self.num_samples / self.sample_rate_hz if self.sample_rate_hz else 0.0

    @property
    def sha256(self) -> str:
        """Hex digest of the bytes yielded so far."""
        return self._digest.hexdigest()

    async def begin(self) -> None:
        """Wait for the first block: from now on the continuation's attributes are known. Failing cancels it.

        Raises:
            AudioFoundationError: what kept it from starting.
        """
        try:
            self._first = await self._running.next_block()
        except BaseException:  # also when the caller is cancelled
            self._running.cancel()
            raise
        model_rate_hz = self._running.sample_rate_hz
        self.sample_rate_hz = self._wanted_rate_hz or model_rate_hz
        if self.sample_rate_hz != model_rate_hz:
            self._resampler = StreamingResampler(model_rate_hz, self.sample_rate_hz, 1)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the encoded bytes as they are made. Leaving early cancels the continuation."""
        encoder = create_encoder(
            self._format,
            sample_rate_hz=self.sample_rate_hz,
            num_channels=1,
            num_samples=output_length(self._running.num_samples, self._running.sample_rate_hz, self.sample_rate_hz),
        )
        try:
            block = self._first
            while block is not None:
                for chunk in _split(await asyncio.to_thread(self._encoded, encoder, block)):
                    yield self._counted(chunk)
                block = await self._running.next_block()
            for chunk in _split(await asyncio.to_thread(self._rest, encoder)):
                yield self._counted(chunk)
        finally:
            self._running.cancel()

    def _encoded(self, encoder: StreamEncoder, block: Float32) -> bytes:
        return encoder.push(self._resampled(block, is_last=False))

    def _rest(self, encoder: StreamEncoder) -> bytes:
        return encoder.push(self._resampled(np.zeros(0, np.float32), is_last=True)) + encoder.finish()

    def _resampled(self, block: Float32, *, is_last: bool) -> Float32:
        samples = block[None, :]
        if self._resampler is not None:
            samples = self._resampler.push(samples, is_last=is_last)
        self.num_samples += samples.shape[1]
        return samples

    def _counted(self, chunk: bytes) -> bytes:
        self.num_bytes += len(chunk)
        self._digest.update(chunk)
        return chunk


def _split(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), _MAX_CHUNK_BYTES):
        yield data[start : start + _MAX_CHUNK_BYTES]
