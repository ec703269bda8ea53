"""What became of a discovery's entries: counted a page at a time, with the first reasons why some were rejected."""

from collections import Counter

from audiofoundation.catalog.tables import Discovery
from audiofoundation.ingestion.catalog_items import AddedItems
from audiofoundation.ingestion.parsed_lines import MAX_EXAMPLES
from audiofoundation.ingestion.sources.protocol import DiscoveryKind, Page

_UNCHANGED = "it has not changed since it was read last"
_NOTHING = {
    DiscoveryKind.FEED: "the feed names no recording: no entry has an enclosure with sound or video",
    DiscoveryKind.LIST: "the list names nothing: it has no line with an address",
}
_NOTHING_ELSE = "no recording was found there"


def count_page(row: Discovery, page: Page, added: AddedItems) -> None:
    """Add what became of a page to the discovery's counts; call it in the transaction that adds the page's items."""
    rejected = Counter(row.rejected)
    rejected.update(added.rejected)
    examples = [
        {
            "number": page.numbers[example.index] if page.numbers else None,
            "rejection": example.rejection,
            "message": example.message,
        }
        for example in added.examples
    ]
    row.num_seen += page.num_entries
    row.num_added += added.num_added
    row.num_duplicates += added.num_duplicates
    row.num_discoveries += len(added.discoveries)
    row.rejected = dict(rejected)
    row.examples = [*row.examples, *examples][:MAX_EXAMPLES]


def note_of(row: Discovery, *, is_unchanged: bool) -> str | None:
    """Return what to say of a complete reading that named nothing, as a sentence; None when it named something."""
    if row.num_added or row.num_duplicates or row.num_discoveries or row.rejected:
        return None
    if is_unchanged:
        return _UNCHANGED
    words = _NOTHING.get(DiscoveryKind(row.kind), _NOTHING_ELSE)
    return f"{words} (entries read: {row.num_seen})"
