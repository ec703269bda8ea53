"""Augmentation of batches on their device: polarity, gain and noise on waveforms, masks on mels.

Everything random comes from the generator that is passed, so a batch is a function of the generator's seed.

Shape letters: B batch, N samples, T frames, F bands.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """How strongly a batch is changed; zeros leave it as it is.

    Attributes:
        gain_db: each waveform is made louder or softer by up to this.
        noise: white noise is added with a standard deviation of up to this (1 is full scale).
        flips_polarity: half of the waveforms are negated.
        mask_bands: up to so many neighbouring bands of a mel are replaced by its mean.
        mask_frames: likewise neighbouring frames.
    """

    gain_db: float = 0.0
    noise: float = 0.0
    flips_polarity: bool = False
    mask_bands: int = 0
    mask_frames: int = 0


def create_generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    """Return a generator on the device whose state depends on seed and step alone."""
    return torch.Generator(device).manual_seed((seed * 0x9E3779B97F4A7C15 + step) % (1 << 63))


def augment_wave(wave_BN: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Return waveforms float32 [B, N] with another polarity, gain and some noise; not limited to [-1, 1]."""

    def uniform() -> Tensor:
        return torch.rand(len(wave_BN), 1, device=wave_BN.device, generator=generator)

    flip_B1, gain_B1, noise_B1 = uniform(), uniform(), uniform()
    if config.flips_polarity:
        wave_BN = torch.where(flip_B1 < 0.5, wave_BN, -wave_BN)
    if config.gain_db:
        wave_BN = wave_BN * 10 ** ((2 * gain_B1 - 1) * config.gain_db / 20)
    if config.noise:
        grain = torch.randn(wave_BN.shape, device=wave_BN.device, generator=generator)
        wave_BN = wave_BN + noise_B1 * config.noise * grain
    return wave_BN


def mask_mel(mel_BTF: Tensor, config: AugmentConfig, generator: torch.Generator | None) -> Tensor:
    """Return log-mels [B, T, F] of which one run of bands and one of frames are replaced by the mel's mean.

    Without a generator the device's own is used.
    """
    middle = mel_BTF.mean(dim=(1, 2), keepdim=True)
    for dim, most in ((2, config.mask_bands), (1, config.mask_frames)):
        if most:
            is_masked = _random_spans(mel_BTF.shape[dim], most, mel_BTF, generator)
            mel_BTF = torch.where(is_masked[:, None] if dim == 2 else is_masked[:, :, None], middle, mel_BTF)
    return mel_BTF


def _random_spans(size: int, most: int, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return bool [B, size] with one random run of up to `most` true values per row."""
    width = torch.rand(len(like), 1, device=like.device, generator=generator) * min(most, size)
    first = torch.rand(len(like), 1, device=like.device, generator=generator) * (size - width)
    places = torch.arange(size, device=like.device)[None]
    return (places >= first) & (places < first + width)
