"""YouTube searches, playlists and channels, listed with yt-dlp's flat extraction: no video is opened."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from yt_dlp import YoutubeDL
from yt_dlp.utils import YoutubeDLError

from audiofoundation.errors import FetchRefused
from audiofoundation.ingestion.list_records import plain_text
from audiofoundation.ingestion.source import SourceLine
from audiofoundation.ingestion.sources.protocol import Page, Reading
from audiofoundation.ingestion.youtube import TOOL_VERSION, build_options
from audiofoundation.ingestion.youtube_errors import translate
from audiofoundation.settings import EgressIdentity, FetchSettings

_ENTRIES_PER_PAGE = 100  # what YouTube sends at a time
_MAX_REDIRECTS = 4
_EXTRACTORS = ["^youtube:tab$", "^youtube:playlist$", "^youtube:search$"]
_VIDEO_EXTRACTORS = frozenset({"Youtube", "youtube"})


@dataclass(frozen=True, slots=True)
class YoutubeListing:
    """Lists videos.

    Attributes:
        settings: timeouts.
        identity: the way out; the machine's own when None.
        attempt: of the job; what fails in an unknown way is given up after three.
        create: makes yt-dlp's session.
    """

    settings: FetchSettings
    identity: EgressIdentity | None = None
    attempt: int = 1
    create: Callable[[dict[str, Any]], Any] = YoutubeDL
    tool_version: str = TOOL_VERSION

    def pages(self, address: str, reading: Reading) -> Iterator[Page]:
        with (
            self._translated(),
            self.create(listing_options(self.settings, reading.directory, self.identity)) as session,
        ):
            # Listing again from the start is what YouTube offers: its continuations do not outlive a session.
            entries = islice(_entries(session, address), reading.start, None)
            while found := list(islice(entries, _ENTRIES_PER_PAGE)):
                lines = tuple(line for entry in found if (line := to_line(entry)) is not None)
                yield Page(lines, len(found))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (YoutubeDLError, OSError) as error:
            raise translate(error, attempt=self.attempt) from error


def listing_options(settings: FetchSettings, directory: Path, identity: EgressIdentity | None) -> dict[str, Any]:
    """Return yt-dlp's options: those of a video's fetch, but for lists and without any download."""
    options = build_options(settings, directory, identity=identity)
    for name in ("match_filter", "progress_hooks", "format", "outtmpl"):
        del options[name]
    return options | {
        "allowed_extractors": _EXTRACTORS,
        "noplaylist": False,
        "extract_flat": "in_playlist",
        "lazy_playlist": True,
        "skip_download": True,
    }


def to_line(entry: dict[str, Any]) -> SourceLine | None:
    """Return the line of one entry, which is untrusted; None when it names no single video."""
    video_id = entry.get("id")
    if entry.get("ie_key") not in _VIDEO_EXTRACTORS or not isinstance(video_id, str):
        return None
    duration = entry.get("duration")
    return SourceLine(
        f"youtube:{video_id}",
        title=plain_text(entry.get("title")),
        channel=plain_text(entry.get("channel") or entry.get("uploader")),
        duration_s=float(duration) if isinstance(duration, (int, float)) and duration > 0 else None,
    )


def _entries(session: Any, address: str) -> Iterator[dict[str, Any]]:
    """Yield the entries as YouTube sends them; one list may refer to another (a playlist to its tab)."""
    url = address
    for _ in range(_MAX_REDIRECTS):
        found = session.extract_info(url, download=False, process=False)
        if not isinstance(found, dict):
            break
        if found.get("_type") not in ("url", "url_transparent"):
            yield from (entry for entry in found.get("entries") or () if isinstance(entry, dict))
            return
        url = str(found.get("url") or "")
    raise FetchRefused(f"yt-dlp found no list behind {address}")
