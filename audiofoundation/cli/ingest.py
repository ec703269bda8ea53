"""`audiofoundation ingest`: recordings and addresses into a collection."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from audiofoundation.cli import item, items
from audiofoundation.cli.client import DataDirOption, PlatformClient, UrlOption, path_to
from audiofoundation.cli.ingest_report import discoveries_of, first_failures, first_refusals, report
from audiofoundation.cli.output import EXIT_FAILURE, JsonOption, PlainProgress, create_progress, note
from audiofoundation.cli.source_lists import PlacedLine, Sources, in_batches, licensed, sort_sources
from audiofoundation.cli.uploads import Tally, Uploader
from audiofoundation.ingestion.states import OUR_CLASSES, PENDING_STATES

_HELP = """Add recordings to a collection: files, folders, URLs, YouTube addresses, feeds, or lists of them.

Local files are uploaded; what the platform has already is not sent again. Those of a folder are called by their
path in it (jazz/7.flac), where recipes find their labels. Lists are txt (one address a line), csv, tsv, jsonl
(each also as .gz) or parquet, with columns url, title, channel, license and duration where they are known.

What names many recordings is expanded by the platform: ytsearchN:words, YouTube playlists and channels,
podcast feeds (URLs that end in .rss or .xml, or feed:URL), lists on the web (URLs that end like a list, or
list:URL) and Yandex Music albums, artists and playlists (with AF_FETCH__YANDEX_TOKEN). Expanding again adds
what is new.

The policy (Creative Commons or public domain, 30 s to 60 min) judges what is crawled; --policy applies it to
local files too. An address that states no licence in its list, feed or by --license is refused before any byte of
it is fetched, unless AF_FETCH__LICENSE_POLICY is `all`.
With --wait the exit status is 1 where the collection holds no recording in the end.

--plan expands as well, since no bytes of recordings are fetched for that, and waits for it.

Examples:

  audiofoundation ingest recordings/ --collection mine --wait

  audiofoundation ingest urls.txt --collection web --plan

  audiofoundation ingest https://example.com/rain.flac --license CC-BY-4.0 --collection web --wait

  audiofoundation ingest 'ytsearch50:field recording rain' https://example.com/feed.xml --collection web
