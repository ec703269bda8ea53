"""Strict parsing of http(s) addresses: one spelling of each host, or a refusal.

Lenient readers disagree about `127.1`, `0x7f000001`, `user@host` or full-width dots, and every disagreement
between a checker and a connector is a way around the check. What is not plainly written is refused.
"""

import ipaddress
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import quote, urlsplit

from audiofoundation.errors import UnsafeUrl

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_LOOKS_NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)")
_DEFAULT_PORT = {"http": 80, "https": 443}
_FIRST_FREE_PORT = 1024
_KEPT_IN_PATH = "/%:@!$&'()*+,;=~-._"
_CONTROL = re.compile(r"[\x00-\x20\x7f\\\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class WebAddress:
    """An http(s) address whose host is spelled in the one way that we accept.

    Attributes:
        scheme: `http` or `https`.
        host: a lower-case DNS name, or an address as `ipaddress` writes it (IPv6 without brackets).
        port: the port, the scheme's own when none was written.
        target: path and query, percent-encoded, beginning with a slash.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def literal(self) -> IPv4Address | IPv6Address | None:
        """The host's address when it is written as one."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    @property
    def authority(self) -> str:
        """Host and, unless it is the scheme's own, port: the value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORT[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The normalised address."""
        return f"{self.scheme}://{self.authority}{self.target}"


def parse_web_address(url: str) -> WebAddress:
    """Return the parsed address; the fragment is dropped.

    Raises:
        UnsafeUrl: it is not http(s), or its host, port or characters are not plainly written.
    """
    url = url.strip()
    if not url:
        raise UnsafeUrl("the URL is empty; give an address that begins with https://", param="url")
    if _CONTROL.search(url):
        raise UnsafeUrl("the URL contains spaces, backslashes, control characters or no Unicode text", param="url")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UnsafeUrl(f"the URL cannot be read: {error}", param="url") from error
    scheme = parts.scheme.lower()
    if scheme not in _DEFAULT_PORT:
        raise UnsafeUrl("only addresses that begin with http:// or https:// are fetched", param="url")
    if "@" in parts.netloc:
        raise UnsafeUrl("a URL with a user name or password in it is not fetched", param="url")
    host = _host(parts.netloc, parts.hostname or "")
    port = _DEFAULT_PORT[scheme] if port is None else port
    if port < _FIRST_FREE_PORT and port not in _DEFAULT_PORT.values():
        raise UnsafeUrl(f"port {port} does not belong to a web server", param="url")
    path = quote(parts.path or "/", safe=_KEPT_IN_PATH)
    query = f"?{quote(parts.query, safe=_KEPT_IN_PATH + '?')}" if parts.query else ""
    return WebAddress(scheme, host, port, path + query)


def _host(netloc: str, host: str) -> str:
    if netloc.startswith("["):
        return _ipv6(host)
    if not host.isascii():
        raise UnsafeUrl("write the host in plain ASCII (an international name as xn--…)", param="url")
    if host.endswith("."):
        raise UnsafeUrl(f"write the host {host[:80]!r} without the dot at its end", param="url")
    labels = host.lower().split(".")
    if _LOOKS_NUMERIC.fullmatch(labels[-1]):
        return _ipv4(host)
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise UnsafeUrl(f"{host[:80]!r} is no host name", param="url")
    return host.lower()


def _ipv4(host: str) -> str:
    try:
        return str(IPv4Address(host))
    except ValueError as error:
        raise UnsafeUrl(
            f"write the address {host[:80]!r} as four decimal numbers, or use a name", param="url"
        ) from error


def _ipv6(host: str) -> str:
    try:
        address = IPv6Address(host)
    except ValueError as error:
        raise UnsafeUrl(f"{host[:80]!r} is no IPv6 address", param="url") from error
    if address.scope_id:
        raise UnsafeUrl("an address with a zone is local to one machine and is not fetched", param="url")
    return str(address)
