"""`audiofoundation gc`: objects that crashes left behind."""

from typing import Annotated, Any

import typer

from audiofoundation.cli.client import DataDirOption, PlatformClient, UrlOption
from audiofoundation.cli.output import JsonOption, print_json, print_line

_HELP = """Look for objects in the store that nothing names any more.

Without --apply it only looks. With --apply it marks what it finds, and deletes what was marked a day ago or more and
still is named by nothing: at most 1000 a minute, and nothing at all if that were more than 5 % of the bytes. Only
objects older than two days count. With AF_COLLECTOR__INTERVAL_S=86400 (seconds) the platform does the same by itself.

Example:

  audiofoundation gc --apply
"""


_PATIENCE_S = 3600.0  # looking through a million objects takes minutes, and only then there is an answer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("gc", help=_HELP)(collect)


def collect(
    apply: Annotated[bool, typer.Option("--apply", help="Mark, and delete what was marked a day ago.")] = False,
    is_json: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    with PlatformClient(url, data_dir=data_dir) as client:
        found = last = _collect(client, is_applied=apply)
        while last["more"]:
            last = _collect(client, is_applied=True)
            found = {**found, "deleted": found["deleted"] + last["deleted"], "more": last["more"]}
    if is_json:
        print_json(found)
        return
    print_line(f"{found['objects']} objects, {found['bytes'] / 1e9:.3f} GB")
    print_line(f"{found['orphans']} orphans, {found['orphan_bytes'] / 1e9:.3f} GB; {found['deleted']} deleted")
    for key in found["orphan_keys"]:
        print_line(f"  {key}")


def _collect(client: PlatformClient, *, is_applied: bool) -> dict[str, Any]:
    return client.post("/v1/maintenance/gc", body={"apply": is_applied}, read_timeout_s=_PATIENCE_S)
