"""Objective of the causal vocoder: multi-scale spectra first, adversaries once it is intelligible.

Shape letters: B batch, N samples, T frames, F bands, K frequency bins.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from audiofoundation.errors import InvalidRequest
from audiofoundation.features.mel_torch import TorchMel
from audiofoundation.models.discriminators import (
    DiscriminatorConfig,
    Discriminators,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
)
from audiofoundation.models.vocoder import CausalVocos
from audiofoundation.training.corpus import Corpus, StepWindows, Window, WindowSampler

_SCALES = (64, 128, 256, 512, 1024, 2048)


@dataclass(frozen=True, slots=True)
class VocodingConfig:
    """How the clips are drawn and the losses weighed.

    Attributes:
        batch: clips per step.
        clip_frames: frames of a clip.
        adversaries_from: step at which the adversaries begin.
        discriminator_every: the adversaries learn every so many steps.
        mel_noise: the mel carries noise up to this (natural log units), for robustness to generated mels.
        spectral_weight: weight of the multi-scale log-spectral loss.
        weights: share of each label in the clips.
    """

    batch: int = 16
    clip_frames: int = 32
    adversaries_from: int = 4000
    discriminator_every: int = 2
    mel_noise: float = 0.1
    spectral_weight: float = 15.0
    weights: tuple[tuple[str, float], ...] = ()


class VocodingObjective:
    """Trains a `CausalVocos` on clips of a corpus that carries samples.

    Raises:
        InvalidRequest: the corpus has no samples (preprocess with the waveform).
    """

    def __init__(
        self, model: CausalVocos, train: Corpus, held_out: Corpus | None, config: VocodingConfig, seed: int
    ) -> None:
        if not train.has_wave:
            raise InvalidRequest(
                "this dataset holds no waveforms; preprocess it again with --with-waveform", param="dataset"
            )
        self.model: nn.Module = model
        self.vocoder, self.config, self.seed = model, config, seed
        self.discriminators = Discriminators(DiscriminatorConfig())
        self.parts: Mapping[str, nn.Module] = {"model": model, "discriminator": self.discriminators}
        self._mel = TorchMel(model.mel_config)
        self._held_out = held_out
        self._places = StepWindows(train, config.clip_frames, weights=dict(config.weights) or None)

    def phases(self, step: int) -> Sequence[str]:
        is_due = step >= self.config.adversaries_from and step % self.config.discriminator_every == 0
        return ("discriminator", "model") if is_due else ("model",)

    def losses(self, phase: str, step: int) -> dict[str, Tensor]:
        """Return the losses of the vocoder or of its adversaries on a batch of clips."""
        corpus, places = self._places.draw(self.seed, step, self.config.batch)
        real = self._clips(corpus, places, self.seed, step).to(self.vocoder.window.device)
        fake = self._vocode(real)
        if phase == "discriminator":
            loss = discriminator_loss(self.discriminators(real), self.discriminators(fake.detach()))
            return {"total": loss}
        spectral = multi_scale_loss(fake, real)
        early = 1.0 if step < self.config.adversaries_from else 0.1
        total = self.config.spectral_weight * spectral + early * complex_loss(fake, real)
        if step < self.config.adversaries_from:
            return {"total": total, "spectral": spectral}
        judged_real, judged_fake = self.discriminators(real), self.discriminators(fake)
        adversarial, features = adversarial_loss(judged_fake), feature_loss(judged_real, judged_fake)
        total = total + adversarial + 2 * features
        return {"total": total, "spectral": spectral, "adversarial": adversarial, "features": features}

    def _clips(self, corpus: Corpus, places: Sequence[Window], seed: int, step: int) -> Tensor:
        clips = corpus.wave_windows(places, self.config.clip_frames)
        gain = 10 ** (-np.random.default_rng([seed, step, 1]).uniform(0, 12, (len(clips), 1)) / 20)
        return torch.from_numpy((clips * gain).astype(np.float32))

    def _vocode(self, real_BN: Tensor) -> Tensor:
        mel = self._mel.to(real_BN.device)(real_BN)[:, : self.config.clip_frames]
        strength = torch.rand(len(mel), 1, 1, device=mel.device) * self.config.mel_noise
        fake: Tensor = self.vocoder(mel + strength * torch.randn_like(mel))
        return fake.float()

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return spectral distances on held-out clips."""
        if self._held_out is None or not self._held_out.has_wave:
            return {}
        sampler = WindowSampler(self._held_out.recordings, self.config.clip_frames)
        drawn = [sampler.draw(99, step, self.config.batch) for step in range(4)]
        real = torch.cat([self._clips(self._held_out, places, 99, step) for step, places in enumerate(drawn)])
        real = real.to(self.vocoder.window.device)
        fake = model.eval()(self._mel.to(real.device)(real)[:, : self.config.clip_frames])
        return {
            "multi_scale": float(multi_scale_loss(fake, real)),
            "convergence": float(spectral_convergence(fake, real)),
        }


def _magnitudes(wave_BN: Tensor, size: int) -> Tensor:
    window = torch.hann_window(size, device=wave_BN.device)
    return torch.stft(wave_BN, size, size // 4, window=window, return_complex=True).abs()


def multi_scale_loss(fake_BN: Tensor, real_BN: Tensor) -> Tensor:
    """Mean over window sizes of the L1 distance between log magnitudes, banded by averaging eight bins."""
    parts = []
    for size in _SCALES:
        fake, real = (_magnitudes(wave, size)[:, 1:] for wave in (fake_BN, real_BN))
        pooled = [m.unflatten(1, (-1, max(1, size // 512))).mean(2) for m in (fake, real)]
        parts.append(((pooled[0] + 1e-4).log() - (pooled[1] + 1e-4).log()).abs().mean())
    return torch.stack(parts).mean()


def complex_loss(fake_BN: Tensor, real_BN: Tensor) -> Tensor:
    """L1 distance of complex spectra: what ties the phase to the truth early in training."""
    parts = []
    for size in (1024, 256):
        window = torch.hann_window(size, device=fake_BN.device)
        spectra = [torch.stft(wave, size, size // 4, window=window, return_complex=True) for wave in (fake_BN, real_BN)]
        parts.append(torch.view_as_real(spectra[0] - spectra[1]).abs().mean())
    return torch.stack(parts).mean()


def spectral_convergence(fake_BN: Tensor, real_BN: Tensor) -> Tensor:
    """Relative magnitude error, mean over windows 480, 1920 and 3072 (off the grid of the presets)."""
    parts = []
    for size in (480, 1920, 3072):
        fake, real = _magnitudes(fake_BN, size), _magnitudes(real_BN, size)
        parts.append((fake - real).norm() / real.norm().clamp(min=1e-9))
    return torch.stack(parts).mean()
