"""Frames to a signal, each in its place, while they arrive.

Shape letters: T frames, W transform size, N samples.
"""

from functools import lru_cache

import numpy as np

from audiofoundation.features.mel import Float32, MelConfig, hann_window

_PRIMED_WEIGHT = np.float32(30)  # beside a window sum of about one
_FEW_FRAMES = 64


def add_pieces(pieces: Float32, rows: Float32) -> None:
    """Add pieces [T, W], one hop apart, onto the rows [T + ceil(W / hop) - 1, hop] of a signal."""
    num_frames, hop = len(pieces), rows.shape[1]
    for part, start in enumerate(range(0, pieces.shape[1], hop)):
        piece = pieces[:, start : start + hop]
        rows[part : part + num_frames, : piece.shape[1]] += piece


def overlap_add(pieces: Float32, config: MelConfig) -> Float32:
    """Return the signal [(T - 1) * hop + W] of pieces [T, W]."""
    hop, size = config.hop_length, config.fft_size
    rows: Float32 = np.zeros((len(pieces) + -(-size // hop) - 1, hop), np.float32)
    add_pieces(pieces, rows)
    return rows.reshape(-1)[: (len(pieces) - 1) * hop + size]


def window_sum(config: MelConfig, num_frames: int) -> Float32:
    """Return the sum of the squared windows of T frames, [(T - 1) * hop + W]."""
    return _sum_of_few(config, num_frames).copy() if num_frames < _FEW_FRAMES else _sum(config, num_frames)


def _sum(config: MelConfig, num_frames: int) -> Float32:
    return overlap_add(np.broadcast_to(hann_window(config) ** 2, (num_frames, config.fft_size)), config)


_sum_of_few = lru_cache(maxsize=2 * _FEW_FRAMES)(_sum)


def reciprocal(weight: Float32, smallest: float) -> Float32:
    """Return 1 / weight, where a weight counts as at least `smallest`."""
    out: Float32 = np.reciprocal(np.maximum(weight, np.float32(smallest)))
    return out


class OverlapAdd:
    """The signal of a stream from the centre of its first frame on. Samples leave when no later frame reaches them.

    Attributes:
        overlap: sums of windowed pieces that later frames still reach, [W - hop].
        weight: the window sum that they carry.
    """

    def __init__(self, config: MelConfig) -> None:
        self._config = config
        count = config.fft_size - config.hop_length
        self.overlap: Float32 = np.zeros(count, np.float32)
        self.weight: Float32 = np.zeros(count, np.float32)
        self._to_drop = config.fft_size // 2
        self._to_emit = 0

    def prime(self, samples: Float32) -> None:
        """Start from the samples [N] before the stream, N at least one transform: they outweigh what is added."""
        count = len(self.overlap)
        self.weight = np.full(count, _PRIMED_WEIGHT, np.float32)
        self.overlap = np.asarray(samples[-count:], np.float32) * _PRIMED_WEIGHT

    def expect(self, num_frames: int) -> None:
        """Let a hop of samples more leave for each of so many frames."""
        self._to_emit += num_frames * self._config.hop_length

    def add(self, pieces: Float32) -> Float32:
        """Add pieces [T, W] under their windows, return the samples that they settle."""
        signal, weight = overlap_add(pieces, self._config), window_sum(self._config, len(pieces))
        signal[: len(self.overlap)] += self.overlap
        weight[: len(self.weight)] += self.weight
        settled = len(pieces) * self._config.hop_length
        self.overlap, self.weight = signal[settled:].copy(), weight[settled:].copy()
        return self._trim(signal[:settled] * reciprocal(weight[:settled], 1e-3))

    def finish(self) -> Float32:
        """Return the samples that are left. Past the last frame the window sum falls to nothing: they fade."""
        return self._trim(self.overlap * reciprocal(self.weight, 1e-1))

    def _trim(self, samples: Float32) -> Float32:
        dropped = min(self._to_drop, len(samples))
        self._to_drop -= dropped
        samples = samples[dropped:][: self._to_emit]
        self._to_emit -= len(samples)
        return samples
