"""A loopback server with ranges and validators that counts what it sends, and sends as slowly as it is told."""

import http.server
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_BLOCK = 16 << 10


@dataclass(slots=True)
class RangeServer:
    """What it serves, by path, and what it did.

    Attributes:
        etag: validator of everything; change it with the file.
        has_ranges: whether it honours Range at all.
        pause_s: rest after each 16 KiB.
        sent: bytes of bodies by path.
        asked: Range headers in order, "" without one.
        cut_after: breaks off once after so many bytes of a path's body, and calls `on_cut`.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    etag: str = '"v1"'
    has_ranges: bool = True
    pause_s: float = 0.0
    sent: Counter[str] = field(default_factory=Counter)
    asked: list[str] = field(default_factory=list)
    cut_after: dict[str, int] = field(default_factory=dict)
    on_cut: Callable[[], None] = lambda: None
    port: int = 0

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@contextmanager
def serving_ranges(server: RangeServer) -> Iterator[RangeServer]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = server.files.get(self.path)
            wanted = self.headers.get("Range", "")
            server.asked.append(wanted)
            if body is None:
                self.send_error(404)
                return
            start, stop = 0, len(body)
            is_same = self.headers.get("If-Range", server.etag) == server.etag
            if wanted and server.has_ranges and is_same:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                start, stop = int(first), min(len(body), int(last) + 1 if last else len(body))
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(body)}")
            else:
                self.send_response(200)
            self.send_header("ETag", server.etag)
            self.send_header("Content-Length", str(stop - start))
            self.end_headers()
            cut = start == 0 and not wanted and server.cut_after.pop(self.path, 0)
            if cut:
                stop = cut
            with suppress(OSError):  # the client may be killed on the way
                for at in range(start, stop, _BLOCK):
                    self.wfile.write(body[at : min(stop, at + _BLOCK)])
                    server.sent[self.path] += min(stop, at + _BLOCK) - at
                    if server.pause_s:
                        time.sleep(server.pause_s)
            if cut:
                server.on_cut()

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.port = listener.server_port
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()
