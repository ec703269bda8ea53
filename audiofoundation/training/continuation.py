"""Objective of the mel transformer: predict the next patch from a history that is partly its own.

Free running drifts unless training has seen its own kind of error. So from a random patch on, the history
(what the encoder, the clean path and the skip all see) stops being the recording: half of the time it is the
model's own one-step draws, and always it carries noise and a gain and a colour that wander off like a
random walk. Each patch's noise level tells the model which part it may trust; the target is the recording, to which
what the history has of offset returns within some frames. At the end of training that is the situation of a
continuation: true prompt, own output, and a way back that does not jump.

Shape letters: B batch, L patches, P frames of a patch, F bands, S draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from audiofoundation.models.heads import energy_score
from audiofoundation.models.mel_transformer import NOISE_LEVELS, MelTransformer
from audiofoundation.training.corpus import Corpus, Draw, StepWindows, Window, WindowSampler

DB_TO_NATURAL = float(np.log(10) / 20)
_SMOOTH_BANDS = 9
_MAX_DEPTH = 3


@dataclass(frozen=True, slots=True)
class ContinuationConfig:
    """How the windows are drawn and spoilt.

    Attributes:
        batch: windows per step.
        window_patches: patches of a window, the first of which is only history.
        gain_db: windows are made louder or softer by up to this.
        noise: greatest strength of the noise, in standard deviations of a band.
        gain_walk: greatest step of the wandering gain per patch, likewise.
        colour_walk: greatest step of the wandering colour per patch, likewise.
        spoilt_share: share of windows whose history is spoilt from some patch on.
        own_share: share of steps in which the spoilt part is the model's own draws.
        offset_kept: share of the history's offset from the truth that the target keeps, per frame: a model that
            is asked to be right at once jumps at every patch that it makes from its own.
        grain_kept: the same for what differs from band to band, which is grain and shall go sooner.
        weights: share of each label in the windows.
    """

    batch: int = 8
    window_patches: int = 145
    gain_db: float = 4.0
    noise: float = 0.3
    gain_walk: float = 0.15
    colour_walk: float = 0.06
    spoilt_share: float = 0.8
    own_share: float = 0.6
    offset_kept: float = 0.95
    grain_kept: float = 0.7
    weights: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class _Spoilt:
    """A history [B, L, P, F], the walk in it [B, L, 1, F], which patches are spoilt and how much [B, L]."""

    history: Tensor
    walk: Tensor
    is_spoilt: Tensor
    level: Tensor


class ContinuationObjective:
    """Trains a `MelTransformer` on windows of a corpus."""

    def __init__(
        self,
        model: MelTransformer,
        train: Corpus,
        held_out: Corpus | None,
        config: ContinuationConfig,
        seed: int,
    ) -> None:
        self.model: nn.Module = model
        self.transformer, self.config, self.seed = model, config, seed
        self.parts: Mapping[str, nn.Module] = {"model": model}
        self._held_out = held_out
        self._frames = config.window_patches * model.config.patch_frames
        self._places = StepWindows(train, self._frames, weights=dict(config.weights) or None)
        mean, std = train.statistics()
        model.mean_F.copy_(torch.from_numpy(mean))
        model.std_F.copy_(torch.from_numpy(std))

    def phases(self, step: int) -> Sequence[str]:  # noqa: ARG002
        return ("model",)

    def losses(self, phase: str, step: int) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the head's loss on a batch of windows."""
        device = self.transformer.mean_F.device
        corpus, places = self._places.draw(self.seed, step, self.config.batch)
        mel = self._windows(corpus, places, Draw(self.seed, step, device))
        mel = mel + (torch.rand(len(mel), 1, 1, 1, device=device) * 2 - 1) * self.config.gain_db * DB_TO_NATURAL
        clean = self.transformer.normalize(mel)
        spoilt = self._spoil(clean)
        history, offset = spoilt.history, spoilt.walk
        if float(torch.rand(())) < self.config.own_share:
            history = self._own_draws(spoilt)
            offset = history - clean
        hidden = self.transformer(history[:, :-1], spoilt.level[:, :-1])
        target = clean[:, 1:] + self._kept(offset[:, :-1, -1:])
        loss = self.transformer.head.loss(hidden.flatten(0, 1), history[:, :-1].flatten(0, 1), target.flatten(0, 1))
        return {"total": loss}

    def _windows(self, corpus: Corpus, places: Sequence[Window], draw: Draw) -> Tensor:
        mel = corpus.mel_windows(places, self._frames, draw)
        return mel.unflatten(1, (-1, self.transformer.config.patch_frames))

    def _kept(self, offset_BL1F: Tensor) -> Tensor:
        """Return what is left of the last frame's offset in the frames of the next patch, [B, L, P, F]."""
        frame_P1 = torch.arange(1, self.transformer.config.patch_frames + 1, device=offset_BL1F.device)[:, None]
        rows = offset_BL1F.flatten(0, 2)
        smooth = functional.avg_pool1d(rows, _SMOOTH_BANDS, 1, _SMOOTH_BANDS // 2, count_include_pad=False)
        smooth_BL1F = smooth.view_as(offset_BL1F)
        grain_BL1F = offset_BL1F - smooth_BL1F
        return smooth_BL1F * self.config.offset_kept**frame_P1 + grain_BL1F * self.config.grain_kept**frame_P1

    def _spoil(self, clean_BLPF: Tensor) -> "_Spoilt":
        batch, length, frames, bands = clean_BLPF.shape
        device, config = clean_BLPF.device, self.config
        start = torch.rand(batch, 1, device=device) * length / config.spoilt_share
        is_spoilt = torch.arange(length, device=device)[None] >= start
        strength = torch.rand(batch, 1, device=device)
        level = torch.where(is_spoilt, 1 + (strength * (NOISE_LEVELS - 2)).round().long(), 0)
        step = (strength * is_spoilt)[:, :, None, None]
        gain = torch.randn(batch, length, 1, 1, device=device) + 0.3 * torch.randn(batch, 1, 1, 1, device=device)
        colour = torch.randn(batch, length, 1, bands // 10, device=device).repeat_interleave(10, dim=-1)
        walk = config.gain_walk * (gain * step).cumsum(1) + config.colour_walk * (colour * step).cumsum(1)
        grain = torch.randn_like(clean_BLPF) + torch.randn(batch, length, frames, 1, device=device)
        noise = walk.clamp(-2.0, 2.0) + 0.7 * config.noise * grain * step
        return _Spoilt(clean_BLPF + noise, walk.clamp(-2.0, 2.0), is_spoilt, level)

    @torch.no_grad()
    def _own_draws(self, spoilt: "_Spoilt") -> Tensor:
        """Return the history with its spoilt part drawn by the model, up to three draws deep, plus the walk."""
        history = spoilt.history
        for _ in range(int(torch.randint(1, _MAX_DEPTH + 1, ()))):
            hidden = self.transformer(history[:, :-1], spoilt.level[:, :-1]).flatten(0, 1)
            noise = torch.randn(len(hidden), self.transformer.head.noise_width, device=hidden.device)
            draws = self.transformer.head.sample(hidden, history[:, :-1].flatten(0, 1), noise)
            own = draws.float().unflatten(0, history[:, :-1].shape[:2])
            mixed = torch.where(spoilt.is_spoilt[:, 1:, None, None], own, history[:, 1:])
            history = torch.cat([history[:, :1], mixed], dim=1)
        return history + spoilt.walk

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return the energy score on held-out windows, teacher-forced, beside its references."""
        if self._held_out is None or not isinstance(model, MelTransformer):
            return {}
        model.eval()
        generator = torch.Generator().manual_seed(1234)
        sampler = WindowSampler(self._held_out.recordings, self._frames)
        totals: list[dict[str, float]] = []
        for step in range(4):
            mel = self._windows(self._held_out, sampler.draw(99, step, 8), Draw(99, step, model.mean_F.device))
            totals.append(score_patches(model, model.normalize(mel), generator))
        return {name: float(np.mean([t[name] for t in totals])) for name in totals[0]}


def score_patches(
    model: MelTransformer, clean_BLPF: Tensor, generator: torch.Generator, *, num_draws: int = 8
) -> dict[str, float]:
    """Return teacher-forced scores of the next patch, in normalised units.

    `energy_score` is strictly proper (lower is better); for a deterministic head it equals the mean
    distance. `repeat_last` is the distance of repeating the last frame. `spread_skill` is the mean distance
    between draws over the mean distance to the truth: 1 when the spread is right.
    """
    hidden = model(clean_BLPF[:, :-1]).flatten(0, 1)
    last, target = clean_BLPF[:, :-1].flatten(0, 1), clean_BLPF[:, 1:].flatten(0, 1)
    width = model.head.noise_width
    draws = torch.stack(
        [
            model.head.sample(hidden, last, torch.randn(len(hidden), width, generator=generator).to(last.device))
            for _ in range(num_draws)
        ]
    )
    errors = (draws - target).flatten(2).norm(dim=-1)
    pairs = (draws[1:] - draws[:-1]).flatten(2).norm(dim=-1)
    return {
        "energy_score": float(energy_score(draws.flatten(2), target.flatten(1)).mean()),
        "spread_skill": float(pairs.mean() / errors.mean()),
        "repeat_last": float((last[:, -1:] - target).flatten(1).norm(dim=-1).mean()),
    }
