"""One picture per sample: waveform, spectrogram, MFCC and a summary in words."""

import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from audiofoundation.features.descriptors import (
    FRAME_LENGTH,
    HOP_LENGTH,
    cepstrum,
    limit_range,
    magnitudes_of,
    mel_decibels,
)
from audiofoundation.features.mel import Float32

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

_COLOR, _PALE = "#27506b", "#7fa8c2"
_RANGE_DB = 80.0
_COLUMNS = 1600
_LINE = 56
_TICKS_HZ = (125, 250, 500, 1000, 2000, 4000, 8000, 16000)


@dataclass(frozen=True, slots=True)
class SamplePicture:
    """What a picture shows.

    Attributes:
        title: the file's name.
        text: its description.
        samples: float32 [N], mono.
        sample_rate_hz: of the samples.
        lines: what stands in the summary: name and value.
    """

    title: str
    text: str
    samples: Float32
    sample_rate_hz: int
    lines: Sequence[tuple[str, str]]


def draw_sample(picture: SamplePicture, path: Path) -> None:
    """Write a PNG of four panels."""
    from matplotlib.figure import Figure

    magnitudes_TK = _magnitudes(picture)
    figure = Figure(figsize=(13, 8), layout="constrained")
    (wave, spectrum), (coefficients, summary) = figure.subplots(2, 2)
    figure.suptitle(picture.title, fontsize=13, fontweight="bold", parse_math=False)
    _draw_waveform(wave, picture)
    figure.colorbar(_draw_spectrogram(spectrum, magnitudes_TK, picture), ax=spectrum, label="dB", pad=0.01)
    image = _draw_mfcc(coefficients, magnitudes_TK, picture)
    figure.colorbar(image, ax=coefficients, label="standard deviations", pad=0.01)
    _write_summary(summary, picture)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # fonts lack many scripts: boxes, not an error
        figure.savefig(path, dpi=100)


def _magnitudes(picture: SamplePicture) -> Float32:
    """Return the magnitudes that the descriptors are taken from, [T, K]."""
    padded = np.pad(picture.samples, FRAME_LENGTH // 2)
    frames_TN = np.lib.stride_tricks.sliding_window_view(padded, FRAME_LENGTH)[::HOP_LENGTH]
    return magnitudes_of(frames_TN, picture.sample_rate_hz)


def _draw_waveform(axes: "Axes", picture: SamplePicture) -> None:
    """Draw the envelope: lowest, highest and RMS of as many columns as the picture has."""
    width = -(-picture.samples.size // _COLUMNS)
    padded = np.pad(picture.samples, (0, -picture.samples.size % width), mode="edge").reshape(-1, width)
    seconds = (np.arange(len(padded)) + 0.5) * width / picture.sample_rate_hz
    rms = np.sqrt(np.mean(padded.astype(np.float64) ** 2, axis=1))
    axes.fill_between(seconds, padded.min(axis=1), padded.max(axis=1), color=_PALE, linewidth=0, label="peak")
    axes.fill_between(seconds, -rms, rms, color=_COLOR, linewidth=0, label="RMS")
    axes.set(title="Waveform", xlabel="seconds", ylabel="amplitude", ylim=(-1.05, 1.05))
    axes.set_xlim(0, picture.samples.size / picture.sample_rate_hz)
    axes.legend(loc="upper right", fontsize=8, framealpha=0.8)
    axes.grid(alpha=0.2)


def _draw_spectrogram(axes: "Axes", magnitudes_TK: Float32, picture: SamplePicture) -> "AxesImage":
    """Draw decibels below the loudest point over a logarithmic frequency axis of 256 rows, each the strongest bin in
    its band."""
    top_hz = picture.sample_rate_hz / 2
    power = 20 * np.log10(np.maximum(magnitudes_TK.T / magnitudes_TK.max(), 1e-6))
    edges_hz = np.geomspace(60.0, top_hz, 257)
    bins = np.clip(np.round(edges_hz / top_hz * (power.shape[0] - 1)).astype(int), 0, power.shape[0] - 1)
    rows = np.stack(
        [power[low : max(high, low + 1)].max(axis=0) for low, high in zip(bins[:-1], bins[1:], strict=True)]
    )
    duration_s = picture.samples.size / picture.sample_rate_hz
    image = axes.imshow(
        rows,
        origin="lower",
        aspect="auto",
        extent=(0, duration_s, 0, len(rows)),
        vmin=-_RANGE_DB,
        vmax=0,
        cmap="magma",
        interpolation="nearest",
    )
    ticks = [hz for hz in _TICKS_HZ if hz <= top_hz]
    positions = [len(rows) * np.log(hz / 60.0) / np.log(top_hz / 60.0) for hz in ticks]
    axes.set_yticks(positions, [f"{hz // 1000} k" if hz >= 1000 else str(hz) for hz in ticks])
    axes.set(title="Spectrogram", xlabel="seconds", ylabel="Hz")
    return image


def _draw_mfcc(axes: "Axes", magnitudes_TK: Float32, picture: SamplePicture) -> "AxesImage":
    """Draw each coefficient about its own mean, or the first, which is the level, would hide the rest."""
    mfcc = cepstrum(limit_range(mel_decibels(magnitudes_TK, picture.sample_rate_hz))).T
    spread = mfcc.std(axis=1, keepdims=True)
    centred = (mfcc - mfcc.mean(axis=1, keepdims=True)) / np.maximum(spread, 1e-6)
    image = axes.imshow(
        centred,
        origin="lower",
        aspect="auto",
        extent=(0, picture.samples.size / picture.sample_rate_hz, 0.5, len(centred) + 0.5),
        vmin=-3,
        vmax=3,
        cmap="RdBu_r",
        interpolation="nearest",
    )
    axes.set(title="MFCC, each about its mean", xlabel="seconds", ylabel="coefficient")
    axes.set_yticks(range(1, len(centred) + 1, 2))
    return image


def _write_summary(axes: "Axes", picture: SamplePicture) -> None:
    axes.set_axis_off()
    axes.set_title("Summary")
    text = textwrap.fill(" ".join(picture.text.split()), _LINE, max_lines=3, placeholder=" …")
    width = max(len(name) for name, _ in picture.lines)
    lines = [
        f"{name:<{width}}  {textwrap.shorten(value, _LINE - 4, placeholder=' …')}" for name, value in picture.lines
    ]
    axes.text(0.0, 0.98, text, transform=axes.transAxes, va="top", fontsize=11, style="italic", parse_math=False)
    axes.text(
        0.0,
        0.98 - 0.07 * (text.count("\n") + 1),
        "\n".join(lines),
        transform=axes.transAxes,
        va="top",
        family="monospace",
        fontsize=9.5,
        linespacing=1.45,
        parse_math=False,
    )
