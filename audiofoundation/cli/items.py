"""`audiofoundation items`: what a collection holds, and where each of it came from."""

from typing import Annotated

import typer

from audiofoundation.cli.client import DataDirOption, PlatformClient, UrlOption, path_to
from audiofoundation.cli.output import JsonOption, print_json, print_more, print_table, readable_time
from audiofoundation.ingestion.states import ItemState

_HELP = """Show a collection's items with their state and where they came from, a page at a time.

With --json, each item has its source, title, channel, licence, time of retrieval, tool and policy, the
search or feed that named it, what of it does not decode, and why it was not taken, if it was not.
`audiofoundation item ID` shows one item with what its probe measured.

Examples:

  audiofoundation items --collection web --state failed

  audiofoundation items --collection web --limit 1000 --json
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("items", help=_HELP)(items)


def items(
    collection: Annotated[str, typer.Option("--collection", "-c", help="Name or id of the collection.")],
    state: Annotated[ItemState | None, typer.Option("--state", help="Only items in this state.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many.")] = 100,
    cursor: Annotated[str, typer.Option("--cursor", help="Where the page before ended (`next_cursor`).")] = "",
    is_json: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    params: dict[str, str | int] = {"limit": limit, "cursor": cursor}
    if state is not None:
        params["state"] = state.value
    with PlatformClient(url, data_dir=data_dir) as client:
        page = client.get(path_to("collections", collection, "items"), params=params)
    if is_json:
        print_json(page)
        return
    columns = {
        "item": [item["id"] for item in page["items"]],
        "state": [item["state"] for item in page["items"]],
        "source": [item["source"] for item in page["items"]],
        "channel": [item["channel"] or "" for item in page["items"]],
        "licence": [item["license"] or "" for item in page["items"]],
        "retrieved": [_when(item) for item in page["items"]],
        "damage": [item["damage"] or "" for item in page["items"]],
        "why not": [_why(item) for item in page["items"]],
    }
    known = {name: cells for name, cells in columns.items() if name == "item" or any(cells)}
    print_table(tuple(known), list(zip(*known.values(), strict=True)), has_ids=True)
    print_more(page["next_cursor"])


def _when(item: dict[str, float | None]) -> str:
    retrieved_at = item["retrieved_at"]
    return "" if retrieved_at is None else readable_time(retrieved_at)


def _why(item: dict[str, str | None]) -> str:
    return f"{item['error_class']}: {item['error']}" if item["error_class"] else ""
