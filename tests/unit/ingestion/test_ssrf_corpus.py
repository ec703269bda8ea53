"""Addresses that lead home, in every spelling that some reader takes for one: none reaches the canary.

The canary stands where connections leave (`CheckedBackend`'s connector), so that nothing is sent even where a check
fails; loopback names are tried against a real server as well.
"""

import http.server
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path

import httpcore
import pytest

from audiofoundation.errors import AudioFoundationError, FetchFailed, UnsafeUrl
from audiofoundation.ingestion.address_policy import Address
from audiofoundation.ingestion.connector import CheckedBackend, SocketOption
from audiofoundation.ingestion.fetch import fetch_to_file, open_checked
from audiofoundation.ingestion.source import SourceRejected, parse_source
from audiofoundation.settings import FetchSettings

STRICT = FetchSettings(timeout_s=5.0)

LITERALS = [
    "http://127.0.0.1/", "http://127.0.0.1:8080/", "http://127.1/", "http://127.0.1/", "http://0/", "http://0.0.0.0/",
    "http://2130706433/", "http://017700000001/", "http://0177.0.0.1/", "http://0x7f.0.0.1/", "http://0x7f000001/",
    "http://0x7f.1/", "http://127.000.000.001/", "http://127.0.0.1./", "http://%31%32%37.0.0.1/", "http://1.1.1.1.1/",
    "http://169.254.169.254/latest/meta-data/", "http://2852039166/", "http://0xa9fea9fe/", "http://0251.0376.0251.0376/",
    "http://10.0.0.1/", "http://172.16.5.4/", "http://192.168.0.1/", "http://100.64.0.1/", "http://192.0.0.192/",
    "http://198.18.0.1/", "http://224.0.0.1/", "http://255.255.255.255/", "http://100.100.100.200/",
    "http://[::]/", "http://[::1]/", "http://[0:0:0:0:0:0:0:1]/", "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/", "http://[::ffff:a9fe:a9fe]/", "http://[::127.0.0.1]/", "http://[64:ff9b::127.0.0.1]/",
    "http://[64:ff9b::a9fe:a9fe]/", "http://[64:ff9b:1::7f00:1]/", "http://[2002:7f00:1::]/", "http://[2001::7f00:1]/",
    "http://[fe80::1]/", "http://[fe80::1%25lo]/", "http://[fc00::1]/", "http://[fd00:ec2::254]/", "http://[ff02::1]/",
    "http://[::1", "http://[::1]:80:80/", "http://[127.0.0.1]/",
]  # fmt: skip
NAMES = [
    "http://localhost/", "http://LOCALHOST/", "http://localhost./", "http://metadata/", "http://router/",
    "http://user@127.0.0.1/", "http://127.0.0.1@example.com/", "http://example.com:80@127.0.0.1/",
    "http://example.com%00@127.0.0.1/", "http://example.com\\@127.0.0.1/", "http://example.com#@127.0.0.1\\/",
    "http://127。0。0。1/", "http://①②⑦.⓪.⓪.①/", "http://ｌｏｃａｌｈｏｓｔ/", "http://127.0.0.1\t.example.com/",
    "http://127.0.0.1\r\nHost: example.com/", "http:/127.0.0.1/", "http:127.0.0.1/", "http:///127.0.0.1/",
    "http://127.0.0.1%2f.example.com/", "http://127.0.0.1%23.example.com/",
]  # fmt: skip
SCHEMES = [
    "file:///etc/passwd", "FILE:///etc/passwd", "gopher://127.0.0.1:6379/_FLUSHALL", "dict://127.0.0.1:6379/info",
    "ftp://127.0.0.1/", "concat:http://127.0.0.1/a|file:///etc/passwd", "subfile,,start,0,end,9,,:/etc/passwd",
    "data:audio/wav;base64,AAAA", "jar:http://127.0.0.1!/", "ldap://127.0.0.1/", "unix:///run/docker.sock", "pipe:0",
    "async:file:///etc/passwd", "crypto:file:///etc/passwd", "//127.0.0.1/", "hls+http://127.0.0.1/",
]  # fmt: skip
HOMES = ["127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "fd00::1", "0.0.0.0"]


class Canary(httpcore.NetworkBackend):
    """Notes where a connection would have gone."""

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
class RealCanary:
    """A server on loopback, and what it was asked."""

    port: int = 0
    asked: list[str] = field(default_factory=list)
    locations: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def real_canary() -> Iterator[RealCanary]:
    canary = RealCanary()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            canary.asked.append(self.path)
            self.send_response(302 if self.path in canary.locations else 200)
            if self.path in canary.locations:
                self.send_header("Location", canary.locations[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    canary.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield canary
    server.shutdown()
    server.server_close()
    thread.join()


def never(host: str) -> list[Address]:
    raise FetchFailed(f"{host} has no address here")


def test_the_corpus_is_as_large_as_it_says() -> None:
    assert len({*LITERALS, *NAMES, *SCHEMES}) == len(LITERALS) + len(NAMES) + len(SCHEMES)
    assert len(LITERALS) + len(NAMES) + len(SCHEMES) >= 80


@pytest.mark.parametrize("url", [*LITERALS, *NAMES, *SCHEMES])
def test_no_spelling_of_home_leads_there(url: str) -> None:
    canary = Canary()
    backend = CheckedBackend(connector=canary, resolver=never)
    with pytest.raises(AudioFoundationError), open_checked(url, settings=STRICT, backend=backend):
        pass
    assert canary.connected == []


@pytest.mark.parametrize("url", [*NAMES, *SCHEMES])
def test_no_spelling_becomes_an_item_that_another_reader_may_fetch(url: str) -> None:
    """What the catalog takes as a source names a plain host; `localhost` and the like are refused on connecting."""
    try:
        source = parse_source(url)
    except SourceRejected:
        return
    host = source.text.removeprefix("http://").partition("/")[0]
    assert host in ("localhost", "metadata", "router")


@pytest.mark.parametrize("home", HOMES)
@pytest.mark.parametrize("before", [[], ["93.184.216.34"], ["93.184.216.34", "2606:2800:220:1::1"]])
def test_no_name_leads_home_whatever_else_it_leads_to(home: str, before: list[str]) -> None:
    canary = Canary()
    answers: list[Address] = [ip_address(address) for address in [*before, home]]
    backend = CheckedBackend(connector=canary, resolver=lambda _: answers)
    with pytest.raises(UnsafeUrl), open_checked("http://innocent.example/", settings=STRICT, backend=backend):
        pass
    assert canary.connected == []


def test_a_rebinding_name_is_connected_where_it_was_checked() -> None:
    """Every second answer leads home: what is connected to is what was checked, or nothing."""
    canary = Canary()
    turns = iter(range(100))

    def rebinding(_: str) -> list[Address]:
        return [ip_address("127.0.0.1" if next(turns) % 2 else "93.184.216.34")]

    backend = CheckedBackend(connector=canary, resolver=rebinding)
    for _ in range(20):
        with (
            pytest.raises((FetchFailed, UnsafeUrl)),
            open_checked("http://rebinding.example/", settings=STRICT, backend=backend),
        ):
            pass
    assert set(canary.connected) == {("93.184.216.34", 80)}


@pytest.mark.parametrize(
    "target",
    ["http://localhost:{port}/secret", "http://2130706433:{port}/secret", "http://[::ffff:127.0.0.1]:{port}/secret",
     "http://0x7f.1:{port}/secret", "http://[::1]:{port}/secret", "file:///etc/passwd", "gopher://127.0.0.1:{port}/secret"],
)  # fmt: skip
@pytest.mark.parametrize("num_hops", [1, 2, 3])
def test_no_chain_of_redirects_leads_home(target: str, num_hops: int, real_canary: RealCanary, tmp_path: Path) -> None:
    """The first hops are allowed (one address), what they lead to is not."""
    allowed = FetchSettings(allowed_networks=(ip_network("127.0.0.1/32"),), timeout_s=5.0)
    real_canary.asked.clear()
    real_canary.locations = {f"/{hop}": f"/{hop + 1}" for hop in range(num_hops - 1)}
    final = target.format(port=real_canary.port)
    if "localhost" in final:
        final = final.replace("localhost", "127.0.0.2")
    real_canary.locations[f"/{num_hops - 1}"] = final
    with pytest.raises(AudioFoundationError):
        fetch_to_file(f"http://127.0.0.1:{real_canary.port}/0", tmp_path / "body", settings=allowed)
    assert "/secret" not in real_canary.asked


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "[::ffff:127.0.0.1]", "0", "0x7f.1"])
def test_the_real_server_next_door_is_not_asked(host: str, real_canary: RealCanary, tmp_path: Path) -> None:
    real_canary.asked.clear()
    with pytest.raises(AudioFoundationError):
        fetch_to_file(f"http://{host}:{real_canary.port}/secret", tmp_path / "body", settings=STRICT)
    assert real_canary.asked == []
