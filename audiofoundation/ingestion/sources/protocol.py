"""What finds items: one protocol for searches, playlists, channels, feeds and lists.

A source turns one address into pages of lines, in the source's own order. It writes nothing: the job
`ingest.expand` adds each page to the collection in one transaction with how far it got.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from audiofoundation.ingestion.source import SourceLine


class DiscoveryKind(StrEnum):
    """What an address names, other than one recording. The value is stored in the catalog."""

    YOUTUBE_SEARCH = "youtube.search"
    YOUTUBE_PLAYLIST = "youtube.playlist"
    YOUTUBE_CHANNEL = "youtube.channel"
    FEED = "feed"
    LIST = "list"
    YANDEX = "yandex"


YOUTUBE_KINDS = frozenset({DiscoveryKind.YOUTUBE_SEARCH, DiscoveryKind.YOUTUBE_PLAYLIST, DiscoveryKind.YOUTUBE_CHANNEL})


@dataclass(frozen=True, slots=True)
class DiscoveryAddress:
    """Something to expand; `address` is equal for equal things."""

    kind: DiscoveryKind
    address: str


@dataclass(frozen=True, slots=True)
class Reading:
    """Where a reading starts.

    Attributes:
        directory: of the job, for temporary files.
        start: entries that an earlier attempt has added; they are skipped.
        validators: what the last complete reading was told to ask with next time (ETag, Last-Modified).
    """

    directory: Path
    start: int = 0
    validators: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries of a source.

    Attributes:
        lines: what they name.
        num_entries: how many entries were read for them, those that name nothing included.
        validators: what to ask with next time; kept when the reading is complete.
        numbers: which line or entry of the source each of `lines` is, from 1; empty where that says nothing.
    """

    lines: tuple[SourceLine, ...]
    num_entries: int
    validators: Mapping[str, str] = field(default_factory=dict)
    numbers: tuple[int, ...] = ()


class MediaSource(Protocol):
    """Reads one kind of address."""

    @property
    def tool_version(self) -> str:
        """What read it, for the provenance of what was found."""

    def pages(self, address: str, reading: Reading) -> Iterator[Page]:
        """Yield what the address names, a page at a time; nothing when it has not changed.

        Raises:
            ItemRefused: it is gone, private or restricted.
            FetchRefused: the other side says no for good.
            FetchFailed: it did not answer as it should; a later try may succeed.
            RateLimited: it asks us to wait.
        """
