"""The one file that knows yt-dlp's errors: types first, texts last, and an unknown text is never permanent."""

import re
from collections.abc import Iterator
from enum import StrEnum
from http import HTTPStatus

from yt_dlp.networking.exceptions import HTTPError, TransportError
from yt_dlp.utils import (
    ContentTooShortError,
    DownloadCancelled,
    ExtractorError,
    GeoRestrictedError,
    PostProcessingError,
    UnsupportedError,
    UserNotLive,
)
from yt_dlp.utils._utils import _UnsafeExtensionError

from audiofoundation.errors import (
    AudioFoundationError,
    FetchFailed,
    FetchRefused,
    InternalError,
    RateLimited,
)
from audiofoundation.ingestion.states import ItemRefused, RefusalClass

BREAKER_S = 3600.0
_MAX_TRIES = 3


class FailureClass(StrEnum):
    """What a failed extraction or download means, and so what to do."""

    PERMANENT = "permanent"
    RESTRICTED = "restricted"
    NOT_YET = "not_yet"
    IDENTITY = "identity"
    STALE_LINK = "stale_link"
    TRANSPORT = "transport"
    OURS = "ours"
    UNKNOWN = "unknown"


_TYPES: tuple[tuple[type[BaseException], FailureClass], ...] = (
    (GeoRestrictedError, FailureClass.RESTRICTED),
    (UserNotLive, FailureClass.NOT_YET),
    (UnsupportedError, FailureClass.PERMANENT),
    (ContentTooShortError, FailureClass.STALE_LINK),
    (PostProcessingError, FailureClass.OURS),
    (_UnsafeExtensionError, FailureClass.OURS),
    (TransportError, FailureClass.TRANSPORT),  # a proxy's and TLS's errors are of this type too
    (TimeoutError, FailureClass.TRANSPORT),
    (ConnectionError, FailureClass.TRANSPORT),
)
# Whole phrases of YouTube and yt-dlp, in order: "unavailable" alone would also match "503 Service Unavailable".
# What passes comes first, so that a text which also holds a final phrase is tried again.
_TEXTS: tuple[tuple[FailureClass, str], ...] = (
    (FailureClass.IDENTITY, r"not a bot|too many requests|rate.?limit|isn.t available, try again later"),
    (FailureClass.OURS, r"no space left on device|disk quota|permission denied|read-only file system"),
    (
        FailureClass.TRANSPORT,
        r"timed? ?out|connection (reset|refused|aborted)|service unavailable|bad gateway|internal server error"
        r"|temporary failure in name resolution|unable to connect",
    ),
    (
        FailureClass.RESTRICTED,
        r"(in|from) your (country|location)|geo.?restrict|confirm your age|age.?restricted|inappropriate for some"
        r"|sign in to (view|continue|confirm)|log ?in required|login is required",
    ),
    (
        FailureClass.NOT_YET,
        r"live event will begin|premieres? in|premiere will begin|not currently live|live stream (is|has not)"
        r"|is upcoming|recording is not available",
    ),
    (
        FailureClass.PERMANENT,
        r"private video|video is private|(video|content) (has|have) been removed|has been removed (by|for|because|due)"
        r"|(video|content) is no longer available|has been terminated|account .{0,40}terminated"
        r"|members.only|join this channel|requires payment|premium members|youtube (music )?premium|drm.protected"
        r"|video unavailable|video is (unavailable|not available)|copyright (claim|grounds)"
        r"|(video|channel|page) does not exist",
    ),
)
_PATTERNS = tuple((failure, re.compile(text, re.IGNORECASE)) for failure, text in _TEXTS)
_HTTP_IN_TEXT = re.compile(r"HTTP Error (\d{3})")
_PRIVATE = re.compile(r"private video|video is private", re.IGNORECASE)
_FINAL = frozenset({FailureClass.PERMANENT, FailureClass.RESTRICTED})
_TAG = re.compile(r"^(ERROR: )?(\[[\w:+]+\] )?([\w-]{11}: )?")


def classify(error: BaseException) -> FailureClass:
    """Return what an exception from yt-dlp means: its type and causes decide first, its text last."""
    chain = list(_causes(error))
    for link in chain:
        if isinstance(link, HTTPError):
            return _of_status(link.status)
        for kind, failure in _TYPES:
            if isinstance(link, kind):
                return failure
        if isinstance(link, OSError):
            return FailureClass.OURS
    text = " ".join(str(link) for link in chain)
    # What an extractor did not expect is a defect of its own, whatever its text quotes.
    is_unexpected = any(isinstance(link, ExtractorError) and not link.expected for link in chain)
    status = _HTTP_IN_TEXT.search(text)
    said = FailureClass.UNKNOWN if status is None else _of_status(int(status[1]))
    for failure, pattern in _PATTERNS:
        if failure in _FINAL and said not in (*_FINAL, FailureClass.UNKNOWN):
            continue
        if pattern.search(text) and not (is_unexpected and failure in _FINAL):
            return failure
    return said


def translate(error: BaseException, *, attempt: int) -> AudioFoundationError:
    """Return our error for one of yt-dlp's, saying what happens next.

    Args:
        error: what yt-dlp raised.
        attempt: the job's attempt; unknown failures and stale links are final after three.
    """
    failure = classify(error)
    text = _readable(error)
    match failure:
        case FailureClass.PERMANENT if _PRIVATE.search(text):
            return ItemRefused(RefusalClass.PRIVATE, text)
        case FailureClass.PERMANENT | FailureClass.RESTRICTED | FailureClass.NOT_YET:
            return ItemRefused(RefusalClass(failure.value), text)
        case FailureClass.IDENTITY:
            return RateLimited(f"YouTube asks this address to wait: {text}", retry_after_s=BREAKER_S)
        case FailureClass.OURS:
            return InternalError(f"the download failed on our side: {text}")
        case FailureClass.TRANSPORT:
            return FetchFailed(f"YouTube could not be reached: {text}")
        case _ if attempt >= _MAX_TRIES:
            return FetchRefused(f"given up after {attempt} attempts: {text}")
        case _:
            return FetchFailed(text)


def _of_status(status: int) -> FailureClass:
    match status:
        case HTTPStatus.NOT_FOUND | HTTPStatus.GONE:
            return FailureClass.PERMANENT
        case HTTPStatus.TOO_MANY_REQUESTS:
            return FailureClass.IDENTITY
        case HTTPStatus.FORBIDDEN:  # the link's signature expired; only a fresh extraction helps
            return FailureClass.STALE_LINK
        case HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS:
            return FailureClass.RESTRICTED
        case _ if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return FailureClass.TRANSPORT
        case _:
            return FailureClass.UNKNOWN


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and what it was made from; yt-dlp keeps causes in three different places."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop(0)
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        exc_info = getattr(link, "exc_info", None)
        if isinstance(exc_info, tuple) and len(exc_info) == 3:
            waiting.append(exc_info[1])
        if isinstance(link, ExtractorError):
            waiting.append(link.cause)
        if not isinstance(link, DownloadCancelled):
            waiting.append(link.__cause__)


def _readable(error: BaseException) -> str:
    """The error's first line without yt-dlp's tags and advice."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return _TAG.sub("", line).split("; please report this issue")[0][:300]
