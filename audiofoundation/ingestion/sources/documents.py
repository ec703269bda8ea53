"""Fetching a feed or a list: guarded like every fetch, and not again while it has not changed."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from audiofoundation.errors import DeadlineExceeded, FetchRefused, PayloadTooLarge
from audiofoundation.ingestion.fetch import check_status, open_checked
from audiofoundation.settings import FetchSettings

_WALL_S = 300.0
_NOT_MODIFIED = 304


@dataclass(frozen=True, slots=True)
class Document:
    """A document that has arrived. `validators` are what to ask with next time."""

    url: str
    content_type: str
    validators: Mapping[str, str]


def fetch_document(
    url: str, path: Path, *, settings: FetchSettings, validators: Mapping[str, str], max_bytes: int
) -> Document | None:
    """Write the document to the path; None when the server says that it has not changed (RFC 9110, 13.1).

    Raises:
        UnsafeUrl, FetchRefused, FetchFailed, RateLimited: as `fetch.fetch_to_file`.
        PayloadTooLarge: it has more than `max_bytes`.
        DeadlineExceeded: it did not arrive within five minutes.
    """
    headers = {"If-None-Match": validators.get("etag", ""), "If-Modified-Since": validators.get("last_modified", "")}
    headers = {name: text for name, text in headers.items() if text and text.isascii()}
    deadline = time.monotonic() + _WALL_S
    with open_checked(url, settings=settings, headers=headers) as response, path.open("wb") as file:
        if response.status == _NOT_MODIFIED and headers:
            return None
        check_status(response.status, response.address.host, response.headers)
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise FetchRefused(f"{response.address.host} sends the file compressed although it was asked not to")
        num_bytes = 0
        for block in response.blocks:
            num_bytes += len(block)
            if num_bytes > max_bytes:
                raise PayloadTooLarge(f"{url} is larger than the {max_bytes >> 20} MiB that we read")
            if time.monotonic() > deadline:
                raise DeadlineExceeded(f"{url} did not arrive within {_WALL_S:g} s")
            file.write(block)
        found = {"etag": response.headers.get("etag", ""), "last_modified": response.headers.get("last-modified", "")}
        # A request carries ASCII alone: other validators cannot be sent back.
        kept = {name: text[:500] for name, text in found.items() if text and text.isascii()}
        return Document(response.address.url, response.headers.get("content-type", ""), kept)
