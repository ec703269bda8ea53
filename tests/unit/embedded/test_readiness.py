import asyncio
import os
from collections.abc import Callable

import pytest

from audiofoundation.embedded.readiness import Probe, ReadyListener, http_probe, redis_probe
from audiofoundation.telemetry.notify import notify_ready

ANSWERS = [
    (b"HTTP/1.1 200 OK\r\n\r\n", True, True),
    (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False, True),
    (b"HTTP/1.1 403 Forbidden\r\n\r\n", False, True),
    (b"", False, False),
    (b"garbage\n", False, False),
]


async def probed(answer: bytes, create: Callable[[int], Probe]) -> bool:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        return await create(server.sockets[0].getsockname()[1])()


@pytest.mark.parametrize(("answer", "is_ready", "is_there"), ANSWERS)
def test_http_probes_tell_ready_from_merely_there(answer: bytes, is_ready: bool, is_there: bool) -> None:
    async def both() -> tuple[bool, bool]:
        strict = await probed(answer, lambda port: http_probe("127.0.0.1", port, "/health/ready"))
        lenient = await probed(answer, lambda port: http_probe("127.0.0.1", port, "/", is_any_status=True))
        return strict, lenient

    assert asyncio.run(both()) == (is_ready, is_there)


@pytest.mark.parametrize(
    ("answer", "is_ready"),
    [(b"+OK\r\n+PONG\r\n", True), (b"-LOADING reading the log\r\n", False), (b"-WRONGPASS no\r\n-NOAUTH\r\n", False)],
)
def test_a_queue_server_is_ready_when_it_answers_a_ping(answer: bytes, is_ready: bool) -> None:
    found = asyncio.run(probed(answer, lambda port: redis_probe("127.0.0.1", port, password="p")))
    assert found is is_ready


def test_nobody_listening_is_not_ready() -> None:
    async def probe() -> bool:
        return await http_probe("127.0.0.1", 1, "/")()

    assert asyncio.run(probe()) is False


def test_a_notification_counts_once_and_an_old_one_can_be_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    listener = ReadyListener(f"audiofoundation-test-{os.getpid()}")
    monkeypatch.setenv("NOTIFY_SOCKET", listener.address)

    def is_ready() -> bool:
        return asyncio.run(listener.is_ready())

    try:
        assert not is_ready()
        notify_ready()
        assert is_ready()
        notify_ready()
        listener.forget()
        assert not is_ready()
    finally:
        listener.close()


def test_without_a_listener_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify_ready()
    monkeypatch.setenv("NOTIFY_SOCKET", "@audiofoundation-nobody-listens")
    notify_ready()
