"""Free-running continuation: one prompt, patch after patch.

Shape letters: T frames, F bands, P frames of a patch, Z noise.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from audiofoundation.features.mel import Float32
from audiofoundation.models.mel_transformer import MelTransformer

_NEPER_PER_DB = math.log(10) / 20
_NEIGHBOURS = 2
_FARTHEST = 6.0


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How the next patch is drawn.

    Attributes:
        temperature: variance of the noise; 1 as trained, less is calmer.
        headroom_db: how far above (negative: below) the prompt's loudest a band may rise; drift and runaways end there.
        history_level: noise level told to the model for what it made itself (0 … 7).
    """

    temperature: float = 0.85
    headroom_db: float = -2.0
    history_level: int = 3


class MelContinuation:
    """Continues log-mel frames. One object is one stream; the model is shared.

    Args:
        model: in evaluation mode, on the CPU.
        seed: of everything drawn; equal seeds and prompts give equal frames.
        options: how to draw.
    """

    def __init__(self, model: MelTransformer, *, seed: int = 0, options: SamplingOptions | None = None) -> None:
        self._model, self._options = model, options or SamplingOptions()
        self._generator = torch.Generator().manual_seed(seed)
        self._state = model.create_state()
        self._last = torch.zeros(1, model.config.patch_frames, model.config.num_bands)
        self._ceiling_F = torch.full((model.config.num_bands,), math.inf)
        self._hidden = torch.zeros(1, model.config.width)
        self._level = torch.full((1, 1), self._options.history_level)

    @property
    def patch_frames(self) -> int:
        return self._model.config.patch_frames

    @torch.inference_mode()
    def prefill(self, mel: Float32) -> None:
        """Read the prompt, float32 [T, F] raw log-mel of the model's preset.

        The last whole patches that fit the context are read; a prompt shorter than a patch is
        repeated until it fills one.

        Raises:
            ValueError: the prompt has no frames.
        """
        frames = self.patch_frames
        if len(mel) == 0:
            raise ValueError("a prompt needs at least one frame")
        if len(mel) < frames:
            mel = np.tile(mel, (-(-frames // len(mel)), 1))[-frames:]
        count = min(len(mel) // frames, self._model.config.context_patches)
        patches = torch.from_numpy(np.ascontiguousarray(mel[-count * frames :])).unflatten(0, (count, frames))
        self._ceiling_F = self._model.normalize(_loudest(patches) + self._options.headroom_db * _NEPER_PER_DB)
        patches = self._model.normalize(patches)[None]
        hidden = self._model(patches, state=self._state)
        self._hidden, self._last = hidden[:, -1], patches[:, -1]

    @torch.inference_mode()
    def next_patch(self) -> Float32:
        """Return the next frames, float32 [P, F] raw log-mel."""
        model, scale = self._model, math.sqrt(self._options.temperature)
        noise = torch.randn(1, model.head.noise_width, generator=self._generator) * scale
        patch = model.head.sample(self._hidden, self._last, noise)
        # A runaway value would poison all that follows: what is made is history in the next step.
        patch = torch.minimum(patch, self._ceiling_F).clamp(min=-_FARTHEST)
        self._hidden = model(patch[:, None], self._level, state=self._state)[:, -1]
        self._last = patch
        out: Float32 = model.denormalize(patch)[0].numpy()
        return out


def _loudest(patches_LPF: Tensor) -> Tensor:
    """Return each band's loudest value in the prompt, neighbouring bands included, float32 [F]."""
    peak_F = patches_LPF.flatten(0, 1).amax(0)
    return functional.max_pool1d(peak_F[None], 2 * _NEIGHBOURS + 1, stride=1, padding=_NEIGHBOURS)[0]
