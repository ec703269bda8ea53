"""A survey as one HTML file that needs nothing else: pictures are inside, there are no scripts."""

import base64
from collections.abc import Iterable, Mapping
from html import escape

import numpy as np

from audiofoundation.preprocessing.report.figures import Panel, Values, draw_histograms, draw_mfcc, draw_segments
from audiofoundation.preprocessing.report.survey import DatasetSurvey
from audiofoundation.shards.sample import SampleMeta

_CSS = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #f1f5f9; color: #0f172a; font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 32px 20px 56px; }
h1 { margin: 0; font-size: 26px; overflow-wrap: anywhere; }
h2 { margin: 0 0 4px; font-size: 17px; }
p.note { margin: 0 0 14px; color: #475569; font-size: 14px; }
code { font: 13px ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
section { background: #fff; border: 1px solid #e2e8f0; border-radius: 10px; padding: 20px 22px; margin-top: 18px; }
section img { display: block; width: 100%; height: auto; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin-top: 18px; }
.tile { background: #fff; border: 1px solid #e2e8f0; border-radius: 10px; padding: 12px 16px; }
.tile b { display: block; font-size: 22px; font-variant-numeric: tabular-nums; }
.tile span { color: #475569; font-size: 13px; }
table { border-collapse: collapse; font-size: 14px; }
td, th { text-align: left; padding: 4px 22px 4px 0; border-bottom: 1px solid #e2e8f0; vertical-align: top; }
th { color: #475569; font-weight: 500; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 24px; align-items: start; }
"""


def render(found: DatasetSurvey, *, min_centroid_hz: float) -> str:
    """Return the page.

    Args:
        found: what to show.
        min_centroid_hz: crawled recordings under this average frequency are refused; drawn as a line.
    """
    title = f"Dataset of {found.collection}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="note"><code>{escape(found.status.id)}</code>, version '
        f"<code>{escape(found.status.manifest_sha256 or '')[:16]}</code></p>",
        _tiles(found),
        _section("What became of the recordings", "", _outcome(found)),
        _section("Lengths and levels", _sampled(found), _image(draw_histograms(_lengths(found)), "lengths, levels")),
        _section(
            "Spectrum",
            "Of the segments as they are stored. The line is the least average frequency of crawled recordings.",
            _image(draw_histograms(_spectrum(found.metas, min_centroid_hz)), "spectrum"),
        ),
        _section("Quality", "", _image(draw_histograms(_quality(found.metas)), "quality")),
    ]
    if (mfcc := draw_mfcc(found.metas)) is not None:
        body.append(_section("Timbre", "Boxes hold the middle half of the segments.", _image(mfcc, "MFCC")))
    if found.pictured:
        picture = draw_segments(found.pictured, found.options.mel)
        body.append(_section("Some segments", "Spectrograms span 80 dB each.", _image(picture, "segments")))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_CSS}</style></head>'
        f"<body><main>{''.join(body)}</main></body></html>"
    )


def _tiles(found: DatasetSurvey) -> str:
    status = found.status
    size_mb = sum(shard.size_bytes for shard in found.manifest.shards) / 1e6
    tiles = (
        (f"{status.duration_s / 3600:,.2f}", "hours"),
        (f"{status.num_items:,}", "recordings"),
        (f"{status.num_segments:,}", "segments"),
        (f"{status.num_shards:,}", "shards"),
        (f"{size_mb:,.1f}", "megabytes"),
    )
    inner = "".join(f'<div class="tile"><b>{value}</b><span>{name}</span></div>' for value, name in tiles)
    return f'<div class="tiles">{inner}</div>'


def _outcome(found: DatasetSurvey) -> str:
    options, status = found.options, found.status
    thresholds = options.thresholds.to_config()
    level = "as recorded" if options.target_lufs is None else f"{options.target_lufs:g} LUFS"
    settings = {
        "preset": f"{options.preset} ({options.mel.sample_rate_hz:,} Hz, {options.mel.num_bands} bands, "
        f"hop {options.mel.hop_length})",
        "segments": f"{options.segment_s:g} s, the last at least {options.min_segment_s:g} s",
        "level": level,
        "silence at the ends": "left out" if options.is_trimmed else "kept",
        "audio beside the mel": ("stereo" if options.channels == 2 else "mono") if options.include_waveform else "no",
        "quality thresholds": ", ".join(f"{name} {value:g}" for name, value in thresholds.items()) or "none",
        "speed": _speed(found),
        **_custom_features(found),
    }
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in settings.items())
    tables = [f"<table>{rows}</table>", _counts("state", status.states, of="recordings")]
    if status.error_classes:
        tables.append(_counts("why not taken", status.error_classes, of="recordings"))
    if status.left_out:
        tables.append(_counts("why left out", status.left_out, of="segments"))
    return f'<div class="columns">{"".join(tables)}</div>'


def _custom_features(found: DatasetSurvey) -> dict[str, str]:
    """Return a line for each: of how many of the segments looked at it was measured."""
    return {
        name: f"measured of {sum(name in meta.custom_features for meta in found.metas)} in {len(found.metas)} segments"
        for name in found.options.custom_features
    }


def _speed(found: DatasetSurvey) -> str:
    status = found.status
    if not status.cpu_s or not status.wall_s:
        return "not measured"
    by_wall, by_cpu = status.duration_s / status.wall_s, status.duration_s / status.cpu_s
    return f"{by_wall:,.0f} times real time, {by_cpu:,.0f} per CPU second"


def _counts(head: str, counts: Mapping[str, int], *, of: str) -> str:
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="number">{number:,}</td></tr>'
        for name, number in sorted(counts.items(), key=lambda row: -row[1])
    )
    return f'<table><tr><th>{escape(head)}</th><th class="number">{of}</th></tr>{rows}</table>'


def _sampled(found: DatasetSurvey) -> str:
    return f"Measures of {len(found.metas):,} segments taken at random from {found.status.num_segments:,}."


def _lengths(found: DatasetSurvey) -> list[Panel]:
    target = found.options.target_lufs
    loudness = _values(meta.loudness_lufs for meta in found.metas)
    return [
        Panel("Recordings", "seconds taken of each", found.recordings_s),
        Panel("Segments", "seconds", _values(meta.duration_s for meta in found.metas)),
        Panel("Loudness of the originals", "LUFS", loudness, target, "brought to"),
    ]


def _spectrum(metas: tuple[SampleMeta, ...], min_centroid_hz: float) -> list[Panel]:
    qualities = [meta.quality for meta in metas if meta.quality is not None]
    described = [meta.descriptors for meta in metas if meta.descriptors is not None]
    return [
        Panel(
            "Average frequency",
            "Hz, of power",
            _values(quality.centroid_hz for quality in qualities),
            min_centroid_hz,
            f"{min_centroid_hz:g} Hz",
        ),
        Panel("Centroid", "Hz, of magnitude", _values(one.spectral_centroid_hz for one in described)),
        Panel("Highest frequency", "Hz, 60 dB under the peak", _values(one.bandwidth_hz for one in qualities)),
        Panel("Roll-off", "Hz, 85 % of magnitude below", _values(one.spectral_rolloff_hz for one in described)),
        Panel("Bandwidth", "Hz around the centroid", _values(one.spectral_bandwidth_hz for one in described)),
        Panel("Zero crossings", "per sample", _values(one.zero_crossing_rate for one in described)),
    ]


def _quality(metas: tuple[SampleMeta, ...]) -> list[Panel]:
    qualities = [meta.quality for meta in metas if meta.quality is not None]
    return [
        Panel("Level", "dBFS, root mean square", _values(one.rms_db for one in qualities)),
        Panel("Gain", "dB added", _values(meta.gain_db for meta in metas)),
        Panel("Peak", "of full scale", _values(one.peak for one in qualities)),
        Panel("Clipping", "share of the original's samples", _values(one.clipped_ratio for one in qualities)),
        Panel("Silence", "share of 20 ms frames", _values(one.silence_ratio for one in qualities)),
        Panel("Offset", "mean sample", _values(one.dc_offset for one in qualities)),
    ]


def _values(numbers: Iterable[float | None]) -> Values:
    return np.array([np.nan if number is None else number for number in numbers], np.float64)


def _section(title: str, note: str, inner: str) -> str:
    shown = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{shown}{inner}</section>"


def _image(png: bytes, alt: str) -> str:
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
