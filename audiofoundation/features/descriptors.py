"""Numbers that describe a recording's timbre and rhythm, by librosa's definitions.

Frames of 2048 samples every 512, Hann window, zeros beyond the ends; magnitudes, not powers, unless said
otherwise. `tests/numerics/test_descriptors.py` compares every value with librosa.

Shape letters: N samples, T frames, K frequency bins, F mel bands.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from audiofoundation.features.mel import Float32, MelConfig, apply_filters, hann_window, sparse_filters
from audiofoundation.features.rhythm import estimate_tempo, measure_harmonic_ratio
from audiofoundation.native import Description, kernels

Float64 = NDArray[np.float64]

FRAME_LENGTH, HOP_LENGTH = 2048, 512
NUM_MFCC = 13
_NUM_BANDS = 128
_ROLLOFF_SHARE = 0.85
_SMALLEST_POWER, _TOP_DB = 1e-10, 80.0
_ZERO = 1e-10  # smaller samples count as zero, and zero as positive, when crossings are counted
_BLOCK_FRAMES = 64


@dataclass(frozen=True, slots=True)
class Descriptors:
    """Means over a recording's frames; every value is finite.

    Attributes:
        duration_s: length.
        spectral_centroid_hz: centre of gravity of the magnitudes.
        spectral_bandwidth_hz: their standard deviation around it.
        spectral_rolloff_hz: frequency below which 85 % of the magnitudes lie.
        zero_crossing_rate: sign changes per sample.
        rms: root of the mean square, full scale being 1.
        mfcc_mean: means of 13 cepstral coefficients of 128 mel bands in decibels.
        mfcc_std: their standard deviations.
        tempo_bpm: beats a minute, 0 where nothing begins; None when not measured.
        harmonic_ratio: energy of sustained partials over the whole, in [0, 1]; None when not measured.
    """

    duration_s: float
    spectral_centroid_hz: float
    spectral_bandwidth_hz: float
    spectral_rolloff_hz: float
    zero_crossing_rate: float
    rms: float
    mfcc_mean: tuple[float, ...]
    mfcc_std: tuple[float, ...]
    tempo_bpm: float | None = None
    harmonic_ratio: float | None = None

    def rounded(self) -> "Descriptors":
        """Return the same to six digits, which is more than they mean and a third of the text."""
        return Descriptors(
            duration_s=_rounded(self.duration_s),
            spectral_centroid_hz=_rounded(self.spectral_centroid_hz),
            spectral_bandwidth_hz=_rounded(self.spectral_bandwidth_hz),
            spectral_rolloff_hz=_rounded(self.spectral_rolloff_hz),
            zero_crossing_rate=_rounded(self.zero_crossing_rate),
            rms=_rounded(self.rms),
            mfcc_mean=tuple(map(_rounded, self.mfcc_mean)),
            mfcc_std=tuple(map(_rounded, self.mfcc_std)),
            tempo_bpm=None if self.tempo_bpm is None else _rounded(self.tempo_bpm),
            harmonic_ratio=None if self.harmonic_ratio is None else _rounded(self.harmonic_ratio),
        )


def describe(samples: Float32, sample_rate_hz: int, *, has_rhythm: bool = True) -> Descriptors:
    """Describe a mono recording.

    Args:
        samples: float32 [N], full scale 1, finite.
        sample_rate_hz: their rate.
        has_rhythm: measure tempo and harmonic ratio too, which takes several times as long as the rest.

    Raises:
        ValueError: there are no samples, or they are not one channel.
    """
    if samples.ndim != 1 or not samples.size:
        raise ValueError(f"expected mono samples [N], got shape {samples.shape}")
    samples = np.ascontiguousarray(samples, np.float32)
    shapes, bands_db = [], []
    for block_TN in _frames(samples):
        magnitudes_TK = magnitudes_of(block_TN, sample_rate_hz)
        shapes.append(spectral_shape(magnitudes_TK, sample_rate_hz))
        bands_db.append(mel_decibels(np.square(magnitudes_TK), sample_rate_hz))
    centroid_hz, bandwidth_hz, rolloff_hz = np.concatenate(shapes).mean(axis=0)
    bands_db_TF = limit_range(np.concatenate(bands_db))
    mfcc_mean, mfcc_std = _mean_and_std(cepstrum(bands_db_TF))
    magnitudes = (magnitudes_of(block, sample_rate_hz) for block in _frames(samples))
    return Descriptors(
        duration_s=samples.size / sample_rate_hz,
        spectral_centroid_hz=float(centroid_hz),
        spectral_bandwidth_hz=float(bandwidth_hz),
        spectral_rolloff_hz=float(rolloff_hz),
        zero_crossing_rate=_zero_crossing_rate(samples),
        rms=_mean_rms(samples),
        mfcc_mean=mfcc_mean,
        mfcc_std=mfcc_std,
        tempo_bpm=estimate_tempo(bands_db_TF, sample_rate_hz / HOP_LENGTH) if has_rhythm else None,
        harmonic_ratio=measure_harmonic_ratio(magnitudes) if has_rhythm else None,
    )


def describe_briefly(samples: Float32, sample_rate_hz: int) -> tuple[Descriptors, Float32]:
    """Describe a mono piece [N] from one frame in 4096 samples: an eighth of the work, no rhythm.

    Returns:
        The descriptors, and the mean power spectrum [K] of the frames. What remains after the last whole
        frame is left out, and a piece without one is filled up with zeros.

    Raises:
        ValueError: as `describe`.
    """
    if samples.ndim != 1 or not samples.size:
        raise ValueError(f"expected mono samples [N], got shape {samples.shape}")
    duration_s = samples.size / sample_rate_hz
    if samples.size < FRAME_LENGTH:
        samples = np.pad(samples, (0, FRAME_LENGTH - samples.size))
    samples = np.ascontiguousarray(samples[: samples.size // FRAME_LENGTH * FRAME_LENGTH], np.float32)
    found = _measure_frames(samples, sample_rate_hz)
    num_frames = len(found.shapes)
    centroid_hz, bandwidth_hz, rolloff_hz = found.shapes.mean(axis=0) * (sample_rate_hz / 2)
    mfcc_mean, mfcc_std = _mean_and_std(cepstrum(limit_range(_to_decibels(found.bands))))
    descriptors = Descriptors(
        duration_s=duration_s,
        spectral_centroid_hz=float(centroid_hz),
        spectral_bandwidth_hz=float(bandwidth_hz),
        spectral_rolloff_hz=float(rolloff_hz),
        zero_crossing_rate=found.num_crossings / (num_frames * FRAME_LENGTH),
        rms=found.rms,
        mfcc_mean=mfcc_mean,
        mfcc_std=mfcc_std,
    )
    return descriptors, found.power


def _measure_frames(samples: Float32, sample_rate_hz: int) -> Description:
    """Measure every second frame of whole frames."""
    config = _bands_config(sample_rate_hz)
    native = kernels()
    if native is not None:
        hop, filters = 2 * FRAME_LENGTH, sparse_filters(config)
        return native.describe(samples, hop, hann_window(config), filters, rolloff_share=_ROLLOFF_SHARE, zero=_ZERO)
    frames_TN = samples.reshape(-1, FRAME_LENGTH)[::2]
    magnitudes_TK = magnitudes_of(frames_TN, sample_rate_hz)
    power_TK = np.square(magnitudes_TK)
    is_negative = frames_TN < -_ZERO
    return Description(
        shapes=spectral_shape(magnitudes_TK, sample_rate_hz) / (sample_rate_hz / 2),
        bands=_filtered(power_TK, sample_rate_hz),
        power=power_TK.mean(axis=0),
        num_crossings=int(np.count_nonzero(is_negative[:, 1:] != is_negative[:, :-1])),
        rms=float(np.sqrt(np.einsum("ij,ij->i", frames_TN, frames_TN) / FRAME_LENGTH).mean()),
    )


def combine(parts: Sequence[Descriptors]) -> Descriptors:
    """Describe the recording that the parts make up, each counted by its duration; rhythm where every part has it.

    Raises:
        ValueError: there are none.
    """
    if not parts:
        raise ValueError("there are no parts to combine")
    weights = np.array([part.duration_s for part in parts])
    weights /= weights.sum()
    means = weights @ np.array([part.mfcc_mean for part in parts])
    squares = weights @ np.array([np.square(part.mfcc_mean) + np.square(part.mfcc_std) for part in parts])
    return Descriptors(
        duration_s=sum(part.duration_s for part in parts),
        spectral_centroid_hz=float(weights @ [part.spectral_centroid_hz for part in parts]),
        spectral_bandwidth_hz=float(weights @ [part.spectral_bandwidth_hz for part in parts]),
        spectral_rolloff_hz=float(weights @ [part.spectral_rolloff_hz for part in parts]),
        zero_crossing_rate=float(weights @ [part.zero_crossing_rate for part in parts]),
        rms=float(weights @ [part.rms for part in parts]),
        mfcc_mean=tuple(means.tolist()),
        mfcc_std=tuple(np.sqrt(np.maximum(0.0, squares - means**2)).tolist()),
        tempo_bpm=_mean_of([part.tempo_bpm for part in parts], weights),
        harmonic_ratio=_mean_of([part.harmonic_ratio for part in parts], weights),
    )


def _mean_of(values: Sequence[float | None], weights: Float64) -> float | None:
    known = [value for value in values if value is not None]
    return float(weights @ known) if len(known) == len(values) else None


def magnitudes_of(frames_TN: Float32, sample_rate_hz: int) -> Float32:
    """Return the magnitudes [T, K] of frames [T, 2048] under the window."""
    spectrum_TK = scipy.fft.rfft(frames_TN * hann_window(_bands_config(sample_rate_hz)), axis=-1)
    magnitudes: Float32 = np.abs(spectrum_TK)
    return magnitudes


def spectral_shape(magnitudes_TK: Float32, sample_rate_hz: int) -> Float64:
    """Return centroid, bandwidth and roll-off in Hz of each frame [T, 3]; zeros for silence."""
    place, powers = _places(magnitudes_TK.shape[1])
    total, first, second = (magnitudes_TK @ powers).astype(np.float64).T
    total[total < np.finfo(np.float32).tiny] = 1.0
    mean = first / total
    bandwidth = np.sqrt(np.maximum(0.0, second / total - mean**2))
    risen_TK = np.cumsum(magnitudes_TK, axis=1)
    rolloff = place[np.count_nonzero(risen_TK < np.float32(_ROLLOFF_SHARE) * risen_TK[:, -1:], axis=1)]
    return np.stack([mean, bandwidth, rolloff], axis=1) * (sample_rate_hz / 2)


def mel_decibels(power_TK: Float32, sample_rate_hz: int) -> Float32:
    """Return the powers of 128 mel bands in decibels [T, F], not below -100."""
    return _to_decibels(_filtered(power_TK, sample_rate_hz))


def _filtered(power_TK: Float32, sample_rate_hz: int) -> Float32:
    power_TF = np.empty((len(power_TK), _NUM_BANDS), np.float32)
    apply_filters(power_TK, _bands_config(sample_rate_hz), out=power_TF)
    return power_TF


def _to_decibels(power_TF: Float32) -> Float32:
    """Return powers in decibels, not below -100, in place of themselves."""
    np.maximum(power_TF, np.float32(_SMALLEST_POWER), out=power_TF)
    np.log10(power_TF, out=power_TF)
    power_TF *= np.float32(10)
    return power_TF


def limit_range(bands_db_TF: Float32) -> Float32:
    """Return the decibels, none more than 80 below the loudest of all."""
    limited: Float32 = np.maximum(bands_db_TF, bands_db_TF.max() - np.float32(_TOP_DB))
    return limited


def cepstrum(bands_db_TF: Float32) -> Float64:
    """Return 13 cepstral coefficients per frame [T, 13]; but for the first exactly zero where all bands are equal."""
    mean_T = bands_db_TF.mean(axis=1, dtype=np.float64)
    coefficients: Float64 = (bands_db_TF - mean_T[:, None]) @ _cosines()
    coefficients[:, 0] = mean_T * np.sqrt(bands_db_TF.shape[1])
    return coefficients


@lru_cache(maxsize=1)
def _cosines() -> Float64:
    """Return the first columns of the orthonormal cosine transform (DCT-II) [128, 13]."""
    places = (np.arange(_NUM_BANDS) + 0.5) / _NUM_BANDS
    cosines: Float64 = np.cos(np.pi * np.outer(places, np.arange(NUM_MFCC))) * np.sqrt(2 / _NUM_BANDS)
    return cosines


def _mean_and_std(values_TC: Float64) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Relative to the first frame: what does not change deviates by exactly nothing."""
    first = values_TC[0]
    rest_TC = values_TC - first
    mean = np.add.reduce(rest_TC) / len(rest_TC)
    rest_TC -= mean
    std = np.sqrt(np.einsum("ij,ij->j", rest_TC, rest_TC) / len(rest_TC))
    return tuple((first + mean).tolist()), tuple(std.tolist())


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


