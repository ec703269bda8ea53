import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from audiofoundation.cli import create_cli
from audiofoundation.cli.client import PlatformClient, Upload, find_endpoint
from audiofoundation.cli.output import CommandError

Answer = tuple[int, dict[str, Any]]
ERROR = {"error": {"message": "there is no collection c", "type": "x", "param": None, "code": "y", "request_id": "z"}}


class Platform:
    """A server with scripted answers; the last one repeats. Remembers what it was asked."""

    def __init__(self, *answers: Answer, slow_s: float = 0.0) -> None:
        self.requests: list[tuple[str, str, str | None, bytes]] = []
        platform = self
        left = list(answers)

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                platform.requests.append((self.command, self.path, self.headers["Authorization"], body))
                if len(left) > 1:  # all but the last are slow
                    time.sleep(slow_s)
                status, value = left.pop(0) if len(left) > 1 else left[0]
                text = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def platform(*answers: Answer, slow_s: float = 0.0) -> Iterator[Platform]:
    running = Platform(*answers, slow_s=slow_s)
    try:
        yield running
    finally:
        running.stop()


def write_ready(folder: Path, url: str, key: str = "file-key") -> None:
    (folder / "ready.json").write_text(json.dumps({"url": url, "api_key": key}))


@pytest.fixture
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AF_API_KEY", "environment-key")


@pytest.fixture
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AF_API_KEY", raising=False)


@pytest.mark.usefixtures("_key")
def test_the_platform_is_found_by_address_and_key_of_the_environment() -> None:
    endpoint = find_endpoint("http://host:1/", None)

    assert (endpoint.url, endpoint.api_key) == ("http://host:1", "environment-key")


@pytest.mark.usefixtures("_no_key")
def test_an_address_without_a_key_is_refused_at_once() -> None:
    with pytest.raises(CommandError, match="AF_API_KEY"):
        PlatformClient("http://127.0.0.1:1")


@pytest.mark.usefixtures("_key")
@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://[::1"])
def test_what_is_no_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(CommandError, match="not an address"), PlatformClient(url) as client:
        client.get("/v1/x")


@pytest.mark.usefixtures("_key")
def test_an_address_without_its_scheme_is_answered_with_the_whole_one() -> None:
    with pytest.raises(CommandError, match=r"did you mean http://localhost:8000\?"):
        PlatformClient("localhost:8000")


@pytest.mark.usefixtures("_no_key")
def test_the_platform_is_found_by_its_data_directory(tmp_path: Path) -> None:
    write_ready(tmp_path, "http://127.0.0.1:9")

    endpoint = find_endpoint(None, tmp_path)

    assert (endpoint.url, endpoint.api_key) == ("http://127.0.0.1:9", "file-key")


def test_when_none_runs_the_error_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="audiofoundation up"):
        PlatformClient(data_dir=tmp_path)


@pytest.mark.usefixtures("_no_key")
def test_a_request_carries_key_parameters_and_body(tmp_path: Path) -> None:
    with platform((200, {"ok": True})) as running:
        write_ready(tmp_path, running.url)
        with PlatformClient(data_dir=tmp_path) as client:
            assert client.get("/v1/x", params={"limit": 3}) == {"ok": True}
            client.post("/v1/y", body={"name": "c"})

    assert running.requests[0][:3] == ("GET", "/v1/x?limit=3", "Bearer file-key")
    assert json.loads(running.requests[1][3]) == {"name": "c"}


@pytest.mark.usefixtures("_key")
def test_a_local_file_is_uploaded_again_whole_when_the_first_try_fails(tmp_path: Path) -> None:
    recording = tmp_path / "a.wav"
    recording.write_bytes(b"RIFF-sample-bytes")
    with platform((503, ERROR), (200, {"id": "1"})) as running, PlatformClient(running.url) as client:
        answer = client.upload("/v1/items", Upload("file", recording, "a.wav"), fields={"name": "n"})

    assert answer == {"id": "1"}
    assert [b"RIFF-sample-bytes" in body and b'name="name"' in body for *_, body in running.requests] == [True, True]


@pytest.mark.usefixtures("_key")
def test_a_refusal_is_told_in_the_platforms_words() -> None:
    with platform((404, ERROR)) as running, PlatformClient(running.url) as client:
        with pytest.raises(CommandError, match="there is no collection c"):
            client.get("/v1/collections/c")
        assert len(running.requests) == 1


@pytest.mark.usefixtures("_key")
@pytest.mark.parametrize("status", [502, 503])
def test_a_platform_that_starts_is_waited_for(status: int) -> None:
    with platform((status, {}), (status, {}), (200, {"ok": True})) as running, PlatformClient(running.url) as client:
        assert client.get("/v1/x") == {"ok": True}


@pytest.mark.usefixtures("_key")
def test_patience_begins_when_something_fails_however_long_the_request_took() -> None:
    with (
        platform((503, ERROR), (200, {"ok": True}), slow_s=0.3) as running,
        PlatformClient(running.url, patience_s=0.1) as client,
    ):
        assert client.get("/v1/x") == {"ok": True}


def test_a_platform_that_comes_back_on_another_port_is_found_again(tmp_path: Path) -> None:
    first = Platform((200, {"number": 1}))
    write_ready(tmp_path, first.url)
    with PlatformClient(data_dir=tmp_path) as client:
        assert client.get("/v1/x") == {"number": 1}
        first.stop()
        (tmp_path / "ready.json").unlink()
        second = Platform((200, {"number": 2}))
        restart = threading.Timer(0.7, write_ready, (tmp_path, second.url))
        restart.start()
        try:
            assert client.get("/v1/x") == {"number": 2}
        finally:
            restart.join()
            second.stop()


@pytest.mark.usefixtures("_key")
def test_patience_with_a_platform_that_is_gone_ends_with_a_sentence() -> None:
    gone = Platform((200, {}))
    gone.stop()

    with PlatformClient(gone.url, patience_s=0.2) as client, pytest.raises(CommandError, match="did not answer"):
        client.get("/v1/x")


@pytest.mark.usefixtures("_key")
def test_patience_with_a_platform_that_never_starts_ends_in_its_words() -> None:
    with (
        platform((503, ERROR)) as running,
        PlatformClient(running.url, patience_s=0.2) as client,
        pytest.raises(CommandError, match="there is no collection c"),
    ):
        client.get("/v1/x")


def test_gc_goes_on_until_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AF_API_KEY", "k")
    found = {"objects": 5, "bytes": 50, "orphans": 3, "orphan_bytes": 30, "orphan_keys": [], "purges_resumed": 0}
    first, second = {**found, "deleted": 2, "more": True}, {**found, "orphans": 1, "deleted": 1, "more": False}
    with platform((200, first), (200, second)) as server:
        result = CliRunner().invoke(create_cli(), ["gc", "--apply", "--url", server.url])
    assert result.exit_code == 0, result.output
    assert len(server.requests) == 2
    assert "3 orphans, 0.000 GB; 3 deleted" in result.output


def test_a_request_may_be_given_less_or_more_time_than_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AF_API_KEY", "k")
    for read_timeout_s, answer in ((30.0, {"n": 1}), (0.1, {"n": 2})):
        with platform((200, {"n": 1}), (200, {"n": 2}), slow_s=0.4) as server, PlatformClient(server.url) as client:
            assert client.post("/v1/x", read_timeout_s=read_timeout_s) == answer
