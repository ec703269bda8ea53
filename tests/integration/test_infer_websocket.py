"""The WebSocket: audio while the rest is made, true digests, sticky configuration, cancellation."""

import asyncio
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import numpy as np
import pytest
import websockets
from websockets.asyncio.client import ClientConnection, connect

from tests.infer_server import ORIGINALS, SPEECH, InferServer, create_settings, infer_server
from tests.tiny_models import save_pretrained


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferServer]:
    folder = tmp_path_factory.mktemp("infer")
    settings = create_settings(
        save_pretrained(folder / "pretrained"), folder, max_running=1, max_waiting=0, max_generated_s=40
    )
    with infer_server(settings) as server:
        yield server


@dataclass(slots=True)
class Answer:
    """What came until `audio.done` or `error`."""

    audio: bytes = b""
    events: dict[str, dict[str, object]] = field(default_factory=dict)
    first_s: float = 0.0
    whole_s: float = 0.0

    @property
    def done(self) -> dict[str, object]:
        return self.events["audio.done"]


def connected(server: InferServer) -> connect:
    return connect(server.websocket_url, additional_headers=server.headers, max_size=None)


async def ask(socket: ClientConnection, prompt: bytes, **config: object) -> Answer:
    await socket.send(json.dumps({"type": "session.config", **config}))
    return await ask_again(socket, prompt)


async def ask_again(socket: ClientConnection, prompt: bytes) -> Answer:
    for start in range(0, len(prompt), 50_000):
        await socket.send(prompt[start : start + 50_000])
    started = time.monotonic()
    await socket.send(json.dumps({"type": "input.done"}))
    return await collect(socket, started)


async def collect(socket: ClientConnection, started: float) -> Answer:
    answer = Answer()
    async for message in socket:
        if isinstance(message, bytes):
            answer.first_s = answer.first_s or time.monotonic() - started
            answer.audio += message
            continue
        event = json.loads(message)
        answer.events[event["type"]] = event
        if event["type"] in ("audio.done", "error"):
            break
    answer.whole_s = time.monotonic() - started
    return answer


def test_audio_comes_before_half_of_the_whole_and_the_digest_is_true(server: InferServer) -> None:
    async def scenario() -> Answer:
        async with connected(server) as socket:
            return await ask(socket, SPEECH.read_bytes(), duration=8, seed=3)

    answer = asyncio.run(scenario())

    assert answer.first_s < answer.whole_s / 2
    assert len(answer.audio) == 2 * 8 * 24000
    assert answer.done["sha256"] == hashlib.sha256(answer.audio).hexdigest()
    assert answer.done["total_bytes"] == len(answer.audio)
    assert answer.done["duration"] == 8
    assert answer.events["audio.start"]["sample_rate"] == 24000
    assert str(answer.events["audio.start"]["model_version"]).startswith("tiny@")


def test_gives_the_bytes_of_rest_and_keeps_its_configuration(server: InferServer) -> None:
    rest = httpx.post(
        f"{server.url}/v1/audio/continuations",
        headers=server.headers,
        files={"file": SPEECH.read_bytes()},
        data={"duration": 0.5, "seed": 11, "response_format": "pcm"},
        timeout=30,
    )

    async def scenario() -> tuple[Answer, Answer, Answer]:
        async with connected(server) as socket:
            first = await ask(socket, SPEECH.read_bytes(), duration=0.5, seed=11)
            again = await ask_again(socket, SPEECH.read_bytes())
            other = await ask(socket, SPEECH.read_bytes(), seed=12)  # the duration stays
            return first, again, other

    first, again, other = asyncio.run(scenario())

    assert first.audio == again.audio == rest.content
    assert len(other.audio) == len(first.audio)
    assert other.audio != first.audio


def test_takes_a_prompt_without_header_and_gives_the_rate_asked_for(server: InferServer) -> None:
    t = np.arange(16000) / 16000
    prompt = (8000 * np.sin(2 * np.pi * 300 * t)).astype("<i2").tobytes()

    async def scenario() -> Answer:
        async with connected(server) as socket:
            return await ask(
                socket, prompt, duration=0.5, prompt_format="pcm16", prompt_sample_rate=16000, sample_rate=16000
            )

    answer = asyncio.run(scenario())

    assert answer.events["audio.start"]["sample_rate"] == 16000
    assert len(answer.audio) == 2 * 8000


