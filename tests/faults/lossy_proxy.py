"""A TCP proxy in front of a server that resets, delays, cuts short and answers 503, by chance from a fixed seed."""

import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

_BLOCK_BYTES = 1 << 16
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: closing sends RST
_BUSY = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_METHODS = (b"GET ", b"PUT ", b"HEAD", b"POST", b"DELE")


@dataclass(slots=True)
class Faults:
    """How often each fault strikes, per block that passes (`busy`: per request)."""

    reset: float = 0.0
    cut: float = 0.0
    delay: float = 0.0
    busy: float = 0.0
    delay_s: float = 0.1


@dataclass(slots=True)
class LossyProxy:
    """Listens on loopback and passes everything to a port there, less what the faults take."""

    target_port: int
    faults: Faults
    seed: int
    struck: Counter[str] = field(default_factory=Counter)
    _listener: socket.socket = field(init=False)
    _chance: random.Random = field(init=False)
    _accepting: threading.Thread = field(init=False)
    _sockets: list[socket.socket] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._chance = random.Random(self.seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._accepting = self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no connection open and no thread running."""
        _close(self._listener)
        self._accepting.join()
        _close(*self._sockets)
        for thread in self._threads:
            thread.join()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    @staticmethod
    def _start(target: Callable[..., None], *args: object) -> threading.Thread:
        thread = threading.Thread(target=target, args=args, daemon=True)
        thread.start()
        return thread

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target_port))
            self._sockets += client, server
            for source, sink, is_request in ((client, server, True), (server, client, False)):
                self._threads.append(self._start(self._pass, source, sink, is_request))

    def _pass(self, source: socket.socket, sink: socket.socket, is_request: bool) -> None:
        try:
            while block := source.recv(_BLOCK_BYTES):
                if not self._forward(block, source, sink, is_request):
                    return
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            _close(source, sink)

    def _forward(self, block: bytes, source: socket.socket, sink: socket.socket, is_request: bool) -> bool:
        """Pass a block on, or not; return whether the connection goes on."""
        if self._strikes("delay"):
            time.sleep(self.faults.delay_s)
        if is_request and block[:4] in _METHODS and self._strikes("busy"):
            source.sendall(_BUSY)
            _close(source, sink)
            return False
        if self._strikes("reset"):
            source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            sink.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            _close(source, sink, how=socket.SHUT_RD)
            return False
        if self._strikes("cut"):
            sink.sendall(block[: len(block) // 2])
            _close(source, sink)
            return False
        sink.sendall(block)
        return True

    def _strikes(self, name: str) -> bool:
        is_struck = self._chance.random() < getattr(self.faults, name)
        self.struck[name] += is_struck
        return is_struck


def _close(*sockets: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    """Close for good: a thread that waits for bytes would otherwise keep the connection open."""
    for each in sockets:
        with suppress(OSError):
            each.shutdown(how)
        each.close()
