"""`audiofoundation probe-report`: what the probes of a collection measured and heard, as a page or a picture."""

import base64
import html
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audiofoundation.cli.client import DataDirOption, PlatformClient, UrlOption, path_to
from audiofoundation.cli.output import CommandError, JsonOption, print_json, print_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HELP = """Show what the probes of a collection measured and heard, and how many recordings each threshold keeps.

The thresholds and the labels that pass are the platform's settings AF_PROBE__… of today: see what a change would
keep before making it.

Example:

  audiofoundation probe-report web -o report.html
"""
_COLUMNS = 2
_KEPT, _REFUSED = "#3b6ea5", "#c8553d"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em}}
img{{width:100%}}table{{border-collapse:collapse}}td,th{{padding:.2em 1em;text-align:right}}
td:first-child,th:first-child{{text-align:left}}tr{{border-bottom:1px solid #ddd}}</style></head>
<body><h1>{title}</h1><p>{summary}</p><img alt="Histograms of the measures" src="data:image/png;base64,{picture}">
<table><tr><th>measure</th><th>setting</th><th>threshold</th><th>keeps</th><th>share</th></tr>{rows}</table>
</body></html>
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("probe-report", help=_HELP)(probe_report)


def probe_report(
    collection: Annotated[str, typer.Argument(help="Name or id of the collection.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A .html page or a .png picture.")] = Path(
        "probe-report.html"
    ),
    is_json: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    if output.suffix not in (".html", ".png"):
        raise CommandError(f"{output} is neither .html nor .png: choose one of them")
    with PlatformClient(url, data_dir=data_dir) as client:
        report = client.get(path_to("collections", collection, "probe-report"))
    picture = draw(report)
    output.write_bytes(picture if output.suffix == ".png" else to_page(report, picture).encode())
    if is_json:
        print_json({**report, "out": str(output)})
    else:
        print_line(f"{summary_of(report)} {output}")


def summary_of(report: dict[str, Any]) -> str:
    """One line on the whole."""
    if not report["probed"]:
        return (
            "No recording was probed: probes judge what the policy judges, that is what is crawled, and local files "
            "only with `ingest --policy`."
        )
    stages = ", ".join(f"{count} by {stage}" for stage, count in sorted(report["stages"].items())) or "none"
    labels = ", ".join(f"{count} {label}" for label, count in _label_counts(report).items())
    return (
        f"{report['probed']} recordings probed ({stages}); {f'heard: {labels}; ' if labels else ''}"
        f"today's thresholds keep {report['kept_now']}; {report['range_bytes'] / 1e6:.1f} MB were fetched for ranges."
    )


def _label_counts(report: dict[str, Any]) -> dict[str, int]:
    """Recordings per label, those without one last; nothing when none has one."""
    counts: dict[str, int] = report["labels"]["counts"]
    unlabelled = report["labels"]["unlabelled"]
    return {**counts, "without a label": unlabelled} if counts and unlabelled else counts


def to_page(report: dict[str, Any], picture: bytes) -> str:
    """Return a page that needs nothing beside it."""
    judged = [measure for measure in report["measures"] if measure["threshold_name"]]
    rows = "".join(_row(measure, report["probed"]) for measure in judged) + _label_row(report)
    return _PAGE.format(
        title=html.escape(f"Probes of {report['collection']}"),
        summary=html.escape(summary_of(report)),
        picture=base64.b64encode(picture).decode(),
        rows=rows,
    )


def _row(measure: dict[str, Any], num_probed: int) -> str:
    bound = f"{measure['threshold']:g} {measure['unit']}"
    return _cells(measure["name"], measure["threshold_name"], bound, measure["num_kept"], num_probed)


def _label_row(report: dict[str, Any]) -> str:
    labels = report["labels"]
    allowed = ", ".join(labels["allowed"]) or "all"
    return _cells("label", "allowed_labels", allowed, labels["num_kept"], report["probed"])


def _cells(name: str, setting: str, bound: str, num_kept: int, num_probed: int) -> str:
    share = f"{num_kept / num_probed:.1%}" if num_probed else "–"
    cells = (name, f"AF_PROBE__{setting.upper()}", bound, str(num_kept), share)
    return "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"


def draw(report: dict[str, Any]) -> bytes:
    """Return a PNG with one histogram per measure and the labels; what is refused is drawn in another colour."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CommandError("pictures need matplotlib: install audiofoundation[preprocess]") from error
    measures = report["measures"]
    num_rows = -(-(len(measures) + 1) // _COLUMNS)
    figure = Figure(figsize=(11, 2.4 * num_rows), layout="constrained")
    axes = list(figure.subplots(num_rows, _COLUMNS, squeeze=False).flat)
    for axis, measure in zip(axes, measures, strict=False):
        _draw_measure(axis, measure, report["probed"])
    _draw_labels(axes[len(measures)], report)
    for axis in axes[len(measures) + 1 :]:
        axis.set_axis_off()
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def _draw_measure(axis: "Axes", measure: dict[str, Any], num_probed: int) -> None:
    edges, threshold, name = measure["edges"], measure["threshold"], measure["threshold_name"]
    centres = [(low + high) / 2 for low, high in zip(edges, edges[1:], strict=False)]
    is_refused = [
        name is not None and ((c < threshold) if name.startswith("min_") else (c > threshold)) for c in centres
    ]
    axis.bar(
        edges[:-1],
        measure["counts"],
        width=[high - low for low, high in zip(edges, edges[1:], strict=False)],
        align="edge",
        color=[_REFUSED if refused else _KEPT for refused in is_refused],
    )
    title = _title(measure["name"])
    if name is not None:
        title += f"   {'≥' if name.startswith('min_') else '≤'} {threshold:g} {measure['unit']}"
        title += f" keeps {measure['num_kept']} of {num_probed}"
        if edges[0] <= threshold <= edges[-1]:
            axis.axvline(threshold, color="black", linewidth=1, linestyle="--")
    _describe(axis, title, x=measure["unit"] or "share", y="recordings")
    axis.locator_params(axis="y", integer=True)


def _draw_labels(axis: "Axes", report: dict[str, Any]) -> None:
    counts, labels = _label_counts(report), report["labels"]
    allowed = labels["allowed"]
    is_refused = [bool(allowed) and name in labels["counts"] and name not in allowed for name in counts]
    axis.barh(list(counts), list(counts.values()), color=[_REFUSED if refused else _KEPT for refused in is_refused])
    axis.margins(y=max(0.05, 0.4 - 0.1 * len(counts)))  # one bar alone would fill the picture
    axis.invert_yaxis()
    title = "Label"
    if allowed:
        title += f"   {' or '.join(allowed)} keeps {labels['num_kept']} of {report['probed']}"
    _describe(axis, title, x="recordings")
    axis.locator_params(axis="x", integer=True)


def _title(name: str) -> str:
    """Return a measure's name for people; its unit stands below the axis."""
    words = name.rpartition("_")[0].replace("_", " ")
    return "RMS" if words == "rms" else words.capitalize()


def _describe(axis: "Axes", title: str, *, x: str, y: str = "") -> None:
    axis.set_title(title, fontsize=10, loc="left")
    axis.set_xlabel(x, fontsize=8)
    axis.set_ylabel(y, fontsize=8)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
