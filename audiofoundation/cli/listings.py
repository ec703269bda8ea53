"""`audiofoundation collections` and `audiofoundation dataset list`: what a platform has."""

from typing import Annotated, Any

import typer

from audiofoundation.cli.client import DataDirOption, PlatformClient, UrlOption
from audiofoundation.cli.output import JsonOption, print_json, print_more, print_table, readable_time

_COLLECTIONS_HELP = """List the collections, the newest first, a page at a time.

Examples:

  audiofoundation collections

  audiofoundation collections --limit 1000 --json
"""
DATASETS_HELP = """List a platform's datasets, the newest first, a page at a time.

Recordings, segments and hours are those of the newest version; a dataset that is being built for the first time has
none. With --json, each dataset has the options that it was made with.

Examples:

  audiofoundation dataset list

  audiofoundation dataset list --collection mine --json
"""

_Limit = Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many.")]
_Cursor = Annotated[str, typer.Option("--cursor", help="Where the page before ended (`next_cursor`).")]


def register(app: typer.Typer) -> None:
    """Add `collections`; the group `dataset` has the other."""
    app.command("collections", help=_COLLECTIONS_HELP)(list_collections)


def list_collections(
    limit: _Limit = 100,
    cursor: _Cursor = "",
    is_json: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    with PlatformClient(url, data_dir=data_dir) as client:
        page = client.get("/v1/collections", params={"limit": limit, "cursor": cursor})
    if is_json:
        print_json(page)
        return
    rows = [(row["id"], row["name"], row["items"], readable_time(row["created_at"])) for row in page["collections"]]
    print_table(("collection", "name", "items", "made"), rows, has_ids=True)
    print_more(page["next_cursor"])


def list_datasets(
    collection: Annotated[
        str | None, typer.Option("--collection", "-c", help="Only those of this collection, by name or id.")
    ] = None,
    limit: _Limit = 100,
    cursor: _Cursor = "",
    is_json: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    params: dict[str, str | int] = {"limit": limit, "cursor": cursor}
    if collection is not None:
        params["collection"] = collection
    with PlatformClient(url, data_dir=data_dir) as client:
        page = client.get("/v1/datasets", params=params)
    if is_json:
        print_json(page)
        return
    columns = ("dataset", "collection", "state", "preset", "recordings", "segments", "hours", "made")
    print_table(columns, [_row(dataset) for dataset in page["datasets"]], has_ids=True)
    print_more(page["next_cursor"])


def _row(dataset: dict[str, Any]) -> tuple[object, ...]:
    counts = ("", "", "")
    if dataset["items"] is not None:
        counts = (dataset["items"], dataset["segments"], f"{dataset['hours']:.2f}")
    return (
        dataset["dataset"],
        dataset["collection_name"],
        dataset["state"],
        dataset["options"]["preset"],
        *counts,
        readable_time(dataset["created_at"]),
    )
