"""The mel contract in torch: differentiable, batched, on any device. Equal to `features.mel` (tested)."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from audiofoundation.features.mel import MelConfig, hann_window, mel_filters


class TorchMel(nn.Module):
    """Log-mel of a batch of waveforms.

    Args:
        config: the preset (natural-log presets only).
    """

    window: Tensor
    filters_FK: Tensor

    def __init__(self, config: MelConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("window", torch.from_numpy(np.array(hann_window(config))), persistent=False)
        self.register_buffer("filters_FK", torch.from_numpy(np.array(mel_filters(config))), persistent=False)

    def forward(self, wave_BN: Tensor) -> Tensor:
        """Map waveforms float32 [B, N] to log-mels float32 [B, T, F]."""
        padding = self.config.padding
        padded = functional.pad(wave_BN[:, None], (padding, padding), mode="reflect")[:, 0]
        return self.frames(padded)[:, : self.config.frames_for(wave_BN.shape[1])]

    def frames(self, padded_BN: Tensor) -> Tensor:
        """Map already padded waveforms to their `1 + (N - fft_size) // hop` frames [B, T, F]."""
        config = self.config
        spectrum_BKT = torch.stft(
            padded_BN, config.fft_size, config.hop_length, window=self.window, center=False, return_complex=True
        )
        squared = spectrum_BKT.real.square() + spectrum_BKT.imag.square()
        # A tiny epsilon keeps the root's gradient finite at digital silence; it is far below every floor.
        magnitude = squared if config.power == 2 else (squared + max(config.magnitude_epsilon, 1e-16)).sqrt()
        return (self.filters_FK @ magnitude).transpose(1, 2).clamp(min=config.floor).log()
