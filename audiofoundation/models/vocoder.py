"""Causal ConvNeXt + inverse STFT vocoder (the Vocos family, Siuzdak 2023, arXiv:2306.00814), streaming.

Deviations: every convolution looks back only; a fixed look-ahead of A frames delays the target; the
magnitude is predicted as a difference to the pseudo-inverse of the mel filters (after FreeV,
arXiv:2406.08196), so the network spends its capacity on the phase.

Shape letters: B batch, T frames, F bands, D width, K frequency bins, N samples.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from audiofoundation.features.griffin_lim import inverse_filters
from audiofoundation.features.mel import Float32, MelConfig, get_preset, hann_window

_KERNEL = 7


@dataclass(frozen=True, slots=True)
class CausalVocosConfig:
    """Sizes of the vocoder.

    Attributes:
        preset: mel preset of the frames that go in.
        width: channels D.
        hidden: width inside each block.
        num_layers: ConvNeXt blocks.
        look_ahead_frames: frames A that a sample may depend on beyond its own.
    """

    preset: str = "vocos24"
    width: int = 192
    hidden: int = 576
    num_layers: int = 8
    look_ahead_frames: int = 2


class CausalConv(nn.Module):
    """Convolution over frames that sees the past only; `state` carries the last frames between calls."""

    def __init__(self, in_width: int, out_width: int, *, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_width, out_width, _KERNEL, groups=groups)

    def forward(self, x_BDT: Tensor, state: list[Tensor] | None, slot: int) -> Tensor:
        if state is None:
            return self.conv(functional.pad(x_BDT, (_KERNEL - 1, 0)))
        x_BDT = torch.cat([state[slot], x_BDT], dim=-1)
        state[slot] = x_BDT[:, :, -(_KERNEL - 1) :]
        return self.conv(x_BDT)


class ConvNeXtBlock(nn.Module):
    """Depthwise causal convolution and a pointwise MLP with layer scale (Liu et al. 2022)."""

    def __init__(self, width: int, hidden: int, scale: float) -> None:
        super().__init__()
        self.depthwise = CausalConv(width, width, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x_BDT: Tensor, state: list[Tensor] | None, slot: int) -> Tensor:
        hidden_BTD = self.norm(self.depthwise(x_BDT, state, slot).transpose(1, 2))
        hidden_BTD = self.scale * self.down(functional.gelu(self.up(hidden_BTD)))
        return x_BDT + hidden_BTD.transpose(1, 2)


class CausalVocos(nn.Module):
    """Log-mel frames to complex spectra; `forward` gives the waveform of whole clips (training)."""

    inverse_FK: Tensor
    window: Tensor

    def __init__(self, config: CausalVocosConfig) -> None:
        super().__init__()
        self.config, self.mel_config = config, get_preset(config.preset)
        mel, num_bins = self.mel_config, self.mel_config.fft_size // 2 + 1
        self.register_buffer("inverse_FK", torch.from_numpy(np.array(inverse_filters(mel))), persistent=False)
        self.register_buffer("window", torch.from_numpy(np.array(hann_window(mel))), persistent=False)
        self.embed = CausalConv(mel.num_bands, config.width)
        self.norm_in = nn.LayerNorm(config.width, eps=1e-6)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(config.width, config.hidden, 1 / config.num_layers) for _ in range(config.num_layers)
        )
        self.norm_out = nn.LayerNorm(config.width, eps=1e-6)
        self.out = nn.Linear(config.width, 2 * num_bins)
        nn.init.normal_(self.out.weight, std=0.02)
        nn.init.zeros_(self.out.bias)

    def create_state(self, batch: int = 1) -> list[Tensor]:
        """Return the convolutions' empty past: one tensor per causal convolution."""
        widths = [self.mel_config.num_bands] + [self.config.width] * self.config.num_layers
        return [torch.zeros(batch, width, _KERNEL - 1) for width in widths]

    def spectrum(self, mel_BTF: Tensor, ahead_BTF: Tensor, state: list[Tensor] | None = None) -> Tensor:
        """Return complex spectra [B, T, K] of frames `mel_BTF`.

        Args:
            mel_BTF: the frames whose spectra are made (they set the magnitude).
            ahead_BTF: the frames A later, which the network reads.
            state: past of the convolutions, advanced in place; without it the past is zero.
        """
        x_BDT = self.embed((ahead_BTF / 3).transpose(1, 2), state, 0)
        x_BDT = self.norm_in(x_BDT.transpose(1, 2)).transpose(1, 2)
        for index, block in enumerate(self.blocks):
            x_BDT = block(x_BDT, state, index + 1)
        delta, phase = self.out(self.norm_out(x_BDT.transpose(1, 2))).float().chunk(2, dim=-1)
        base = (mel_BTF.float().exp() @ self.inverse_FK).clamp(min=1e-5).log()
        magnitude = (base + delta.clamp(-5, 5)).clamp(max=6.0).exp()
        return torch.polar(magnitude, phase)

    def forward(self, mel_BTF: Tensor) -> Tensor:
        """Return waveforms [B, T * hop] of whole clips; frame t is centred on sample t * hop."""
        ahead = self.config.look_ahead_frames
        padded = torch.cat([mel_BTF, mel_BTF[:, -1:].expand(-1, ahead, -1)], dim=1)
        state = self.create_state(len(mel_BTF))
        state = [past.to(mel_BTF.device) for past in state]
        self._read_ahead(padded[:, :ahead], state)
        spectrum_BTK = self.spectrum(mel_BTF, padded[:, ahead:], state)
        hop, size = self.mel_config.hop_length, self.mel_config.fft_size
        pieces_BTW = torch.fft.irfft(spectrum_BTK, size) * self.window
        length = (pieces_BTW.shape[1] - 1) * hop + size
        signal = _fold(pieces_BTW, hop, length)
        weight = _fold(self.window.square().expand(1, pieces_BTW.shape[1], -1), hop, length)
        start = size // 2
        stop = start + mel_BTF.shape[1] * hop
        return signal[:, start:stop] / weight[:, start:stop].clamp(min=1e-1)

    def _read_ahead(self, frames_BTF: Tensor, state: list[Tensor]) -> None:
        """Let the convolutions see the first A frames; their outputs belong to frames before the clip."""
        if frames_BTF.shape[1]:
            self.spectrum(frames_BTF, frames_BTF, state)


