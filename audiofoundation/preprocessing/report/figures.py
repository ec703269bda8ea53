"""The pictures of a report, as PNG bytes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from audiofoundation.features.mel import MelConfig
from audiofoundation.features.mel_axis import frequency_ticks
from audiofoundation.shards.sample import Sample, SampleMeta

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _GRID, _FILL, _LINE = "#334155", "#e2e8f0", "#0f766e", "#c2410c"
_STYLE = {
    "font.size": 9.5,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "axes.titlesize": 10.5,
    "axes.titlecolor": "#0f172a",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "text.color": _INK,
}
_DPI = 130
_WIDTH = 11.0
_DB_PER_NEPER = 20 / np.log(10)
_RANGE_DB = 80.0
Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Panel:
    """A histogram: its values, what they are, and a line at a value that matters."""

    title: str
    unit: str
    values: Values
    line: float | None = None
    line_label: str = ""


def draw_histograms(panels: Sequence[Panel], *, num_columns: int = 3) -> bytes:
    """Return a grid of histograms; a panel without values says so."""
    num_rows = -(-len(panels) // num_columns)

    def fill(figure: "Figure") -> None:
        figure.set_layout_engine("constrained", wspace=0.06, hspace=0.08)
        grid = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
        for axes, panel in zip(grid, panels, strict=False):
            _histogram(axes, panel)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()

    return _to_png(fill, height=2.5 * num_rows)


def draw_mfcc(metas: Sequence[SampleMeta]) -> bytes | None:
    """Return the mean of the cepstral coefficients and how they spread over segments; None when none has any."""
    found = [meta.descriptors.mfcc_mean for meta in metas if meta.descriptors is not None]
    if not found:
        return None
    values = np.array(found)

    def fill(figure: "Figure") -> None:
        axes = figure.subplots()
        # The first coefficient is the level, many times larger than the rest.
        thin = {"color": _INK, "linewidth": 0.8}
        box = axes.boxplot(
            values[:, 1:], showfliers=False, patch_artist=True, widths=0.6, whiskerprops=thin, capprops=thin
        )
        for patch in box["boxes"]:
            patch.set(facecolor=_FILL, alpha=0.35, edgecolor=_FILL)
        for line in box["medians"]:
            line.set(color=_LINE, linewidth=1.5)
        axes.set_xticks(range(1, values.shape[1]), [str(n) for n in range(2, values.shape[1] + 1)])
        axes.set(xlabel="cepstral coefficient", ylabel="mean over a segment")
        axes.set_title("MFCC 2 to 13 (the first is level)", loc="left")
        axes.grid(axis="y", color=_GRID, linewidth=0.8)
        axes.set_axisbelow(True)

    return _to_png(fill, height=2.8)


def draw_segments(samples: Sequence[Sample], config: MelConfig) -> bytes:
    """Return each segment's waveform, where there is one, above its mel spectrogram."""
    has_wave = any(sample.waveform is not None for sample in samples)
    num_columns = 3
    num_rows = -(-len(samples) // num_columns)

    def fill(figure: "Figure") -> None:
        parts = figure.subfigures(num_rows, num_columns, squeeze=False).ravel()
        for part, sample in zip(parts, samples, strict=False):
            _segment(part, sample, config, has_wave=has_wave)

    return _to_png(fill, height=(3.3 if has_wave else 2.5) * num_rows)


def _histogram(axes: "Axes", panel: Panel) -> None:
    axes.set_title(panel.title, loc="left")
    axes.set_xlabel(panel.unit)
    values = panel.values[np.isfinite(panel.values)]
    if not values.size:
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        return
    low, high = np.percentile(values, [0.5, 99.5])
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    if panel.line is not None:
        low, high = min(low, panel.line), max(high, panel.line)
    axes.hist(np.clip(values, low, high), bins=32, range=(low, high), color=_FILL, alpha=0.85, linewidth=0)
    median = float(np.median(values))
    axes.axvline(median, color=_INK, linewidth=1, linestyle=(0, (3, 2)))
    axes.set_title(f"median {_short(median)}", loc="right", fontsize=9, color=_INK)
    if panel.line is not None:
        axes.axvline(panel.line, color=_LINE, linewidth=1.6)
        is_left = panel.line < (low + high) / 2
        axes.annotate(
            f" {panel.line_label} ",
            (panel.line, 0.97),
            xycoords=("data", "axes fraction"),
            ha="left" if is_left else "right",
            va="top",
            color=_LINE,
            fontsize=9,
        )
    axes.margins(x=0.02)
    axes.locator_params(axis="y", nbins=3, integer=True)


def _short(number: float) -> str:
    """Return a number to three digits, without an exponent where it is large."""
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"


def _segment(part: "Figure", sample: Sample, config: MelConfig, *, has_wave: bool) -> None:
    meta = sample.meta
    rows = part.subplots(2, 1, sharex=True, height_ratios=[1, 3]) if has_wave else [part.subplots()]
    level = sample.mel_TF.astype(np.float32).T * _DB_PER_NEPER
    mel = rows[-1]
    mel.imshow(
        level,
        origin="lower",
        aspect="auto",
        extent=(0, meta.duration_s, 0, config.num_bands),
        vmin=level.max() - _RANGE_DB,
        vmax=level.max(),
        cmap="magma",
        interpolation="nearest",
    )
    mel.set(xlabel="seconds", ylabel="Hz")
    mel.set_yticks(*frequency_ticks(config))
    rows[0].set_title(f"{meta.item_id[-8:]} · from {meta.offset_s:.1f} s", loc="left")
    if has_wave and (mono := sample.mono()) is not None:
        wave = mono.astype(np.float32) / np.float32(32768)
        low, high, seconds = _envelope(wave, meta.duration_s)
        rows[0].fill_between(seconds, low, high, color=_FILL, linewidth=0)
        rows[0].set(ylim=(-1, 1), yticks=[-1, 0, 1])


def _envelope(
    wave: NDArray[np.float32], duration_s: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
    """Return least and greatest samples of a few hundred stretches: what a line plot of all would look like."""
    size = max(1, wave.size // 600)
    rows = wave[: wave.size // size * size].reshape(-1, size)
    return rows.min(1), rows.max(1), np.linspace(0, duration_s, len(rows))


def _to_png(fill: Callable[["Figure"], None], *, height: float) -> bytes:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        fill(figure)
        out = BytesIO()
        figure.savefig(out, format="png", dpi=_DPI)
    return out.getvalue()
