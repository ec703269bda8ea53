"""The mel contract: named, frozen, fingerprinted presets and their NumPy front-end.

One `MelConfig` says everything that decides a mel value. Shards, models, vocoders and the server carry
its fingerprint and refuse a mismatch. The numbers of each preset are those of its origin (named beside it);
`tests/numerics` compares every preset with that origin.

Shape letters: N samples, T frames, F mel bands, K frequency bins.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from audiofoundation.errors import MelMismatch
from audiofoundation.native import Kernels, SparseFilters, kernels, sparse

Float32 = NDArray[np.float32]

_BLOCK_FRAMES = 64  # 64 frames of 1024 samples are 256 KiB: a block stays in the second-level cache
_GROUP_BANDS = 20


@dataclass(frozen=True)
class MelConfig:
    """Everything that decides the values of a log-mel spectrogram.

    Attributes:
        name: the preset's name.
        sample_rate_hz: rate of the waveform.
        fft_size: samples per transform; `win_length` samples of it carry the periodic Hann window.
        win_length: samples under the window, centred in the transform.
        hop_length: samples between frames.
        num_bands: number of mel bands F.
        fmin_hz: lower edge of the lowest band.
        fmax_hz: upper edge of the highest band.
        scale: mel formula: `htk` (2595 log10(1 + f/700)) or `slaney` (linear below 1 kHz).
        norm: `slaney` divides each band by its width; None keeps peaks at one.
        power: exponent of the magnitude that enters the filters.
        magnitude_epsilon: added to |X|² under the root (the HiFi-GAN family's 1e-9).
        log: `ln`: ln(max(x, floor)); `whisper`: log10, limited to 8 below the clip's maximum, (x + 4) / 4.
        floor: smallest value that enters the logarithm.
        framing: `centered` (reflect half a transform, 1 + N // hop frames), `same` (reflect
            (fft_size - hop) / 2, N // hop frames) or `centered_drop_last` (Whisper: N // hop frames).
    """

    name: str
    sample_rate_hz: int
    fft_size: int
    win_length: int
    hop_length: int
    num_bands: int
    fmin_hz: float
    fmax_hz: float
    scale: Literal["htk", "slaney"]
    norm: Literal["slaney"] | None
    power: Literal[1, 2] = 1
    magnitude_epsilon: float = 0.0
    log: Literal["ln", "whisper"] = "ln"
    floor: float = 1e-5
    framing: Literal["centered", "same", "centered_drop_last"] = "centered"

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits of the SHA-256 of every field but the name."""
        fields = {key: value for key, value in asdict(self).items() if key != "name"}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def padding(self) -> int:
        """Samples reflected at each end before framing."""
        return (self.fft_size - self.hop_length) // 2 if self.framing == "same" else self.fft_size // 2

    @property
    def frame_rate_hz(self) -> float:
        return self.sample_rate_hz / self.hop_length

    @property
    def frame_offset(self) -> int:
        """The sample on which frame 0 is centred; frame t is centred `t * hop_length` later."""
        return self.fft_size // 2 - self.padding

    def frames_for(self, num_samples: int) -> int:
        """Return the number of frames T that `num_samples` samples give."""
        return num_samples // self.hop_length + (1 if self.framing == "centered" else 0)

    def require(self, fingerprint: str, *, what: str) -> None:
        """Raise MelMismatch unless `fingerprint` is this preset's."""
        if fingerprint != self.fingerprint:
            raise MelMismatch(
                f"{what} was made for mel fingerprint {fingerprint}, but preset {self.name} is "
                f"{self.fingerprint}; preprocess again with the matching preset or choose another model"
            )


PRESETS: dict[str, MelConfig] = {
    config.name: config
    for config in (
        # gemelo-ai/vocos feature_extractors.py: torchaudio MelSpectrogram(power=1), safe_log at 1e-7.
        MelConfig("vocos24", 24000, 1024, 1024, 256, 100, 0.0, 12000.0, "htk", None, floor=1e-7),
        # jik876/hifi-gan meldataset.py, config_v1: librosa filters to 8 kHz.
        MelConfig(
            "hifigan22", 22050, 1024, 1024, 256, 80, 0.0, 8000.0, "slaney", "slaney",
            magnitude_epsilon=1e-9, framing="same",
        ),
        # NVIDIA/BigVGAN meldataset.py, bigvgan_v2_24khz_100band_256x.
        MelConfig(
            "bigvgan24", 24000, 1024, 1024, 256, 100, 0.0, 12000.0, "slaney", "slaney",
            magnitude_epsilon=1e-9, framing="same",
        ),
        # openai/whisper audio.py (80 bands).
        MelConfig(
            "whisper16", 16000, 400, 400, 160, 80, 0.0, 8000.0, "slaney", "slaney",
            power=2, log="whisper", floor=1e-10, framing="centered_drop_last",
        ),
    )
}  # fmt: skip


def get_preset(name: str) -> MelConfig:
    """Return the preset of that name.

    Raises:
        MelMismatch: there is none.
    """
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        raise MelMismatch(f"no mel preset is named {name!r}; choose one of {known}", param="preset")
    return PRESETS[name]


@lru_cache(maxsize=16)
def hann_window(config: MelConfig) -> Float32:
    """Return the periodic Hann window [fft_size] float32, centred when `win_length < fft_size`."""
    phase = 2 * np.pi * np.arange(config.win_length) / config.win_length
    window = np.zeros(config.fft_size, np.float32)
    start = (config.fft_size - config.win_length) // 2
    window[start : start + config.win_length] = (0.5 - 0.5 * np.cos(phase)).astype(np.float32)
    window.setflags(write=False)
    return window


@lru_cache(maxsize=16)
def mel_filters(config: MelConfig) -> Float32:
    """Return the triangular filters [F, K] float32.

    `htk` follows torchaudio (float32 throughout), `slaney` librosa (float64, then cast), so that each
    preset equals its origin to the last bit or nearly.
    """
    filters = _torchaudio_filters(config) if config.scale == "htk" else _librosa_filters(config)
    filters.setflags(write=False)
    return filters


def _torchaudio_filters(config: MelConfig) -> Float32:
    num_bins = config.fft_size // 2 + 1
    bins = np.linspace(0, config.sample_rate_hz // 2, num_bins, dtype=np.float32)
    low, high = (2595.0 * np.log10(1.0 + f / 700.0) for f in (config.fmin_hz, config.fmax_hz))
    points = _torch_linspace(low, high, config.num_bands + 2)
    edges = np.float32(700) * ((10.0 ** (points / np.float32(2595)).astype(np.float64)).astype(np.float32) - 1)
    return _triangles(edges, bins).astype(np.float32)


def _torch_linspace(start: float, end: float, steps: int) -> Float32:
    """Return what torch.linspace gives in float32: fused multiply-add, each half counted from its end."""
    step = np.float64(np.float32((np.float32(end) - np.float32(start)) / np.float32(steps - 1)))
    index = np.arange(steps)
    rising = np.float64(np.float32(start)) + step * index
    falling = np.float64(np.float32(end)) - step * (steps - 1 - index)
    return np.where(index < steps // 2, rising, falling).astype(np.float32)


def _librosa_filters(config: MelConfig) -> Float32:
    bins = np.fft.rfftfreq(config.fft_size, 1.0 / config.sample_rate_hz)
    low, high = (_hz_to_slaney(np.float64(f)) for f in (config.fmin_hz, config.fmax_hz))
    edges = _slaney_to_hz(np.linspace(low, high, config.num_bands + 2))
    weights = _triangles(edges, bins)
    if config.norm == "slaney":
        weights *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return weights.astype(np.float32)


def _triangles(edges: NDArray[np.floating], bins: NDArray[np.floating]) -> NDArray[np.floating]:
    rising = (bins[None, :] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins[None, :]) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rising, falling))


def _hz_to_slaney(hz: np.float64) -> np.float64:
    linear = hz / (200.0 / 3)
    return np.float64(15.0 + np.log(hz / 1000.0) / (np.log(6.4) / 27.0)) if hz >= 1000.0 else linear


def _slaney_to_hz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mels >= 15.0, 1000.0 * np.exp((np.log(6.4) / 27.0) * (mels - 15.0)), mels * (200.0 / 3))


def pad_reflect(samples: Float32, left: int, right: int) -> Float32:
    """Return the samples with both ends reflected; a short clip is reflected repeatedly."""
    if samples.size == 0:
        return np.zeros(left + right, np.float32)
    return np.pad(samples, (left, right), mode="reflect" if samples.size > 1 else "edge")


def log_mel(samples: Float32, config: MelConfig) -> Float32:
    """Return the log-mel spectrogram of a mono waveform.

    Args:
        samples: float32 [N] at `config.sample_rate_hz`, nominal range [-1, 1].
        config: the preset.

    Returns:
        float32 [T, F] with T = `config.frames_for(N)`.
    """
    padded = pad_reflect(np.ascontiguousarray(samples, np.float32), config.padding, config.padding)
    energies = band_energies(padded, config)[: config.frames_for(samples.size)]
    return compress(energies, config)


def band_energies(padded: Float32, config: MelConfig) -> Float32:
    """Return the filtered magnitudes [T, F] of an already padded waveform, before the logarithm."""
    num_frames = max(0, 1 + (padded.size - config.fft_size) // config.hop_length)
    if num_frames == 0:
        return np.empty((0, config.num_bands), np.float32)
    native = kernels()
    if native is not None and native.has_transform(config.fft_size, config.hop_length):
        return _compiled_band_energies(padded, config, native)
    return _numpy_band_energies(padded, config, num_frames)


def _compiled_band_energies(padded: Float32, config: MelConfig, native: Kernels) -> Float32:
    return native.band_energies(
        np.ascontiguousarray(padded, np.float32),
        config.hop_length,
        hann_window(config),
        sparse_filters(config),
        power=config.power,
        epsilon=config.magnitude_epsilon,
    )


def _numpy_band_energies(padded: Float32, config: MelConfig, num_frames: int) -> Float32:
    """In blocks of frames, so that intermediate spectra stay in cache."""
    out = np.empty((num_frames, config.num_bands), np.float32)
    window = hann_window(config)
    frames = np.lib.stride_tricks.sliding_window_view(padded, config.fft_size)[:: config.hop_length]
    block = np.empty((min(_BLOCK_FRAMES, num_frames), config.fft_size), np.float32)
    for start in range(0, num_frames, _BLOCK_FRAMES):
        part = frames[start : start + _BLOCK_FRAMES]
        windowed = np.multiply(part, window, out=block[: len(part)])
        spectrum = scipy.fft.rfft(windowed, axis=-1)
        apply_filters(_magnitude(spectrum, config), config, out=out[start : start + len(part)])
    return out


@lru_cache(maxsize=16)
def sparse_filters(config: MelConfig) -> SparseFilters:
    """Return the triangular filters by the bins that each uses."""
    return sparse(mel_filters(config))


def apply_filters(values_TK: Float32, config: MelConfig, *, out: Float32) -> None:
    """Write the product of values [T, K] and the filters to `out` [T, F].

    A triangle is narrow: in groups of neighbouring bands, each over its own bins, the product takes a third
    of the time of a full one.
    """
    for bins, bands, weights in _filter_groups(config):
        np.matmul(values_TK[:, bins], weights, out=out[:, bands])


@lru_cache(maxsize=16)
def _filter_groups(config: MelConfig) -> tuple[tuple[slice, slice, Float32], ...]:
    """Return bins, bands and weights [bins, bands] of each group of filters."""
    filters_KF = mel_filters(config).T
    groups = []
    for first in range(0, config.num_bands, _GROUP_BANDS):
        bands = slice(first, min(first + _GROUP_BANDS, config.num_bands))
        used = np.flatnonzero(filters_KF[:, bands].any(axis=1))
        bins = slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(0, 1)
        groups.append((bins, bands, np.ascontiguousarray(filters_KF[bins, bands])))
    return tuple(groups)


def _magnitude(spectrum: NDArray[np.complex64], config: MelConfig) -> Float32:
    if config.power == 1 and not config.magnitude_epsilon:
        magnitude: Float32 = np.abs(spectrum)  # vectorised, unlike a root of squares
        return magnitude
    squared = spectrum.real**2 + spectrum.imag**2
    if config.power == 2:
        return squared
    if config.magnitude_epsilon:
        squared += np.float32(config.magnitude_epsilon)
    return np.sqrt(squared, out=squared)


def compress(energies: Float32, config: MelConfig) -> Float32:
    """Apply the preset's logarithm to band energies [T, F] in place and return them."""
    np.maximum(energies, np.float32(config.floor), out=energies)
    if config.log == "ln":
        np.log(energies, out=energies)
        return energies
    np.log10(energies, out=energies)
    if energies.size:
        np.maximum(energies, energies.max() - np.float32(8.0), out=energies)
    energies += np.float32(4.0)
    energies /= np.float32(4.0)
    return energies


def to_half(mel_TF: Float32) -> NDArray[np.float16]:
    """Return the mel in half precision, as shards keep it."""
    native = kernels()
    return mel_TF.astype(np.float16) if native is None else native.halve(mel_TF)


class StreamingMel:
    """Log-mel of a waveform that arrives in pieces; the frames equal `log_mel` of the whole.

    Raises:
        ValueError: the preset normalises by the clip's maximum (Whisper), which no stream can know.
    """

    def __init__(self, config: MelConfig) -> None:
        if config.log == "whisper":
            raise ValueError(f"preset {config.name} is scaled by the whole clip's maximum and cannot stream")
        self._config = config
        self._tail = np.zeros(0, np.float32)
        self._is_started = False

    def push(self, samples: Float32) -> Float32:
        """Take float32 samples [n]; return the frames [t, F] that are now complete."""
        self._tail = np.concatenate([self._tail, np.asarray(samples, np.float32)])
        padding = self._config.padding
        if not self._is_started:
            if self._tail.size <= padding:
                return np.empty((0, self._config.num_bands), np.float32)
            self._tail = np.concatenate([self._tail[padding:0:-1], self._tail])
            self._is_started = True
        return self._emit()

    def finish(self) -> Float32:
        """Return the last frames [t, F]; the object takes no more samples."""
        padding = self._config.padding
        if not self._is_started:
            return log_mel(self._tail, self._config)
        self._tail = np.concatenate([self._tail, self._tail[-2 : -2 - padding : -1]])
        return self._emit()

    def _emit(self) -> Float32:
        energies = band_energies(self._tail, self._config)
        self._tail = self._tail[len(energies) * self._config.hop_length :]
        return compress(energies, self._config)
