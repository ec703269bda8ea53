"""A causal transformer over mel patches: patch encoder, decoder with key/value cache, head.

A patch is P consecutive mel frames. Position i sees patches 0..i and predicts patch i + 1.

Shape letters: B batch, L patches, P frames of a patch, F bands, D model width, Z noise.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from audiofoundation.models.heads import EnergyHead, RegressionHead
from audiofoundation.models.layers import (
    DecoderBlock,
    KeyValueCache,
    Linear,
    RmsNorm,
    rotary_angles,
    sinusoidal_embedding,
)

NOISE_LEVELS = 8
_ANGLES_AHEAD = 256
MEL_FLOOR = -11.512925  # ln 1e-5: sources cut at 8 or 11 kHz otherwise make a second mode far below


@dataclass(frozen=True, slots=True)
class MelTransformerConfig:
    """Sizes and choices of the model.

    Attributes:
        preset: mel preset whose raw log-mel goes in and comes out.
        num_bands: mel bands F.
        patch_frames: frames P of a patch.
        width: model width D.
        num_layers: decoder layers.
        num_heads: query heads.
        num_kv_heads: key/value heads (grouped-query attention).
        hidden: width of the gated feed-forward layers.
        context_patches: patches each position may look back on, itself included.
        positions: `rope`, `sinusoidal` or `learned`.
        head: `energy` (sampling), `reg` (L1 + MSE) or `mse`.
        head_width: width of the energy head.
        head_blocks: blocks of the energy head.
        noise_width: noise dimensions Z of the energy head.
        dropout: dropout of residual branches.
    """

    preset: str = "vocos24"
    num_bands: int = 100
    patch_frames: int = 4
    width: int = 256
    num_layers: int = 6
    num_heads: int = 4
    num_kv_heads: int = 2
    hidden: int = 704
    context_patches: int = 288
    positions: Literal["rope", "sinusoidal", "learned"] = "rope"
    head: Literal["energy", "reg", "mse"] = "energy"
    head_width: int = 320
    head_blocks: int = 4
    noise_width: int = 32
    dropout: float = 0.1


@dataclass(slots=True)
class DecoderState:
    """What a stream remembers: one cache per layer, the next position, and angles made in advance."""

    caches: list[KeyValueCache]
    position: int = 0
    angles_2LE: Tensor | None = None
    angles_from: int = 0

    def angles_at(self, length: int, head_width: int, device: torch.device) -> Tensor:
        """Return the rotary angles [2, L, E] of the next `length` positions."""
        start = self.position - self.angles_from
        if self.angles_2LE is None or start + length > self.angles_2LE.shape[1]:
            positions = torch.arange(self.position, self.position + max(length, _ANGLES_AHEAD), device=device)
            self.angles_2LE, self.angles_from, start = rotary_angles(positions, head_width), self.position, 0
        return self.angles_2LE[:, start : start + length]


class PatchEncoder(nn.Module):
    """Every patch of every row at once: a residual MLP beside a linear skip."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.skip = Linear(patch_size, width)
        self.up, self.down = Linear(patch_size, 2 * width), Linear(2 * width, width)

    def forward(self, patches_BLPF: Tensor) -> Tensor:
        flat = patches_BLPF.flatten(2)
        return self.skip(flat) + self.down(nn.functional.silu(self.up(flat)))


class MelTransformer(nn.Module):
    """The model. Works on normalised patches inside; `normalize` and `denormalize` are its doors."""

    mean_F: Tensor
    std_F: Tensor

    def __init__(self, config: MelTransformerConfig) -> None:
        super().__init__()
        self.config = config
        patch = (config.patch_frames, config.num_bands)
        self.register_buffer("mean_F", torch.zeros(config.num_bands))
        self.register_buffer("std_F", torch.ones(config.num_bands))
        self.encoder = PatchEncoder(patch[0] * patch[1], config.width)
        self.noise_level = nn.Embedding(NOISE_LEVELS, config.width)
        nn.init.zeros_(self.noise_level.weight)
        if config.positions == "learned":
            self.position = nn.Embedding(4 * config.context_patches, config.width)
        self.blocks = nn.ModuleList(
            DecoderBlock(
                config.width,
                heads=(config.num_heads, config.num_kv_heads),
                hidden=config.hidden,
                window=config.context_patches,
                dropout=config.dropout,
                depth=config.num_layers,
            )
            for _ in range(config.num_layers)
        )
        self.norm = RmsNorm(config.width)
        self.head = _create_head(config, patch)

    def normalize(self, mel: Tensor) -> Tensor:
        """Map raw log-mels [..., F] to roughly zero mean and unit variance per band."""
        return (mel.clamp(min=MEL_FLOOR) - self.mean_F) / self.std_F

    def denormalize(self, mel: Tensor) -> Tensor:
        """Undo `normalize`."""
        return mel * self.std_F + self.mean_F

    def create_state(self, batch: int = 1) -> DecoderState:
        """Return the empty state of `batch` streams."""
        config = self.config
        head_width = config.width // config.num_heads
        return DecoderState(
            [
                KeyValueCache.create(batch, config.num_kv_heads, config.context_patches, head_width)
                for _ in range(config.num_layers)
            ]
        )

    def forward(
        self, patches_BLPF: Tensor, noise_level_BL: Tensor | None = None, state: DecoderState | None = None
    ) -> Tensor:
        """Map normalised patches to decoder states.

        Args:
            patches_BLPF: float32 [B, L, P, F].
            noise_level_BL: how much noise each patch carries, 0 … NOISE_LEVELS - 1; none means 0.
            state: the stream so far; it is advanced. Without it the L patches stand alone.

        Returns:
            float32 [B, L, D]; row i predicts patch i + 1.
        """
        length = patches_BLPF.shape[1]
        x_BLD = self.encoder(patches_BLPF)
        if noise_level_BL is None:
            x_BLD = x_BLD + self.noise_level.weight[0]
        else:
            x_BLD = x_BLD + self.noise_level(noise_level_BL)
        x_BLD, angles = self._positions(x_BLD, length, state)
        for index, block in enumerate(self.blocks):
            x_BLD = block(x_BLD, angles, state.caches[index] if state else None)
        if state:
            state.position += length
        return self.norm(x_BLD)

    def _positions(self, x_BLD: Tensor, length: int, state: DecoderState | None) -> tuple[Tensor, Tensor | None]:
        config = self.config
        first = state.position if state else 0
        if config.positions == "rope":
            head_width = config.width // config.num_heads
            return x_BLD, (state or DecoderState([])).angles_at(length, head_width, x_BLD.device)
        positions_L = torch.arange(first, first + length, device=x_BLD.device)
        if config.positions == "sinusoidal":
            return x_BLD + sinusoidal_embedding(positions_L, config.width).to(x_BLD.dtype), None
        return x_BLD + self.position(positions_L % self.position.num_embeddings), None


def _create_head(config: MelTransformerConfig, patch: tuple[int, int]) -> EnergyHead | RegressionHead:
    if config.head == "energy":
        return EnergyHead(
            config.width,
            patch,
            noise_width=config.noise_width,
            head_width=config.head_width,
            num_blocks=config.head_blocks,
        )
    return RegressionHead(config.width, patch, mse_only=config.head == "mse")
