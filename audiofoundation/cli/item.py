"""`audiofoundation item`: one item, and what its probe measured and decided."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from audiofoundation.cli.client import DataDirOption, PlatformClient, UrlOption, path_to
from audiofoundation.cli.output import JsonOption, print_json, print_line, print_table, readable_time

_HELP = """Show an item: where it came from, what became of it, under which policy, and what its probe measured.

The thresholds are those of the decision, AF_PROBE__… at its time.

Examples:

  audiofoundation item item_0123

  audiofoundation item item_0123 --json
"""
_FACTS = ("source", "title", "channel", "license", "duration_s", "policy", "tool_version", "asset_id", "discovery_id")
_LABEL = "label"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("item", help=_HELP)(item)


def item(
    name: Annotated[str, typer.Argument(metavar="ID", help="The item's id, as `items` shows it.")],
    is_json: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    with PlatformClient(url, data_dir=data_dir) as client:
        found = client.get(path_to("items", name))
    if is_json:
        print_json(found)
        return
    print_line(f"{found['id']} in {found['collection_name']}: {found['state']}")
    if found["error_class"]:
        print_line(f"  why not: {found['error_class']}: {found['error']}")
    for fact in (*_FACTS, "damage"):
        if found[fact] is not None:
            print_line(f"  {fact}: {found[fact]}")
    if found["retrieved_at"] is not None:
        print_line(f"  retrieved: {readable_time(found['retrieved_at'])} UTC")
    _print_probe(found["probe"])


def _print_probe(probe: Mapping[str, Any] | None) -> None:
    if probe is None:
        print_line("  it was not probed")
        return
    how = "by ranges before the download" if probe["stage"] == "ranges" else "as a whole"
    print_line(
        f"  probe: {probe['decision']} {how}, {probe['num_bytes']} bytes, {readable_time(probe['probed_at'])} UTC"
    )
    print_table(("measure", "value", "threshold"), list(_rows(probe)))


def _rows(probe: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield each measure beside the bound that judges it; the label with its probability comes last."""
    measured, thresholds = probe["measurements"], probe["thresholds"]
    for name, value in measured.items():
        if not name.startswith(_LABEL):
            yield name, _short(value), _bound(name, thresholds)
    if probe["label"] is not None:
        likely = measured.get("label_probabilities", {}).get(probe["label"])
        share = "" if likely is None else f" ({likely:.0%})"
        yield _LABEL, f"{probe['label']}{share}", " or ".join(thresholds.get("allowed_labels", ()))


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _bound(name: str, thresholds: Mapping[str, Any]) -> str:
    if f"min_{name}" in thresholds:
        return f"≥ {thresholds[f'min_{name}']:g}"
    return f"≤ {thresholds[f'max_{name}']:g}" if f"max_{name}" in thresholds else ""
