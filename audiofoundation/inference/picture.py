"""A picture of a continuation: the mel spectrogram of prompt and answer, with the seam marked."""

from pathlib import Path

import numpy as np

from audiofoundation.features.mel import Float32, get_preset, log_mel
from audiofoundation.features.mel_axis import frequency_ticks

_DB_PER_NEPER = 20 / np.log(10)
_RANGE_DB = 80.0


def draw_continuation(prompt: Float32, continuation: Float32, path: Path, *, title: str) -> None:
    """Write a PNG of both mono signals [N] at 24 kHz, one after the other, over the same colour scale.

    Args:
        prompt: what was given.
        continuation: what the model made of it.
        path: the PNG file.
        title: a line above the picture.
    """
    from matplotlib.figure import Figure

    config = get_preset("vocos24")
    joined = np.concatenate([prompt, continuation])
    level = log_mel(joined, config).T * _DB_PER_NEPER
    seconds, seam = len(joined) / config.sample_rate_hz, len(prompt) / config.sample_rate_hz
    figure = Figure(figsize=(11, 5), layout="constrained")
    wave, mel = figure.subplots(2, 1, sharex=True, height_ratios=[1, 3])
    wave.plot(np.arange(len(joined)) / config.sample_rate_hz, joined, color="#27506b", linewidth=0.3)
    wave.set(ylim=(-1, 1), ylabel="amplitude", title=title)
    image = mel.imshow(
        level,
        origin="lower",
        aspect="auto",
        extent=(0, seconds, 0, config.num_bands),
        vmin=level.max() - _RANGE_DB,
        vmax=level.max(),
        cmap="magma",
    )
    mel.set(xlabel="seconds", ylabel="Hz")
    mel.set_yticks(*frequency_ticks(config))
    for axes in (wave, mel):
        axes.axvline(seam, color="#35c48d", linewidth=1.5)
    top = config.num_bands - 2
    mel.annotate("prompt ", (seam, top), ha="right", va="top", color="white")
    mel.annotate(" continuation", (seam, top), ha="left", va="top", color="#35c48d")
    figure.colorbar(image, ax=mel, label="dB")
    figure.savefig(path, dpi=110)