@lru_cache(maxsize=4)
def _places(num_bins: int) -> tuple[Float64, Float32]:
    """Return where each bin lies between 0 and half the rate [K], and its powers 0 to 2 [K, 3]."""
    place = np.linspace(0.0, 1.0, num_bins)
    return place, np.stack([np.ones(num_bins), place, place**2], axis=1).astype(np.float32)


@lru_cache(maxsize=8)
def _bands_config(sample_rate_hz: int) -> MelConfig:
    half = sample_rate_hz / 2
    size, hop = FRAME_LENGTH, HOP_LENGTH
    return MelConfig("descriptors", sample_rate_hz, size, size, hop, _NUM_BANDS, 0.0, half, "slaney", "slaney", power=2)


def _frames(samples: Float32) -> Iterator[Float32]:
    """Yield views of blocks of frames [t, 2048], the first frame centred on the first sample."""
    padded = np.pad(samples, FRAME_LENGTH // 2)
    frames_TN = np.lib.stride_tricks.sliding_window_view(padded, FRAME_LENGTH)[::HOP_LENGTH]
    for start in range(0, len(frames_TN), _BLOCK_FRAMES):
        yield frames_TN[start : start + _BLOCK_FRAMES]


def _zero_crossing_rate(samples: Float32) -> float:
    is_negative = np.pad(samples < -_ZERO, FRAME_LENGTH // 2, mode="edge")
    changes = np.concatenate([[0], np.cumsum(is_negative[1:] != is_negative[:-1])])
    starts = np.arange(0, is_negative.size - FRAME_LENGTH + 1, HOP_LENGTH)
    return float((changes[starts + FRAME_LENGTH - 1] - changes[starts]).mean() / FRAME_LENGTH)


def _mean_rms(samples: Float32) -> float:
    padded = np.pad(samples, (FRAME_LENGTH // 2, FRAME_LENGTH // 2))
    hops = padded[: padded.size // HOP_LENGTH * HOP_LENGTH].reshape(-1, HOP_LENGTH)
    energies = np.einsum("ij,ij->i", hops, hops, dtype=np.float64)
    per_frame = np.convolve(energies, np.ones(FRAME_LENGTH // HOP_LENGTH), "valid")
    return float(np.sqrt(np.maximum(per_frame, 0.0) / FRAME_LENGTH).mean())
