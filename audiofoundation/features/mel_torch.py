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
        config = self.config
        padded = functional.pad(wave_BN[:, None], (config.padding, config.padding), mode="reflect")[:, 0]
        spectrum_BKT = torch.stft(
            padded, config.fft_size, config.hop_length, window=self.window, center=False, return_complex=True
        )
        squared = spectrum_BKT.real.square() + spectrum_BKT.imag.square()
        # A tiny epsilon keeps the root's gradient finite at digital silence; it is far below every floor.
        magnitude = squared if config.power == 2 else (squared + max(config.magnitude_epsilon, 1e-16)).sqrt()
        energies_BTF = (self.filters_FK @ magnitude).transpose(1, 2)[:, : config.frames_for(wave_BN.shape[1])]
        return energies_BTF.clamp(min=config.floor).log()
