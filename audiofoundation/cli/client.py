"""Commands' way to a running platform: find it, talk to it, survive its restart."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer

from audiofoundation.cli.output import CommandError, note
from audiofoundation.settings import Settings

UrlOption = Annotated[
    str | None,
    typer.Option("--url", envvar="AF_URL", help="Its address; else --data-dir is asked."),
]
DataDirOption = Annotated[
    Path | None,
    typer.Option("--data-dir", envvar="AF_DATA_DIR", help="Data directory of a local platform."),
]

_PATIENCE_S = 60.0
_PAUSE_S = 0.5
_BLOCK_BYTES = 1 << 20
_RESTARTING = frozenset({502, 503})
_TRANSIENT = (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError)
_TIMEOUT_S = 60.0
_CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a platform is and what it asks for."""

    url: str
    api_key: str


@dataclass(frozen=True, slots=True)
class Upload:
    """One local file in a multipart form."""

    field: str
    path: Path
    filename: str


def find_endpoint(url: str | None, data_dir: Path | None) -> Endpoint:
    """Return the platform named by `url` and AF_API_KEY, else the one that runs on the data directory.

    Raises:
        CommandError: none runs there, no key is known for it, or `url` is no address.
    """
    if url:
        if "://" not in url:
            raise CommandError(f"{url} is not an address that can be called; did you mean http://{url}?")
        if not (api_key := os.environ.get("AF_API_KEY", "").strip()):
            raise CommandError(f"set AF_API_KEY to a key of the platform at {url}")
        return Endpoint(url.rstrip("/"), api_key)
    directory = data_dir or Settings().data_dir
    try:
        ready = json.loads((directory / "ready.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CommandError(
            f"no platform runs on {directory}; start one with `audiofoundation up`, or name one with --url"
        ) from error
    return Endpoint(str(ready["url"]).rstrip("/"), os.environ.get("AF_API_KEY") or str(ready["api_key"]))


def path_to(*parts: str) -> str:
    """Return the path under /v1 that the parts name. A name may hold anything: `?`, `#`, `%` and spaces are quoted."""
    return "/".join(("/v1", *(quote(part, safe="") for part in parts)))


class PlatformClient:
    """Sends requests; while the platform restarts, sends them again for up to a minute.

    A repeated request is harmless because the platform makes the same thing only once.
    """

    def __init__(self, url: str | None = None, *, data_dir: Path | None = None, patience_s: float = _PATIENCE_S):
        self._url = url
        self._data_dir = data_dir
        self._patience_s = patience_s
        self._http = httpx.Client(timeout=httpx.Timeout(_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S))
        find_endpoint(url, data_dir)  # a platform that does not run now is a mistake, not a restart

    def __enter__(self) -> "PlatformClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, *, params: Mapping[str, str | int] | None = None) -> dict[str, Any]:
        """Return the JSON object at a path.

        Raises:
            CommandError: the platform refused, in its words, or did not answer for a minute.
        """
        return self._send("GET", path, params=params)

    def post(
        self, path: str, *, body: Mapping[str, Any] | None = None, read_timeout_s: float = _TIMEOUT_S
    ) -> dict[str, Any]:
        """POST a JSON object; raises as `get`."""
        return self._send("POST", path, body=body or {}, read_timeout_s=read_timeout_s)

    def delete(self, path: str) -> dict[str, Any]:
        """DELETE; raises as `get`."""
        return self._send("DELETE", path)

    def upload(self, path: str, upload: Upload, *, fields: Mapping[str, str] | None = None) -> dict[str, Any]:
        """POST a multipart form with one local file, streamed from disk; raises as `get`."""
        return self._send("POST", path, upload=upload, fields=fields)

    def put_file(self, path: str, local: Path, *, params: Mapping[str, str | int]) -> dict[str, Any]:
        """PUT the bytes of a local file as the body, streamed from disk; raises as `get`."""
        return self._send("PUT", path, params=params, content=local)

    def download(self, path: str, local: Path) -> None:
        """GET a body of any size into a file; begun again when it breaks off. Raises as `get`."""

        def attempt(endpoint: Endpoint) -> httpx.Response:
            with self._http.stream("GET", endpoint.url + path, headers=_authorization(endpoint)) as response:
                if not response.is_success:
                    response.read()
                    return response
                with local.open("wb") as file:
                    for block in response.iter_bytes(_BLOCK_BYTES):
                        file.write(block)
                return response

        response = self._patiently(attempt)
        if not response.is_success:
            _object(response)  # tells what was wrong

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
        upload: Upload | None = None,
        fields: Mapping[str, str] | None = None,
        content: Path | None = None,
        read_timeout_s: float = _TIMEOUT_S,
    ) -> dict[str, Any]:
        def attempt(endpoint: Endpoint) -> httpx.Response:
            with ExitStack() as files:
                request = self._http.build_request(
                    method,
                    endpoint.url + path,
                    params=params,
                    json=body,
                    data=fields,
                    files=_opened(upload, files),
                    content=_blocks(content, files),
                    headers={**_authorization(endpoint), **_length_of(content)},
                    timeout=httpx.Timeout(_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S, read=read_timeout_s),
                )
                return self._http.send(request)

        return _object(self._patiently(attempt))

    def _patiently(self, attempt: Callable[[Endpoint], httpx.Response]) -> httpx.Response:
        """Return the platform's answer; while it restarts, try again. Raises CommandError when it stays away."""
        deadline: float | None = None  # counted from the first failure: an upload may take longer by itself
        where = ""
        while True:
            try:
                endpoint = find_endpoint(self._url, self._data_dir)  # a restart may have changed the port
                where = f" at {endpoint.url}"
                response = attempt(endpoint)
            except (*_TRANSIENT, CommandError) as error:
                if deadline is not None and time.monotonic() > deadline:
                    words = f"the platform{where} did not answer for {self._patience_s:.0f} s: {error}"
                    raise CommandError(words) from error
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise CommandError(f"{endpoint.url} is not an address that can be called: {error}") from error
            else:
                is_patient = deadline is None or time.monotonic() <= deadline
                if response.status_code not in _RESTARTING or not is_patient:
                    return response
            if deadline is None:
                deadline = time.monotonic() + self._patience_s
                note(f"the platform{where} does not answer; trying again for up to {self._patience_s:.0f} s")
            time.sleep(_PAUSE_S)


def _authorization(endpoint: Endpoint) -> dict[str, str]:
    return {"Authorization": f"Bearer {endpoint.api_key}"}


def _opened(upload: Upload | None, files: ExitStack) -> dict[str, Any] | None:
    if upload is None:
        return None
    stream = files.enter_context(upload.path.open("rb"))
    return {upload.field: (upload.filename, stream, "application/octet-stream")}


def _blocks(content: Path | None, files: ExitStack) -> Iterator[bytes] | None:
    if content is None:
        return None
    stream = files.enter_context(content.open("rb"))
    return iter(lambda: stream.read(_BLOCK_BYTES), b"")


def _length_of(content: Path | None) -> dict[str, str]:
    """A declared length lets the platform refuse what is too large before it reads it."""
    return {} if content is None else {"Content-Length": str(content.stat().st_size)}


def _object(response: httpx.Response) -> dict[str, Any]:
    if response.is_success:
        found: dict[str, Any] = response.json() if response.content else {}
        return found
    try:
        message = str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"{response.request.url} answered {response.status_code}"
    if response.status_code == httpx.codes.UNAUTHORIZED:
        message += " (AF_API_KEY, or ready.json in the data directory, holds the key)"
    raise CommandError(message)
