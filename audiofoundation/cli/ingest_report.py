"""What `ingest` prints: counts by state and reason, and by name what failed."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from audiofoundation.cli.client import PlatformClient, path_to
from audiofoundation.cli.output import print_json, print_line, print_table
from audiofoundation.cli.uploads import Tally

_MAX_FAILURES = 10
_NUM_LOOKED_AT = 1000


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing that did not become a recording, and why."""

    source: str
    error_class: str
    error: str
    is_discovery: bool = False


def discoveries_of(client: PlatformClient, collection_id: str, ids: Collection[str]) -> Iterator[dict[str, Any]]:
    """Yield those of a collection's discoveries that this command asked for."""
    cursor = ""
    while ids:
        page = client.get(
            path_to("collections", collection_id, "discoveries"), params={"limit": 1000, "cursor": cursor}
        )
        yield from (found for found in page["discoveries"] if found["id"] in ids)
        if page["next_cursor"] is None:
            return
        cursor = page["next_cursor"]


def first_failures(client: PlatformClient, progress: dict[str, Any], discoveries: Collection[str]) -> list[Failure]:
    """Return up to ten failures of a collection: what could not be expanded, then items."""
    found = [
        Failure(row["address"], row["error_class"] or "", row["error"] or "", is_discovery=True)
        for row in discoveries_of(client, progress["id"], discoveries)
        if row["state"] == "failed"
    ][:_MAX_FAILURES]
    if progress["states"].get("failed") and len(found) < _MAX_FAILURES:
        params: dict[str, str | int] = {"state": "failed", "limit": _MAX_FAILURES - len(found)}
        items = client.get(path_to("collections", progress["id"], "items"), params=params)["items"]
        found += [Failure(item["source"], item["error_class"] or "", item["error"] or "") for item in items]
    return found


def first_refusals(client: PlatformClient, progress: dict[str, Any]) -> list[Failure]:
    """Return an item that was not taken for each of the reasons met among the first thousand of each state."""
    items = list[dict[str, Any]]()
    for state in ("rejected", "tombstoned"):
        if progress["states"].get(state):
            params: dict[str, str | int] = {"state": state, "limit": _NUM_LOOKED_AT}
            items += client.get(path_to("collections", progress["id"], "items"), params=params)["items"]
    first = {item["error_class"]: item for item in reversed(items)}
    return [Failure(first[name]["source"], name, first[name]["error"] or "") for name in sorted(first)]


def report(
    tally: Tally, progress: dict[str, Any], failures: Sequence[Failure], refusals: Sequence[Failure], *, is_json: bool
) -> None:
    """Print the result of `ingest`."""
    if is_json:
        print_json(
            {
                "collection": progress["id"],
                "added": tally.num_added + tally.num_to_upload,
                "to_upload": tally.num_to_upload,
                "duplicates": tally.num_duplicates,
                "rejected": tally.rejected,
                "states": progress["states"],
                "discoveries": progress["discoveries"],
                "failures": [asdict(failure) for failure in failures],
                "eta_s": progress["eta_s"],
            }
        )
        return
    counts = {"added": tally.num_added, "there already": tally.num_duplicates, "to be uploaded": tally.num_to_upload}
    said = [f"{count} {what}" for what, count in counts.items() if count or what != "to be uploaded"]
    said.append(f"{sum(tally.rejected.values())} lines rejected")
    print_line(f"{progress['name']} ({progress['id']}): {', '.join(said)}; the collection now:")
    rows: list[tuple[str, str, int]] = [("line rejected", name, n) for name, n in sorted(tally.rejected.items())]
    rows += [("item " + state, "", n) for state, n in sorted(progress["states"].items())]
    rows += [("not taken", name, n) for name, n in sorted(progress["error_classes"].items())]
    print_table(("state", "reason", "count"), rows)
    for refusal in refusals:
        print_line(f"not taken: {refusal.source}: {refusal.error} ({refusal.error_class})")
    for failure in failures:
        print_line(f"failed: {failure.source}: {failure.error} ({failure.error_class})")
    if num_expanding := progress["discoveries"].get("queued", 0):
        print_line(f"{num_expanding} searches, channels, feeds or lists are still being expanded")
    if progress["eta_s"]:
        print_line(f"about {_readable_s(progress['eta_s'])} until nothing waits")


def _readable_s(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
