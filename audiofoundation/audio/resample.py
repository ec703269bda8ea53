"""The one resampler: soxr at high quality, streaming and offline through the same filter."""

from typing import Literal

import numpy as np
import soxr

from audiofoundation.audio.waveform import Samples, Waveform

Quality = Literal["HQ", "VHQ"]


class StreamingResampler:
    """Resamples blocks as they come; what it returns in all equals the offline result.

    Args:
        in_rate_hz: rate of the blocks pushed.
        out_rate_hz: rate of the blocks returned.
        num_channels: channels of every block.
        quality: soxr's recipe; HQ keeps 20 bits, VHQ 28.
    """

    def __init__(self, in_rate_hz: int, out_rate_hz: int, num_channels: int, *, quality: Quality = "HQ") -> None:
        self._in_rate_hz, self._out_rate_hz, self._num_channels = in_rate_hz, out_rate_hz, num_channels
        self._num_in = self._num_out = 0
        self._stream = None
        if in_rate_hz != out_rate_hz:
            self._stream = soxr.ResampleStream(in_rate_hz, out_rate_hz, num_channels, dtype="float32", quality=quality)

    def push(self, samples: Samples, *, is_last: bool = False) -> Samples:
        """Take a block and return what is ready.

        Args:
            samples: float32 [channels, n]; n may be 0.
            is_last: nothing follows; the filter's tail is returned too.

        Returns:
            float32 [channels, m]. Over a whole stream the m add up to round(sum of n · out / in).
        """
        if samples.shape[0] != self._num_channels:
            raise ValueError(f"expected {self._num_channels} channels, got {samples.shape[0]}")
        if self._stream is None:
            return samples
        self._num_in += samples.shape[1]
        out: Samples = self._stream.resample_chunk(np.ascontiguousarray(samples.T), last=is_last).T
        if is_last:
            out = self._to_exact_length(out)
        self._num_out += out.shape[1]
        return np.ascontiguousarray(out)

    def _to_exact_length(self, out: Samples) -> Samples:
        """soxr rounds the length by its own state (off by one sample at some ratios); ours is stated."""
        target = output_length(self._num_in, self._in_rate_hz, self._out_rate_hz) - self._num_out
        missing = target - out.shape[1]
        return np.pad(out, ((0, 0), (0, missing))) if missing > 0 else out[:, : max(0, target)]


def output_length(num_samples: int, in_rate_hz: int, out_rate_hz: int) -> int:
    """How many samples `num_samples` become: the nearest integer, half up."""
    return (2 * num_samples * out_rate_hz + in_rate_hz) // (2 * in_rate_hz)


def resample(waveform: Waveform, rate_hz: int, *, quality: Quality = "HQ") -> Waveform:
    """The same sound at another rate, band-limited; the waveform itself when the rate is the same."""
    if rate_hz == waveform.sample_rate_hz:
        return waveform
    stream = StreamingResampler(waveform.sample_rate_hz, rate_hz, waveform.num_channels, quality=quality)
    return Waveform(stream.push(waveform.samples, is_last=True), rate_hz)
