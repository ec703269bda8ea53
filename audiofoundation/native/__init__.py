"""Inner loops of preprocessing and generation in C, used where they could be compiled when the package was installed
(ADR 0010).

Callers ask `kernels()` and do the same in NumPy or torch where it is None. Both give the same values within float32's
rounding; `test_native.py`, `test_griffin_lim.py` and `test_decoding*.py` in `tests/numerics` say so for every vector
width that the machine has.
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

try:
    from audiofoundation.native import _kernels
except ImportError:  # there was no compiler
    _kernels = None  # type: ignore[assignment]

_INTERFACE = 7
if _kernels is not None and getattr(_kernels, "INTERFACE", 0) != _INTERFACE:
    _kernels = None  # type: ignore[assignment]  # of another version of this package: install it again

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Complex64 = NDArray[np.complex64]
Matrix = NDArray[np.float16] | Float32
OFF = "AF_NATIVE"  # 0 in the environment: as if it had not been compiled
_MAX_FFT_SIZE = 4096


@dataclass(frozen=True, slots=True)
class SparseFilters:
    """Filters of which each uses neighbouring bins only.

    Attributes:
        first: int32 [F], each filter's first bin.
        count: int32 [F], how many bins it uses.
        weights: float32, one filter's after the other's.
    """

    first: NDArray[np.int32]
    count: NDArray[np.int32]
    weights: Float32


@dataclass(frozen=True, slots=True)
class Description:
    """What is measured of frames [T, N].

    Attributes:
        shapes: float64 [T, 3]: centroid, bandwidth and roll-off of the magnitudes as shares of the highest frequency.
        bands: float32 [T, F], filtered powers.
        power: float32 [K], mean power of all frames.
        num_crossings: how often samples change their sign, over all frames.
        rms: mean over frames of the root of the mean square.
    """

    shapes: Float64
    bands: Float32
    power: Float32
    num_crossings: int
    rms: float


class Kernels:
    """The compiled loops.

    Attributes:
        num_lanes: how many frames are worked on at once.

    Raises:
        ValueError: arrays are not aligned float32 (the loudness filter: float64), or their sizes do not fit each other.
        BufferError: an array is not contiguous.
    """

    num_lanes = 0 if _kernels is None else _kernels.NUM_LANES

    @staticmethod
    def has_transform(fft_size: int, hop: int) -> bool:
        """Whether frames of this size and distance can be transformed."""
        is_power = 8 <= fft_size <= _MAX_FFT_SIZE and not fft_size & (fft_size - 1)
        return is_power and (hop >= fft_size or fft_size % hop == 0)

    def band_energies(
        self, samples: Float32, hop: int, window: Float32, filters: SparseFilters, *, power: int, epsilon: float
    ) -> Float32:
        """Return filtered magnitudes (power 1) or powers (2) [T, F] of the frames of samples [N] under the window."""
        _require_float32(samples, window)
        num_frames = 1 + (samples.size - window.size) // hop
        out = np.empty((num_frames, filters.first.size), np.float32)
        spec = (filters.first, filters.count, filters.weights, power, epsilon)
        _kernels.band_energies(samples, hop, window, _tables(window.size), *spec, out)
        return out

    def describe(
        self, samples: Float32, hop: int, window: Float32, filters: SparseFilters, *, rolloff_share: float, zero: float
    ) -> Description:
        """Measure the frames of samples [N] under the window; level and crossings (of `-zero`) without it."""
        _require_float32(samples, window)
        num_frames = 1 + (samples.size - window.size) // hop
        shapes = np.empty((num_frames, 3))
        bands = np.empty((num_frames, filters.first.size), np.float32)
        power = np.empty(window.size // 2 + 1, np.float32)
        spec = (filters.first, filters.count, filters.weights, rolloff_share, zero)
        found = _kernels.describe(samples, hop, window, _tables(window.size), *spec, shapes, bands, power)
        return Description(shapes, bands, power, *found)

    def survey(self, samples: Float32, frame: int) -> tuple[float, float, float, Float64]:
        """Return least, greatest and sum of finite samples [N], N > 0, and each frame's sum of squares."""
        _require_float32(samples)
        energies = np.empty(-(-samples.size // frame))
        return *_kernels.survey(samples, frame, energies), energies

    def halve(self, values: Float32) -> NDArray[np.float16]:
        """Return values [...] in half precision."""
        _require_float32(values)
        out = np.empty(values.shape, np.float16)
        num_done = _kernels.halve(values, out)
        out.reshape(-1)[num_done:] = values.reshape(-1)[num_done:]
        return out

    def step_energies(
        self, samples: Float32, step: int, warm_up: int, numerator: Float64, denominator: Float64
    ) -> Float64:
        """Return the mean squares of whole steps of the filtered samples that follow the first `warm_up`.

        The filter (fourth order, five coefficients each) begins at rest before the warm-up; some lanes begin only
        `warm_up` samples before their step, by when it must have forgotten the rest.
        """
        _require_float32(samples)
        out = np.empty((samples.size - warm_up) // step)
        _kernels.step_energies(samples, step, warm_up, numerator, denominator, out)
        return out

    def griffin_lim(
        self,
        frames: Complex64,
        previous: Complex64,
        magnitude: Float32,
        signal: tuple[Float32, Float32],
        window: Float32,
        *,
        num_iterations: int,
        momentum: float,
    ) -> tuple[Complex64, Complex64]:
        """Iterate over the phases of frames.

        Args:
            frames: spectra [T, K].
            previous: those that the iteration before saw, [T, K].
            magnitude: of the frames, [T, K].
            signal: samples that settled frames leave there, and what the sum of all is multiplied by, each
                [T + W / hop - 1, hop].
            window: [W].
            num_iterations: how often.
            momentum: share of the previous spectra that is taken off.

        Returns:
            frames and previous spectra.
        """
        before, gain = signal
        _require_float32(magnitude, before, gain, window)
        frames, previous = np.array(frames, np.complex64, order="C"), np.array(previous, np.complex64, order="C")
        arrays = (frames, previous, magnitude, before, gain, window, _tables(window.size))
        _kernels.griffin_lim(before.shape[1], num_iterations, momentum, *arrays)
        return frames, previous

    @staticmethod
    def has_product(*widths: int) -> bool:
        """Whether products of matrices of these widths are computed: multiples of eight up to a million."""
        return all(0 < width <= 1 << 20 and width % 8 == 0 for width in widths)

    def project(self, x: Float32, matrix: Matrix, bias: Float32) -> Float32:
        """Return x [I] times the matrix [I, O] plus the bias [O] (or nothing: [0])."""
        _require_float32(x, bias)
        out = np.empty(matrix.shape[1], np.float32)
        _kernels.project(x, matrix, bias, out)
        return out

    def decode_block(
        self,
        x: Float32,
        angles: Float32,
        cache: Float32,
        length: int,
        weights: tuple[Matrix, ...],
        sizes: tuple[int, int, int],
        epsilon: float,
    ) -> int:
        """Take one position x [D] through a decoder block, in place.

        Args:
            x: becomes the block's output.
            angles: cosines and signed sines of its rotary angles, [2, E], or nothing: [0].
            cache: keys and values [2, G, L, E]; the position's are added, in place of the oldest if it is full.
            length: how many positions it holds.
            weights: norm [D], query/key/value [D, (H + 2G)E], query scale [E], key scale [E], out [HE, D], norm [D],
                gate and up [D, 2 * hidden], down [hidden, D].
            sizes: H, G and the hidden width.
            epsilon: of every normalisation.

        Returns:
            how many positions the cache holds now.
        """
        _require_float32(x, angles, cache)
        return _kernels.decode_block(length, *sizes, epsilon, x, angles, cache, *weights)

    def convnext_block(
        self, x: Float32, past: Float32, weights: tuple[Matrix, ...], hidden: int, epsilon: float
    ) -> None:
        """Take frames x [T, D] through a block of the causal vocoder, in place.

        Args:
            x: becomes the block's output.
            past: the six frames before, [6, D]; becomes the last six.
            weights: depthwise convolution [7, D] and bias, scale and offset of the norm, up [D, hidden] and bias,
                down [hidden, D] and bias, layer scale [D].
            hidden: width of the feed-forward layer.
            epsilon: of the norm.
        """
        _require_float32(x, past)
        _kernels.convnext_block(hidden, epsilon, x, past, *weights)


def is_compiled() -> bool:
    """Whether the loops were compiled when the package was installed."""
    return _kernels is not None


@lru_cache(maxsize=1)
def kernels() -> Kernels | None:
    """Return the compiled loops, or None where there are none (or `AF_NATIVE=0`)."""
    return None if compiled() is None else Kernels()


def compiled() -> ModuleType | None:
    """Return the compiled module, or None where there is none (or `AF_NATIVE=0`)."""
    return None if os.environ.get(OFF) == "0" else _kernels


def _require_float32(*arrays: Float32) -> None:
    """The compiled loops see bytes: any other type would be nonsense to them."""
    for array in arrays:
        if array.dtype != np.float32:
            raise ValueError(f"expected float32, got {array.dtype}")
        if not array.flags.aligned:
            raise ValueError("expected an array that is aligned to its type")


def sparse(filters: Float32) -> SparseFilters:
    """Return filters [F, K] by the bins that each uses."""
    used = [np.flatnonzero(row) for row in filters]
    first = np.array([bins[0] if bins.size else 0 for bins in used], np.int32)
    count = np.array([bins[-1] + 1 - bins[0] if bins.size else 0 for bins in used], np.int32)
    parts = [row[start : start + length] for row, start, length in zip(filters, first, count, strict=True)]
    return SparseFilters(first, count, np.ascontiguousarray(np.concatenate(parts), np.float32))


@lru_cache(maxsize=8)
def _tables(fft_size: int) -> Float32:
    """Cosines and sines of the half-size complex transform, then of the step from it to the real one."""
    half = np.arange(fft_size // 2)
    coarse, fine = 4 * np.pi * half / fft_size, 2 * np.pi * half / fft_size
    return np.concatenate([np.cos(coarse), np.sin(coarse), np.cos(fine), np.sin(fine)]).astype(np.float32)
