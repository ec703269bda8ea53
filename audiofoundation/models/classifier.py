"""A small convolutional classifier of log-mel frames (speech, music, other …).

Shape letters: B batch, T frames, F bands, D channels, C classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from audiofoundation.features.mel import Float32
from audiofoundation.models.mel_transformer import MEL_FLOOR


@dataclass(frozen=True, slots=True)
class MelClassifierConfig:
    """Sizes and labels.

    Attributes:
        labels: class names, in the order of the outputs.
        preset: mel preset of the frames.
        num_bands: mel bands F.
        width: channels of the first block; they double twice.
        window_frames: frames seen at once; longer clips are averaged over windows.
    """

    labels: tuple[str, ...] = ("speech", "music", "other")
    preset: str = "vocos24"
    num_bands: int = 100
    width: int = 24
    window_frames: int = 188


class _Block(nn.Module):
    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_width, out_width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_width)

    def forward(self, x: Tensor) -> Tensor:
        return functional.max_pool2d(functional.relu(self.norm(self.conv(x))), 2)


class MelClassifier(nn.Module):
    """Four convolution blocks, average and maximum over time and frequency, one linear layer."""

    mean_F: Tensor
    std_F: Tensor

    def __init__(self, config: MelClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean_F", torch.zeros(config.num_bands))
        self.register_buffer("std_F", torch.ones(config.num_bands))
        widths = [1, config.width, 2 * config.width, 4 * config.width, 4 * config.width]
        self.blocks = nn.ModuleList(_Block(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.dropout = nn.Dropout(0.2)
        self.out = nn.Linear(2 * widths[-1], len(config.labels))

    def forward(self, mel_BTF: Tensor) -> Tensor:
        """Map raw log-mels [B, T, F] (T ≥ 16) to class scores before the softmax, [B, C]."""
        x = ((mel_BTF.clamp(min=MEL_FLOOR) - self.mean_F) / self.std_F)[:, None]
        # The clip's own level says how loud the recording is, not what it is.
        x = x - x.mean(dim=(2, 3), keepdim=True)
        for block in self.blocks:
            x = block(x)
        pooled = torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)
        return self.out(self.dropout(pooled))


@torch.inference_mode()
def classify(model: MelClassifier, mel: Float32) -> list[tuple[str, float]]:
    """Return (label, probability), the most probable first, of log-mel frames [T, F].

    A clip shorter than a window is repeated; of a longer one, windows half overlapping are averaged.
    """
    size = model.config.window_frames
    frames = torch.from_numpy(mel)
    if len(frames) < size:
        frames = frames.repeat(-(-size // max(1, len(frames))), 1)[:size]
    windows = frames.unfold(0, size, size // 2).transpose(1, 2)
    probabilities = torch.cat([model(part).softmax(-1) for part in windows.split(32)]).mean(0)
    scored = zip(model.config.labels, probabilities.tolist(), strict=True)
    return sorted(scored, key=lambda pair: -pair[1])
