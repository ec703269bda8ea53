"""`audiofoundation takedown`: remove recordings from everything that holds them, for good."""

import time
from typing import Annotated, Any

import typer

from audiofoundation.cli.client import DataDirOption, PlatformClient, UrlOption
from audiofoundation.cli.output import EXIT_USAGE, JsonOption, create_progress, fail, print_json, print_line

_HELP = """Remove a recording from the store and from every dataset, and refuse it for ever.

TARGET is an item's or asset's id, a source (URL, youtube:ID) or sha256:HEX. Other sources of the same bytes go too.
Datasets get a new version without it; old versions are deleted. Models that learned from it are named: whether
they go is yours to decide. Asking again continues what a crash interrupted.

Examples:

  audiofoundation takedown item_0123 --reason "asked by its author" --wait

  audiofoundation takedown https://example.org/a.ogg --wait

  audiofoundation takedown --channel "Some Channel"
"""
_POLL_S = 0.5


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("takedown", help=_HELP)(takedown)


def takedown(
    target: Annotated[str | None, typer.Argument(help="What to take down.")] = None,
    channel: Annotated[str | None, typer.Option(help="Take down every item of this channel.")] = None,
    reason: Annotated[str, typer.Option(help="Kept with the tombstone.")] = "taken down by the operator",
    wait: Annotated[bool, typer.Option("--wait", help="Stay until nothing of it is left.")] = False,
    is_json: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    if (target is None) == (channel is None):
        fail("give a target or --channel", status=EXIT_USAGE)
    body = {"target": target or f"channel:{channel}", "reason": reason}
    with PlatformClient(url, data_dir=data_dir) as client, create_progress() as progress:
        found = client.post("/v1/takedowns", body=body)
        task = progress.add_task("taking down", total=None)
        while wait and found["pending"]:
            time.sleep(_POLL_S)
            found = client.post("/v1/takedowns", body=body)
            progress.update(task, description=f"taking down, {found['pending']} left")
    if is_json:
        print_json(found)
    else:
        _report(body["target"], found)


def _report(target: str, found: dict[str, Any]) -> None:
    if found["items"] or found["assets"] or found["pending"]:
        items, assets = _counted(len(found["items"]), "item"), _counted(len(found["assets"]), "recording")
        print_line(f"{items} and {assets} are taken down")
    else:
        print_line(f"nothing here is known by the name {target}; it will be refused from now on")
    if found["datasets"]:
        print_line(f"datasets with a new version: {', '.join(found['datasets'])}")
    if found["models"]:
        print_line(f"models that learned from them and still serve: {', '.join(found['models'])}")
    if found["pending"]:
        print_line(f"{found['pending']} objects and samples are still being removed; --wait follows them")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
