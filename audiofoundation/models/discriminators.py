"""Adversaries of vocoder training: periods (HiFi-GAN, arXiv:2010.05646) and resolutions (UnivNet,
arXiv:2106.07889; as Vocos uses them).

Shape letters: B batch, N samples, P period, K frequency bins, T frames.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm


@dataclass(frozen=True, slots=True)
class DiscriminatorConfig:
    """Which adversaries, and how wide.

    Attributes:
        periods: one discriminator per period, in samples.
        period_width: channels of the first layer; they double up to eight times that.
        fft_sizes: one discriminator per transform size; hop is a quarter.
        resolution_width: channels of the spectrogram discriminators.
    """

    periods: tuple[int, ...] = (2, 5, 11)
    period_width: int = 8
    fft_sizes: tuple[int, ...] = (1024, 256)
    resolution_width: int = 16


@dataclass(frozen=True, slots=True)
class Judgement:
    """Scores (one tensor per discriminator) and the features of every layer."""

    scores: list[Tensor]
    features: list[Tensor]


class PeriodDiscriminator(nn.Module):
    """Looks at every P-th sample."""

    def __init__(self, period: int, width: int) -> None:
        super().__init__()
        self.period = period
        widths = [1, width, 4 * width, 8 * width, 8 * width]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (5, 1), (3, 1), padding=(2, 0)))
            for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.out = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, wave_BN: Tensor) -> tuple[Tensor, list[Tensor]]:
        missing = -wave_BN.shape[1] % self.period
        x = functional.pad(wave_BN[:, None], (0, missing), mode="reflect").unflatten(2, (-1, self.period))
        return _through(self.layers, self.out, x)


class ResolutionDiscriminator(nn.Module):
    """Looks at the real and imaginary parts of one spectrogram."""

    window: Tensor

    def __init__(self, fft_size: int, width: int) -> None:
        super().__init__()
        self.fft_size = fft_size
        self.register_buffer("window", torch.hann_window(fft_size), persistent=False)
        shapes = [(2, (1, 1)), (width, (2, 1)), (width, (2, 1)), (width, (2, 1))]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(channels, width, (9, 3), stride, padding=(4, 1))) for channels, stride in shapes
        )
        self.out = weight_norm(nn.Conv2d(width, 1, (3, 3), padding=(1, 1)))

    def forward(self, wave_BN: Tensor) -> tuple[Tensor, list[Tensor]]:
        spectrum_BKT = torch.stft(
            wave_BN.float(), self.fft_size, self.fft_size // 4, window=self.window, return_complex=True
        )
        x = torch.view_as_real(spectrum_BKT).permute(0, 3, 1, 2)
        return _through(self.layers, self.out, x)


def _through(layers: nn.ModuleList, out: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    features = []
    for layer in layers:
        x = functional.leaky_relu(layer(x), 0.1)
        features.append(x)
    return out(x).flatten(1), features


class Discriminators(nn.Module):
    """All adversaries together."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        members: list[nn.Module] = [PeriodDiscriminator(p, config.period_width) for p in config.periods]
        members += [ResolutionDiscriminator(size, config.resolution_width) for size in config.fft_sizes]
        self.members = nn.ModuleList(members)

    def forward(self, wave_BN: Tensor) -> Judgement:
        judged = [member(wave_BN) for member in self.members]
        return Judgement([scores for scores, _ in judged], [f for _, features in judged for f in features])


def discriminator_loss(real: Judgement, fake: Judgement) -> Tensor:
    """Hinge loss: real above 1, fake below -1, mean over the adversaries."""
    parts = [
        functional.relu(1 - r).mean() + functional.relu(1 + f).mean()
        for r, f in zip(real.scores, fake.scores, strict=True)
    ]
    return torch.stack(parts).mean()


def adversarial_loss(fake: Judgement) -> Tensor:
    """What the generator descends: its score, hinged."""
    return torch.stack([functional.relu(1 - scores).mean() for scores in fake.scores]).mean()


def feature_loss(real: Judgement, fake: Judgement) -> Tensor:
    """Mean absolute difference of the adversaries' features."""
    parts = [(r.detach() - f).abs().mean() for r, f in zip(real.features, fake.features, strict=True)]
    return torch.stack(parts).mean()