def _fold(pieces_BTW: Tensor, hop: int, length: int) -> Tensor:
    """Overlap-add pieces [B, T, W] every `hop` samples."""
    folded = functional.fold(
        pieces_BTW.transpose(1, 2), (1, length), kernel_size=(1, pieces_BTW.shape[-1]), stride=(1, hop)
    )
    return folded[:, 0, 0]


class CausalVocosVocoder:
    """A trained `CausalVocos` as a vocoder of the engine."""

    def __init__(self, model: CausalVocos, name: str) -> None:
        self._model, self.name = model.eval(), name

    @property
    def mel_config(self) -> MelConfig:
        return self._model.mel_config

    def create_stream(self, *, seed: int = 0) -> "CausalVocosStream":  # noqa: ARG002  (deterministic)
        return CausalVocosStream(self._model)


class CausalVocosStream:
    """One stream: the convolutions' past, the frames whose look-ahead is still missing, the overlap."""

    def __init__(self, model: CausalVocos) -> None:
        self._model, self._state = model, model.create_state()
        mel = model.mel_config
        overlap = mel.fft_size - mel.hop_length
        self._waiting = torch.zeros(1, 0, mel.num_bands)
        self._overlap, self._weight = torch.zeros(overlap), torch.zeros(overlap)
        self._num_read, self._to_drop, self._to_emit = 0, mel.fft_size // 2, 0

    @torch.inference_mode()
    def push(self, mel: Float32) -> Float32:
        self._to_emit += len(mel) * self._model.mel_config.hop_length
        return self._trim(self._read(torch.from_numpy(np.ascontiguousarray(mel))[None]))

    @torch.inference_mode()
    def finish(self) -> Float32:
        samples = torch.zeros(0)
        if self._waiting.shape[1]:
            samples = self._read(self._waiting[:, -1:].expand(-1, self._model.config.look_ahead_frames, -1))
        tail = self._overlap / self._weight.clamp(min=1e-1)
        return self._trim(torch.cat([samples, tail]))

    def _read(self, frames: Tensor) -> Tensor:
        """Show the network new frames; return the samples of the frames that became complete."""
        ahead = self._model.config.look_ahead_frames
        early = min(max(0, ahead - self._num_read), frames.shape[1])
        self._num_read += frames.shape[1]
        if early:
            self._model._read_ahead(frames[:, :early], self._state)
        self._waiting = torch.cat([self._waiting, frames], dim=1)
        count = frames.shape[1] - early
        if not count:
            return torch.zeros(0)
        ready, self._waiting = self._waiting[:, :count], self._waiting[:, count:]
        return self._add(self._model.spectrum(ready, frames[:, early:], self._state))

    def _add(self, spectrum: Tensor) -> Tensor:
        mel, window = self._model.mel_config, self._model.window
        pieces = torch.fft.irfft(spectrum, mel.fft_size) * window
        count = pieces.shape[1]
        length = (count - 1) * mel.hop_length + mel.fft_size
        signal = _fold(pieces, mel.hop_length, length)[0]
        weight = _fold(window.square().expand(1, count, -1), mel.hop_length, length)[0]
        signal[: len(self._overlap)] += self._overlap
        weight[: len(self._weight)] += self._weight
        settled = count * mel.hop_length
        self._overlap, self._weight = signal[settled:], weight[settled:]
        return signal[:settled] / weight[:settled].clamp(min=1e-1)

    def _trim(self, samples: Tensor) -> Float32:
        dropped = min(self._to_drop, len(samples))
        self._to_drop -= dropped
        samples = samples[dropped:][: self._to_emit]
        self._to_emit -= len(samples)
        out: Float32 = samples.numpy()
        return out