"""
_BATCH_LINES = 10_000
_MAX_LINE = 4096
_POLL_S = 0.5
_MAX_NAMES = 5


@dataclass(frozen=True, slots=True)
class IngestOrder:
    """What the user asked for."""

    collection: str
    is_waiting: bool
    is_plan: bool
    is_policy_for_all: bool
    license: str | None


def register(app: typer.Typer) -> None:
    """Add the command, and `items` and `item`, which show what became of it."""
    app.command("ingest", help=_HELP)(ingest)
    items.register(app)
    item.register(app)


def ingest(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Files, folders, URLs, list files.")],
    collection: Annotated[str, typer.Option("--collection", "-c", help="Name of the collection.")],
    wait: Annotated[bool, typer.Option("--wait", help="Stay until every item is stored or refused.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Write the catalog and its ETA; fetch nothing.")] = False,
    policy: Annotated[bool, typer.Option("--policy", help="Apply the policy to local files as well.")] = False,
    license_text: Annotated[
        str | None,
        typer.Option("--license", help="Licence of what is named here and states none: CC-BY-4.0."),
    ] = None,
    is_json: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    if license_text is not None and not license_text.strip():
        raise typer.BadParameter("--license is empty; is a variable not set?")
    order = IngestOrder(collection, wait and not plan, plan, policy, license_text)
    found = sort_sources(sources)
    with PlatformClient(url, data_dir=data_dir) as client:
        tally, progress = _run(client, found, order)
        failures = first_failures(client, progress, tally.discoveries)
        refusals = [] if is_json else first_refusals(client, progress)
    report(tally, progress, failures, refusals, is_json=is_json)
    is_ours = any(count for name, count in progress["error_classes"].items() if name in OUR_CLASSES)
    if not (tally.num_added or tally.num_to_upload or tally.num_duplicates or tally.rejected or tally.discoveries):
        note("there is no recording in what was named")
    is_empty = order.is_waiting and not progress["states"].get("stored")
    if is_ours or is_empty or any(failure.is_discovery for failure in failures):
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
        passed_over = list[Path]()
        files = list(found.recordings(passed_over))
        if passed_over:
            note(_about(passed_over))
        uploading = progress.add_task("uploading", total=len(files), visible=bool(files))
        uploader = Uploader(client, collection_id, order.is_plan, order.license, lambda: progress.advance(uploading))
        uploader.upload(files, tally)
    if order.is_waiting:
        progress_now = wait_until_settled(client, collection_id)
    elif order.is_plan and tally.discoveries:
        progress_now = wait_until_expanded(client, collection_id)
    else:
        progress_now = client.get(path_to("collections", collection_id))
    for discovery in discoveries_of(client, collection_id, tally.discoveries):
        _count_found(discovery, tally)
    return tally, progress_now


def _about(passed_over: list[Path]) -> str:
    """Say which files of folders were left alone."""
    names = ", ".join(path.name for path in passed_over[:_MAX_NAMES])
    more = ", …" if len(passed_over) > _MAX_NAMES else ""
    count = f"{len(passed_over)} files are" if len(passed_over) > 1 else "1 file is"
    return f"{count} no recording by the name and left out: {names}{more}; to read a list, name it itself"


def _add_lines(
    client: PlatformClient, collection_id: str, batch: list[PlacedLine], order: IngestOrder, tally: Tally
) -> None:
    short = [line for line in batch if _length_of(line) <= _MAX_LINE]
    if len(short) < len(batch):
        tally.reject("too_long", len(batch) - len(short))
    body = {"sources": [licensed(line.value, order.license) for line in short], "plan": order.is_plan}
    answer = client.post(path_to("collections", collection_id, "items"), body=body)
    tally.num_added += answer["added"]
    tally.num_duplicates += answer["duplicates"]
    tally.discoveries.update(answer["discoveries"])
    rejected = dict(answer["rejected"])
    if answer["missing"]:  # the list names hashes of files that the platform does not have
        rejected["not_uploaded"] = len(answer["missing"])
    for name, count in rejected.items():
        tally.reject(name, count)
    for example in answer["examples"]:
        tally.explain(f"{short[example['index']].place}{example['message']}")


def _count_found(discovery: dict[str, Any], tally: Tally) -> None:
    tally.num_added += discovery["num_added"]
    tally.num_duplicates += discovery["num_duplicates"]
    for name, count in discovery["rejected"].items():
        tally.reject(name, count)
    for example in discovery["examples"]:
        tally.explain(f"{_place_of(discovery, example['number'])}: {example['message']}")
    if discovery["note"]:
        tally.remark(f"{discovery['address']}: {discovery['note']}")


def _place_of(discovery: dict[str, Any], number: int | None) -> str:
    """Where an entry stands, as `ADDRESS:LINE` like a line of a local list."""
    address: str = discovery["address"]
    if number is None:
        return address
    return f"{address}:{number}" if discovery["kind"] == "list" else f"{address}, entry {number}"


def _length_of(line: PlacedLine) -> int:
    return len(line.value if isinstance(line.value, str) else str(line.value["source"]))


def wait_until_settled(client: PlatformClient, collection: str) -> dict[str, Any]:
    """Return the collection's counts once nothing in it is waiting, being expanded or being fetched."""
    return _wait(client, collection, "ingesting", num_pending_of)


def wait_until_expanded(client: PlatformClient, collection: str) -> dict[str, Any]:
    """Return the collection's counts once all of its searches, channels, feeds and lists are expanded."""
    return _wait(client, collection, "expanding", _num_expanding)


def _wait(
    client: PlatformClient, collection: str, what: str, count_pending: Callable[[dict[str, Any]], int]
) -> dict[str, Any]:
    with create_progress() as progress:
        task, plain = progress.add_task(what, total=None), PlainProgress()
        while True:
            found = client.get(path_to("collections", collection))
            if not (num_pending := count_pending(found)):
                return found
            total = found["items"] + sum(found["discoveries"].values())
            progress.update(task, total=total, completed=max(total - num_pending, 0))
            plain.say(f"{what}: {max(total - num_pending, 0)} of {total}")
            time.sleep(_POLL_S)


def num_pending_of(collection: dict[str, Any]) -> int:
    """How many items and discoveries of a collection are not settled."""
    return sum(int(collection["states"].get(state, 0)) for state in PENDING_STATES) + _num_expanding(collection)


def _num_expanding(collection: dict[str, Any]) -> int:
    return int(collection["discoveries"].get("queued", 0))
