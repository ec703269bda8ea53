"""Podcast and news feeds (RSS 2.0, RSS 1.0, Atom, Media RSS): their enclosures become items."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from urllib.parse import urljoin

from audiofoundation.ingestion.licenses import name_of_deed
from audiofoundation.ingestion.list_records import plain_text, to_seconds
from audiofoundation.ingestion.source import SourceLine
from audiofoundation.ingestion.sources.documents import fetch_document
from audiofoundation.ingestion.sources.feed_xml import Entry, read_entries
from audiofoundation.ingestion.sources.protocol import Page, Reading
from audiofoundation.settings import FetchSettings

_MAX_BYTES = 64 << 20
_ENTRIES_PER_PAGE = 500
_AUDIBLE = ("audio", "video", "application/ogg", "application/octet-stream")


@dataclass(frozen=True, slots=True)
class Feed:
    """Reads a feed."""

    settings: FetchSettings
    tool_version: str = "audiofoundation feed"

    def pages(self, address: str, reading: Reading) -> Iterator[Page]:
        path = reading.directory / "feed.xml"
        document = fetch_document(
            address, path, settings=self.settings, validators=reading.validators, max_bytes=_MAX_BYTES
        )
        if document is None:
            return
        channel = Entry()
        entries = islice(enumerate(read_entries(path, channel=channel), start=1), reading.start, None)
        while found := list(islice(entries, _ENTRIES_PER_PAGE)):
            named = [(number, line) for number, entry in found for line in _lines_of(entry, channel, document.url)]
            lines, numbers = tuple(line for _, line in named), tuple(number for number, _ in named)
            yield Page(lines, len(found), document.validators, numbers)
        yield Page((), 0, document.validators)


def _lines_of(entry: Entry, channel: Entry, base: str) -> Iterable[SourceLine]:
    enclosures = [link for link in entry.links if link[2] == "enclosure"]
    audible = [address for address, kind, _ in enclosures if not kind or kind.lower().startswith(_AUDIBLE)]
    # Media RSS repeats the enclosure, and may offer one recording in many sizes: the first is the feed's own choice.
    for address in audible[:1]:
        yield SourceLine(
            _absolute(base, address.strip()),
            title=plain_text(entry.texts.get("title")),
            channel=plain_text(channel.texts.get("title")),
            license=_license_of(entry) or _license_of(channel),
            duration_s=to_seconds(entry.texts.get("duration")),
        )


def _absolute(base: str, address: str) -> str:
    try:
        return urljoin(base, address)
    except ValueError:
        return address  # counted as a line that names nothing


def _license_of(entry: Entry) -> str | None:
    """The licence as Creative Commons' module, Atom (RFC 4946) or the podcast namespace state it."""
    linked = next((address for address, _, relation in entry.links if relation == "license"), None)
    stated = plain_text(entry.texts.get("license") or linked)
    return name_of_deed(stated or "") or stated
