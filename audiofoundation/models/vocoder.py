"""Causal ConvNeXt + inverse STFT vocoder (the Vocos family, Siuzdak 2023, arXiv:2306.00814), streaming.

Deviations: every convolution looks back only; a fixed look-ahead of A frames delays the target; the
magnitude is predicted as a difference to the pseudo-inverse of the mel filters (after FreeV,
arXiv:2406.08196), so the network spends its capacity on the phase.

Shape letters: B batch, T frames, F bands, D width, K frequency bins, N samples.
"""

from dataclasses import dataclass

import numpy as np
import scipy.fft
import torch
from torch import Tensor, nn
from torch.nn import functional

from audiofoundation.features.griffin_lim import inverse_filters
from audiofoundation.features.mel import Float32, MelConfig, get_preset, hann_window
from audiofoundation.features.overlap_add import OverlapAdd
from audiofoundation.models.decoding import PackedConvNeXt, Source, is_plain_input
from audiofoundation.models.layers import Linear, Packable

_KERNEL = 7
_STEP_FRAMES = 8  # a call of the network in a stream: half of its time for four frames is Python's
_FEW_FRAMES = 32
_NOTHING: Float32 = np.zeros(0, np.float32)


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

    def forward(self, x_BTC: Tensor, state: list[Tensor] | None, slot: int) -> Tensor:
        is_few = x_BTC.shape[1] < _FEW_FRAMES
        past = x_BTC.new_zeros(len(x_BTC), _KERNEL - 1, x_BTC.shape[2]) if state is None else state[slot]
        x_BTC = torch.cat([past, x_BTC], dim=1)
        if state is not None:
            state[slot] = x_BTC[:, -(_KERNEL - 1) :]
        if is_few and self.conv.bias is not None:
            return self._convolve_few(x_BTC, self.conv.bias)
        return self.conv(x_BTC.transpose(1, 2)).transpose(1, 2)

    def _convolve_few(self, x_BTC: Tensor, bias: Tensor) -> Tensor:
        """The same by products: a convolution's call takes as long as a hundred frames."""
        windows_BTCW = x_BTC.unfold(1, _KERNEL, 1)
        if self.conv.groups == 1:
            return functional.linear(windows_BTCW.flatten(2), self.conv.weight.flatten(1), bias)
        return (windows_BTCW * self.conv.weight[:, 0]).sum(-1) + bias


