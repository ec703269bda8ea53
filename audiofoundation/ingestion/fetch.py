"""Fetching a URL that somebody else gave us, without reaching anything of ours.

Every hop is parsed strictly, resolved once and connected to the address that was checked. Sizes and times
are counted while bytes arrive; a transfer that breaks off is resumed where it stopped.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin

import httpcore

from audiofoundation.errors import DeadlineExceeded, FetchFailed, FetchRefused, PayloadTooLarge, RateLimited, UnsafeUrl
from audiofoundation.identifiers import Sha256
from audiofoundation.ingestion.connector import CheckedBackend, translate
from audiofoundation.ingestion.web_address import WebAddress, parse_web_address
from audiofoundation.settings import FetchSettings

_MAX_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_RESUMES = 4
_USER_AGENT = "audiofoundation/0.1 (+https://pypi.org/project/audiofoundation)"
_ROBOTS_REFUSALS = frozenset({"noai", "noindex", "none"})


class RobotsRefused(FetchRefused):
    """The server asks crawlers not to take this (X-Robots-Tag)."""


class TransferInterrupted(FetchFailed):
    """The transfer broke off; what came before is kept and the rest may be asked for."""


def _ignore_progress(num_bytes: int) -> None:  # noqa: ARG001
    return


@dataclass(frozen=True, slots=True)
class FetchBudget:
    """What one fetch may cost.

    Attributes:
        max_bytes: largest body; the settings' limit when None.
        wall_s: longest duration of the whole fetch, redirects and resumptions included.
        is_crawl: whether X-Robots-Tag is honoured, as for every source that a user did not upload.
        on_progress: called with the number of bytes received so far.
    """

    max_bytes: int | None = None
    wall_s: float = 600.0
    is_crawl: bool = False
    on_progress: Callable[[int], None] = _ignore_progress


@dataclass(frozen=True, slots=True)
class FetchResult:
    """What arrived. `url` is the last hop's."""

    url: str
    size_bytes: int
    sha256: Sha256
    content_type: str


@dataclass(frozen=True, slots=True)
class CheckedResponse:
    """An open response: header names are lower-case, the body has not been read."""

    address: WebAddress
    status: int
    headers: Mapping[str, str]
    blocks: Iterator[bytes]


@contextmanager
def open_checked(
    url: str,
    *,
    settings: FetchSettings,
    headers: Mapping[str, str] | None = None,
    backend: httpcore.NetworkBackend | None = None,
) -> Iterator[CheckedResponse]:
    """Open a URL, following at most three redirects, each checked like the first.

    Raises:
        UnsafeUrl: a hop is not plain http(s) or leads to an address that is not public.
        FetchFailed: the other side did not answer.
    """
    backend = backend or CheckedBackend(allowed=settings.allowed_networks)
    address = parse_web_address(url)
    for _ in range(_MAX_REDIRECTS + 1):
        with (
            httpcore.ConnectionPool(network_backend=backend, max_connections=1) as pool,
            _opened(pool, address, headers or {}, settings.timeout_s) as response,
        ):
            location = response.headers.get("location")
            if response.status not in _REDIRECTS or not location:
                yield response
                return
            address = _next_hop(address, location)
    raise FetchRefused(f"{address.host} redirects more than {_MAX_REDIRECTS} times")


def _next_hop(address: WebAddress, location: str) -> WebAddress:
    try:
        return parse_web_address(urljoin(address.url, location))
    except ValueError as error:  # of urljoin, for brackets that hold no address
        raise UnsafeUrl(f"{address.host} redirects to {location[:80]!r}, which is no URL", param="url") from error


@contextmanager
def _opened(
    pool: httpcore.ConnectionPool, address: WebAddress, headers: Mapping[str, str], timeout_s: float
) -> Iterator[CheckedResponse]:
    timeouts = {"connect": min(timeout_s, 10.0), "read": timeout_s, "write": timeout_s, "pool": timeout_s}
    sent = {
        "Host": address.authority,
        "User-Agent": _USER_AGENT,
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        **headers,
    }
    try:
        with pool.stream("GET", address.url, headers=list(sent.items()), extensions={"timeout": timeouts}) as got:
            found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in got.headers}
            yield CheckedResponse(address, got.status, found, _blocks(got, address.host))
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise translate(error, host=address.host) from error


def _blocks(response: httpcore.Response, host: str) -> Iterator[bytes]:
    try:
        yield from response.iter_stream()
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise TransferInterrupted(translate(error, host=host).message) from error


