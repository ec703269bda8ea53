"""How a child says that it is ready, and how the platform finds out."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

Probe = Callable[[], Awaitable[bool]]
_PROBE_TIMEOUT_S = 3.0


class ReadyListener:
    """An abstract datagram socket on which one child, under any number of restarts, says that it is ready."""

    def __init__(self, name: str) -> None:
        self.address = f"@{name}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self._socket.bind("\0" + name)

    def forget(self) -> None:
        """Drop what an earlier process said."""
        with suppress(BlockingIOError):
            while True:
                self._socket.recv(4096)

    async def is_ready(self) -> bool:
        """Tell whether the child has said so since `forget`."""
        with suppress(BlockingIOError):
            return b"READY=1" in self._socket.recv(4096)
        return False

    def close(self) -> None:
        self._socket.close()


def http_probe(host: str, port: int, path: str, *, is_any_status: bool = False) -> Probe:
    """Return a probe that GETs a path: 200 is ready, or with `is_any_status` any HTTP answer at all."""
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode()

    async def probe() -> bool:
        status = await _first_bytes(host, port, request)
        return status.startswith(b"HTTP/1.") and (is_any_status or status[9:12] == b"200")

    return probe


def redis_probe(host: str, port: int, *, password: str) -> Probe:
    """Return a probe that authenticates and PINGs; a server that still loads its log is not ready."""
    request = f"AUTH {password}\r\nPING\r\n".encode()

    async def probe() -> bool:
        answer = await _first_bytes(host, port, request, until=b"PONG")
        return b"+PONG" in answer

    return probe


async def _first_bytes(host: str, port: int, request: bytes, *, until: bytes = b"\n") -> bytes:
    """Send a request; return the answer up to and with `until`, or b"" if there is none in time."""
    with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        async with asyncio.timeout(_PROBE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(request)
                await writer.drain()
                return await reader.readuntil(until)
            finally:
                writer.close()
    return b""