class ConvNeXtBlock(Packable):
    """Depthwise causal convolution and a pointwise MLP with layer scale (Liu et al. 2022)."""

    packed: PackedConvNeXt | None = None

    def __init__(self, width: int, hidden: int, scale: float) -> None:
        super().__init__()
        self.depthwise = CausalConv(width, width, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.up, self.down = Linear(width, hidden), Linear(hidden, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x_BTD: Tensor, state: list[Tensor] | None, slot: int) -> Tensor:
        if self.packed is not None and state is not None and self._is_packed_step(self.packed, x_BTD, state[slot]):
            x_BTD, state[slot] = self.packed(x_BTD, state[slot])
            return x_BTD
        hidden_BTD = self.norm(self.depthwise(x_BTD, state, slot))
        return x_BTD + self.scale * self.down(functional.gelu(self.up(hidden_BTD)))

    def _is_packed_step(self, packed: PackedConvNeXt, x_BTD: Tensor, past_B6D: Tensor) -> bool:
        is_few = len(x_BTD) == len(past_B6D) == 1 and 0 < x_BTD.shape[1] < _FEW_FRAMES
        is_plain = is_few and not self.training and is_plain_input(x_BTD)
        return is_plain and packed.source.is_still(*self._weights())

    def _weights(self) -> tuple[Tensor | None, ...]:
        """In the order of `Kernels.convnext_block`."""
        conv, norm, up, down = self.depthwise.conv, self.norm, self.up, self.down
        first = conv.weight, conv.bias, norm.weight, norm.bias
        return *first, up.weight, up.bias, down.weight, down.bias, self.scale

    def pack(self) -> None:
        self.packed = None
        weights = [it for it in self._weights() if it is not None]
        source = Source.of(*self._weights())
        up, down = self.up.still_packed(), self.down.still_packed()
        if source is None or up is None or down is None or len(weights) < len(self._weights()):
            return
        taps: Float32 = weights[0].detach()[:, 0].t().contiguous().numpy()
        bias, norm_scale, norm_offset = (it.detach().numpy() for it in weights[1:4])
        scale = self.scale.detach().numpy()
        self.packed = PackedConvNeXt(
            up.native,
            (taps, bias, norm_scale, norm_offset, up.matrix, up.bias, down.matrix, down.bias, scale),
            self.up.out_features,
            self.norm.eps,
            source,
        )


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
        self.out = Linear(config.width, 2 * num_bins)
        nn.init.normal_(self.out.weight, std=0.02)
        nn.init.zeros_(self.out.bias)

    def create_state(self, batch: int = 1) -> list[Tensor]:
        """Return the convolutions' empty past: one tensor per causal convolution."""
        widths = [self.mel_config.num_bands] + [self.config.width] * self.config.num_layers
        return [torch.zeros(batch, _KERNEL - 1, width) for width in widths]

    def spectrum(self, mel_BTF: Tensor, ahead_BTF: Tensor, state: list[Tensor] | None = None) -> Tensor:
        """Return complex spectra [B, T, K] of frames `mel_BTF`.

        Args:
            mel_BTF: the frames whose spectra are made (they set the magnitude).
            ahead_BTF: the frames A later, which the network reads.
            state: past of the convolutions, advanced in place; without it the past is zero.
        """
        x_BTD = self.norm_in(self.embed(ahead_BTF / 3, state, 0))
        for index, block in enumerate(self.blocks):
            x_BTD = block(x_BTD, state, index + 1)
        delta, phase = self.out(self.norm_out(x_BTD)).float().chunk(2, dim=-1)
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
    """One stream: the convolutions' past, the frames whose look-ahead is still missing, the signal.

    Frames go through the network by the step, whatever pieces they came in.
    """

    def __init__(self, model: CausalVocos) -> None:
        self._model, self._state, mel = model, model.create_state(), model.mel_config
        self._unread: Float32 = np.zeros((0, mel.num_bands), np.float32)
        self._waiting = torch.zeros(1, 0, mel.num_bands)
        self._num_read = 0
        self._signal = OverlapAdd(mel)

    @torch.inference_mode()
    def push(self, mel: Float32) -> Float32:
        self._signal.expect(len(mel))
        self._unread = np.concatenate([self._unread, np.asarray(mel, np.float32)])
        out = [_NOTHING]
        while len(self._unread) >= _STEP_FRAMES:
            out.append(self._read(torch.from_numpy(self._unread[:_STEP_FRAMES])[None]))
            self._unread = self._unread[_STEP_FRAMES:]
        return np.concatenate(out)

    @torch.inference_mode()
    def finish(self) -> Float32:
        out = [self._read(torch.from_numpy(self._unread)[None])]
        if self._waiting.shape[1]:
            out.append(self._read(self._waiting[:, -1:].expand(-1, self._model.config.look_ahead_frames, -1)))
        return np.concatenate([*out, self._signal.finish()])

    def _read(self, frames: Tensor) -> Float32:
        """Show the network new frames; return the samples of the frames that became complete."""
        ahead, size = self._model.config.look_ahead_frames, self._model.mel_config.fft_size
        early = min(max(0, ahead - self._num_read), frames.shape[1])
        self._num_read += frames.shape[1]
        if early:
            self._model._read_ahead(frames[:, :early], self._state)
        self._waiting = torch.cat([self._waiting, frames], dim=1)
        count = frames.shape[1] - early
        if not count:
            return _NOTHING
        ready, self._waiting = self._waiting[:, :count], self._waiting[:, count:]
        spectra = self._model.spectrum(ready, frames[:, early:], self._state)[0]
        pieces: Float32 = scipy.fft.irfft(spectra.numpy(), size, axis=-1)
        return self._signal.add(pieces * hann_window(self._model.mel_config))
