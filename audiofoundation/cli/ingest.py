"""`audiofoundation ingest`: recordings and addresses into a collection."""

import time
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from audiofoundation.cli.client import DataDirOption, PlatformClient, UrlOption
from audiofoundation.cli.output import (
    EXIT_FAILURE,
    JsonOption,
    create_progress,
    print_json,
    print_line,
    print_table,
)
from audiofoundation.cli.source_lists import JsonLine, Sources, in_batches, sort_sources
from audiofoundation.cli.uploads import Tally, Uploader
from audiofoundation.ingestion.states import OUR_CLASSES, PENDING_STATES

_HELP = """Add recordings to a collection: files, folders, URLs, YouTube addresses, or lists of them.

Local files are uploaded; what the platform has already is not sent again. Lists are txt (one address a
line), csv, tsv (a column `url`) or jsonl, with title, channel, license and duration where they are known.
The policy (open licence, 30 s to 60 min) judges what is crawled; --policy applies it to local files too.

Examples:

  audiofoundation ingest recordings/ --collection mine --wait

  audiofoundation ingest urls.txt --collection web --plan
"""
_BATCH_LINES = 10_000
_MAX_LINE = 4096
_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class IngestOrder:
    """What the user asked for."""

    collection: str
    is_waiting: bool
    is_plan: bool
    is_policy_for_all: bool


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("ingest", help=_HELP)(ingest)


def ingest(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Files, folders, URLs, list files.")],
    collection: Annotated[str, typer.Option("--collection", "-c", help="Name of the collection.")],
    wait: Annotated[bool, typer.Option("--wait", help="Stay until every item is stored or refused.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Write the catalog and its ETA; fetch nothing.")] = False,
    policy: Annotated[bool, typer.Option("--policy", help="Apply the policy to local files as well.")] = False,
    is_json: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    order = IngestOrder(collection, wait and not plan, plan, policy)
    found = sort_sources(sources)
    with PlatformClient(url, data_dir=data_dir) as client:
        tally, progress = _run(client, found, order)
    _report(tally, progress, is_json=is_json)
    if any(count for name, count in progress["error_classes"].items() if name in OUR_CLASSES):
        raise typer.Exit(EXIT_FAILURE)


def _run(client: PlatformClient, found: Sources, order: IngestOrder) -> tuple[Tally, dict[str, Any]]:
    body = {"name": order.collection, "policy": "all" if order.is_policy_for_all else None}
    collection_id = client.post("/v1/collections", body=body)["id"]
    tally = Tally()
    with create_progress() as progress:
        adding = progress.add_task("adding addresses", total=None)
        for batch in in_batches(found.lines(), _BATCH_LINES):
            _add_lines(client, collection_id, batch, order, tally)
            progress.advance(adding, len(batch))
        progress.remove_task(adding)
        files = list(found.recordings())
        uploading = progress.add_task("uploading", total=len(files), visible=bool(files))
        uploader = Uploader(client, collection_id, order.is_plan, lambda: progress.advance(uploading))
        uploader.upload(files, tally)
    if order.is_waiting:
        return tally, wait_until_settled(client, collection_id)
    return tally, client.get(f"/v1/collections/{collection_id}")


def _add_lines(
    client: PlatformClient, collection_id: str, batch: list[JsonLine], order: IngestOrder, tally: Tally
) -> None:
    short = [line for line in batch if len(line if isinstance(line, str) else str(line["source"])) <= _MAX_LINE]
    if len(short) < len(batch):
        tally.reject("too_long", len(batch) - len(short))
    answer = client.post(f"/v1/collections/{collection_id}/items", body={"sources": short, "plan": order.is_plan})
    tally.num_added += answer["added"]
    tally.num_duplicates += answer["duplicates"]
    rejected = dict(answer["rejected"])
    if answer["missing"]:  # the list names hashes of files that the platform does not have
        rejected["not_uploaded"] = len(answer["missing"])
    for name, count in rejected.items():
        tally.reject(name, count)


def wait_until_settled(client: PlatformClient, collection: str) -> dict[str, Any]:
    """Return the collection's counts once nothing in it is waiting or being fetched."""
    with create_progress() as progress:
        task = progress.add_task("ingesting", total=None)
        while True:
            found = client.get(f"/v1/collections/{collection}")
            num_pending = num_pending_of(found)
            progress.update(task, total=found["items"], completed=found["items"] - num_pending)
            if not num_pending:
                return found
            time.sleep(_POLL_S)


def num_pending_of(collection: dict[str, Any]) -> int:
    """How many items of a collection are not settled."""
    return sum(int(collection["states"].get(state, 0)) for state in PENDING_STATES)


def _report(tally: Tally, progress: dict[str, Any], *, is_json: bool) -> None:
    if is_json:
        print_json(
            {
                "collection": progress["id"],
                "added": tally.num_added,
                "duplicates": tally.num_duplicates,
                "rejected": tally.rejected,
                "states": progress["states"],
                "eta_s": progress["eta_s"],
            }
        )
        return
    rejected = sum(tally.rejected.values())
    print_line(
        f"{progress['name']} ({progress['id']}): {tally.num_added} added, {tally.num_duplicates} there already, "
        f"{rejected} lines rejected"
    )
    rows: list[tuple[str, str, int]] = [("line rejected", name, n) for name, n in sorted(tally.rejected.items())]
    rows += [("item " + state, "", n) for state, n in sorted(progress["states"].items())]
    rows += [("", name, n) for name, n in sorted(progress["error_classes"].items())]
    print_table(("state", "reason", "count"), rows)
    if progress["eta_s"]:
        print_line(f"about {_readable_s(progress['eta_s'])} until nothing waits")


def _readable_s(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