def fetch_to_file(
    url: str,
    path: Path,
    *,
    settings: FetchSettings,
    budget: FetchBudget | None = None,
    backend: httpcore.NetworkBackend | None = None,
) -> FetchResult:
    """Write the body behind a URL to the path.

    Args:
        url: an http(s) address.
        path: a file in a directory that exists; on an error it may hold a part of the body.
        settings: allowed networks, timeouts, largest body.
        budget: what this fetch may cost.
        backend: opens the connections; by default one that refuses addresses that are not public.

    Raises:
        UnsafeUrl: an address on the way is not plain http(s) or not public; nothing was sent to it.
        FetchRefused: the other side says no for good (RobotsRefused: it asks crawlers to stay away).
        FetchFailed: it did not give all bytes; a later try may succeed.
        RateLimited: it asks us to slow down.
        PayloadTooLarge: the body is larger than the budget.
        DeadlineExceeded: the budget's time is over.
    """
    with path.open("w+b") as file:
        transfer = _Transfer(file, settings, budget or FetchBudget())
        for num_failures in range(_MAX_RESUMES + 1):
            try:
                with open_checked(
                    url, settings=settings, headers=transfer.request_headers(), backend=backend
                ) as response:
                    return transfer.receive(response)
            except TransferInterrupted:
                transfer.check_time()
                if num_failures == _MAX_RESUMES:
                    raise
                time.sleep(min(2.0, 0.1 * 2**num_failures))
    raise AssertionError("unreachable")


def read_range(
    url: str, first: int, num_bytes: int, *, settings: FetchSettings, is_crawl: bool = False
) -> tuple[bytes, int | None]:
    """Return up to that many bytes of the file behind a URL from an offset on, and the file's size.

    No bytes and no size where the server gives no ranges. Raises as `fetch_to_file`.
    """
    asked = {"Range": f"bytes={first}-{first + num_bytes - 1}"}
    with open_checked(url, settings=settings, headers=asked) as response:
        if response.status == 416:
            return b"", None
        check_status(response.status, response.address.host, response.headers)
        if is_crawl:
            _check_robots(response.headers, response.address.host)
        span = response.headers.get("content-range", "")
        if response.status != 206 or not span.startswith(f"bytes {first}-"):
            return b"", None
        data = bytearray()
        for block in response.blocks:
            data += block
            if len(data) >= num_bytes:
                break
    size = span.rpartition("/")[2]
    return bytes(data[:num_bytes]), int(size) if size.isdecimal() else None


class _Transfer:
    """What has arrived of one body, over any number of connections."""

    def __init__(self, file: BinaryIO, settings: FetchSettings, budget: FetchBudget) -> None:
        self._file = file
        self._budget = budget
        self._max_bytes = settings.max_bytes if budget.max_bytes is None else budget.max_bytes
        self._deadline = time.monotonic() + budget.wall_s
        self._restart()

    def _restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._digest = hashlib.sha256()
        self._received = 0
        self._validator = ""

    def request_headers(self) -> dict[str, str]:
        """Ask for the rest when what is here can be told to belong to the same version."""
        if not self._received or not self._validator:
            return {}
        return {"Range": f"bytes={self._received}-", "If-Range": self._validator}

    def receive(self, response: CheckedResponse) -> FetchResult:
        host = response.address.host
        check_status(response.status, host, response.headers)
        if self._budget.is_crawl:
            _check_robots(response.headers, host)
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise FetchRefused(f"{host} sends the file compressed although it was asked not to")
        continued = f"bytes {self._received}-"
        if response.status != 206 or not response.headers.get("content-range", "").startswith(continued):
            self._restart()
        self._validator = _validator(response.headers)
        self._check_size(self._received + int(response.headers.get("content-length", "0") or 0))
        for block in response.blocks:
            self._received += len(block)
            self._check_size(self._received)
            self.check_time()
            self._digest.update(block)
            self._file.write(block)
            self._budget.on_progress(self._received)
        content_type = response.headers.get("content-type", "")
        return FetchResult(response.address.url, self._received, Sha256(self._digest.hexdigest()), content_type)

    def _check_size(self, num_bytes: int) -> None:
        if num_bytes > self._max_bytes:
            raise PayloadTooLarge(
                f"the file behind the URL is larger than the {self._max_bytes / (1 << 20):g} MiB that we fetch"
            )

    def check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise DeadlineExceeded(f"the file did not arrive within {self._budget.wall_s:g} s")


def _validator(headers: Mapping[str, str]) -> str:
    """A strong validator for If-Range (RFC 9110 section 13.1.5): weak ETags do not count.

    Nor does what is not ASCII, which no request may carry.
    """
    etag = headers.get("etag", "")
    found = etag if etag and not etag.startswith("W/") else headers.get("last-modified", "")
    return found if found.isascii() else ""


def check_status(status: int, host: str, headers: Mapping[str, str]) -> None:
    """Raise FetchRefused, FetchFailed or RateLimited unless the answer brings what was asked for."""
    if status in (200, 206):
        return
    if status == 429:
        wait = headers.get("retry-after", "")
        raise RateLimited(f"{host} asks us to slow down (429)", retry_after_s=float(wait) if wait.isdecimal() else None)
    if status in (408, 416, 425) or status >= 500:
        raise FetchFailed(f"{host} answered {status}; try again later")
    raise FetchRefused(f"{host} answered {status} instead of the file")


def _check_robots(headers: Mapping[str, str], host: str) -> None:
    words = {word.strip().lower() for word in headers.get("x-robots-tag", "").replace(":", ",").split(",")}
    if refused := words & _ROBOTS_REFUSALS:
        raise RobotsRefused(f"{host} asks crawlers not to take this file (X-Robots-Tag: {min(refused)})")
