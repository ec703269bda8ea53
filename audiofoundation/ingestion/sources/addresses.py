"""Telling what names many recordings (a search, a channel, a feed …) from what names one."""

import re
from urllib.parse import SplitResult, parse_qs, urlsplit

from audiofoundation.errors import UnsafeUrl
from audiofoundation.ingestion.list_files import list_suffix
from audiofoundation.ingestion.source import YOUTUBE_HOSTS, RejectionClass, SourceRejected, plain_line
from audiofoundation.ingestion.sources.protocol import DiscoveryAddress, DiscoveryKind
from audiofoundation.ingestion.web_address import parse_web_address

MAX_SEARCH = 1000
_SEARCH = re.compile(r"ytsearch(\d{0,5}):(.*)", re.DOTALL)
_PLAYLIST_ID = re.compile(r"[A-Za-z0-9_-]{2,100}")
_CHANNEL_PART = re.compile(r"[^\s/?#\x00-\x1f]{1,100}")
_CHANNEL_PREFIXES = ("channel", "c", "user")
_TABS = frozenset({"videos", "shorts", "streams", "podcasts"})
_FEED_SUFFIXES = (".rss", ".atom", ".xml", ".rdf")
_FEED_NAMES = frozenset({"rss", "feed", "feeds", "atom", "podcast-feed"})
_FEED_HOSTS = ("feeds.", "feed.", "rss.")
_YANDEX_HOST = re.compile(r"music\.yandex\.(ru|com|by|kz|uz)")
_YANDEX_PATH = re.compile(
    r"/(album/\d+|artist/\d+|users/[^/\s]{1,100}/playlists/\d+|playlists/[A-Za-z0-9.-]{1,100})(/tracks)?/?"
)


def parse_discovery(line: str) -> DiscoveryAddress | None:
    """Return what the line names, or None when it names one recording or nothing.

    Known are `ytsearchN:words`, YouTube playlists and channels, `feed:URL`, `list:URL`, Yandex Music albums,
    artists and playlists, and plain URLs whose path or host says that they are feeds or lists.

    Raises:
        SourceRejected: it is no plain text, or is meant to be expanded, but not written as such an address is.
    """
    text = plain_line(line)
    if search := _SEARCH.fullmatch(text):
        return _search(search[1], search[2])
    if text == "yandex:liked":
        return DiscoveryAddress(DiscoveryKind.YANDEX, text)
    for prefix, kind in (("feed:", DiscoveryKind.FEED), ("list:", DiscoveryKind.LIST)):
        if text.startswith(prefix):
            return _document(kind, text.removeprefix(prefix))
    if not text[:8].lower().startswith(("http://", "https://")):
        return None
    try:
        parts = urlsplit(text)
        host = (parts.hostname or "").lower()
    except ValueError:
        return None
    if host in YOUTUBE_HOSTS or host == "youtu.be":
        return _youtube(parts, host)
    return _yandex(parts, host) or _by_name(text, parts, host)


def _search(count: str, words: str) -> DiscoveryAddress:
    query = " ".join(words.split())
    number = int(count or "1")
    if not query or not 1 <= number <= MAX_SEARCH:
        raise SourceRejected(
            RejectionClass.NOT_A_URL, f"a search is written ytsearchN:words, with N from 1 to {MAX_SEARCH}"
        )
    return DiscoveryAddress(DiscoveryKind.YOUTUBE_SEARCH, f"ytsearch{number}:{query}")


def _document(kind: DiscoveryKind, url: str) -> DiscoveryAddress:
    try:
        return DiscoveryAddress(kind, parse_web_address(url).url)
    except UnsafeUrl as error:
        raise SourceRejected(RejectionClass.UNSAFE_URL, error.message) from error


def _youtube(parts: SplitResult, host: str) -> DiscoveryAddress | None:
    if host not in YOUTUBE_HOSTS or parts.path == "/watch":
        return None
    segments = [segment for segment in parts.path.split("/") if segment]
    if segments == ["playlist"]:
        playlist = parse_qs(parts.query).get("list", [""])[0]
        if not _PLAYLIST_ID.fullmatch(playlist):
            return None
        return DiscoveryAddress(DiscoveryKind.YOUTUBE_PLAYLIST, f"https://www.youtube.com/playlist?list={playlist}")
    first = segments[0] if segments else ""
    size = 1 if first[:1] == "@" and first[1:] else 2 if first in _CHANNEL_PREFIXES else 0
    if not size or len(segments) < size or not all(_CHANNEL_PART.fullmatch(part) for part in segments[:size]):
        return None
    tab = segments[size] if len(segments) > size and segments[size] in _TABS else "videos"
    channel = "/".join(segments[:size])
    return DiscoveryAddress(DiscoveryKind.YOUTUBE_CHANNEL, f"https://www.youtube.com/{channel}/{tab}")


def _yandex(parts: SplitResult, host: str) -> DiscoveryAddress | None:
    found = _YANDEX_PATH.fullmatch(parts.path) if _YANDEX_HOST.fullmatch(host) else None
    return DiscoveryAddress(DiscoveryKind.YANDEX, f"yandex:{found[1]}") if found else None


def _by_name(text: str, parts: SplitResult, host: str) -> DiscoveryAddress | None:
    name = parts.path.lower().rstrip("/").rpartition("/")[2]
    if list_suffix(name):
        return _document(DiscoveryKind.LIST, text)
    is_feed = name.endswith(_FEED_SUFFIXES) or name in _FEED_NAMES
    if is_feed or (host.startswith(_FEED_HOSTS) and "." not in name):
        return _document(DiscoveryKind.FEED, text)
    return None
