"""Yandex Music through its library against a loopback server that answers as the service does."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from audiofoundation.errors import FetchFailed, FetchRefused
from audiofoundation.ingestion.source import SourceLine, parse_source
from audiofoundation.ingestion.sources.protocol import Reading
from audiofoundation.ingestion.sources.yandex_music import YandexMusic
from audiofoundation.ingestion.states import ItemRefused
from audiofoundation.settings import FetchSettings

TOKEN = FetchSettings(yandex_token=SecretStr("own-token"), timeout_s=5.0)


def track(number: int) -> dict[str, Any]:
    artist = {"id": 1, "name": "Someone", "various": False, "composer": False}
    return {"id": str(number), "title": f"Rain {number}", "durationMs": 90500, "artists": [artist], "available": True}


class YandexServer:
    """Answers by path; `seen` keeps the Authorization headers."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.seen: list[str] = []
        self.url = ""

    def put(self, path: str, result: object, *, status: int = 200) -> None:
        body = {"result": result} if status == 200 else {"error": {"name": "x", "message": "no"}}
        self.answers[path] = (status, json.dumps({"invocationInfo": {}, **body}).encode())


@contextmanager
def serving() -> Iterator[YandexServer]:
    server = YandexServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.seen.append(self.headers.get("Authorization", ""))
            status, body = server.answers.get(self.path.partition("?")[0], (404, b"{}"))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{listener.server_port}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


@pytest.fixture
def server() -> Iterator[YandexServer]:
    with serving() as server:
        yield server


def lines_of(server: YandexServer, address: str, tmp_path: Path, *, start: int = 0) -> list[SourceLine]:
    pages = YandexMusic(TOKEN, base_url=server.url).pages(address, Reading(tmp_path, start=start))
    return [line for page in pages for line in page.lines]


def test_an_album_becomes_lines_by_the_users_own_token(
    server: YandexServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.put("/albums/7/with-tracks", {"id": 7, "volumes": [[track(1), track(2)], [track(3)]]})
    lines = lines_of(server, "yandex:album/7", tmp_path)
    assert lines[0] == SourceLine("yandex:1", title="Rain 1", channel="Someone", duration_s=90.5)
    assert [line.text for line in lines] == ["yandex:1", "yandex:2", "yandex:3"]
    assert [line.text for line in lines_of(server, "yandex:album/7", tmp_path, start=2)] == ["yandex:3"]
    assert set(server.seen) == {"OAuth own-token"}
    assert capsys.readouterr().out == ""
    assert parse_source("https://music.yandex.ru/album/7/track/3") == parse_source(lines[2].text)


def test_a_playlist_becomes_lines(server: YandexServer, tmp_path: Path) -> None:
    tracks = [{"id": number, "timestamp": "t", "track": track(number)} for number in (1, 2)]
    server.put("/users/me/playlists/3", {"owner": {"uid": 1, "login": "me"}, "kind": 3, "tracks": tracks})
    lines = lines_of(server, "yandex:users/me/playlists/3", tmp_path)
    assert [line.text for line in lines] == ["yandex:1", "yandex:2"]


def test_the_best_full_original_is_chosen(server: YandexServer) -> None:
    offers = [
        {"codec": codec, "bitrateInKbps": rate, "gain": False, "preview": preview, "direct": False}
        | {"downloadInfoUrl": f"{server.url}/info/{codec}/{rate}"}
        for codec, rate, preview in (("mp3", 192, False), ("mp3", 320, True), ("aac", 256, False))
    ]
    server.put("/tracks/5/download-info", offers)
    xml = "<download-info><host>s.example.net</host><path>/p/1</path><ts>42</ts><s>salt</s></download-info>"
    server.answers["/info/aac/256"] = (200, xml.encode())
    address = YandexMusic(TOKEN, base_url=server.url).address_of("5")
    assert address.startswith("https://s.example.net/get-mp3/")
    assert address.endswith("/42/p/1")
    server.put("/tracks/5/download-info", [offers[1]])
    with pytest.raises(ItemRefused):
        YandexMusic(TOKEN, base_url=server.url).address_of("5")


@pytest.mark.parametrize(("status", "expected"), [(401, FetchRefused), (404, ItemRefused), (502, FetchFailed)])
def test_refusals_are_ours_by_class(
    server: YandexServer, status: int, expected: type[Exception], tmp_path: Path
) -> None:
    server.put("/albums/7/with-tracks", None, status=status)
    with pytest.raises(expected):
        lines_of(server, "yandex:album/7", tmp_path)


def test_without_a_token_it_is_said_how_to_set_one() -> None:
    with pytest.raises(FetchRefused, match="AF_FETCH__YANDEX_TOKEN"):
        YandexMusic(FetchSettings())