def test_cancel_ends_an_unbounded_continuation_and_the_socket_stays_useful(server: InferServer) -> None:
    async def scenario() -> tuple[Answer, Answer]:
        async with connected(server) as socket:
            await socket.send(json.dumps({"type": "session.config", "duration": None}))
            await socket.send(SPEECH.read_bytes())
            await socket.send(json.dumps({"type": "input.done"}))
            while not isinstance(await socket.recv(), bytes):
                pass
            await socket.send(json.dumps({"type": "response.cancel"}))
            cancelled = await collect(socket, time.monotonic())
            return cancelled, await ask(socket, SPEECH.read_bytes(), duration=0.2)

    cancelled, after = asyncio.run(scenario())

    assert cancelled.done["cancelled"] is True
    assert float(str(cancelled.done["duration"])) < 30
    assert len(after.audio) == 9600


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("no json", "invalid_request"),
        ("[1]", "invalid_request"),
        ("[" * 100_000, "invalid_request"),
        ('{"type": "hello"}', "invalid_request"),
        ('{"type": "session.config", "duration": "long"}', "invalid_request"),
        ('{"type": "input.done"}', "undecodable_audio"),
    ],
)
def test_a_mistake_is_told_and_the_socket_stays_open(server: InferServer, frame: str, code: str) -> None:
    async def scenario() -> tuple[Answer, Answer]:
        async with connected(server) as socket:
            await socket.send(frame)
            wrong = await collect(socket, 0)
            return wrong, await ask(socket, SPEECH.read_bytes(), duration=0.2)

    wrong, right = asyncio.run(scenario())

    assert wrong.events["error"]["code"] == code
    assert len(str(wrong.events["error"]["message"])) > 10
    assert len(right.audio) == 9600


@pytest.mark.parametrize(
    "config",
    [
        '{"type": "session.config", "duration": 0.4, "response_format": "mp3"}',
        '{"type": "session.config", "duration": 0.4,}',
        '{"type": "session_config", "duration": 0.4}',
    ],
)
def test_nothing_is_made_by_another_configuration_than_the_one_asked_for(server: InferServer, config: str) -> None:
    async def scenario() -> tuple[Answer, Answer, Answer]:
        async with connected(server) as socket:
            await socket.send(config)
            told = await collect(socket, 0)
            refused = await ask_again(socket, SPEECH.read_bytes())
            await socket.send(b"no prompt: it came before the configuration that is right")
            return told, refused, await ask(socket, SPEECH.read_bytes(), duration=0.2)

    told, refused, right = asyncio.run(scenario())

    assert told.events["error"]["code"] == "invalid_request"
    assert list(refused.events) == ["error"]
    assert "send session.config" in str(refused.events["error"]["message"])
    assert not refused.audio
    assert len(right.audio) == 9600


def test_damage_is_told_at_the_start(server: InferServer) -> None:
    async def scenario() -> Answer:
        async with connected(server) as socket:
            return await ask(socket, (ORIGINALS / "truncated.flac").read_bytes(), duration=0.2)

    assert asyncio.run(scenario()).events["audio.start"]["input_damage"]


def test_overload_closes_with_try_again_later(server: InferServer) -> None:
    async def scenario() -> tuple[Answer, int | None]:
        async with connected(server) as socket:
            answer = await ask(socket, SPEECH.read_bytes(), duration=0.2)
            await socket.wait_closed()
            return answer, socket.close_code

    with server.container.runner.admission.enter():
        answer, close_code = asyncio.run(scenario())

    assert answer.events["error"]["code"] == "overloaded"
    assert close_code == 1013


def test_leaving_frees_the_place(server: InferServer) -> None:
    async def scenario() -> None:
        async with connected(server) as socket:
            await socket.send(json.dumps({"type": "session.config", "duration": 40}))
            await socket.send(SPEECH.read_bytes())
            await socket.send(json.dumps({"type": "input.done"}))
            while not isinstance(await socket.recv(), bytes):
                pass

    asyncio.run(scenario())

    assert server.container.runner.admission.wait_until_idle(timeout_s=2)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Origin": "https://evil.example"}])
def test_key_and_origin_are_checked_before_accept(server: InferServer, headers: dict[str, str]) -> None:
    if "Origin" in headers:
        headers = {**headers, **server.headers}

    async def scenario() -> int:
        try:
            async with connect(server.websocket_url, additional_headers=headers):
                return 101
        except websockets.exceptions.InvalidStatus as error:
            return error.response.status_code

    assert asyncio.run(scenario()) == (403 if "Origin" in headers else 401)


def test_a_wrong_path_is_told(server: InferServer) -> None:
    async def scenario() -> websockets.exceptions.InvalidStatus:
        with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
            async with connect(f"{server.websocket_url}ing", additional_headers=server.headers):
                pass
        return refused.value

    response = asyncio.run(scenario()).response

    error = json.loads(response.body or b"")["error"]
    assert response.status_code == 404
    assert error["code"] == "not_found"
    assert "no WebSocket is taken at /v1/audio/continuations/streaming" in error["message"]
