"""Griffin-Lim: mel frames to samples with no trained weights, offline and streaming.

Magnitudes are the pseudo-inverse of the mel filters; phases come from fast Griffin-Lim with momentum
(Perraudin, Balazs and Søndergaard 2013). The streaming form (Zhu, Beauregard and Wyse 2007, RTISI-LA, with
momentum) commits a few frames at a time: it iterates over the new frames and a short look-ahead on top
of the overlap of what is already committed.

Shape letters: T frames, F mel bands, K frequency bins, W transform size, N samples.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from audiofoundation.features.mel import Float32, MelConfig, hann_window, mel_filters
from audiofoundation.features.overlap_add import OverlapAdd, add_pieces, reciprocal, window_sum
from audiofoundation.native import kernels

Complex64 = NDArray[np.complex64]

_MOMENTUM = np.float32(0.99)
_TINY = np.float32(1e-8)
_LOUDEST = np.float32(30)  # log-mel far above any sound; squares of its magnitudes still fit float32
_NOTHING: Float32 = np.zeros(0, np.float32)
_PHASORS: Complex64 = np.exp(2j * np.pi * np.arange(1024) / 1024).astype(np.complex64)


@lru_cache(maxsize=8)
def inverse_filters(config: MelConfig) -> Float32:
    """Return the pseudo-inverse of the mel filters as [F, K]: band energies to linear magnitudes."""
    return np.linalg.pinv(mel_filters(config).astype(np.float64)).T.astype(np.float32)


def mel_to_magnitude(mel: Float32, config: MelConfig) -> Float32:
    """Return linear magnitudes [T, K] whose mel is close to the log-mel `mel` [T, F]; e^30 is the loudest."""
    magnitude = np.exp(np.minimum(np.asarray(mel, np.float32), _LOUDEST)) @ inverse_filters(config)
    np.maximum(magnitude, np.float32(1e-5), out=magnitude)
    return magnitude


def griffin_lim(mel: Float32, config: MelConfig, *, num_iterations: int = 32, seed: int = 0) -> Float32:
    """Return the waveform of log-mel frames, all of them at hand.

    Args:
        mel: float32 [T, F], natural-log magnitudes of the preset.
        config: the preset.
        num_iterations: Griffin-Lim iterations.
        seed: of the random starting phase.

    Returns:
        float32 [T * hop]: from the centre of frame 0 to one hop past the centre of the last frame.
    """
    if len(mel) == 0:
        return np.zeros(0, np.float32)
    magnitude = mel_to_magnitude(mel, config)
    frames = _random_phase_frames(magnitude, np.random.default_rng(seed))
    loop = _Iterations(config, len(mel), _NOTHING, _NOTHING, smallest_weight=1e-3)
    frames, _ = loop.run(frames, np.zeros_like(frames), magnitude, num_iterations)
    return loop.signal_of(frames)[config.fft_size // 2 :][: len(mel) * config.hop_length].copy()


def _random_phase_frames(magnitude: Float32, rng: np.random.Generator) -> Complex64:
    return magnitude * _PHASORS[rng.integers(0, len(_PHASORS), magnitude.shape, np.uint16)]


class _Iterations:
    """Griffin-Lim over a fixed number of frames, on buffers that are made once: an iteration is a few µs a frame.

    Args:
        config: the preset.
        num_frames: T.
        before, weight: settled samples under the first frames, and the window sum that they carry.
        smallest_weight: the window sum counts as at least this.
    """

    def __init__(
        self, config: MelConfig, num_frames: int, before: Float32, weight: Float32, *, smallest_weight: float
    ) -> None:
        size, hop = config.fft_size, config.hop_length
        self._size, self._hop, self._window = size, hop, hann_window(config)
        self._before: Float32 = np.zeros((num_frames + size // hop - 1, hop), np.float32)
        self._before.reshape(-1)[: len(before)] = before
        total = window_sum(config, num_frames)
        total[: len(weight)] += weight
        self._gain = reciprocal(total, smallest_weight).reshape(self._before.shape)
        self._rows = np.empty_like(self._before)
        # [T, W]: frame t of the signal that the rows are.
        self._frames = np.lib.stride_tricks.as_strided(self._rows, (num_frames, size), (4 * hop, 4))

    def run(
        self, frames: Complex64, previous: Complex64, magnitude: Float32, num_iterations: int
    ) -> tuple[Complex64, Complex64]:
        """Return the frames [T, K] after so many iterations, and the spectra that the last one saw."""
        native = kernels()
        if native is not None and native.has_transform(self._size, self._hop):
            signal, share = (self._before, self._gain), float(_MOMENTUM / (1 + _MOMENTUM))
            return native.griffin_lim(
                frames, previous, magnitude, signal, self._window, num_iterations=num_iterations, momentum=share
            )
        for _ in range(num_iterations):
            self.signal_of(frames)
            rebuilt: Complex64 = scipy.fft.rfft(self._frames * self._window, axis=-1)
            frames, previous = _project(rebuilt, previous, magnitude), rebuilt
        return frames, previous

    def signal_of(self, frames: Complex64) -> Float32:
        """Return the signal [(T - 1) * hop + W] of the frames; the next call overwrites it."""
        pieces = _windowed_pieces(frames, self._window)
        np.copyto(self._rows, self._before)
        add_pieces(pieces, self._rows)
        self._rows *= self._gain
        return self._rows.reshape(-1)


def _project(rebuilt: Complex64, previous: Complex64, magnitude: Float32) -> Complex64:
    """Extrapolate by momentum, then give every bin its magnitude back."""
    moved = previous * (_MOMENTUM / (1 + _MOMENTUM))
    np.subtract(rebuilt, moved, out=moved)
    moved *= magnitude / (np.abs(moved) + _TINY)
    return moved


def _windowed_pieces(frames: Complex64, window: Float32) -> Float32:
    pieces: Float32 = scipy.fft.irfft(frames, len(window), axis=-1)
    pieces *= window
    return pieces


@dataclass(frozen=True, slots=True)
class GriffinLimOptions:
    """Trade of quality, speed and delay of the streaming form (figures in docs/lab)."""

    step_frames: int = 8
    look_ahead_frames: int = 4
    num_iterations: int = 32


class GriffinLimVocoder:
    """Streaming Griffin-Lim as a vocoder: no weights, deterministic for a seed."""

    name = "griffinlim-streaming"

    def __init__(self, config: MelConfig, options: GriffinLimOptions | None = None) -> None:
        if config.fft_size % config.hop_length or config.log != "ln":
            raise ValueError(f"Griffin-Lim needs a natural-log preset whose hop divides the transform, not {config}")
        self._config = config
        self._options = options or GriffinLimOptions()

    @property
    def mel_config(self) -> MelConfig:
        return self._config

    def create_stream(self, *, seed: int = 0) -> "GriffinLimStream":
        return GriffinLimStream(self._config, self._options, seed)


class GriffinLimStream:
    """One stream. Samples leave `look_ahead_frames` frames and half a transform after their frame came."""

    def __init__(self, config: MelConfig, options: GriffinLimOptions, seed: int) -> None:
        self._config, self._options = config, options
        self._group = math.gcd(options.step_frames, options.look_ahead_frames)
        self._unread = np.zeros((0, config.num_bands), np.float32)
        self._rng = np.random.default_rng(seed)
        self._signal = OverlapAdd(config)
        num_bins = config.fft_size // 2 + 1
        self._waiting = np.zeros((0, num_bins), np.float32)
        self._phases = np.zeros((0, num_bins), np.complex64)
        self._previous = np.zeros((0, num_bins), np.complex64)

    def prime(self, samples: Float32) -> None:
        """Start from sound: take the float32 samples [N] before the stream, N at least one transform.

        The next frame is centred one hop before their end. They outweigh what the iterations put on top
        of them, so that the phases of the first frames fit them.
        """
        self._signal.prime(samples)

    def push(self, mel: Float32) -> Float32:
        """Take log-mel frames [T, F]; return final samples [n]."""
        self._accept(mel)
        step, ahead = self._options.step_frames, self._options.look_ahead_frames
        out = [_NOTHING]
        while len(self._waiting) >= step + ahead:
            out.append(self._commit(step))
        return np.concatenate(out)

    def finish(self) -> Float32:
        """Return the samples that are left."""
        self._read(self._unread)
        out = []
        while len(self._waiting):
            out.append(self._commit(min(self._options.step_frames, len(self._waiting))))
        return np.concatenate([*out, self._signal.finish()])

    def _accept(self, mel: Float32) -> None:
        """Read whole groups of frames, so that the pieces they came in change nothing, not even a last bit."""
        self._signal.expect(len(mel))
        self._unread = np.concatenate([self._unread, np.asarray(mel, np.float32)])
        while len(self._unread) >= self._group:
            self._read(self._unread[: self._group])
            self._unread = self._unread[self._group :]

    def _read(self, mel: Float32) -> None:
        magnitude = mel_to_magnitude(mel, self._config)
        self._waiting = np.concatenate([self._waiting, magnitude])
        self._phases = np.concatenate([self._phases, _random_phase_frames(magnitude, self._rng)])
        self._previous = np.concatenate([self._previous, np.zeros(magnitude.shape, np.complex64)])

    def _commit(self, num_frames: int) -> Float32:
        """Settle the phases of the frames at hand, add the first `num_frames` of them to the signal."""
        count = min(len(self._waiting), num_frames + self._options.look_ahead_frames)
        signal = self._signal
        loop = _Iterations(self._config, count, signal.overlap, signal.weight, smallest_weight=1e-1)
        frames, previous = loop.run(
            self._phases[:count], self._previous[:count], self._waiting[:count], self._options.num_iterations
        )
        self._phases[:count], self._previous[:count] = frames, previous
        out = signal.add(_windowed_pieces(frames[:num_frames], hann_window(self._config)))
        self._waiting = self._waiting[num_frames:]
        self._phases, self._previous = self._phases[num_frames:], self._previous[num_frames:]
        return out
