"""Fetching over real loopback servers; refusals are judged at the connector, so nothing leaves the machine."""

import hashlib
import http.server
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path

import httpcore
import pytest

from audiofoundation.errors import (
    DeadlineExceeded,
    FetchFailed,
    FetchRefused,
    PayloadTooLarge,
    RateLimited,
    UnsafeUrl,
)
from audiofoundation.ingestion.address_policy import Address
from audiofoundation.ingestion.connector import CheckedBackend, SocketOption
from audiofoundation.ingestion.fetch import FetchBudget, RobotsRefused, fetch_to_file, open_checked
from audiofoundation.settings import FetchSettings

LOOPBACK = FetchSettings(allowed_networks=(ip_network("127.0.0.0/8"),), timeout_s=5.0)
STRICT = FetchSettings(timeout_s=5.0)
BODY = bytes(range(256)) * 4096


class Canary(httpcore.NetworkBackend):
    """Stands where packets would leave; a connection attempt is the failure that tests look for."""

    def __init__(self) -> None:
        self.connected: list[tuple[str, int]] = []

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002
        local_address: str | None = None,  # noqa: ARG002
        socket_options: Iterable[SocketOption] | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        self.connected.append((host, port))
        raise httpcore.ConnectError("nothing leaves this test")


@dataclass
class Site:
    """What a test server answers, and what it was asked."""

    port: int = 0
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    cut_after: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    locations: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            if self.path in site.locations:
                self.send_response(302)
                self.send_header("Location", site.locations[self.path])
                self.end_headers()
                return
            start = 0
            requested = self.headers.get("Range", "")
            if requested and self.headers.get("If-Range") == site.headers.get("ETag"):
                start = int(requested.removeprefix("bytes=").rstrip("-"))
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
            else:
                self.send_response(site.status)
            for name, value in site.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(BODY) - start))
            self.end_headers()
            stop = start + site.cut_after.pop(0) if site.cut_after else len(BODY)
            self.wfile.write(BODY[start:stop])

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_file_arrives_whole_and_hashed(tmp_path: Path) -> None:
    with serving(Site(headers={"Content-Type": "audio/wav"})) as site:
        result = fetch_to_file(f"{site.url}/a.wav", tmp_path / "a", settings=LOOPBACK)
    assert (tmp_path / "a").read_bytes() == BODY
    assert result.sha256 == hashlib.sha256(BODY).hexdigest()
    assert (result.size_bytes, result.content_type) == (len(BODY), "audio/wav")
    assert site.asked[0][1]["accept-encoding"] == "identity"


def test_a_broken_transfer_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with serving(Site(headers={"ETag": '"v1"'}, cut_after=[300_000, 200_000])) as site:
        result = fetch_to_file(site.url, tmp_path / "a", settings=LOOPBACK)
    ranges = [headers.get("range") for _, headers in site.asked]
    assert ranges == [None, "bytes=300000-", "bytes=500000-"]
    assert result.sha256 == hashlib.sha256(BODY).hexdigest()
    assert (tmp_path / "a").read_bytes() == BODY


def test_without_a_validator_a_broken_transfer_starts_again(tmp_path: Path) -> None:
    with serving(Site(headers={"ETag": 'W/"weak"'}, cut_after=[300_000])) as site:
        fetch_to_file(site.url, tmp_path / "a", settings=LOOPBACK)
    assert [headers.get("range") for _, headers in site.asked] == [None, None]
    assert (tmp_path / "a").read_bytes() == BODY


def test_a_validator_that_no_request_may_carry_is_not_used(tmp_path: Path) -> None:
    with serving(Site(headers={"ETag": '"caf\xe9"'}, cut_after=[300_000])) as site:
        fetch_to_file(site.url, tmp_path / "a", settings=LOOPBACK)
    assert [headers.get("range") for _, headers in site.asked] == [None, None]
    assert (tmp_path / "a").read_bytes() == BODY


def test_a_redirect_to_what_is_no_address_is_refused(tmp_path: Path) -> None:
    with serving(Site(locations={"/": "http://[bad"})) as site, pytest.raises(UnsafeUrl, match="redirects"):
        fetch_to_file(site.url, tmp_path / "a", settings=LOOPBACK)


def test_a_transfer_that_never_completes_is_given_up(tmp_path: Path) -> None:
    with serving(Site(cut_after=[1000] * 10)) as site, pytest.raises(FetchFailed):
        fetch_to_file(site.url, tmp_path / "a", settings=LOOPBACK)
    assert len(site.asked) == 5


def test_a_body_over_the_budget_is_refused_before_it_is_read(tmp_path: Path) -> None:
    budget = FetchBudget(max_bytes=1000)
    with serving(Site()) as site, pytest.raises(PayloadTooLarge):
        fetch_to_file(site.url, tmp_path / "a", settings=LOOPBACK, budget=budget)
    assert (tmp_path / "a").stat().st_size == 0


