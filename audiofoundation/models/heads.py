"""Heads: from a decoder state to the next patch, behind one API (`loss`, `sample`).

Both heads predict the difference to the last frame the decoder saw (the skip), and see the last patch
beside the decoder state (the clean short path).

Shape letters: M positions of a batch, D model width, P frames of a patch, F bands, Z noise, S draws.
"""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from audiofoundation.models.layers import Linear

_NEARLY_ALL = 4.0  # a logit


class Head(Protocol):
    """What the model asks of a head."""

    def loss(self, hidden_MD: Tensor, last_MPF: Tensor, target_MPF: Tensor) -> Tensor:
        """Return the scalar training loss of the next patches."""
        ...

    def sample(self, hidden_MD: Tensor, last_MPF: Tensor, noise_MZ: Tensor) -> Tensor:
        """Return next patches [M, P, F]; `noise_MZ` is scaled by the temperature already."""
        ...


class RegressionHead(nn.Module):
    """Mean squared and absolute error: the plain baseline. Deterministic."""

    noise_width = 1

    def __init__(self, width: int, patch: tuple[int, int], *, mse_only: bool = False) -> None:
        super().__init__()
        self.patch, self.mse_only = patch, mse_only
        self.clean = Linear(patch[0] * patch[1], width)
        self.out = Linear(width, patch[0] * patch[1])
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def sample(self, hidden_MD: Tensor, last_MPF: Tensor, noise_MZ: Tensor) -> Tensor:  # noqa: ARG002
        mixed = functional.silu(hidden_MD + self.clean(last_MPF.flatten(1)))
        return last_MPF[:, -1:] + self.out(mixed).unflatten(1, self.patch)

    def loss(self, hidden_MD: Tensor, last_MPF: Tensor, target_MPF: Tensor) -> Tensor:
        error = self.sample(hidden_MD, last_MPF, hidden_MD) - target_MPF
        squared = error.square().mean()
        return squared if self.mse_only else squared + error.abs().mean()


class _AdaptiveBlock(nn.Module):
    """Residual MLP whose normalisation is scaled, shifted and gated by the condition (AdaLN)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = Linear(width, 3 * width)
        self.up, self.down = Linear(width, 2 * width), Linear(2 * width, width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(condition).chunk(3, dim=-1)
        hidden = self.norm(x) * (1 + scale) + shift
        return x + gate * self.down(functional.silu(self.up(hidden)))


class EnergyHead(nn.Module):
    """One-step implicit sampler trained with the energy score.

    A sample is g(h, z) with z ~ N(0, I). The energy score E|x - y| - ½ E|x - x'| is strictly proper
    (Gneiting and Raftery 2007, equation 22), so no adversary, likelihood or diffusion is needed (EAR,
    arXiv:2505.07812, for images; SLED, arXiv:2505.13181, for speech). Our deviation: beside the whole patch the
    score is also taken per frame, over band groups and over frame differences, with smaller weights;
    the sum stays strictly proper and counts fine detail.
    """

    def __init__(
        self, width: int, patch: tuple[int, int], *, noise_width: int, head_width: int, num_blocks: int
    ) -> None:
        super().__init__()
        self.patch, self.noise_width = patch, noise_width
        self.noise = Linear(noise_width, head_width)
        self.condition = Linear(width, head_width)
        self.clean = Linear(patch[0] * patch[1], head_width)
        self.blocks = nn.ModuleList(_AdaptiveBlock(head_width) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(head_width)
        self.out = Linear(head_width, patch[0] * patch[1])
        self.kept = Linear(head_width, patch[1])
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.zeros_(self.out.bias)
        nn.init.zeros_(self.kept.weight)
        nn.init.constant_(self.kept.bias, _NEARLY_ALL)

    def sample(self, hidden_MD: Tensor, last_MPF: Tensor, noise_MZ: Tensor) -> Tensor:
        condition = functional.silu(self.condition(hidden_MD) + self.clean(last_MPF.flatten(1)))
        x = self.noise(noise_MZ)
        for block in self.blocks:
            x = block(x, condition)
        # Grain in a last frame of the model's own making must not live on through the skip.
        kept_M1F = torch.sigmoid(self.kept(condition))[:, None]
        return kept_M1F * last_MPF[:, -1:] + self.out(self.norm(x)).unflatten(1, self.patch)

    def loss(self, hidden_MD: Tensor, last_MPF: Tensor, target_MPF: Tensor) -> Tensor:
        noise = torch.randn(2, len(hidden_MD), self.noise_width, device=hidden_MD.device)
        draws = self.sample(hidden_MD.repeat(2, 1), last_MPF.repeat(2, 1, 1), noise.flatten(0, 1)).unflatten(0, (2, -1))
        return multi_view_energy_loss(draws, target_MPF)


def energy_score(draws_SMX: Tensor, target_MX: Tensor) -> Tensor:
    """Return the energy score [M] of S draws (S ≥ 2, unbiased), Euclidean distance over X dimensions."""
    count = len(draws_SMX)
    error = _distance(draws_SMX - target_MX).mean(0)
    pairs = torch.stack([_distance(draws_SMX[i] - draws_SMX[j]) for i in range(count) for j in range(i)])
    return error - 0.5 * pairs.mean(0)


def multi_view_energy_loss(draws_SMPF: Tensor, target_MPF: Tensor) -> Tensor:
    """Energy score of the whole patch plus weighted scores of its frames, band groups and differences."""

    def score(draws: Tensor, target: Tensor) -> Tensor:
        return (energy_score(draws, target) / draws.shape[-1] ** 0.5).mean()

    loss = score(draws_SMPF.flatten(2), target_MPF.flatten(1))
    loss = loss + 0.25 * score(draws_SMPF, target_MPF)
    loss = loss + 0.25 * score(_band_groups(draws_SMPF), _band_groups(target_MPF))
    return loss + 0.5 * score(draws_SMPF.diff(dim=2).flatten(2), target_MPF.diff(dim=1).flatten(1))


def _band_groups(x_PF: Tensor) -> Tensor:
    """Regroup [..., P, F] as four band groups [..., 4, P * F/4]."""
    return x_PF.unflatten(-1, (4, -1)).transpose(-3, -2).flatten(-2)


def _distance(x: Tensor) -> Tensor:
    return (x.square().sum(-1) + 1e-8).sqrt()
