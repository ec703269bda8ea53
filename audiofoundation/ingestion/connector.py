"""Connections that go only where the address policy lets them: resolve once, check all, connect to what was
checked. Certificate and SNI stay those of the host's name.
"""

import queue
import socket
import threading
from collections.abc import Callable, Iterable
from ipaddress import ip_address

import httpcore

from audiofoundation.errors import AudioFoundationError, FetchFailed, UnsafeUrl
from audiofoundation.ingestion.address_policy import Address, Network, check_addresses

Resolver = Callable[[str], list[Address]]
SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
_RESOLVE_TIMEOUT_S = 5.0


def resolve(host: str) -> list[Address]:
    """Return all addresses of a name, in the system's order of preference; give up after 5 s.

    The system's resolver takes no timeout, so it runs in a thread of its own.

    Raises:
        FetchFailed: the name has no address, or the resolver does not answer.
    """
    answers: queue.SimpleQueue[list[Address] | OSError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            answers.put(error)
        else:
            answers.put(list(dict.fromkeys(ip_address(str(entry[4][0])) for entry in found)))

    threading.Thread(target=ask, name="resolve", daemon=True).start()
    try:
        answer = answers.get(timeout=_RESOLVE_TIMEOUT_S)
    except queue.Empty as error:
        raise FetchFailed(f"the name {host} was not resolved within {_RESOLVE_TIMEOUT_S:.0f} s") from error
    if isinstance(answer, OSError):
        raise FetchFailed(f"the name {host} has no address; check its spelling") from answer
    return answer


class CheckedBackend(httpcore.NetworkBackend):
    """Opens TCP connections to checked addresses only; refuses everything else before a packet is sent."""

    def __init__(
        self,
        *,
        allowed: tuple[Network, ...] = (),
        resolver: Resolver = resolve,
        connector: httpcore.NetworkBackend | None = None,
    ) -> None:
        self._allowed = allowed
        self._resolver = resolver
        self._connector = connector or httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = self._checked(host)
        for address in addresses[:-1]:
            try:
                return self._connect(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return self._connect(addresses[-1], port, timeout, local_address, socket_options)

    def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ARG002
        socket_options: Iterable[SocketOption] | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        raise UnsafeUrl(f"a fetch does not open local sockets such as {path}")

    def _checked(self, host: str) -> list[Address]:
        try:
            addresses: list[Address] = [ip_address(host)]
        except ValueError:
            if "." not in host and not self._allowed:
                raise UnsafeUrl(f"{host} is a local name and is not fetched", param="url") from None
            addresses = self._resolver(host)
        check_addresses(host, addresses, allowed=self._allowed)
        if not addresses:
            raise FetchFailed(f"the name {host} has no address; check its spelling")
        return addresses

    def _connect(
        self,
        address: Address,
        port: int,
        timeout: float | None,
        local_address: str | None,
        socket_options: Iterable[SocketOption] | None,
    ) -> httpcore.NetworkStream:
        return self._connector.connect_tcp(str(address), port, timeout, local_address, socket_options)


def translate(error: Exception, *, host: str) -> AudioFoundationError:
    """Return our error for one of httpcore's."""
    if isinstance(error, httpcore.TimeoutException):
        return FetchFailed(f"{host} did not answer in time; try again later")
    if isinstance(error, httpcore.ConnectError):
        return FetchFailed(f"{host} could not be reached: {error}")
    return FetchFailed(f"{host} broke off the transfer ({type(error).__name__}: {error})")