def test_time_is_counted_while_bytes_arrive(tmp_path: Path) -> None:
    with serving(Site()) as site, pytest.raises(DeadlineExceeded):
        fetch_to_file(site.url, tmp_path / "a", settings=LOOPBACK, budget=FetchBudget(wall_s=0.0))


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, FetchRefused), (403, FetchRefused), (410, FetchRefused), (429, RateLimited), (500, FetchFailed)],
)
def test_a_status_says_whether_to_try_again(status: int, error: type[FetchFailed], tmp_path: Path) -> None:
    with serving(Site(status=status)) as site, pytest.raises(error) as failed:
        fetch_to_file(site.url, tmp_path / "a", settings=LOOPBACK)
    assert failed.value.retryable == (status in (429, 500))


def test_a_server_that_wants_no_crawlers_is_heard_when_we_crawl(tmp_path: Path) -> None:
    with serving(Site(headers={"X-Robots-Tag": "otherbot: noai, nofollow"})) as site:
        fetch_to_file(site.url, tmp_path / "a", settings=LOOPBACK)
        with pytest.raises(RobotsRefused):
            fetch_to_file(site.url, tmp_path / "a", settings=LOOPBACK, budget=FetchBudget(is_crawl=True))


def test_three_redirects_are_followed_and_no_more(tmp_path: Path) -> None:
    with serving(Site(locations={"/1": "/2", "/2": "/3", "/3": "/4"})) as site:
        assert fetch_to_file(f"{site.url}/1", tmp_path / "a", settings=LOOPBACK).url == f"{site.url}/4"
    with (
        serving(Site(locations={"/0": "/1", "/1": "/2", "/2": "/3", "/3": "/4"})) as site,
        pytest.raises(FetchRefused),
    ):
        fetch_to_file(f"{site.url}/0", tmp_path / "a", settings=LOOPBACK)


@pytest.mark.parametrize(
    "target",
    ["http://169.254.169.254/latest/", "http://10.0.0.1/", "http://[::1]/", "file:///etc/passwd", "//0.0.0.0/"],
)
def test_a_redirect_is_checked_like_the_first_address(target: str, tmp_path: Path) -> None:
    with serving(Site(locations={"/a": target})) as site, pytest.raises(UnsafeUrl):
        fetch_to_file(f"{site.url}/a", tmp_path / "a", settings=LOOPBACK)
    assert len(site.asked) == 1


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "0.0.0.0", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "[::1]",
        "[::ffff:127.0.0.1]", "127.0.0.1%00.example.com", "user@127.0.0.1", "127。0。0。1", "LOCALHOST.",
        "169.254.169.254", "10.1.2.3", "[fe80::1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "metadata",
    ],
)  # fmt: skip
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_no_packet_leaves_for_an_address_of_ours(host: str, scheme: str) -> None:
    canary = Canary()
    backend = CheckedBackend(connector=canary, resolver=_never)
    with (
        pytest.raises(UnsafeUrl) as refusal,
        open_checked(f"{scheme}://{host}:8080/a.wav", settings=STRICT, backend=backend),
    ):
        pass
    assert canary.connected == []
    assert len(refusal.value.message) > 10


@pytest.mark.parametrize("answers", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["8.8.8.8", "::1"]])
def test_a_name_that_leads_home_is_refused(answers: list[str]) -> None:
    canary = Canary()
    backend = CheckedBackend(connector=canary, resolver=lambda _: [ip_address(a) for a in answers])
    with (
        pytest.raises(UnsafeUrl),
        open_checked("https://innocent.example/a.wav", settings=STRICT, backend=backend),
    ):
        pass
    assert canary.connected == []


def test_a_name_that_changes_its_mind_is_resolved_once_per_connection() -> None:
    canary = Canary()
    replies = iter([["93.184.216.34"], ["127.0.0.1"]])

    def rebinding(_: str) -> list[Address]:
        return [ip_address(address) for address in next(replies)]

    backend = CheckedBackend(connector=canary, resolver=rebinding)
    with (
        pytest.raises(FetchFailed),
        open_checked("http://rebinding.example:8080/", settings=STRICT, backend=backend),
    ):
        pass
    assert canary.connected == [("93.184.216.34", 8080)]


def test_all_addresses_of_a_name_are_tried_in_order() -> None:
    canary = Canary()
    backend = CheckedBackend(connector=canary, resolver=lambda _: [ip_address("1.1.1.1"), ip_address("8.8.8.8")])
    with pytest.raises(FetchFailed), open_checked("http://two.example/", settings=STRICT, backend=backend):
        pass
    assert canary.connected == [("1.1.1.1", 80), ("8.8.8.8", 80)]


def _never(host: str) -> list[Address]:
    raise AssertionError(f"{host} was looked up")
