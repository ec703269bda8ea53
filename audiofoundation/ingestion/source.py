"""What a line of a list names: a YouTube video, a web address or uploaded bytes, in one canonical form.

Two lines that name the same thing have the same canonical form, so the catalog keeps one item.
"""

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from urllib.parse import parse_qs, urlsplit

from audiofoundation.errors import InvalidRequest, UnsafeUrl
from audiofoundation.ingestion.web_address import parse_web_address

_VIDEO_ID = re.compile(r"[A-Za-z0-9_-]{11}")
_TRACK_ID = re.compile(r"\d{1,20}")
_YANDEX_TRACK = re.compile(
    r"https?://music\.yandex\.(?:ru|com|by|kz|uz)/(?:album/\d{1,20}/)?track/(\d{1,20})/?(?:\?.*)?"
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
# PostgreSQL takes no NUL, terminals obey control characters, UTF-8 has no half of a pair.
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
YOUTUBE_HOSTS = frozenset(
    {"youtube.com", "www.youtube.com", "m.youtube.com", "music.youtube.com", "www.youtube-nocookie.com"}
)
_PATHS_WITH_ID = ("shorts", "live", "embed", "v", "e")
_MAX_LENGTH = 2048


class SourceKind(StrEnum):
    """Where the bytes come from. All but `file`, which is what an operator uploaded, are crawled."""

    YOUTUBE = "youtube"
    URL = "url"
    YANDEX = "yandex"
    FILE = "file"


class RejectionClass(StrEnum):
    """Why a line names nothing that can be fetched."""

    EMPTY = "empty"
    NOT_A_URL = "not_a_url"
    UNSUPPORTED_SCHEME = "unsupported_scheme"
    UNSAFE_URL = "unsafe_url"
    INVALID_VIDEO_ID = "invalid_video_id"
    TOO_LONG = "too_long"
    FOREIGN_UPLOAD = "foreign_upload"


class SourceRejected(InvalidRequest):
    """The line names nothing that can be fetched.

    Attributes:
        rejection: the class that summaries count.
    """

    def __init__(self, rejection: RejectionClass, message: str) -> None:
        super().__init__(message, param="sources")
        self.rejection = rejection


@dataclass(frozen=True, slots=True)
class Source:
    """One thing to ingest.

    Attributes:
        canonical: `youtube:ID`, `yandex:ID`, `url:https://…` or `sha256:HEX`; equal for equal things.
        kind: where the bytes come from.
        text: what is fetched (the canonical URL) or, for a file, its hash.
    """

    canonical: str
    kind: SourceKind
    text: str


@dataclass(frozen=True, slots=True)
class SourceLine:
    """One line of a list, with what the list itself says of it."""

    text: str
    title: str | None = None
    channel: str | None = None
    license: str | None = None
    duration_s: float | None = None

    def licensed(self, license_text: str | None) -> "SourceLine":
        """Return the line with that licence, unless it states one or there is none."""
        return replace(self, license=license_text) if license_text and not self.license else self


def parse_source(line: str) -> Source:
    """Return what the line names.

    Raises:
        SourceRejected: it names nothing that we fetch; its `rejection` says why.
    """
    text = plain_line(line)
    if not text:
        raise SourceRejected(
            RejectionClass.EMPTY, "the line is empty, or has none of the fields url, source, link and video_id"
        )
    if len(text) > _MAX_LENGTH:
        raise SourceRejected(
            RejectionClass.TOO_LONG, f"the line is longer than {_MAX_LENGTH} characters: {text[:60]!r}…"
        )
    prefix, _, rest = text.partition(":")
    if prefix == "youtube":
        return _youtube(rest)
    if prefix == "sha256":
        return _uploaded(rest)
    if prefix == "yandex" and _TRACK_ID.fullmatch(rest):
        return _yandex(rest)
    scheme = _SCHEME.match(text)
    if not scheme and text.startswith(("{", "[")):
        raise SourceRejected(RejectionClass.NOT_A_URL, f"{text[:80]!r} is no URL, nor a whole JSON object on one line")
    if not scheme:
        raise SourceRejected(RejectionClass.NOT_A_URL, f"{text[:80]!r} is no URL; write it with http:// or https://")
    if scheme[1].lower() not in ("http", "https"):
        raise SourceRejected(
            RejectionClass.UNSUPPORTED_SCHEME, f"{scheme[1][:20]!r} addresses are not fetched, only http(s)"
        )
    return _web(text)


def plain_line(line: str) -> str:
    """Return the line without the blanks around it.

    Raises:
        SourceRejected: it has control characters, or what UTF-8 cannot hold.
    """
    text = line.strip()
    if _NO_TEXT.search(text):
        raise SourceRejected(
            RejectionClass.UNSAFE_URL, f"the line has control characters or is no Unicode text: {text[:60]!r}"
        )
    return text


def _web(text: str) -> Source:
    video_id = _video_id_of(text)
    if video_id is not None:
        return _youtube(video_id)
    if track := _YANDEX_TRACK.fullmatch(text):
        return _yandex(track[1])
    try:
        url = parse_web_address(text).url
    except UnsafeUrl as error:
        raise SourceRejected(RejectionClass.UNSAFE_URL, error.message) from error
    return Source(f"url:{url}", SourceKind.URL, url)


def _video_id_of(text: str) -> str | None:
    """Return what stands where a YouTube address has its video id; None for every other address."""
    try:
        parts = urlsplit(text)
        host = (parts.hostname or "").lower()
    except ValueError:
        return None
    segments = parts.path.split("/")[1:]
    if host == "youtu.be":
        return segments[0] if segments else ""
    if host not in YOUTUBE_HOSTS:
        return None
    if segments[:1] == ["watch"]:
        return parse_qs(parts.query).get("v", [""])[0]
    if len(segments) >= 2 and segments[0] in _PATHS_WITH_ID:
        return segments[1]
    return ""


def _youtube(video_id: str) -> Source:
    if not _VIDEO_ID.fullmatch(video_id):
        raise SourceRejected(
            RejectionClass.INVALID_VIDEO_ID,
            f"{video_id[:40]!r} is no YouTube video id, which has 11 letters, digits, '-' or '_'",
        )
    return Source(f"youtube:{video_id}", SourceKind.YOUTUBE, f"https://www.youtube.com/watch?v={video_id}")


def _yandex(track_id: str) -> Source:
    return Source(f"yandex:{track_id}", SourceKind.YANDEX, f"https://music.yandex.ru/track/{track_id}")


def _uploaded(digest: str) -> Source:
    if not _SHA256.fullmatch(digest):
        raise SourceRejected(RejectionClass.NOT_A_URL, "a SHA-256 is written with 64 lower-case hex digits")
    return Source(f"sha256:{digest}", SourceKind.FILE, digest)
